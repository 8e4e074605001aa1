"""Local or cloud: what stored scores say of routers between the models of a device and a cloud, as one document.

The cloud is stated by the caller (joules a query, accuracy) or is another stored run, asked the same items. What is
stated is told as stated wherever a number is made of it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.analysis.intelligence import accuracy_of
from meltbench.analysis.observations import TEXT, meter_of, origin_of, total_energy
from meltbench.analysis.routing import Arm, Asked, Cloud, covered, routed
from meltbench.efficiency_tables import cell_about, cells_of
from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meltbench.analysis.routing import Routed
    from meltbench.analysis.stats import Estimate
    from meltbench.records import RunRecord, Score

_SKIPPED = (TEXT, "kld")
_KEY = ("measured_by", "device", "mode", "workload", "point", "method")


@dataclass(frozen=True)
class Limits:
    """What an answer must keep to for it to count as one; None: anything."""

    latency_s: float | None = None
    energy_j: float | None = None
    power_w: float | None = None

    def met_by(self, score: Score) -> bool:
        """Whether an answer kept to them. Raises UserError where a limit is on what was not measured."""
        power_w = score.energy_j / score.latency_s if score.energy_j is not None and score.latency_s else None
        held = {
            "latency": (score.latency_s, self.latency_s),
            "energy": (score.energy_j, self.energy_j),
            "power": (power_w, self.power_w),
        }
        for name, (value, limit) in held.items():
            if limit is not None and value is None:
                why = score.energy_reason or "no reading"
                raise UserError(f"item {score.item} has no {name} to hold against the limit: {why}")
        return all(limit is None or (value is not None and value <= limit) for value, limit in held.values())


@dataclass(frozen=True)
class StatedCloud:
    """What the caller says of the cloud; None for what nobody says."""

    j_per_query: float | None = None
    accuracy: float | None = None


@dataclass(frozen=True)
class _Local:
    """A cell as an arm, with what the document tells of it."""

    about: dict[str, Any]
    asked: dict[str, Asked]
    gain_u: float | None
    size: float
    workload: str
    latencies_s: dict[str, float]  # by item, of those whose every query has one


def route(
    records: Sequence[RunRecord],
    cloud: StatedCloud | Sequence[RunRecord],
    limits: Limits | None = None,
    left_out: int = 0,
) -> dict[str, Any]:
    """One table a device, workload, point and method of scoring; keys: docs/json.md.

    ``cloud``: what was stated, or the runs of one cell that stand for it, which are no local arms. A cell without what
    a limit is on is told apart, with the reason. Raises UserError where the cloud's runs cannot be taken together.
    """
    limits = limits or Limits()
    theirs = [] if isinstance(cloud, StatedCloud) else list(cloud)
    if len(cells_of(theirs)) > 1:
        raise UserError("the runs of the cloud are not of one cell", hint="--cloud takes one run")
    away = {record.run_id for record in theirs}
    groups: dict[tuple[str, ...], list[_Local]] = {}
    refused = []
    for cell in cells_of(record for record in records if record.run_id not in away):
        for point, method in _ways(cell):
            try:
                local = _local(cell, point, method, limits)
            except UserError as error:
                refused.append({"runs": [record.run_id for record in cell], "reason": error.message})
                continue
            key = (*(str(local.about[name]) for name in _KEY[:4]), point, method, local.workload)
            groups.setdefault(key, []).append(local)
    tables = []
    for key, arms in sorted(groups.items()):
        try:
            tables.append(dict(zip(_KEY, key, strict=False)) | _table(arms, cloud, theirs, key[4:]))
        except UserError as error:
            runs = [run for arm in arms for run in arm.about["runs"]]
            refused.append({"runs": runs, "reason": error.message})
    return {
        "limits": {"latency_s": limits.latency_s, "energy_j": limits.energy_j, "power_w": limits.power_w},
        "cloud": _of_cloud(cloud, theirs),
        "tables": tables,
        "refused": refused,
        "left_out": left_out,
    }


def _ways(cell: Iterable[RunRecord]) -> list[tuple[str, str]]:
    return sorted({(s.point, s.method) for record in cell for s in record.scores if s.method not in _SKIPPED})


def _local(cell: Sequence[RunRecord], point: str, method: str, limits: Limits) -> _Local:
    """A cell as an arm. Raises UserError where its meters differ, or a limit is on what it has not."""
    meter = meter_of(cell)
    scores = [one for record in cell for one in _scores(record, point, method)]
    about = cell[0].manifest
    model = about.get("model") or {}
    workload = about.get("workload") or {}
    return _Local(
        {**cell_about(cell), "scope": meter.scope, "klass": meter.klass},
        _asked(scores, limits),
        meter.gain_u,
        float(model.get("bytes") or model.get("n_params") or 0),
        str(workload.get("sha256") or workload.get("name")),
        _latencies_s(scores),
    )


def _scores(record: RunRecord, point: str, method: str) -> list[Score]:
    """Those of one way of asking that were marked; without an energy where that of the whole run was refused."""
    found = [s for s in record.scores if (s.point, s.method) == (point, method) and s.correct is not None]
    total = total_energy(record)
    if total is None or total.value is not None:
        return found
    return [replace(one, energy_j=None, energy_reason=str(total.reason)) for one in found]


def _latencies_s(scores: Iterable[Score]) -> dict[str, float]:
    held: dict[str, list[float | None]] = {}
    for score in scores:
        held.setdefault(score.item, []).append(score.latency_s)
    known = {item: [one for one in of if one is not None] for item, of in held.items()}
    return {item: sum(of) / len(of) for item, of in known.items() if of and len(of) == len(held[item])}


def _asked(scores: Iterable[Score], limits: Limits) -> dict[str, Asked]:
    held: dict[str, list[Score]] = {}
    for score in scores:
        held.setdefault(score.item, []).append(score)
    out = {}
    for item, of in held.items():
        right = [score.correct or 0.0 for score in of]
        within = [mark for mark, score in zip(right, of, strict=True) if limits.met_by(score)]
        energies = [score.energy_j for score in of if score.energy_j is not None]
        sure = [score.value / score.n for score in of if score.value is not None and score.n]
        out[item] = Asked(
            sum(right) / len(of),
            sum(within) / len(of) > 0.5,
            sum(energies) / len(of) if len(energies) == len(of) else None,
            sum(sure) / len(of) if len(sure) == len(of) else None,
        )
    return out


def _table(
    locals_: Sequence[_Local],
    cloud: StatedCloud | Sequence[RunRecord],
    theirs: Sequence[RunRecord],
    key: Sequence[str],
) -> dict[str, Any]:
    point, method, workload = key
    names = _names(locals_)
    far = Cloud(cloud.j_per_query, cloud.accuracy) if isinstance(cloud, StatedCloud) else None
    if far is None:
        one = _local(theirs, point, method, Limits())
        if one.workload != workload or not one.asked:
            said = f"run {theirs[0].run_id} was not asked these items in this way"
            raise UserError(said, hint="--cloud takes a run of the same workload")
        far = Cloud(asked=one.asked, gain_u=one.gain_u)
    asked = [one.asked for one in locals_] + ([] if far.asked is None else [dict(far.asked)])
    shared = set.intersection(*map(set, asked))
    if not shared:
        raise UserError("these arms share no item that has a score")
    items = sorted(shared)
    arms = [Arm(name, one.size, one.asked, one.gain_u) for name, one in zip(names, locals_, strict=True)]
    most = max(len(one.asked) for one in locals_)
    return {
        "n_items": len(items),
        "covered": _estimate(covered(arms, items)),
        "arms": [_of_arm(one, arm, items) for one, arm in zip(locals_, arms, strict=True)],
        "routers": [_of_router(one) for one in routed(arms, far, items)],
        "flags": _flags(locals_, far, method, most - len(items)),
    }


def _names(arms: Sequence[_Local]) -> list[str]:
    """What each arm is called: its model, with its engine, then its first run, where that is not enough."""
    names = [str(one.about["model"]) for one in arms]
    for more in ("engine", "engine_version", "runs"):
        if len(set(names)) == len(names):
            break
        told = [one.about[more] for one in arms]
        names = [f"{name} {one[0] if isinstance(one, list) else one}" for name, one in zip(names, told, strict=True)]
    return names


def _of_arm(one: _Local, arm: Arm, items: Sequence[str]) -> dict[str, Any]:
    latencies = [one.latencies_s[item] for item in items if item in one.latencies_s]
    energies = [arm.asked[item].energy_j for item in items]
    known = [energy for energy in energies if energy is not None]
    return {
        "name": arm.name,
        **{name: value for name, value in one.about.items() if name not in _KEY},
        "right": _estimate(accuracy_of([(item, arm.asked[item].right) for item in items])),
        "right_within": _estimate(accuracy_of([(item, float(arm.asked[item].within)) for item in items])),
        "mean_latency_s": sum(latencies) / len(items) if len(latencies) == len(items) else None,
        "mean_energy_j": sum(known) / len(items) if len(known) == len(items) else None,
    }


def _of_router(one: Routed) -> dict[str, Any]:
    return {
        "name": one.name,
        "hypothetical": one.hypothetical,
        "local": _estimate(one.local),
        "accuracy": _estimate(one.accuracy),
        "j_per_query": _estimate(one.j_per_query),
        "saved": _estimate(one.saved),
        "break_even_cloud_j": one.break_even_j,
        "sensitivity": [
            {"cloud_j_per_query": cost, "saved": saved.value, "lo": saved.lo, "hi": saved.hi}
            for cost, saved in one.sensitivity
        ],
    }


def _estimate(found: Estimate) -> dict[str, Any]:
    return {key: getattr(found, key) for key in ("value", "lo", "hi", "n", "method", "reason")}


def _flags(arms: Sequence[_Local], cloud: Cloud, method: str, lacking: int) -> list[str]:
    out = []
    if lacking:
        out.append(f"not_shared: {lacking} items that not every arm answered are left out")
    if cloud.asked is None:
        said = [name for name, one in (("energy", cloud.j_per_query), ("accuracy", cloud.accuracy)) if one is not None]
        if said:
            told = f"its {' and '.join(said)} {'were' if len(said) > 1 else 'was'} stated, not measured"
            out.append(f"cloud_stated: {told}; taken as exact, and the same for easy and for hard queries")
    if origin_of(method) == "loglik":
        out.append("accuracy_loglik: latency and energy are of scoring by log-likelihood, not of generating answers")
    metered = [one for one in arms if any(asked.energy_j is not None for asked in one.asked.values())]
    kinds = sorted({f"{one.about['scope']} (class {one.about['klass'] or 'unknown'})" for one in metered})
    if len(kinds) > 1:
        out.append(
            f"mixed_scopes: energies of {' and '.join(kinds)} do not cover the same: do not rank arms across them"
        )
    elif kinds:
        out.append(f"scope: local energies are of {kinds[0]}; what sends a query to the cloud is in none")
    if any(len(one.about["runs"]) == 1 for one in arms):
        out.append("one_run: how runs differ is not in the intervals")
    if any(one.gain_u is None for one in metered):
        out.append("gain_unknown: nobody stated the gain of a local meter, and it is in no interval")
    return out


def _of_cloud(cloud: StatedCloud | Sequence[RunRecord], theirs: Sequence[RunRecord]) -> dict[str, Any]:
    stated = cloud if isinstance(cloud, StatedCloud) else StatedCloud()
    about: Mapping[str, Any] = theirs[0].manifest if theirs else {}
    meter = meter_of(theirs) if theirs else None
    return {
        "j_per_query": stated.j_per_query,
        "accuracy": stated.accuracy,
        "runs": [record.run_id for record in theirs],
        "model": (about.get("model") or {}).get("name"),
        "device": (about.get("device") or {}).get("name"),
        "scope": None if meter is None else meter.scope,
        "klass": None if meter is None else meter.klass,
    }
