"""MELT's numbers by MELT's definitions, from the code of its reports: its errors are its numbers too.

blade: src/tools/report-measurements-llms.py, libs/powerlib.py, experiments/notebooks/parse_mobile_runs.ipynb;
jetsonlab: src/report_performance.py. Names are those of its tables with the unit in them.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.imports.melt.conversation import Conversation, Prompt
    from meltbench.imports.melt.power import Power

LOW, HIGH = 0.05, 0.95  # what its notebook of phones keeps of the prompts of an iteration, by one of their columns
Costs = dict[str, tuple[float, float]]  # mWh and mAh by rail


@dataclass(frozen=True)
class Load:
    """A row of results_model_load_performance.csv: s, and by rail mWh and mAh."""

    duration_s: float
    costs: Costs


@dataclass(frozen=True)
class Row:
    """A row of results_model_inference_measurements.csv.

    ``costs``: energy_pt (mWh) and discharge_pt (mAh) by rail: of the prompt's whole window, over ``output_tokens``.
    ``reason``: why MELT's report has no such row, or not all of it; empty where it has.
    """

    duration_s: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    prefill_tps: float | None = None
    tps: float | None = None
    costs: Costs | None = None
    reason: str = ""


@dataclass(frozen=True)
class Stages:
    """Rows of results_detailed_measurements.csv of one kind: how many, and their sums."""

    kind: str
    n: int
    duration_s: float
    costs: Costs


def load(conversation: Conversation, power: Power | None) -> Load | None:
    """The loading of the model; None where no table has it."""
    if conversation.load_window_s is None:
        return None
    start, duration = conversation.load_window_s
    return Load(duration, _costs(power, start, start + duration))


def row(conversation: Conversation, prompt: Prompt, power: Power | None) -> Row:
    """One prompt."""
    if prompt.window_s is None:
        return Row(reason="no table of prompts: MELT's report needs measurements_iter*_conv*.csv or its .json")
    start, duration = prompt.window_s
    taken = prompt.taken
    if taken is None:
        return Row(duration, reason="the engine's words on this prompt are not there: MELT's report ends, or skips it")
    prefill_tps, tps = taken.prefill_tps, taken.tps
    if not conversation.by_host:  # of apps: what has no rate has the whole prompt's
        prefill_tps = prefill_tps or _over(taken.n_in, duration)
        tps = tps or _over(taken.n_steps, duration)
    elif conversation.engine == "MLC":
        prefill_tps = None  # its report of a Jetson has no such column
    costs, reason = None, ""
    if power is not None:
        emptied = power.emptied and conversation.engine == "MLC"
        whole = _costs(power, start, start + duration, emptied=emptied)
        if taken.n_steps:
            costs = {rail: (mwh / taken.n_steps, mah / taken.n_steps) for rail, (mwh, mah) in whole.items()}
        else:
            reason = "no output tokens to divide by"
    return Row(duration, taken.n_in, taken.n_steps, prefill_tps, tps, costs, reason)


def stages(conversation: Conversation, power: Power | None) -> list[Stages]:
    """What the program marked, kinds of marks together: the number in a name is left out."""
    events = conversation.events
    n: Counter[str] = Counter()
    seconds: dict[str, float] = {}
    costs: dict[str, Costs] = {}
    for name in () if events is None else events.stages:
        span = events.span(name) if events is not None else None
        if span is None:
            continue
        kind = re.sub(r"\.\d+", ".*", name)
        n[kind] += 1
        seconds[kind] = seconds.get(kind, 0.0) + (span[1] - span[0]) / 1e9
        found = _costs(power, span[0] / 1e9, span[1] / 1e9, emptied=power is not None and power.emptied)
        before = costs.setdefault(kind, {})
        for rail, (mwh, mah) in found.items():
            told = before.get(rail, (0.0, 0.0))
            before[rail] = (told[0] + mwh, told[1] + mah)
    return [Stages(kind, count, seconds[kind], costs[kind]) for kind, count in n.items()]


def _costs(power: Power | None, start_s: float, end_s: float, *, emptied: bool = False) -> Costs:
    rails = {} if power is None else power.rails
    return {name: (0.0, 0.0) if emptied else rail.cost(start_s, end_s) for name, rail in rails.items()}


def _over(n: int | None, seconds: float) -> float | None:
    return n / seconds if n is not None and seconds > 0 else None


@dataclass(frozen=True)
class Overall:
    """What its notebook of phones shows of a study. None, with ``reason``, where nothing of it is left.

    ``tps`` and ``prefill_tps``: means over the prompts whose tps lies strictly between the 5th and the 95th percentile
    of their iteration, ``n`` of them. ``energy_pt_mwh`` and ``discharge_pt_mah``: of the prompts between those
    percentiles of ``discharge_per_token``, which is discharge_pt over the output tokens once more, the *sum* of an
    iteration; then the mean of iterations.
    """

    tps: float | None = None
    prefill_tps: float | None = None
    n: int = 0
    energy_pt_mwh: float | None = None
    discharge_pt_mah: float | None = None
    discharge_per_token_mah: float | None = None
    n_energy: int = 0
    reason: str = ""


def overall(rows: Mapping[int, Sequence[Row]], rail: str = "main") -> Overall:
    """The study of these rows by iteration, with the energy of one rail."""
    # What has an empty or endless cell is dropped.
    whole = {
        at: [one for one in found if one.tps is not None and one.prefill_tps is not None] for at, found in rows.items()
    }
    kept = [one for found in whole.values() for one in _between(found, [one.tps or 0.0 for one in found])]
    if not kept:
        few = max((len(found) for found in whole.values()), default=0)
        why = f"nothing lies strictly between the 5th and the 95th percentile of the {few} prompts of an iteration"
        return Overall(reason=why if few else "no prompt has a rate")
    sums = [done for found in whole.values() if (done := _summed(found, rail)) is not None]
    energy, discharge, by_token = (_mean([one[at] for one in sums]) for at in range(3))
    return Overall(
        _mean([one.tps for one in kept]),
        _mean([one.prefill_tps for one in kept]),
        len(kept),
        energy,
        discharge,
        by_token,
        sum(len(_costly(found, rail)) for found in whole.values()),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _costly(rows: Sequence[Row], rail: str) -> list[tuple[float, float, float]]:
    """energy_pt, discharge_pt and discharge_per_token of the prompts that the notebook keeps."""
    told = [
        (*one.costs[rail], one.costs[rail][1] / one.output_tokens)
        for one in rows
        if one.costs is not None and rail in one.costs and one.output_tokens
    ]
    return _between(told, [one[2] for one in told])


def _summed(rows: Sequence[Row], rail: str) -> tuple[float, float, float] | None:
    kept = _costly(rows, rail)
    if not kept:
        return None
    a, b, c = (math.fsum(one[at] for one in kept) for at in range(3))
    return a, b, c


def _between(rows: Sequence, by: Sequence[float]) -> list:  # type: ignore[type-arg]
    """The rows strictly between two percentiles of a column: at least the smallest and the largest are never kept."""
    if not rows:
        return []
    low, high = np.quantile(np.array(by, dtype=np.float64), [1 - HIGH, HIGH])
    return [one for one, value in zip(rows, by, strict=True) if low < value < high]
