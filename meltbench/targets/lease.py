"""The lease of a target: one measuring controller at a time, and a token by which the target tells who that is.

The target keeps the lease (docs/probe.md, "The lease"). It runs out by itself: a controller that dies, or is stopped
for too long, loses it, and is refused when it goes on. While a job runs the target extends the lease on its own, so
nothing crosses the link in the measured window.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.controller import is_alive, this_process
from meltbench.deadline import Deadline, patiently
from meltbench.errors import DeviceError, LeaseLost, TargetBusy, UserError
from meltbench.probe.client import BUSY_HINT, holder_words, leased
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    from meltbench.probe.client import Probe
    from meltbench.watch import Watch

TTL_S = 60.0
ENDED = "its process has ended"
_LOOK_S = 5.0
_SILENCE_S, _TICK_S = 600.0, 0.25  # before a target that says nothing is asked whether it is there still
_RETRY_S = 2.0
_LONGEST_WAIT_S = 86400.0
_HOLDER_BYTES = 200
_REASON_BYTES = 200


def holder_of(store: Path) -> str:
    """This process as a holder of leases: compact JSON of at most 200 printable bytes, the store's path cut to fit.

    Each further thread is one of its own: a holder may take its lease again, and would take it from another thread.
    """
    who = this_process() | {"kernel": _kernel(), "user": _user()[:32], "store": str(store)}
    if threading.current_thread() is not threading.main_thread():
        who["thread"] = threading.get_native_id()
    who["host"] = who["host"][:64]
    while len(text := json.dumps(who, separators=(",", ":"))) > _HOLDER_BYTES:
        if who["store"] != "...":
            who["store"] = "..." + who["store"].removeprefix("...")[8:]
        else:  # names that are not ASCII are long in JSON
            key = "user" if who["user"] else "host"
            who[key] = who[key][:-8]
    return text


def has_ended(holder: str) -> bool:
    """Whether a holder is a process of this very machine that has ended; False for all that cannot be told."""
    try:
        told = json.loads(holder)
    except (ValueError, RecursionError):
        return False
    if not isinstance(told, dict) or not _kernel() or told.get("kernel") != _kernel():
        return False
    pid = told.get("pid")
    if not isinstance(pid, int) or not 0 < pid < 1 << 31:  # a target's word: no other number is a process's
        return False
    here = os.uname().nodename
    return told.get("host") == here[:64] and not is_alive(told | {"host": here})


def reason_of(text: str) -> str:
    """A user's reason as the target takes it: one line of printable ASCII, at most 200 bytes.

    Raises UserError where nothing is left of it.
    """
    plain = " ".join(text.encode("ascii", "replace").decode().split())
    kept = "".join(c for c in plain if c.isprintable())[:_REASON_BYTES]
    if not kept:
        raise UserError("a lease is stolen for a reason", hint='--steal "the rack is mine tonight"')
    return kept


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (OSError, KeyError):  # no such user in this container
        return str(os.getuid())


def _kernel() -> str:
    """Where process ids mean the same: this boot of this kernel, and its namespace. Two machines may have one name."""
    parts = []
    with contextlib.suppress(OSError):
        parts = [
            Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii"),
            str(Path("/proc/self/ns/pid").readlink()),
        ]
    return hashlib.sha256("".join(parts).encode()).hexdigest()[:8] if parts else ""


class Lease:
    """A lease that this process holds until the end of its ``with``; a thread renews it every third of its time.

    Between ``pause`` and ``resume`` nothing is sent. ``token`` is what the target asks for.
    """

    def __init__(self, probe: Probe, holder: str, answer: dict[str, Any], watch: Watch) -> None:
        self._probe, self._holder, self._watch = probe, holder, watch
        self._token: int = answer["token"]
        self._stolen: dict[str, Any] = answer.get("stolen") or {}
        self._lost: LeaseLost | None = None
        self._paused = self._ended = False
        self._changed = threading.Condition()  # guards all above, and is held while a renewal is under way
        self._runs_out_s = time.monotonic() + TTL_S
        self._due_s = time.monotonic() + TTL_S / 3
        self._thread = threading.Thread(target=self._keep, name="lease", daemon=True)
        self._thread.start()

    @classmethod
    def take(cls, probe: Probe, holder: str, watch: Watch, *, wait: bool, steal: str | None = None) -> Lease:
        """Take the lease of a target. ``wait``: until it is free; ``steal``: at once, for this reason.

        A holder that ended on this machine is none, unless its job still runs. Raises TargetBusy, naming the holder.
        """
        reason = None if steal is None else reason_of(steal)
        started, deadline, said = time.monotonic(), Deadline.after(_LONGEST_WAIT_S), ""
        while True:
            try:
                return cls(probe, holder, _taken(probe, holder, reason), watch)
            except TargetBusy as busy:
                now = busy.lease or patiently(probe.lease_show)
            words = leased(now)
            if words is None:  # it ended meanwhile
                continue
            ended = has_ended(now["holder"])
            if ended and now.get("running") is None:
                with contextlib.suppress(TargetBusy):  # another was faster
                    return cls(probe, holder, probe.lease_take(holder, _ms(TTL_S), ENDED, now["token"]), watch)
                continue
            if ended:
                words += f"; {ENDED}, its run {printable(now['running'])} goes on"
            if not wait or deadline.remaining() <= 0:
                raise TargetBusy(f"the target is leased: {words}", hint=BUSY_HINT)
            left_s = now["left_ms"] / 1000
            key = f"{now['holder']} {now.get('running')}"
            if key != said:
                said = key
                watch.say(f"waiting for the target: {words}")
            holds, ends_s = holder_words(now["holder"]), time.monotonic() + left_s

            def tell(holds: str = holds, ends_s: float = ends_s) -> None:
                told = {"elapsed_ms": (time.monotonic() - started) * 1e3, "limit_ms": (ends_s - started) * 1e3}
                watch.step({"state": "running", "op": "lease", "name": "lease", "said": holds, **told})

            tell()
            if isinstance(running := now.get("running"), str):
                _in_silence(probe, running, left_s, tell)
            else:
                time.sleep(min(_LOOK_S, left_s + 0.05))

    @property
    def token(self) -> int:
        """The number that the target knows this lease by. Raises LeaseLost once it is lost."""
        self.check()
        return self._token

    def check(self) -> None:
        """Raise LeaseLost when a renewal was refused, or none got through for as long as the lease lasts."""
        if self._lost is not None:
            raise self._lost

    def told(self) -> dict[str, Any]:
        """For a run's ticket: token, holder, from whom and why it was stolen, and by whom: None where it was not."""
        return {
            "token": self._token,
            "holder": self._holder,
            "stolen_from": self._stolen.get("holder"),
            "reason": self._stolen.get("reason"),
            "stolen_by": None,
            "stolen_for": None,
        }

    def pause(self) -> None:
        """Send nothing from here on: the job that is about to start keeps the lease. Waits for what is under way."""
        with self._changed:
            self._paused = True

    def resume(self) -> None:
        """Renew again, the first time at once: the job has ended, and the lease has its own time."""
        with self._changed:
            self._paused = False
            self._due_s = time.monotonic()
            self._runs_out_s = self._due_s + TTL_S
            self._changed.notify()

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """``pause``, then ``resume``."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drop()

    def drop(self) -> None:
        """Give it back, once. Where that cannot be said to the target it runs out by itself."""
        with self._changed:
            if self._ended:
                return
            self._ended = True
            self._changed.notify()
        self._thread.join()
        if self._lost is not None:
            return
        try:
            self._probe.lease_drop(self._token)
        except LeaseLost as lost:
            self._lost = lost
        except DeviceError as failed:
            self._watch.say(
                f"the lease was not given back, and runs out by itself within {TTL_S:.0f} s: {failed.message}"
            )

    def _keep(self) -> None:
        with self._changed:
            while not self._ended and self._lost is None:
                wait_s = None if self._paused else self._due_s - time.monotonic()
                if wait_s is None or wait_s > 0:
                    self._changed.wait(wait_s)
                else:
                    self._renew()

    def _renew(self) -> None:
        now_s = time.monotonic()  # before it is asked: the target counts from later on
        try:
            self._probe.lease_renew(self._token, _ms(TTL_S))
        except LeaseLost as lost:
            self._lost = lost
        except DeviceError as failed:
            if time.monotonic() >= self._runs_out_s:
                why = f"the lease must have run out: it could not be renewed ({failed.message})"
                self._lost = LeaseLost(why, hint="what ran is collected by `meltbench collect`")
            self._due_s = time.monotonic() + _RETRY_S
        else:
            self._runs_out_s, self._due_s = now_s + TTL_S, now_s + TTL_S / 3


def _in_silence(probe: Probe, run: str, left_s: float, tell: Callable[[], None]) -> None:
    """Until a run of another has ended: one program waits for that on the target, and nothing crosses its link."""

    def wait() -> None:
        with contextlib.suppress(DeviceError):  # what is wrong there says the next try to take the lease
            probe.wait(probe.folder(run), Deadline.after(min(left_s, _SILENCE_S)))

    thread = threading.Thread(target=wait, name=f"waits for {run}", daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive() or time.monotonic() < began + min(_RETRY_S, left_s):
        time.sleep(_TICK_S)
        tell()


def _taken(probe: Probe, holder: str, reason: str | None) -> dict[str, Any]:
    """Take it, once more where the answer was lost; but not from another: he would be forgotten the second time."""
    if reason is not None:
        return probe.lease_take(holder, _ms(TTL_S), reason)
    return patiently(lambda: probe.lease_take(holder, _ms(TTL_S)))


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
