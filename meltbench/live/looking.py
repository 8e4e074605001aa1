"""Looking at a run that is under way, again and again, and what that took.

Of this machine the journal is read as a file. Over a link only the bytes that are new are asked for, and only because
``--live`` says so: else nothing crosses it while a run measures. Whatever goes wrong here, the run goes on.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError
from meltbench.live import notes
from meltbench.live.picture import Picture
from meltbench.probe.tail import Tail

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from meltbench.live.picture import Sight
    from meltbench.probe.client import Probe
    from meltbench.targets import Transport
    from meltbench.watch import Watch

    More = Callable[[int], bytes]  # what a journal holds from a place on, a piece of it

LOCAL_S, LINK_S = 1.0, 2.0  # between looks: the probe writes its journal once a second
_PIECE_BYTES = 4 << 20
_LINK_BYTES = 1 << 20  # a look; a run's journal grows by some 100 kB a second at most
_BLOCK = 4096
_ANSWER_S = 5.0
# Small systems lack the one or the other. Whoever has dd is not made to read what was read before.
_MORE = """command -v dd >/dev/null && exec dd if="$1" bs="$2" skip="$3" count="$4" 2>/dev/null
tail -c "+$5" "$1" 2>/dev/null | head -c "$6" """


def here(path: Path) -> More:
    """The journal of a run on this machine."""

    def more(at: int) -> bytes:
        try:
            file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # it has not begun, or was collected
            return b""
        try:
            return os.pread(file, _PIECE_BYTES, at)
        finally:
            os.close(file)

    return more


def there(transport: Transport, path: str) -> More:
    """The journal of a run at the other end of a link."""

    def more(at: int) -> bytes:
        first, within = divmod(at, _BLOCK)
        numbers = (_BLOCK, first, _LINK_BYTES // _BLOCK, first * _BLOCK + 1, _LINK_BYTES)
        words = ["sh", "-c", _MORE, "sh", path, *map(str, numbers)]
        done = transport.run(words, Deadline.after(_ANSWER_S))
        return done.stdout[within:]

    return more


@dataclass
class Looker:
    """Reads what has come of a run's journals. ``looks``, ``bytes`` and ``cpu_s`` of this thread: what it took."""

    picture: Picture
    journal: More
    recorded: More | None = None  # what the controller records beside it
    looks: int = 0
    bytes: int = 0
    cpu_s: float = 0.0
    _tails: tuple[Tail, Tail] = field(default_factory=lambda: (Tail(), Tail()))

    def look(self, *, whole: bool = True) -> Sight:
        """What there is to see. ``whole``: read all that has come, which of a long journal may be much at first."""
        began_s = time.thread_time()
        try:
            self._read(self._tails[0], self.journal, self.picture.take, whole=whole)
            if self.recorded is not None:
                self._read(self._tails[1], self.recorded, self.picture.take_host, whole=whole)
            return self.picture.sight()
        finally:
            self.looks += 1
            self.cpu_s += time.thread_time() - began_s

    def _read(self, tail: Tail, more: More, take: Callable[[Any], None], *, whole: bool) -> None:
        while not tail.lost and (data := more(tail.at)):
            self.bytes += len(data)
            before = tail.at
            take(tail.take(data))
            if not whole or tail.at == before or len(data) < _PIECE_BYTES:
                return

    def told(self) -> dict[str, Any]:
        """For the run's record."""
        return {"looks": self.looks, "bytes": self.bytes, "cpu_s": round(self.cpu_s, 3)}


def recorded(ticket: Mapping[str, Any]) -> More | None:
    """The journal that this controller records beside a run; None where there is none, or it is another's."""
    told = ticket.get("host")
    if not isinstance(told, dict) or told.get("machine") != os.uname().nodename:
        return None
    return here(Path(str(told["folder"])) / "journal")


def intent(link: str) -> dict[str, Any]:
    """What a ticket says of ``--live`` before its run is started: how often it will be looked at and over what."""
    period_s = LOCAL_S if link == "local" else LINK_S
    return {"link": link, "period_s": period_s, "looks": None, "bytes": None, "cpu_s": None}


class Live:
    """The looks of one run, for ``meltbench run --live``: each sight is given to ``show``."""

    def __init__(self, probe: Probe, ticket: Mapping[str, Any], show: Callable[[Sight], None], watch: Watch) -> None:
        self._intent: Mapping[str, Any] = ticket["live"]
        self._run_id, self._show, self._watch = ticket["run_id"], show, watch
        path = f"{ticket['folder']}/journal"
        self._here = self._intent["link"] == "local"
        journal = here(Path(path)) if self._here else there(probe.transport, path)
        self._looker = Looker(Picture(ticket), journal, recorded(ticket))
        self._next_s = 0.0
        self._broken = False
        self.sight: Sight | None = None

    def look(self) -> Sight | None:
        """Look if it is time to; the last sight. Never raises: a look that fails is none, and a bug ends the looks."""
        now_s = time.monotonic()
        if self._broken or now_s < self._next_s:
            return self.sight
        self._next_s = now_s + self._intent["period_s"]
        try:
            self.sight = self._looker.look(whole=self._here)
            if not self._here:
                notes.publish(self._run_id, self.sight)
            self._show(self.sight)
        except DeviceError:  # whoever waits for the end of the run hears of it, and says so
            return self.sight
        except Exception as error:  # noqa: BLE001  what is shown of a run must never end it
            self._broken = True
            self._watch.warn(f"the live view has ended, the run goes on: {type(error).__name__}: {error}")
        return self.sight

    def done(self) -> dict[str, Any]:
        """What the ticket says of it once nobody looks any more."""
        notes.withdraw(self._run_id)
        return {**self._intent, **self._looker.told()}
