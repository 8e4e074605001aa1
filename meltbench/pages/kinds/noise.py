"""How far each device scatters, and so what change it can show."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.analysis.noise import noise_floor
from meltbench.pages.drawn import Drawn, grid_of, nothing, share
from meltbench.pages.published import Answer
from meltbench.report.headline import natural
from meltbench.report.sheet import MISSING

if TYPE_CHECKING:
    from meltbench.analysis.stats import Estimate
    from meltbench.pages.panel import Context

_COLUMNS = ("device", "mode", "runs", "within a night", "95 %", "between nights", "shows with 5", "with 8", "with 10")


def noise(context: Context) -> Drawn:
    """The noise floor of each ``x`` (device) in each mode, from the cell, night and ``value`` of its runs."""
    answer = context.answer()
    x, value = context.field("x"), context.field("value")
    groups: dict[tuple[str, str], list[tuple[str, str, float | None]]] = {}
    columns = (answer.names(name) for name in (x, "mode", "cell", "night"))
    for device, mode, cell, night, number in zip(*columns, answer.numbers(value), strict=True):
        groups.setdefault((device, mode), []).append((cell, night, number))
    if not groups:
        return nothing("No run has it here.", answer)
    rows: list[tuple[Any, ...]] = []
    notes = []
    for (device, mode), mine in sorted(groups.items(), key=lambda item: natural(" ".join(item[0]))):
        floor = noise_floor(mine)
        least = [_share(found) for _, found in floor.detectable]
        rows.append(
            (device, mode, len(mine), _share(floor.within), _between(floor.within), _share(floor.between), *least)
        )
        if floor.advice:
            notes.append(f"{device}, {mode}: {floor.advice}")
    made = Answer(_COLUMNS, rows)
    says = f"{len(groups)} devices and modes; the least change that 5, 8 or 10 runs an arm show four times in five."
    return Drawn(says, grid=grid_of(made), notes=tuple(notes[:8]), answer=made)


def _share(one: Estimate) -> str:
    return MISSING if one.value is None else share(one.value)


def _between(one: Estimate) -> str:
    return MISSING if one.lo is None or one.hi is None else f"{share(one.lo)} to {share(one.hi)}"
