"""The figures of the view ``results`` as people are told of them: heading, unit, and which way is better.

The one place that says so: tables, pages, comparisons and fronts (``axes``) all ask here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from meltbench.errors import UnknownName


@dataclass(frozen=True)
class Metric:
    """``better``: higher, lower, or neither for what only describes."""

    name: str
    heading: str
    unit: str
    better: Literal["higher", "lower", "neither"]


_ALL = (
    Metric("decode_tps", "decode rate", "tok/s", "higher"),
    Metric("prefill_tps", "prefill rate", "tok/s", "higher"),
    Metric("output_tps", "throughput", "tok/s", "higher"),
    Metric("ttft_s", "TTFT", "s", "lower"),
    Metric("tpot_s", "time per output token", "s", "lower"),
    Metric("e2e_s", "latency of a request", "s", "lower"),
    Metric("inference_s", "inference", "s", "lower"),
    Metric("question_latency_s", "latency of a question", "s", "lower"),
    Metric("load_s", "load time", "s", "lower"),
    Metric("wall_s", "time of the run", "s", "lower"),
    Metric("j_per_output_token", "energy per token", "J", "lower"),
    Metric("j_per_request", "energy per request", "J", "lower"),
    Metric("j_per_question", "energy per question", "J", "lower"),
    Metric("energy_j", "energy of the run", "J", "lower"),
    Metric("net_energy_j", "net energy of the run", "J", "lower"),
    Metric("mean_power_w", "mean power", "W", "lower"),
    Metric("peak_rss_bytes", "peak RSS", "B", "lower"),
    Metric("peak_pss_bytes", "peak PSS", "B", "lower"),
    Metric("max_temp_c", "highest temperature", "degC", "lower"),
    Metric("start_temp_c", "temperature at the start", "degC", "neither"),
    Metric("throttle_retention", "throttle retention", "1", "higher"),
    Metric("accuracy", "accuracy", "1", "higher"),
    Metric("perplexity", "perplexity", "1", "lower"),
    Metric("ipw_per_w", "IPW", "1/W", "higher"),
    Metric("ipj_per_j", "IPJ", "1/J", "higher"),
    Metric("model_bytes", "size of the model", "B", "lower"),
    Metric("n_params", "parameters", "1", "lower"),
    Metric("bits_per_weight", "bits per weight", "1", "lower"),
)
METRICS = {metric.name: metric for metric in _ALL}


_ENDS = (
    *(("_per_w", "1/W"), ("_per_j", "1/J"), ("_s", "s"), ("_j", "J"), ("_w", "W")),
    *(("_bytes", "B"), ("_tps", "tok/s"), ("_hz", "Hz"), ("_temp_c", "degC")),
)


def metric(name: str) -> Metric:
    """The metric of that name. Raises UnknownName, which knows the nearest."""
    if name not in METRICS:
        raise UnknownName("metric", name, METRICS)
    return METRICS[name]


def unit_of(column: str) -> str:
    """The unit that a column's name says, or is known by; empty where it says none."""
    if column in METRICS:
        return METRICS[column].unit
    return next((unit for end, unit in _ENDS if column.endswith(end)), "")
