"""The picture of a run under way: from the frames of its journal to a token rate, a power and a temperature of now.

Pure. The readers are those that make the run's samples, the total is the one that its profile names, and what cannot
be told has the reason. A figure here is of the last seconds, without uncertainty, and is kept nowhere.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.account import gpus
from meltbench.assemble import totals
from meltbench.compose import ENGINE
from meltbench.live.tokens import SPAN_S, Tokens
from meltbench.live.window import Window
from meltbench.measure.counters import middle_ns
from meltbench.measure.digest import digest
from meltbench.measure.screening import most_w
from meltbench.measure.total import designated
from meltbench.readings import Source

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from meltbench.measure.digest import Digest
    from meltbench.probe.journal import Event
    from meltbench.records import Readings, Series, SourceStatus, Stream

_POWER_S = 3.0  # over which a power is taken
_OLD_S = 60.0  # of a temperature: later it is not of now
_HISTORY = 24
_UNITS = ("J", "W", "degC")


@dataclass(frozen=True)
class Now:
    """One figure: ``value`` with what it is ``of``, or None with the ``reason``."""

    value: float | None
    of: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Sight:
    """What one look showed. ``status``: as the probe's state; ``elapsed_s``: of the job, by the device's clock.

    ``token_rate`` in tok/s, ``power`` in W, ``temperature`` (of the hottest zone) in degC. ``rates`` and ``powers`` are
    those of the looks before and of this one, None where there was none.
    """

    status: Mapping[str, Any]
    elapsed_s: float | None
    token_rate: Now
    power: Now
    temperature: Now
    rates: tuple[float | None, ...] = ()
    powers: tuple[float | None, ...] = ()


@dataclass
class _Step:
    at: object = None
    op: str = ""
    name: str = ""
    done: int = 0


@dataclass
class Picture:
    """Takes the frames of a run's journal, and of the one that the controller records beside it, as they come."""

    ticket: Mapping[str, Any]
    _step: _Step = field(default_factory=_Step)
    _history: deque[tuple[float | None, float | None]] = field(default_factory=lambda: deque(maxlen=_HISTORY))

    def __post_init__(self) -> None:
        self._sources = {
            one["name"]: Source.of(one["name"], one["reader"], one.get("options", {}), gain_limit=one.get("gain_limit"))
            for one in self.ticket["sources"]
        }
        self._hosted = {one["name"] for one in self.ticket["sources"] if one.get("host")}
        self._of_interest: dict[str, bool] = {}  # of a source once it gave samples: whether any are power or heat
        self._runner: Mapping[str, Any] = self.ticket["runner"] or {}
        self._tokens = Tokens()
        self._outputs: set[int] = set()
        self._n_asked = len(self.ticket["asks"]) if self.ticket["workload"]["kind"] != "sustained" else 0
        self._began_ns: int | None = None
        self._result: str | None = None
        self._target = Window(self._wanted, self._passed)
        self._host = Window(self._wanted, lambda _stream, _readings: None)

    def take(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Frames of the target's journal, in order."""
        for event in self._target.take(frames):
            self._heed(event)

    def take_host(self, frames: Iterable[tuple[int, bytes]]) -> None:
        """Frames of the journal that the controller records beside the run."""
        for _ in self._host.take(frames):
            pass

    def _wanted(self, stream: Stream) -> bool:
        return stream.channel in self._sources and self._of_interest.get(stream.channel, True)

    def _passed(self, stream: Stream, readings: Readings) -> None:
        if stream.kind == "http":
            self._tokens.answer(stream.number, readings)
        elif stream.number in self._outputs:
            self._tokens.printed(stream.number, readings)

    def _heed(self, event: Event) -> None:
        name = event["event"]
        if name == "begin":
            self._began_ns = event["boot_ns"]
        elif name == "step" and event.get("state") == "start":
            self._step = _Step(event.get("step"), str(event.get("op")), str(event.get("name")), self._step.done)
        elif name == "request":
            self._step.done += 1
            if isinstance(number := event.get("stream"), int):
                self._tokens.answered(number)
        elif name == "spawn" and event.get("proc") == ENGINE and self._runner.get("mode") == "in-process":
            self._outputs.update([number] if isinstance(number := event.get("stdout"), int) else [])
        elif name == "end":
            self._result = str(event.get("result"))

    @property
    def status(self) -> dict[str, Any]:
        """The step that is under way, in the words of the probe's own state."""
        state = "starting" if self._began_ns is None else "running" if self._result is None else "ended"
        step = self._step
        told = {"state": state, "step": step.at, "op": step.op, "name": step.name}
        return told | ({"done": step.done, "of": self._n_asked} if step.op == "http" else {})

    def sight(self) -> Sight:
        """The figures of now; each look is one point of the history."""
        series, statuses = self._read()
        power, rate = self._power(series, statuses), self._rate()
        self._history.append((rate.value, power.value))
        began, now = self._began_ns, self._target.now_ns
        return Sight(
            self.status,
            None if began is None else max(now - began, 0) / 1e9,
            rate,
            power,
            self._temperature(series),
            *(tuple(column) for column in zip(*self._history, strict=True)),
        )

    def _read(self) -> tuple[list[Series], list[SourceStatus]]:
        series: list[Series] = []
        statuses: list[SourceStatus] = []
        for name, source in self._sources.items():
            if not self._of_interest.get(name, True):
                continue
            found, seen = source.read((self._host if name in self._hosted else self._target).streams(name))
            if any(len(one) for one in found):
                self._of_interest[name] = any(one.unit in _UNITS for one in found)
            series += [one for one in found if one.unit in _UNITS]
            statuses.append(seen.told())
        return series, statuses

    def _power(self, series: list[Series], statuses: list[SourceStatus]) -> Now:
        outside = [gpu for gpu in gpus(dict(self.ticket)) if gpu.startswith("NVIDIA")]
        signals = [digest(one) for one in series if one.unit in ("J", "W")]
        total = designated(totals(dict(self.ticket)), statuses, signals, outside)
        if total.rail is None:
            return Now(None, reason=total.reason)
        value = 0.0
        for part in total.rail.parts:
            found = _power_w(part)
            if isinstance(found, str):
                return Now(None, reason=f"{found} ({part.name})")
            value += found
        of = f"{' + '.join(part.name for part in total.rail.parts)}, {total.rail.scope}"
        if not 0 <= value <= most_w(self.ticket.get("max_power_w"), outside):
            return Now(None, of, f"implausible_power: {value:.3g} W")
        return Now(value, of)

    def _temperature(self, series: list[Series]) -> Now:
        hottest = Now(None, reason="no_thermal_sensor: nothing has told a temperature")
        for one in series:
            good = np.flatnonzero(np.isfinite(one.value)) if one.unit == "degC" else np.empty(0, np.int64)
            if not len(good):
                continue
            window = self._host if one.source in self._hosted else self._target
            value, age_s = float(one.value[good[-1]]), (window.now_ns - int(middle_ns(one)[good[-1]])) / 1e9
            if age_s <= _OLD_S and (hottest.value is None or value > hottest.value):
                hottest = Now(value, one.name)
        return hottest

    def _rate(self) -> Now:
        rate = self._tokens.rate(self._target.now_ns)
        if rate is not None:
            return Now(rate, "tokens that arrived, of all requests")
        mode = self._runner.get("mode")
        if mode is None:
            return Now(None, reason="no engine was asked for")
        if mode == "bench":
            return Now(None, reason=f"{self._runner.get('engine')} tells its tokens when it has ended")
        return Now(None, reason=f"no_token: none has come in the last {SPAN_S:g} s")


def _power_w(part: Digest) -> float | str:
    """Power of the last seconds by one signal, or why there is none."""
    t, v = part.kept["t"], part.kept["v"]
    if len(t) < 2:
        return "low_coverage: fewer than two readings in the last seconds"
    # Of a source that is slower than that the last two readings.
    first = min(int(np.searchsorted(t, t[-1] - np.int64(_POWER_S * 1e9))), len(t) - 2)
    t, v = t[first:], v[first:]
    if part.head.kind == "gauge":
        return float(v.mean())
    if part.reset_within(int(t[0]), int(t[-1])):
        return "counter_reset: it fell"
    return float(v[-1] - v[0]) / (int(t[-1] - t[0]) / 1e9)
