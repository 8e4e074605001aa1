"""The shapes that travel down the road: frozen, with the unit in the field name.

Times are CLOCK_BOOTTIME nanoseconds of the target unless a name says otherwise. A missing number is ``None``
(in arrays: NaN) and carries a reason; it is never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

Kind = Literal["counter", "gauge", "state"]
Scope = Literal["wall", "battery", "module", "soc", "rail", "process", "system", "none"]
State = Literal["valid", "degraded", "invalid"]
Status = Literal["ok", "denied", "absent", "again", "error", "unparsed", "gated"]
Role = Literal["setup", "warmup", "timed"]


@dataclass(frozen=True)
class Readings:
    """What the probe recorded of one stream, undigested.

    ``t0_ns``/``t1_ns``: int64, start and end of each read; ``err``: int32, 0 or the errno of the read;
    ``raw``: one bytes object a reading (empty where ``err`` is not 0).
    """

    t0_ns: npt.NDArray[np.int64]
    t1_ns: npt.NDArray[np.int64]
    err: npt.NDArray[np.int32]
    raw: list[bytes]

    def __len__(self) -> int:
        return len(self.raw)


@dataclass(frozen=True)
class Stream:
    """One open source of readings on the target, as the probe found it.

    ``channel`` is the name the job gave; a glob gives several streams of one channel, told apart by ``path``.
    ``status`` says whether it could be opened at all (``denied`` is not ``absent``).
    """

    number: int
    channel: str
    kind: str
    path: str
    status: Status
    errno: int
    readings: Readings
    late: int = 0
    overruns: int = 0
    dropped_bytes: int = 0


@dataclass(frozen=True)
class Series:
    """One typed signal: SI values over time. Lengths of the three arrays are equal; NaN marks a missing value.

    ``status`` is one word a sample, aligned with ``value``. ``wrap`` is the modulus of a counter in the unit
    of ``value``, or None when it does not wrap. ``klass`` is the error class A to E of docs/measuring.md.
    """

    name: str
    unit: str
    kind: Kind
    source: str
    scope: Scope
    t0_ns: npt.NDArray[np.int64]
    t1_ns: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    status: list[Status]
    path: str = ""
    klass: str | None = None
    wrap: float | None = None


@dataclass(frozen=True)
class SourceStatus:
    """Why a source gave what it gave: one row a source a run, present also when it gave nothing."""

    source: str
    status: Status
    paths: int
    readings: int
    detail: str = ""


@dataclass(frozen=True)
class Phase:
    """A span of the run. ``request`` is the request's index for prefill and decode, else None."""

    name: str
    t0_ns: int
    t1_ns: int
    request: int | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return (self.t1_ns - self.t0_ns) / 1e9


@dataclass(frozen=True)
class Request:
    """One request as it was observed on the target, beside what the engine says of itself.

    ``ttft_s``: sent to first non-empty token. ``tpot_s``: (e2e - ttft) / (n_out - 1), n_out >= 2 (vLLM, MLPerf).
    ``decode_tps``: (n_out - 1) / (e2e - ttft). ``prefill_tps``: the engine's own figure, else n_in / ttft with
    ``prefill_source`` "client_side". ``token_t_ns`` and ``token_n``: arrival and count of each chunk that
    carried tokens; ``n_in`` counts prompt tokens evaluated plus those found in the cache (``n_cached``). ``point``
    names the requests that it may be condensed with, see ``Ask``; empty where those of the run are alike.
    """

    index: int
    item: str
    role: Role
    status: str
    t_send_ns: int
    t_end_ns: int
    t_first_ns: int | None = None
    n_in: int | None = None
    n_cached: int | None = None
    n_out: int | None = None
    ttft_s: float | None = None
    e2e_s: float | None = None
    tpot_s: float | None = None
    prefill_tps: float | None = None
    prefill_source: str | None = None
    decode_tps: float | None = None
    engine_prefill_s: float | None = None
    engine_prefill_tps: float | None = None
    engine_decode_s: float | None = None
    engine_decode_tps: float | None = None
    stop_reason: str | None = None
    answer: str = ""
    detail: str = ""
    token_t_ns: tuple[int, ...] = ()
    token_n: tuple[int, ...] = ()
    point: str = ""


@dataclass(frozen=True)
class Measure:
    """One number of a run with its conditions; ``value`` is None exactly when ``reason`` is set.

    ``stat`` names how it was condensed (value, median, p90, max, sum, ratio_of_sums ...); ``u_k2`` is the
    expanded uncertainty at k = 2 in ``unit``; ``n`` counts the samples or requests behind it.
    """

    name: str
    value: float | None
    unit: str
    stat: str = "value"
    phase: str = "run"
    scope: Scope = "none"
    source: str = ""
    n: int | None = None
    u_k2: float | None = None
    method: str = ""
    reason: str | None = None
    klass: str | None = None
    coverage: float | None = None


@dataclass(frozen=True)
class Reason:
    """A named reason against full validity (see meltbench.measure.validity) with what was seen."""

    code: str
    state: State
    detail: str
    advice: str


@dataclass(frozen=True)
class RunRecord:
    """Everything the store keeps of one run besides the raw evidence.

    ``manifest`` is JSON-ready: identity, key, spec, versions, conditions, outcome.
    """

    run_id: str
    manifest: dict[str, Any]
    series: list[Series] = field(default_factory=list)
    sources: list[SourceStatus] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)
