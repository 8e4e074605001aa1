"""Runs in the manner of mlperf_log_summary.txt, for eyes that know it. It is no result of MLPerf and says so.

MLPerf's results come of loadgen, its scenarios and its rules; here nothing of that ran. The sections are those of
loadgen's summary; percentiles are ours (linear interpolation), over the timed requests that ended ok, and in the place
of VALID stands meltbench's validity.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.records import bare
from meltbench.store.manifest import harmless

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request, RunRecord

_LINE = "=" * 48
_PERCENTILES = (50.0, 90.0, 95.0, 97.0, 99.0, 99.9)
_TITLE = "NOT AN MLPERF RESULT (meltbench, in its manner)"
_WIDTH = 44


def text(records: Sequence[RunRecord]) -> str:
    """A summary a run and point that have requests which ended ok; empty where none has."""
    return "\n".join(_summary(one, point, good) for one in records for point, good in _good(one).items())


def _good(record: RunRecord) -> dict[str, list[Request]]:
    """By point: requests of two are not alike, and no percentile is of both."""
    found: dict[str, list[Request]] = {}
    for one in record.requests:
        if one.role == "timed" and one.status == "ok" and one.e2e_s is not None:
            found.setdefault(one.point, []).append(one)
    return found


def _summary(record: RunRecord, point: str, good: Sequence[Request]) -> str:
    about = record.manifest
    device, model, engine, work = (about.get(key) or {} for key in ("device", "model", "runner", "workload"))
    origin = (about.get("imported") or {}).get("from", "meltbench")
    reasons = ", ".join(one.code for one in record.reasons) or "nothing against it"
    mode = engine.get("mode")
    lines = [
        *_head(_TITLE),
        f"SUT name : {device.get('name')}, {engine.get('engine')} {engine.get('version')}, {model.get('name')}",
        f"Scenario : {_scenario(good)}",
        f"Mode     : {origin} {mode}; workload {work.get('name')}{f', {point}' if point else ''}, run {record.run_id}",
        *_latency("90.0th percentile latency (ns)", [_percentile([one.e2e_s for one in good], 90.0)]),
        *_rates(record, point or "run"),
        f"Validity by meltbench : {about.get('validity')} ({reasons})",
        "",
        *_head("Additional Stats"),
        *_distribution("latency (ns)", [one.e2e_s for one in good]),
        *_distribution("first token latency (ns)", [one.ttft_s for one in good if one.ttft_s is not None]),
        *_distribution("time to output token (ns)", [one.tpot_s for one in good if one.tpot_s is not None]),
        "",
        *_head("Test Parameters Used"),
        *(f"{key} : {value}" for key, value in sorted(_knobs(about).items())),
        f"timed requests that ended ok : {len(good)}",
    ]
    # A line of a name of somebody else's would pass for one of the summary's.
    return "".join(f"{' '.join(harmless(line).splitlines())}\n" for line in lines)


def _head(title: str) -> list[str]:
    return [_LINE, title, _LINE]


def _knobs(about: dict[str, Any]) -> dict[str, Any]:
    return {str(key): value for key, value in (about.get("knobs") or {}).items()}


def _scenario(good: Sequence[Request]) -> str:
    """Whether requests were under way side by side: what comes nearest to it in MLPerf."""
    ordered = sorted(good, key=lambda one: one.t_send_ns)
    beside = any(b.t_send_ns < a.t_end_ns for a, b in pairwise(ordered))
    return "several requests at once (none of MLPerf's)" if beside else "one request after the other (as SingleStream)"


def _rates(record: RunRecord, phase: str) -> list[str]:
    """What the run or the point has of a rate and of energy, by our measures."""
    words = {
        "requests_per_s": "Samples per second",
        "output_tps": "Tokens per second",
        "j_per_request": "Joules per sample",
    }
    found = {bare(one.name): one for one in record.measures if one.phase == phase}
    return [
        f"{title}: {one.value:.6g}"
        for name, title in words.items()
        if (one := found.get(name)) is not None and one.value is not None
    ]


def _percentile(values: Sequence[float | None], percent: float) -> float:
    return float(np.percentile(np.array([one for one in values if one is not None]), percent))


def _latency(title: str, seconds: Sequence[float]) -> list[str]:
    return [f"{title.ljust(_WIDTH)}: {round(one * 1e9)}" for one in seconds]


def _distribution(title: str, values: Sequence[float | None]) -> list[str]:
    """Least, most, mean and percentiles in ns; nothing where there is no value."""
    known = [one for one in values if one is not None]
    if not known:
        return []
    out = _latency(f"Min {title}", [min(known)]) + _latency(f"Max {title}", [max(known)])
    out += _latency(f"Mean {title}", [sum(known) / len(known)])
    for percent in _PERCENTILES:
        out += _latency(f"{percent:.2f} percentile {title}", [_percentile(known, percent)])
    return out
