"""Arms of stored runs, with numbers that come from several workloads: what the index says, as points of a front.

An arm is a device, a model, an engine and an accelerator, with the settings in which its runs of one workload differ.
Its number on an axis is of one workload, mode and point: those that were asked for, else those that most arms have.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.resample import Known
from meltbench.errors import UserError
from meltbench.harvest import ABOUT, BEHIND
from meltbench.measure.edges import SQRT3
from meltbench.measure.energy import GAIN_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import numpy.typing as npt

    from meltbench.analysis.axes import Axis, Ref
    from meltbench.harvest import Kind, Row, Source

_SCOPES = ("wall", "battery", "module", "soc", "rail")
Settings = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Arm:
    """An arm and, by axis, its rows; ``settings`` only those that tell it from others of its base."""

    base: tuple[str, ...]
    settings: Settings
    rows: tuple[tuple[Row, ...], ...]
    inherited: str = ""

    @property
    def about(self) -> dict[str, str]:
        """What it is, by name; empty where the runs do not say."""
        return dict(zip(ABOUT, self.base, strict=False))


def choose(rows: Sequence[Row], refs: Sequence[Ref]) -> list[Source | None]:
    """The source of each axis: of those that fit its words the one that most arms have a number of; of several alike
    one that an earlier axis has, else one of whole runs, else the one with more runs. None for what is of the model
    alone, and has none.

    Raises UserError for an axis that no run has.
    """
    out: list[Source | None] = []
    for ref in refs:
        if ref.axis.exact and not ref.workload:
            if not any(ref.axis.name in row.values for row in rows):
                raise UserError(f"no run of the selection has {ref.axis.name}", hint="meltbench runs lists them")
            out.append(None)
            continue
        arms: dict[Source, set[tuple[str, ...]]] = defaultdict(set)
        runs: Counter[Source] = Counter()
        name = ref.axis.name
        for kind, n in Counter(row.kind for row in rows if name in row.values).items():
            if _fits(ref, kind.source):
                arms[kind.source].add(kind.base)
                runs[kind.source] += n
        if not arms:
            raise UserError(f"no run of the selection has {ref}", hint=_instead(rows, ref))
        best = {one: (len(who), one in out, not one.point, runs[one]) for one, who in arms.items()}
        out.append(max(sorted(best), key=best.__getitem__))
    return out


def _fits(ref: Ref, source: Source) -> bool:
    wanted = ((ref.workload, source.workload), (ref.mode, source.mode), (ref.point, source.point))
    return all(asked is None or asked == has for asked, has in wanted)


def _instead(rows: Sequence[Row], ref: Ref) -> str:
    """Where else an axis is, or what else there is."""
    places = sorted({str(source) for source in _places(rows, ref)})
    if places:
        return f"it is in {', '.join(places[:6])}{' ...' if len(places) > 6 else ''}"
    have = sorted({name for row in rows for name in row.values})
    return f"of the axes asked for, runs have {', '.join(have)}" if have else "meltbench runs lists what is there"


def alternatives(rows: Sequence[Row], ref: Ref, taken: Source | None) -> list[str]:
    """Other places that an axis could have been taken from."""
    found = {source for source in _places(rows, ref) if _fits(ref, source)}
    return [] if taken is None else [str(one) for one in sorted(found - {taken})]


def _places(rows: Iterable[Row], ref: Ref) -> set[Source]:
    """Where an axis has numbers."""
    name = ref.axis.name
    return {kind.source for kind in {row.kind for row in rows if name in row.values}}


def _kinds(rows: Iterable[Row]) -> list[Kind]:
    """What there is of rows, in order."""
    return list(dict.fromkeys(row.kind for row in rows))


def arms_of(rows: Sequence[Row], axes: Sequence[Axis], sources: Sequence[Source | None], *, inherit: bool) -> list[Arm]:
    """Every arm that has a number on some axis, with its rows by axis; empty where it has none.

    ``inherit``: what is of items alone may be of the same model file and engine on another device.
    """
    of_kind = {kind: kind.base for kind in _kinds(rows)}
    by_base: dict[tuple[str, ...], list[list[Row]]] = {base: [[] for _ in axes] for base in of_kind.values()}
    for at, (axis, source) in enumerate(zip(axes, sources, strict=True)):
        taken = {kind: by_base[base][at] for kind, base in of_kind.items() if source in (None, kind.source)}
        name = axis.name
        for row in rows:
            if name in row.values and row.kind in taken:
                taken[row.kind].append(row)
    out = []
    for base, held in by_base.items():
        unlike = _unlike(held, axes)
        for settings in _variants(held, axes, unlike):
            of_axis = [_matching(one, settings, axis) for one, axis in zip(held, axes, strict=True)]
            if any(of_axis):
                out.append(Arm(base, settings, tuple(map(tuple, of_axis))))
    return [_inheriting(arm, out, axes) for arm in out] if inherit else out


def _unlike(held: Sequence[Sequence[Row]], axes: Sequence[Axis]) -> list[str]:
    """Settings in which an arm's runs of one source differ."""
    names: dict[str, None] = {}
    for rows, axis in zip(held, axes, strict=True):
        if axis.exact:
            continue
        kinds = _kinds(rows)
        for name in sorted({name for kind in kinds for name in kind.settings}):
            if len({kind.settings.get(name) for kind in kinds}) > 1:
                names[name] = None
    return list(names)


def _variants(held: Sequence[Sequence[Row]], axes: Sequence[Axis], unlike: Sequence[str]) -> list[Settings]:
    """The settings that occur; those of sources which have all of them first, so that none is a part of another."""
    found: dict[Settings, None] = {}
    for rows, axis in zip(held, axes, strict=True):
        for kind in () if axis.exact else _kinds(rows):
            found[tuple((n, kind.settings[n]) for n in unlike if n in kind.settings)] = None
    whole = sorted(found, key=lambda one: (-len(one), one))
    return [one for at, one in enumerate(whole) if not any({*one} < {*other} for other in whole[:at])] or [()]


def _matching(rows: Sequence[Row], settings: Settings, axis: Axis) -> list[Row]:
    """Rows with these settings, where they have them. An accuracy is asked once: where all of an arm's are of one
    setting, it is that of the others too."""
    if axis.exact:
        return list(rows)
    wanted = dict(settings)
    kinds = _kinds(rows)
    fits = {kind for kind in kinds if all(kind.settings.get(name, value) == value for name, value in wanted.items())}
    if not fits and axis.by_item and len({tuple(sorted(kind.settings.items())) for kind in kinds}) == 1:
        return list(rows)
    return [row for row in rows if row.kind in fits]


def _inheriting(arm: Arm, arms: Sequence[Arm], axes: Sequence[Axis]) -> Arm:
    rows, told = list(arm.rows), ""
    for at, axis in enumerate(axes):
        if rows[at] or not axis.by_item:
            continue
        like = [one for one in arms if one.rows[at] and _model(one) == _model(arm)]
        if like:
            rows[at], told = like[0].rows[at], like[0].about["device"]
    return Arm(arm.base, arm.settings, tuple(rows), told)


def _model(arm: Arm) -> tuple[str, ...]:
    about = dict(zip((*ABOUT, *BEHIND), arm.base, strict=True))
    return about["model_sha256"] or about["model"], about["engine"], about["origin"]


def known_of(
    arm: Arm,
    axes: Sequence[Axis],
    rows: Sequence[Sequence[Row]],
    items: Sequence[npt.NDArray[np.float64] | None],
    own: Mapping[tuple[str, str, str], tuple[float, int]],
) -> list[Known | None]:
    """What is known of an arm on each axis, of these rows and items of it; ``own``: what measures say of themselves, of
    those of which ``lone`` is true."""
    out: list[Known | None] = []
    for axis, mine, table in zip(axes, rows, items, strict=True):
        if not mine:
            out.append(None)
            continue
        values = [row.values[axis.name] for row in mine]
        klass = mine[0].kind.klass if axis.gain else ""
        limit = GAIN_LIMIT.get(klass, 0.0)
        said = [(row, own[key]) for row in mine if (key := (row.run_id, row.kind.source.point, axis.name)) in own]
        u = _u([(row.values[axis.name], u_k2) for row, (u_k2, _) in said], limit if axis.gain else 0.0)
        n_items = max((n for _, (_, n) in said), default=0)
        device = arm.base[len(ABOUT)] or arm.base[0]
        meter = f"{device} {mine[0].kind.scope} {klass}" if axis.gain else ""
        out.append(Known(np.array(values), u, meter, limit, table, n_items))
    return out


def lone(axis: Axis, rows: Sequence[Row], items: npt.NDArray[np.float64] | None) -> bool:
    """Whether it matters what measures say of themselves: neither other runs nor items tell how far they are off, or
    all runs are off alike."""
    return len(rows) == 1 or axis.within or (axis.by_item and items is None)


def _u(said: Iterable[tuple[float, float]], limit: float) -> float | None:
    """What the middle one of (value, u at k = 2) is uncertain by, k = 1, without the gain."""
    found = [math.sqrt(max((u_k2 / 2) ** 2 - (limit / SQRT3 * value) ** 2, 0.0)) for value, u_k2 in said]
    return sorted(found)[len(found) // 2] if found else None


def one_meter(rows: Sequence[Row], axis: Axis) -> tuple[list[Row], str]:
    """The rows of one scope and class, those that most of them have, and what was left out for it; none of class E,
    which is a model's or an estimate's and is never ranked."""
    if not axis.gain:
        return list(rows), ""
    meters: Counter[tuple[str, str]] = Counter()
    for kind, n in Counter(row.kind for row in rows).items():
        if kind.klass != "E":
            meters[kind.scope, kind.klass] += n
    if not meters:
        return [], f"class_e: {axis.name} is a model's or an estimate's" if rows else ""
    best = max(meters, key=lambda one: (meters[one], -_SCOPES.index(one[0]) if one[0] in _SCOPES else -9, one))
    kept = [row for row in rows if (row.kind.scope, row.kind.klass) == best]
    left = len(rows) - len(kept)
    return kept, f"other_meter: {left} runs have {axis.name} of another scope or class" if left else ""


def whole_runs(rows: Sequence[tuple[Row, ...]], axes: Sequence[Axis]) -> tuple[list[list[Row]], list[str]]:
    """Rows by axis; of axes that share a source only runs that have a number on all of them, where there are any, and
    which of the axes these are, by a name that they share."""
    out, shared = [list(one) for one in rows], [""] * len(rows)
    by_source: dict[Source, list[int]] = defaultdict(list)
    for at, (mine, axis) in enumerate(zip(rows, axes, strict=True)):
        shared[at] = f"axis {at}"
        if mine and not axis.exact and not axis.by_item:
            by_source[mine[0].kind.source].append(at)
    for source, places in by_source.items():
        common = set.intersection(*({row.run_id for row in out[at]} for at in places))
        if common and len(places) > 1:
            for at in places:
                out[at] = [row for row in out[at] if row.run_id in common]
                shared[at] = f"{source} {source.settings}"
    return out, shared


def unlike_settings(rows: Sequence[Sequence[Row]], axes: Sequence[Axis]) -> str:
    """Settings that an arm's axes do not have in common, in words; empty where all are alike."""
    held: Mapping[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for mine, axis in zip(rows, axes, strict=True):
        for name, value in mine[0].kind.settings.items() if mine and not axis.exact else ():
            if name not in ("runner", "protocol"):
                held[name][value].append(axis.name)
    told = [
        f"{name} is " + ", ".join(f"{value} for {' and '.join(who)}" for value, who in values.items())
        for name, values in held.items()
        if len(values) > 1
    ]
    return "; ".join(told)
