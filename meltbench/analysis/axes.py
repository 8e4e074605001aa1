"""What a front can be drawn over: columns of the view ``results`` with the way that is better, and how they scatter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.analysis.metrics import METRICS
from meltbench.errors import UnknownName, UserError

if TYPE_CHECKING:
    from meltbench.analysis.metrics import Metric


@dataclass(frozen=True)
class Axis:
    """One column. What it is called, its unit and which way is better is the metric's.

    ``log``: its scatter is a share of it. ``gain``: the power of the meter's gain in it, 1 for an energy, -1 for what
    is divided by one. ``by_item``: it is of items alone, which were the same for all arms. ``within``: every run of an
    arm is off alike by what its own u tells, so that repeating does not lessen it. ``exact``: it has no scatter.
    """

    metric: Metric
    log: bool = True
    gain: int = 0
    by_item: bool = False
    within: bool = False
    exact: bool = False

    @property
    def name(self) -> str:
        """The column of ``results``."""
        return self.metric.name

    @property
    def unit(self) -> str:
        """The unit of its numbers; 1 for a share or a count."""
        return self.metric.unit

    @property
    def better(self) -> int:
        """1 where more is better, -1 where less is."""
        return 1 if self.metric.better == "higher" else -1


_AS_IT_IS = ("accuracy", "max_temp_c")
_BY_ITEM = ("accuracy", "perplexity")
_ENERGIES = ("energy_j", "net_energy_j", "j_per_output_token", "j_per_request", "j_per_question", "mean_power_w")
_BY_ENERGY = ("ipw_per_w", "ipj_per_j")
_OF_THE_MODEL = ("model_bytes", "n_params", "bits_per_weight")
# What only describes a run, such as the temperature it started at, is no axis.
AXES = {
    metric.name: Axis(
        metric,
        log=metric.name not in _AS_IT_IS,
        gain=(metric.name in _ENERGIES) - (metric.name in _BY_ENERGY),
        by_item=metric.name in _BY_ITEM,
        within=metric.name in _BY_ENERGY,
        exact=metric.name in _OF_THE_MODEL,
    )
    for metric in METRICS.values()
    if metric.better != "neither"
}
SHORT = {
    "ttft": "ttft_s",
    "tps": "decode_tps",
    "power_w": "mean_power_w",
    "temp_c": "max_temp_c",
    "j_per_token": "j_per_output_token",
    "j_per_query": "j_per_request",
    "ipw": "ipw_per_w",
    "ipj": "ipj_per_j",
    "memory_bytes": "peak_rss_bytes",
    "size_bytes": "model_bytes",
}
_MODES = ("server", "bench", "in-process")
_REF = re.compile(r"(?P<name>[^@\s]+)(?:@(?P<workload>[^/\s]+)(?:/(?P<mode>[^/\s]+)(?:/(?P<point>\S*))?)?)?")


@dataclass(frozen=True)
class Ref:
    """An axis as it is asked for: ``accuracy``, ``accuracy@hellaswag``, ``decode_tps@grid/bench/tg128``.

    What is not said (None) is taken where most arms have it.
    """

    axis: Axis
    workload: str | None = None
    mode: str | None = None
    point: str | None = None

    def __str__(self) -> str:
        where = "/".join(part for part in (self.workload, self.mode, self.point) if part)
        return f"{self.axis.name}@{where}" if where else self.axis.name

    @classmethod
    def parse(cls, text: str) -> Ref:
        """Raises UnknownName for an unknown column or mode, UserError for what is no name at all."""
        found = _REF.fullmatch(text.strip())
        if found is None:
            hint = "write NAME, NAME@WORKLOAD, NAME@WORKLOAD/MODE or NAME@WORKLOAD/MODE/POINT"
            raise UserError(f"{text[:80]!r} names no axis", hint=hint)
        name = SHORT.get(found["name"], found["name"])
        if name not in AXES:
            raise UnknownName("axis", name, [*AXES, *SHORT])
        if found["mode"] is not None and found["mode"] not in _MODES:
            raise UnknownName("mode", found["mode"], _MODES)
        return cls(AXES[name], found["workload"], found["mode"], found["point"])
