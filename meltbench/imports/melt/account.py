"""Both accounts of a study: MELT's numbers and ours, of every conversation and prompt, and in what they differ."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.imports.melt import ours, theirs

if TYPE_CHECKING:
    from meltbench.imports.melt.conversation import Conversation
    from meltbench.imports.melt.power import Power
    from meltbench.imports.melt.study import Study


@dataclass(frozen=True)
class Told:
    """A conversation by both accounts. ``rows``: a prompt each, in order; our requests have its number as item."""

    conversation: Conversation
    power: Power | None
    files: tuple[str, ...]
    load: theirs.Load | None
    rows: tuple[theirs.Row, ...]
    stages: tuple[theirs.Stages, ...]
    ours: ours.Measured

    @property
    def rail(self) -> str:
        """The rail whose energy by MELT's account stands beside ours."""
        return main_rail(self.power)


def tell(study: Study, clock_bound_s: float | None = None) -> list[Told]:
    """Every conversation of the study. ``clock_bound_s``: how far apart the user knows the clocks to have been."""
    return [_one(study, conversation, clock_bound_s) for conversation in study.conversations]


def _one(study: Study, conversation: Conversation, clock_bound_s: float | None) -> Told:
    key = conversation.iteration, conversation.number
    power = study.power_of(conversation.iteration)
    files = tuple(study.files_of[key])
    tie = ours.tie(conversation, power, clock_bound_s)
    return Told(
        conversation,
        power,
        files,
        theirs.load(conversation, power),
        tuple(theirs.row(conversation, prompt, power) for prompt in conversation.prompts),
        tuple(theirs.stages(conversation, power)),
        ours.measure(conversation, power, tie, f"iteration {key[0]}, conversation {key[1]}"),
    )


def overall(told: list[Told]) -> theirs.Overall:
    """What MELT's notebook shows of these conversations."""
    rows: dict[int, list[theirs.Row]] = {}
    for one in told:
        rows.setdefault(one.conversation.iteration, []).extend(one.rows)
    return theirs.overall(rows, main_rail(next((one.power for one in told if one.power is not None), None)))


def main_rail(power: Power | None) -> str:
    """MELT's name of the rail that is the device's, else of its first one."""
    if power is None or power.kind != "jetson":
        return "main"
    mine = [
        rail for rail in power.rails if power.total is not None and f"melt_jetson.{rail}.power" in power.total.rails
    ]
    return mine[0] if mine else next(iter(power.rails), "main")
