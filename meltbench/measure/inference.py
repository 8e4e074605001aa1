"""What an inference of a plain model takes: its time, the first one apart, and its share of the run's energy."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.measure.latency import count_measures, distribution
from meltbench.measure.ratios import net_ratios, run_ratios
from meltbench.measure.throughput import throughput
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request

COSTS = (("j_per_inference", "J/inference"), ("net_j_per_inference", "J/inference"))
_METHOD = "the script's stamps before and after"
_COUNTED = ("requests_timed", "requests_failed")


def inference_measures(requests: Sequence[Request]) -> list[Measure]:
    """The distribution over the timed inferences, how many there were in a second, and the first one after the load,
    which finds caches and memory as no later one does and is in no distribution."""
    good = [one for one in requests if one.role == "timed" and one.status == "ok"]
    times = [one.e2e_s for one in good if one.e2e_s is not None]
    per_s = next(one for one in throughput("run", requests) if one.name == "requests_per_s")
    return [
        *(one for one in count_measures(requests) if one.name in _COUNTED),
        _first(requests),
        *distribution("inference_s", "s", times, len(good), _METHOD),
        replace(per_s, name="inferences_per_s"),
    ]


def _first(requests: Sequence[Request]) -> Measure:
    first = requests[0] if requests else None
    if first is None or first.e2e_s is None:
        return Measure("first_inference_s", None, "s", reason="no_reading: no first inference was seen")
    return Measure("first_inference_s", first.e2e_s, "s", n=1, method=f"{_METHOD}; right after the load")


def inference_costs(gross: Measure, net: Measure, requests: Sequence[Request]) -> list[Measure]:
    """Energy by inference: that of the run over its timed inferences, gross and net."""
    found = [*run_ratios(gross, requests), *net_ratios(net, requests, "")]
    by_name = {one.name: one for one in found}
    return [
        replace(by_name[name.replace("inference", "request")], name=name, unit=unit, method=_of(name))
        for name, unit in COSTS
    ]


def _of(name: str) -> str:
    return ("net energy" if name.startswith("net_") else "energy") + " of the run over its timed inferences"
