"""What a front can be drawn over: columns of the view ``results`` with the way that is better, and how they scatter."""

from __future__ import annotations

import re
from dataclasses import dataclass

from meltbench.errors import UnknownName, UserError


@dataclass(frozen=True)
class Axis:
    """One column. ``better``: 1 where more is better, -1 where less is.

    ``log``: its scatter is a share of it. ``gain``: the power of the meter's gain in it, 1 for an energy, -1 for what
    is divided by one. ``by_item``: it is of items alone, which were the same for all arms. ``within``: every run of an
    arm is off alike by what its own u tells, so that repeating does not lessen it. ``exact``: it has no scatter.
    """

    name: str
    better: int
    unit: str
    log: bool = True
    gain: int = 0
    by_item: bool = False
    within: bool = False
    exact: bool = False


AXES = {
    axis.name: axis
    for axis in (
        Axis("accuracy", 1, "1", log=False, by_item=True),
        Axis("perplexity", -1, "1", by_item=True),
        Axis("ttft_s", -1, "s"),
        Axis("tpot_s", -1, "s"),
        Axis("e2e_s", -1, "s"),
        Axis("inference_s", -1, "s"),
        Axis("question_latency_s", -1, "s"),
        Axis("load_s", -1, "s"),
        Axis("wall_s", -1, "s"),
        Axis("prefill_tps", 1, "tok/s"),
        Axis("decode_tps", 1, "tok/s"),
        Axis("output_tps", 1, "tok/s"),
        Axis("energy_j", -1, "J", gain=1),
        Axis("net_energy_j", -1, "J", gain=1),
        Axis("j_per_output_token", -1, "J", gain=1),
        Axis("j_per_request", -1, "J", gain=1),
        Axis("j_per_question", -1, "J", gain=1),
        Axis("mean_power_w", -1, "W", gain=1),
        Axis("ipw_per_w", 1, "1/W", gain=-1, within=True),
        Axis("ipj_per_j", 1, "1/J", gain=-1, within=True),
        Axis("peak_rss_bytes", -1, "B"),
        Axis("peak_pss_bytes", -1, "B"),
        Axis("max_temp_c", -1, "degC", log=False),
        Axis("throttle_retention", 1, "1"),
        Axis("model_bytes", -1, "B", exact=True),
        Axis("n_params", -1, "1", exact=True),
        Axis("bits_per_weight", -1, "1", exact=True),
    )
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
