"""What to do where a comparison cannot say whether something differs: how many runs, or items, or what to steady."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from meltbench.analysis.contrast import ALPHA, detectable, floor_p, floor_runs, runs_needed
from meltbench.analysis.metrics import METRICS
from meltbench.comparing import PAIRED

if TYPE_CHECKING:
    from collections.abc import Sequence

    Row = dict[str, Any]

_MANY = 200


def advice(rows: Sequence[Row], scatters: Sequence[float | None], *, family: int, effect: float) -> list[str]:
    """Lines, the most general first. ``scatters``: of each row, the standard deviation of its logs within arms."""
    open_ = [(row, sd) for row, sd in zip(rows, scatters, strict=True) if row["verdict"] == "unknown"]
    return [
        *_too_few(open_, family),
        *_scattered(open_, family, effect),
        *_items(open_, effect),
        *_alone(open_, family),
    ]


def _runs(row: Row) -> tuple[int, int]:
    return row["first"]["n_runs"], row["second"]["n_runs"]


def _too_few(rows: Sequence[tuple[Row, float | None]], family: int) -> list[str]:
    """Arms that no difference, however large, could show of."""
    counts = sorted({_runs(row) for row, _ in rows if row["measure"] not in PAIRED})
    few = [(n, m) for n, m in counts if floor_p(n, m) > ALPHA]
    if not few:
        return []
    n, m = few[0]
    alone = floor_runs()
    more = f", {floor_runs(family)} where one figure alone of {family} differs" if floor_runs(family) > alone else ""
    return [f"{n}+{m} runs show no difference, however large: {alone} an arm can{more}; --reps 5 makes five"]


def _scattered(rows: Sequence[tuple[Row, float | None]], family: int, effect: float) -> list[str]:
    """Of each measure the row that scatters most, of those with most runs: of two runs nobody knows their scatter."""
    worst: dict[str, tuple[int, float, Row]] = {}
    for row, sd in rows:
        if sd and (min(_runs(row)), sd) > worst.get(row["measure"], (0, 0.0))[:2]:
            worst[row["measure"]] = (min(_runs(row)), sd, row)
    out = []
    for name, (_, sd, row) in worst.items():
        n, m = _runs(row)
        need = runs_needed(sd, effect, family)
        if need is not None and need <= min(n, m):
            continue
        where = "".join(f", {value}" for value in row["stratum"].values() if value)
        seen = f"{METRICS[name].heading}{where}: runs of one arm scatter by {_percent(sd)}"
        shown = f"{n}+{m} show a difference of {_percent(detectable(sd, n, m))}" if floor_p(n, m) <= ALPHA else ""
        wanted = f"for {_percent(effect)} " + ("more than 10,000" if need is None else f"about {need}") + " an arm"
        steady = "; steady the device first (meltbench devices doctor)" if need is None or need > _MANY else ""
        out.append(", ".join(filter(None, (seen, shown, wanted))) + steady)
    return out


def _items(rows: Sequence[tuple[Row, float | None]], effect: float) -> list[str]:
    """Of what is paired by item: an interval narrows with the root of their number."""
    out = {}
    for row, _ in rows:
        found = row["against"]
        if row["measure"] not in PAIRED or found["lo"] is None:
            continue
        share = row["kind"] == "difference"
        half = (found["hi"] - found["lo"]) / 2 if share else math.log(found["hi"] / found["lo"]) / 2
        need = math.ceil(found["n"] * (half / (effect if share else math.log1p(effect))) ** 2)
        if need > found["n"]:
            unit = "pp" if share else "%"
            what = "items" if share else "chunks"
            out[row["measure"]] = (
                f"{METRICS[row['measure']].heading}: {found['n']} {what} tell it to {half * 100:.2g} {unit} either "
                f"way; to {effect * 100:.3g} {unit} about {need}"
            )
    return list(out.values())


def _alone(rows: Sequence[tuple[Row, float | None]], family: int) -> list[str]:
    """What would have been shown if nothing else had been asked."""
    names = list(dict.fromkeys(row["measure"] for row, _ in rows if row["p"] is not None and row["p"] <= ALPHA))
    if not names:
        return []
    told = ", ".join(METRICS[name].heading for name in names)
    asked = " ".join(f"--measure {name}" for name in names)
    return [f"{told}: shown alone, not among {family} figures; if meant from the outset, ask for it alone: {asked}"]


def _percent(share: float) -> str:
    return f"{share * 100:.2g} %" if share < 1 else f"{share * 100:,.0f} %"
