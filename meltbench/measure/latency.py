"""Latency and throughput over the timed requests that ended ok; warm-up is kept in the record and left out here.

Percentiles: linear interpolation between order statistics (numpy's default, Hyndman and Fan type 7). ``u_k2`` stands
at means alone: the half-width of the 95 % t interval over this run's requests. Those are not independent runs, so it
says how well the mean of these requests is known and is no basis for comparing devices.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.errors import InternalError
from meltbench.measure.points import points
from meltbench.records import CACHE_UNKNOWN, MODE_PREFIX, Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

# name, unit: fields of Request of the same name
_FIELDS = (
    ("ttft_s", "s"),
    ("tpot_s", "s"),
    ("prefill_tps", "tok/s"),
    ("decode_tps", "tok/s"),
    ("e2e_s", "s"),
    ("engine_prefill_tps", "tok/s"),
    ("engine_decode_tps", "tok/s"),
)
_BY_COUNT = ("tpot_s", "decode_tps", "itl_s")  # what takes a count of an answer's tokens, and two of them
_SINGLE = "no_reading: one token has no rate"
_UNCOUNTED = "no_token_count: nobody counted the tokens of"
_LINEAR = "linear interpolation"
_GAP = "gap between chunks / tokens of the chunk"
LONG_GAPS = 255
# Student's t, two-sided 95 %, by degrees of freedom 1 to 30; beyond, 1.96 + 2.4 / df is right to 0.2 %.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip


def t95(df: int) -> float:
    """Student's t for a two-sided 95 % interval; ``df`` >= 1."""
    return _T95[df - 1] if df <= len(_T95) else 1.96 + 2.4 / df


def in_mode(measures: Sequence[Measure], mode: str) -> list[Measure]:
    """Measures under the names that they have in this mode. Raises InternalError for a mode that nobody knows."""
    if mode not in MODE_PREFIX:
        raise InternalError(f"no prefix for figures of the mode {mode!r}", hint="add it to meltbench.measure.latency")
    return [replace(measure, name=MODE_PREFIX[mode] + measure.name) for measure in measures]


def _timed(requests: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """The timed requests, and those of them that were answered."""
    timed = [request for request in requests if request.role == "timed"]
    return timed, [request for request in timed if request.status == "ok"]


def count_measures(requests: Sequence[Request]) -> list[Measure]:
    """How many requests were timed and failed, and the tokens they took in and gave out."""
    timed, good = _timed(requests)
    out = [
        Measure("requests_timed", float(len(timed)), "1", "count", n=len(timed)),
        Measure("requests_failed", float(len(timed) - len(good)), "1", "count", n=len(timed)),
    ]
    for name, of in (("n_in", "prompts"), ("n_out", "answers")):
        counts = [count for request in good if (count := getattr(request, name)) is not None]
        whole = good and len(counts) == len(good)
        some = f"{len(good) - len(counts)} of {len(good)}" if counts else "the"
        reason = None if whole else f"{_UNCOUNTED} {some} {of}" if good else _why(0, name)
        out.append(Measure(name, float(sum(counts)) if whole else None, "tok", "sum", n=len(counts), reason=reason))
    return out


# What a turn of a conversation finds in the cache decides these: over first and later turns they mean nothing.
OF_CACHE = ("ttft_s", "prefill_tps", "e2e_s", "engine_prefill_tps")


def latency_measures(requests: Sequence[Request], without: Sequence[str] = ()) -> list[Measure]:
    """The distributions of every latency over the timed requests, but for the ones named."""
    _, good = _timed(requests)
    out: list[Measure] = []
    for name, unit in _FIELDS:
        if name in without:
            continue
        values = [value for request in good if (value := getattr(request, name)) is not None]
        out += _of_requests(name, unit, values, good)
    gaps = [gap for request in good for gap in itl_s(request)]
    return out + distribution("itl_s", "s", gaps, len(good), _GAP, _lacking("itl_s", good)) + _by_depth(good)


def _by_depth(good: Sequence[Request]) -> list[Measure]:
    """Decode rate over the first and the last quarter of an answer, where answers are long enough to show that
    decoding slows down as the context fills."""
    long = [gaps for request in good if len(gaps := itl_s(request)) >= LONG_GAPS]
    out: list[Measure] = []
    for name, of in (("decode_tps_first", "first"), ("decode_tps_last", "last")):
        quarters = [gaps[: len(gaps) // 4] if of == "first" else gaps[-(len(gaps) // 4) :] for gaps in long]
        rates = [len(gaps) / sum(gaps) for gaps in quarters if sum(gaps) > 0]
        how = f"{of} quarter of the gaps between tokens, answers of {LONG_GAPS + 1} tokens and more"
        out += distribution(name, "tok/s", rates, len(good), how) if rates else []
    return out


def point_measures(requests: Sequence[Request], mode: str = "server") -> list[Measure]:
    """The rates of each point of a grid, level of concurrency or kind of turn, under the point's name as phase.

    A point that generates nothing has no decode rate, and one that fills nothing fresh but the token a generation
    starts from has no prefill rate: llama-bench reports neither, and in its own ``mode`` its points have just the
    rates that mean something, of a single token too. Where nobody tells how many tokens that were, a rate that is there
    stands.
    """
    _, good = _timed(requests)
    out: list[Measure] = []
    for item in points(requests):
        mine = [request for request in good if request.point == item]
        fills = any(request.n_in is None or request.n_in - (request.n_cached or 0) > 1 for request in mine)
        generates = any((request.n_out or 0) > 1 for request in mine)
        for name, unit in _FIELDS:
            if mode != "bench" and (("prefill" in name and not fills) or ("decode" in name and not generates)):
                continue
            values = [value for request in mine if (value := getattr(request, name)) is not None]
            told = values or (name == "prefill_tps" and _reused(mine))
            out += [replace(m, phase=item) for m in _of_requests(name, unit, values, mine)] if told else []
        if gaps := [gap for request in mine for gap in itl_s(request)]:
            out += [replace(m, phase=item) for m in distribution("itl_s", "s", gaps, len(mine), _GAP)]
        if mode != "bench" and not fills and not generates and mine:
            out.append(Measure("decode_tps", None, "tok/s", "median", item, n=len(mine), reason=_SINGLE))
        if not mine:
            out.append(Measure("e2e_s", None, "s", "median", item, n=0, reason=_why(0, "")))
    return out


def itl_s(request: Request) -> list[float]:
    """Seconds between consecutive tokens; the gap before a chunk of several tokens is shared among them."""
    times, counts = request.token_t_ns, request.token_n
    out: list[float] = []
    for before, now, tokens in zip(times, times[1:], counts[1:], strict=False):
        if tokens > 0:
            out += [(now - before) / 1e9 / tokens] * tokens
    return out


def load_measure(load_s: float | None, label: str | None, unloaded: str = "") -> Measure:
    """Engine start to ready; ``label`` says what the page cache held of the model: cold, warm or mixed. ``unloaded``:
    why that is no load of the model, where it is none."""
    if load_s is None or unloaded:
        return Measure("load_s", None, "s", reason=unloaded or "no_reading: no engine became ready")
    return Measure("load_s", load_s, "s", n=1, method=f"{label} page cache" if label else "page cache state unknown")


def _of_requests(name: str, unit: str, values: Sequence[float], good: Sequence[Request]) -> list[Measure]:
    """The distribution of what requests gave; of a prefill that may have been one of the cache, why there is none."""
    if not values and name == "prefill_tps" and _reused(good):
        why = f"{CACHE_UNKNOWN}: prompts began as earlier ones, and the server does not say what it kept of these"
        return [Measure(name, None, unit, "median", n=0, reason=why)]
    return distribution(name, unit, values, len(good), _method(name, good), _lacking(name, good))


def _lacking(name: str, good: Sequence[Request]) -> str:
    """Why none of these requests can have what is computed from its count of tokens; empty where one could."""
    if name == "prefill_tps":
        return f"{_UNCOUNTED} the prompts" if good and all(one.n_in is None for one in good) else ""
    if name not in _BY_COUNT or not good or any((one.n_out or 0) > 1 for one in good):
        return ""
    return f"{_UNCOUNTED} the answers" if any(one.n_out is None for one in good) else _SINGLE


def _reused(requests: Sequence[Request]) -> int:
    """How many have no prefill rate because nobody knows what of their prompts was in the cache."""
    return sum(request.prefill_source == CACHE_UNKNOWN for request in requests)


def _method(name: str, good: Sequence[Request]) -> str:
    if name.startswith("engine_"):
        return "as the engine reports it"
    if name == "prefill_tps":
        sources = {request.prefill_source or "unknown" for request in good} - {CACHE_UNKNOWN}
        left = f", {n} of {len(good)} left out: {CACHE_UNKNOWN}" if (n := _reused(good)) else ""
        return "/".join(sorted(sources)) + left
    # An engine whose tokens nobody saw has only its own times.
    return "observed on the target" if any(r.t_first_ns is None or r.token_t_ns for r in good) else "samples_ns"


def _why(good: int, what: str) -> str:
    return "no_timed_request: none succeeded" if good == 0 else f"no_reading: no timed request has {what}"


def distribution(name: str, unit: str, values: Sequence[float], good: int, method: str, why: str = "") -> list[Measure]:
    """Median, p90, p99, mean, min and max of what ``good`` requests gave; a missing median where there is no value,
    for the reason ``why`` where something is known of it."""
    n = len(values)
    if n == 0:
        return [Measure(name, None, unit, "median", n=0, reason=why or _why(good, name))]
    x = np.asarray(values, dtype=np.float64)
    how = f"{method}; {_LINEAR}"
    u = t95(n - 1) * float(x.std(ddof=1)) / math.sqrt(n) if n >= 2 and name != "itl_s" else None
    middle, p90, p99 = np.percentile(x, (50, 90, 99)).tolist()
    return [
        Measure(name, middle, unit, "median", n=n, method=how),
        Measure(name, p90, unit, "p90", n=n, method=how),
        Measure(name, p99, unit, "p99", n=n, method=how),
        Measure(name, float(x.mean()), unit, "mean", n=n, u_k2=u, method=f"{method}; 95 % t interval over requests"),
        Measure(name, float(x.min()), unit, "min", n=n, method=method),
        Measure(name, float(x.max()), unit, "max", n=n, method=method),
    ]
