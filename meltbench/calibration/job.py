"""The job of a calibration: it reads what a run of that profile reads, and makes idle windows and loads."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from meltbench.calibration.steps import name
from meltbench.compose import channels
from meltbench.errors import UserError
from meltbench.probe.job import Job, milliseconds

if TYPE_CHECKING:
    from meltbench.scripts import Scripts
    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile

_JOURNAL_BYTES = 256 << 20
_SLACK_S = 20.0  # of a load's deadline: a busy phone starts a program late
_LONGEST_S = 3600.0  # the probe burns no longer


@dataclass(frozen=True)
class Design:
    """The windows of a calibration, s. ``steps`` times idle and load, then idle; ``same`` loads of ``same_s`` one after
    the other; ``charge_s`` of load at the end for a counter of charge to move."""

    idle_s: float = 60.0
    load_s: float = 60.0
    steps: int = 2
    same_s: float = 15.0
    same: int = 7
    charge_s: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), {"idle_s": 1.0, "load_s": 1.0, "steps": 1}.get(one.name, 0)
            most = 100 if isinstance(one.default, int) else _LONGEST_S
            if not least <= value <= most:
                raise UserError(f"{one.name} = {value:g} is out of range", hint=f"give {least:g} to {most:g}")

    def lengths(self) -> dict[str, float]:
        """Seconds of each step by its name, in order."""
        found: dict[str, float] = {}
        for n in range(self.steps):
            found |= {name("idle", n): self.idle_s, name("load", n): self.load_s}
        found[name("idle", self.steps)] = self.idle_s
        found |= {name("same", n): self.same_s for n in range(self.same)}
        if self.charge_s:
            found[name("charge", 0)] = self.charge_s
        return found

    @property
    def seconds(self) -> float:
        """How long it takes."""
        return sum(self.lengths().values())


QUICK = Design(idle_s=5.0, load_s=5.0, steps=2, same_s=3.0, same=4)
CHARGE_S = 600.0  # at 1 A and steps of 1.5 mAh a counter moves a hundred times; ten minutes is what the recipe asks for


def compose_steps(
    design: Design, run_id: str, profile: Profile, facts: Facts, scripts: Scripts | None, probe: str
) -> Job:
    """The job of the steps; ``scripts``: how helper programs are started; ``probe``: the path of the probe on the
    target, which makes the load."""
    job = Job(run_id)
    job.limit("journal_bytes", _JOURNAL_BYTES)
    job.limit("duration_ms", milliseconds(design.seconds + _SLACK_S * (1 + len(design.lengths()))))
    channels(job, profile, facts, scripts, has_process=False)
    for step, seconds in design.lengths().items():
        if step.startswith("idle"):
            job.idle(step, seconds)
        else:
            _burn(job, step, seconds, probe)
    return job


def compose_alone(design: Design, run_id: str, probe: str) -> Job:
    """The same equal loads with nothing read beside them: what they do more is what reading costs."""
    job = Job(run_id)
    job.limit("duration_ms", milliseconds((design.same_s + _SLACK_S) * (1 + design.same)))
    for n in range(design.same):
        _burn(job, name("same", n), design.same_s, probe)
    return job


def _burn(job: Job, step: str, seconds: float, probe: str) -> None:
    job.execute(step, seconds + _SLACK_S, [probe, "burn", "0", str(milliseconds(seconds))])
