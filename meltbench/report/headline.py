"""The few numbers that a run is known by, and which of a measure's rows stands for it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.records import SPANS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from meltbench.records import Measure


@dataclass(frozen=True)
class Headline:
    """A measure by name and stat, the heading of its column, and its unit."""

    name: str
    stat: str
    heading: str
    unit: str


_RSS = Headline("peak_rss_bytes", "max", "peak RSS", "B")
RATES = (
    Headline("ttft_s", "median", "TTFT", "s"),
    Headline("prefill_tps", "median", "prefill", "tok/s"),
    Headline("decode_tps", "median", "decode", "tok/s"),
    Headline("j_per_output_token", "ratio_of_sums", "energy/token", "J"),
)
POINTED = (*RATES, Headline("output_tps", "value", "throughput", "tok/s"))
SERVED = (*RATES, _RSS)
INFERRED = (
    Headline("first_inference_s", "value", "first", "s"),
    Headline("inference_s", "median", "inference", "s"),
    Headline("inferences_per_s", "value", "rate", "1/s"),
    Headline("j_per_inference", "ratio_of_sums", "energy/inference", "J"),
    _RSS,
)
METERED = (
    Headline("wall_s", "value", "wall", "s"),
    Headline("cpu_s", "value", "cpu", "s"),
    Headline("energy_j", "value", "energy", "J"),
    Headline("mean_power_w", "value", "power", "W"),
    _RSS,
)

# Of several rows of a measure the first of these stands for it; a percentile never does.
_STATS = ("value", "median", "ratio_of_sums", "max", "min", "sum", "count", "mean", "slope")


def natural(name: str) -> list[str | int]:
    """A key that sorts c2 before c16: text and numbers by turns."""
    return [int(part) if at % 2 else part for at, part in enumerate(re.split(r"([0-9]{1,18})", name))]


def pick(measures: Iterable[Measure], name: str, stat: str | None = None, phase: str = "run") -> Measure | None:
    """The row that stands for a measure in a table: of that stat, else of the first that there is; None without any."""
    mine = [m for m in measures if m.name == name and m.phase == phase]
    for wanted in (stat,) if stat else _STATS:
        for measure in mine:
            if measure.stat == wanted:
                return measure
    return None


def of_points(measures: Iterable[Measure]) -> dict[str, list[Measure]]:
    """The measures of each point, in order of appearance."""
    found: dict[str, list[Measure]] = {}
    for measure in measures:
        if measure.phase not in SPANS:
            found.setdefault(measure.phase, []).append(measure)
    return found
