"""Asks a target's clock: questions and answers over one open channel, never a process each.

A `date` for each would add its start to one of the two ways, about 0.4 ms that no choice among trips takes out again.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, UserError
from meltbench.probe.clockmap import Batch, Clock, Exchange

if TYPE_CHECKING:
    from meltbench.probe.client import Probe
    from meltbench.targets import Channel

EXCHANGES = 40  # twice what is needed: the first warms caches and radios up, and a few meet other traffic
_BATCH_S = 20.0
_ANSWER = re.compile(rb"(\d{1,18}) \d{1,19} \d{1,19}\n")


def exchange(probe: Probe, controller: Clock, count: int = EXCHANGES) -> Batch:
    """Exchanges with the target's clock. ``controller``: what names this machine's.

    Raises DeviceError when the target does not answer, UserError where this machine has no CLOCK_BOOTTIME.
    """
    if not hasattr(time, "CLOCK_BOOTTIME"):
        raise UserError("this machine has no clock to tie to the target's", hint="use a controller that runs Linux")
    deadline = Deadline.after(_BATCH_S)
    target = Clock.of(probe.facts([]))
    channel = probe.transport.spawn([probe.path, "clock"], deadline)
    try:
        found = tuple(_ask(channel, deadline) for _ in range(count))
    finally:
        channel.close()
    return Batch(found, controller, target)


def _ask(channel: Channel, deadline: Deadline) -> Exchange:
    asked = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    answer = channel.ask(b"t", deadline)
    answered = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    told = _ANSWER.fullmatch(answer)  # only the first number: the others stand still in suspend, or step
    if told is None:
        raise DeviceError("the clock of the target answered something else", hint="run the command again")
    return Exchange(asked, int(told[1]), answered)
