"""The shapes that travel down the road: frozen, with the unit in the field name.

Times are CLOCK_BOOTTIME nanoseconds of the target unless a name says otherwise. A missing number is ``None``
(in arrays: NaN) and carries a reason; it is never 0.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import numpy.typing as npt

    # Takes samples to be stored: the number of the series that each part continues.
    Keep = Callable[[list[tuple[int, "Series"]]], None]

Kind = Literal["counter", "gauge", "state"]
Scope = Literal["wall", "battery", "module", "soc", "rail", "process", "system", "none"]
State = Literal["valid", "degraded", "invalid"]
Status = Literal["ok", "denied", "absent", "again", "error", "unparsed", "gated", "implausible"]
STATUSES: tuple[Status, ...] = get_args(Status)
OK, DENIED, ABSENT, AGAIN, ERROR, UNPARSED, GATED, IMPLAUSIBLE = range(len(STATUSES))
Role = Literal["setup", "warmup", "timed"]
# What stands before the name of a measure by the mode it was taken in: figures of two modes are never in one column.
MODE_PREFIX = {"server": "", "bench": "bench_", "in-process": "inprocess_"}


def bare(name: str) -> str:
    """The name of a measure without the mode it was taken in."""
    found = (prefix for prefix in MODE_PREFIX.values() if prefix and name.startswith(prefix))
    return name.removeprefix(next(found, ""))


@dataclass(frozen=True)
class Readings:
    """What the probe recorded of one stream, undigested, column by column: there may be millions of them.

    ``t0_ns``/``t1_ns``: int64, start and end of each read; ``err``: int32, 0 or the errno of the read; ``data``: all
    texts one after the other; ``ends``: int64, where each ends in it.
    """

    t0_ns: npt.NDArray[np.int64]
    t1_ns: npt.NDArray[np.int64]
    err: npt.NDArray[np.int32]
    data: bytes
    ends: npt.NDArray[np.int64]

    @classmethod
    def of(
        cls,
        t0_ns: npt.NDArray[np.int64],
        t1_ns: npt.NDArray[np.int64],
        err: npt.NDArray[np.int32],
        raw: Sequence[bytes],
    ) -> Readings:
        """From one bytes object a reading."""
        import numpy as np

        return cls(t0_ns, t1_ns, err, b"".join(raw), np.cumsum([len(text) for text in raw], dtype=np.int64))

    def __len__(self) -> int:
        return len(self.err)

    @property
    def raw(self) -> list[bytes]:
        """One bytes object a reading (empty where ``err`` says that nothing was read)."""
        ends = self.ends.tolist()
        return [self.data[start:end] for start, end in zip([0, *ends], ends, strict=False)]


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
    """One typed signal: SI values over time. Lengths of the four arrays are equal; NaN marks a missing value.

    ``status`` is a code a sample, the place of its word in STATUSES. ``wrap`` is the modulus of a counter in the unit
    of ``value``, or None when it does not wrap. ``klass`` is the error class A to E of docs/measuring.md.
    ``update_s``: how old a counter's value can be when it is read. Where readings are slower than its register none of
    them shows that age, so the reader says it; faster ones show it by repeating values.
    ``window_s``: a gauge's value is the mean of this long before its reading; 0: it is of now, None: nobody knows.
    ``clock_bound_s``: bound of the offset between the clock of the stamps and the target's; 0 when they are the same.
    ``gain_limit``: relative limit of the gain error where something better founded than the class's is known.
    ``calibration``: the record by which unit, sign and scale were held against something known on this very device.
    """

    name: str
    unit: str
    kind: Kind
    source: str
    scope: Scope
    t0_ns: npt.NDArray[np.int64]
    t1_ns: npt.NDArray[np.int64]
    value: npt.NDArray[np.float64]
    status: npt.NDArray[np.uint8]
    path: str = ""
    klass: str | None = None
    wrap: float | None = None
    update_s: float = 0.0
    window_s: float | None = 0.0
    clock_bound_s: float = 0.0
    gain_limit: float | None = None
    calibration: str = ""

    def __len__(self) -> int:
        return len(self.value)

    @property
    def words(self) -> list[Status]:
        """The status of each sample in words."""
        return [STATUSES[code] for code in self.status]

    def head(self) -> Series:
        """The same signal without its samples."""
        return replace(self, t0_ns=self.t0_ns[:0], t1_ns=self.t1_ns[:0], value=self.value[:0], status=self.status[:0])


@dataclass(frozen=True)
class SourceStatus:
    """Why a source gave what it gave: one row a source a run, present also when it gave nothing."""

    source: str
    status: Status
    paths: int
    readings: int
    detail: str = ""


# A measure of any other phase is of a point or a group: of a grid, a level of concurrency, items that name one.
SPANS = ("run", "load", "prefill", "decode", "idle_before", "idle_after")


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


CACHE_UNKNOWN = "cache_unknown"


@dataclass(frozen=True)
class Request:
    """One request as it was observed on the target, beside what the engine says of itself.

    ``ttft_s``: sent to first non-empty token. ``tpot_s``: (e2e - ttft) / (n_out - 1), n_out >= 2 (vLLM, MLPerf).
    ``decode_tps``: (n_out - 1) / (e2e - ttft). ``prefill_tps``: the engine's own figure, else n_in / ttft with
    ``prefill_source`` "client_side"; None with CACHE_UNKNOWN there where a cache may have had the prompt's beginning
    and nobody tells. ``token_t_ns`` and ``token_n``: arrival and count of each chunk that
    carried tokens, 0 where nobody says how many; ``n_in`` counts prompt tokens evaluated plus those found in the cache
    (``n_cached``). ``point`` names the requests that it may be condensed with, see ``Ask``; empty where those of the
    run are alike. ``count_source``: who counted the tokens of a server's answer: it itself, or a tokenizer afterwards;
    "chunks": nobody did, and only a lower bound of ``n_out`` is known, which ``detail`` tells. ``engine_ttft_s`` is the
    server's own.
    ``energy_j``: of the designated total from sending to end, with its u (k = 2); None for ``energy_reason``.
    ``logprob``: of the token that was asked about, in nats; it is kept in the scores.
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
    energy_j: float | None = None
    energy_u_k2_j: float | None = None
    energy_reason: str = ""
    logprob: float | None = None
    count_source: str | None = None
    engine_ttft_s: float | None = None


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
class Score:
    """How good the answer to one item was. ``point``: of which of several ways of asking it; empty where there is one.

    ``correct``: 0 to 1, None where no answer came or nobody says what is right; an answer that nothing could be read
    out of is wrong (0) and not ``parsed``. ``best``: 1 where any of several answers was right: best of n, by one who
    knows. ``extracted`` is what was read out of it, ``gold`` what is right. ``value``: of choices the log-likelihood of
    the one taken, of a text that of all its scored tokens, in nats; ``n`` tokens. ``requests``: indices of the requests
    behind it, separated by commas; ``latency_s`` and ``energy_j`` (u at k = 2) are of the window from the first one's
    sending to the last one's end, None for ``energy_reason``, both where one of them failed.
    """

    item: str
    method: str
    correct: float | None
    parsed: bool
    extracted: str = ""
    gold: str = ""
    point: str = ""
    group: str = ""
    value: float | None = None
    n: int | None = None
    requests: str = ""
    detail: str = ""
    best: float | None = None
    latency_s: float | None = None
    energy_j: float | None = None
    energy_u_k2_j: float | None = None
    energy_reason: str = ""


@dataclass(frozen=True)
class Regime:
    """A span of the record in which the device was in one state: idle, load, burst, throttled, recovery, sustained or
    unload (meltbench.measure.regimes); ``cause`` says by what evidence."""

    name: str
    t0_ns: int
    t1_ns: int
    cause: str = ""


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
    regimes: list[Regime] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
