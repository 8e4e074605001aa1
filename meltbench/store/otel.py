"""Runs as OpenTelemetry metrics: OTLP in JSON, a line a run, as the collector's file exporter writes and reads it.

Names are those of the semantic conventions 1.36.0, where both ``gen_ai`` and ``hw`` are in development. Requests are
histograms over the timed ones that ended ok, with the buckets that the conventions advise. Where a name's definition is
another than ours, no name of theirs is taken: llama-bench sends no requests, so it has no ``gen_ai`` metric. Every
number that runs are compared by is there as ``meltbench.NAME`` too, with its mode, point and stat.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from datetime import datetime
from typing import TYPE_CHECKING, Any

import meltbench
from meltbench.records import bare
from meltbench.store.manifest import harmless
from meltbench.store.views import RESULTS_OF, TOTAL_SOURCE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.records import Measure, Request, RunRecord

SEMCONV = "1.36.0"
SCHEMA_URL = f"https://opentelemetry.io/schemas/{SEMCONV}"
_DELTA = 1
_DURATION = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
_FIRST = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_EACH = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
_TOKENS = tuple(4**n for n in range(14))
# Ours by field of a request, theirs by name: unit, buckets.
_TIMES = (
    ("e2e_s", "gen_ai.client.operation.duration", _DURATION),
    ("ttft_s", "gen_ai.server.time_to_first_token", _FIRST),
    ("tpot_s", "gen_ai.server.time_per_output_token", _EACH),
)
_REQUESTED = ("server", "in-process")


def text(records: Sequence[RunRecord]) -> str:
    """A line of JSON a run, each an ExportMetricsServiceRequest."""
    return "".join(f"{json.dumps(_request(one), allow_nan=False)}\n" for one in records)


def _request(record: RunRecord) -> dict[str, Any]:
    scope = {
        "scope": {"name": "meltbench", "version": meltbench.__version__},
        "metrics": _metrics(record),
        "schemaUrl": SCHEMA_URL,
    }
    resource = {"attributes": _attributes(_resource(record.manifest))}
    return {"resourceMetrics": [{"resource": resource, "scopeMetrics": [scope], "schemaUrl": SCHEMA_URL}]}


def _resource(about: Mapping[str, Any]) -> dict[str, Any]:
    seen, device, engine = (about.get(key) or {} for key in ("conditions", "device", "runner"))
    return {
        "service.name": "meltbench",
        "service.version": meltbench.__version__,
        "host.name": device.get("name"),
        "host.id": device.get("identity"),
        "host.arch": seen.get("arch"),
        "host.cpu.model.name": seen.get("cpu"),
        "os.description": seen.get("os"),
        "meltbench.run_id": about.get("run_id"),
        "meltbench.origin": (about.get("imported") or {}).get("from", "meltbench"),
        "meltbench.validity": about.get("validity"),
        "meltbench.workload": (about.get("workload") or {}).get("name"),
        "meltbench.mode": engine.get("mode"),
        "meltbench.engine": engine.get("engine"),
        "meltbench.engine_version": engine.get("version"),
    }


def _metrics(record: RunRecord) -> list[dict[str, Any]]:
    about = record.manifest
    engine, model = (about.get(key) or {} for key in ("runner", "model"))
    kind = (about.get("workload") or {}).get("kind")
    span = {"startTimeUnixNano": _ns(about.get("started_at")), "timeUnixNano": _ns(about.get("ended_at"))}
    shared = {
        "gen_ai.operation.name": "chat" if kind == "chat" else "text_completion",
        "gen_ai.system": engine.get("engine"),
        "gen_ai.request.model": model.get("name"),
    }
    out: list[dict[str, Any]] = []
    if engine.get("mode") in _REQUESTED:
        good = [one for one in record.requests if one.role == "timed" and one.status == "ok"]
        for field, name, bounds in _TIMES:
            out += _histogram(name, "s", {"": _values(good, field)}, bounds, shared, span)
        counts = {"input": _values(good, "n_in"), "output": _values(good, "n_out")}
        out += _histogram("gen_ai.client.token.usage", "{token}", counts, _TOKENS, shared, span)
    return out + _power(record, span) + _ours(record, span)


def _values(requests: Sequence[Request], field: str) -> list[float]:
    return [float(value) for one in requests if (value := getattr(one, field)) is not None]


def _histogram(
    name: str,
    unit: str,
    by_type: Mapping[str, Sequence[float]],
    bounds: Sequence[float],
    shared: Mapping[str, Any],
    span: Mapping[str, str],
) -> list[dict[str, Any]]:
    """A histogram, a point a type of token; none where nothing was measured. A bucket has its upper bound in it."""
    points = []
    for kind, values in by_type.items():
        if not values:
            continue
        buckets = [0] * (len(bounds) + 1)
        for value in values:
            buckets[bisect_left(bounds, value)] += 1
        point = {
            "attributes": _attributes({**shared, **({"gen_ai.token.type": kind} if kind else {})}),
            **span,
            "count": str(len(values)),
            "sum": sum(values),
            "min": min(values),
            "max": max(values),
            "bucketCounts": [str(one) for one in buckets],
            "explicitBounds": list(bounds),
        }
        points.append(point)
    if not points:
        return []
    return [{"name": name, "unit": unit, "histogram": {"aggregationTemporality": _DELTA, "dataPoints": points}}]


def _power(record: RunRecord, span: Mapping[str, str]) -> list[dict[str, Any]]:
    """Energy and mean power of the designated total alone: parts of it would be added to it by who sums up.

    The conventions want ``hw.host`` for an entire host, which only a meter at the wall sees.
    """
    out = []
    for one in record.measures:
        if (one.phase, one.source) != ("run", TOTAL_SOURCE) or one.value is None:
            continue
        if one.name not in ("energy_j", "mean_power_w"):
            continue
        host = "hw.host" if one.scope == "wall" else "hw"
        about = {
            "hw.id": "total",
            "hw.type": one.scope,
            "meltbench.energy_class": one.klass,
            "meltbench.u_k2": one.u_k2,
        }
        point = {"attributes": _attributes(about), **span, "asDouble": one.value}
        if one.name == "energy_j":
            counted = {"aggregationTemporality": _DELTA, "isMonotonic": True, "dataPoints": [point]}
            out.append({"name": f"{host}.energy", "unit": "J", "sum": counted})
        else:
            words = "Mean over the run."
            out.append({"name": f"{host}.power", "unit": "W", "description": words, "gauge": {"dataPoints": [point]}})
    return out


def _ours(record: RunRecord, span: Mapping[str, str]) -> list[dict[str, Any]]:
    """Every number that runs are compared by, as a gauge; one that is missing is left out, with its reason in none."""
    made: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in record.measures:
        name = bare(one.name)
        if one.value is not None and RESULTS_OF.get(name) == one.stat and not _is_part(one):
            about = {"point": "" if one.phase == "run" else one.phase, "stat": one.stat, "u_k2": one.u_k2}
            named = {f"meltbench.{key}": value for key, value in about.items()}
            point = {"attributes": _attributes(named), **span, "asDouble": one.value}
            made.setdefault((name, one.unit), []).append(point)
    return [
        {"name": f"meltbench.{name}", "unit": unit, "gauge": {"dataPoints": points}}
        for (name, unit), points in made.items()
    ]


def _is_part(one: Measure) -> bool:
    """Of a rail or a zone, and not of the whole."""
    return one.source not in ("", TOTAL_SOURCE)


def _attributes(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Those that are known."""
    out = []
    for key, value in values.items():
        if isinstance(value, str) and value:
            out.append({"key": key, "value": {"stringValue": harmless(value)}})
        elif isinstance(value, float):
            out.append({"key": key, "value": {"doubleValue": value}})
    return out


def _ns(text: object) -> str:
    """A time as ns since 1970, in digits; 0, which says unknown, where there is none."""
    try:
        return str(round(datetime.fromisoformat(str(text)).timestamp() * 1e3) * 10**6) if text else "0"
    except (ValueError, OverflowError):
        return "0"
