"""Runs as rows of codecarbon's emissions.csv, for who reads such files.

The columns are those of codecarbon 3.3.0 (output_methods/emissions_data.py). ``energy_consumed`` is our designated
total, which is no sum of the three parts; a part is there where a counter of its own was read. Emissions, place and
water are empty: a run knows no carbon intensity.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from meltbench.readings.rapl import PACKAGE

if TYPE_CHECKING:
    from meltbench.records import Measure, RunRecord

COLUMNS = (
    *("timestamp", "project_name", "run_id", "experiment_id", "duration", "emissions", "emissions_rate", "cpu_power"),
    *("gpu_power", "ram_power", "cpu_energy", "gpu_energy", "ram_energy", "energy_consumed", "water_consumed"),
    *("country_name", "country_iso_code", "region", "cloud_provider", "cloud_region", "os", "python_version"),
    *("codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model", "longitude", "latitude"),
    *("ram_total_size", "tracking_mode", "cpu_utilization_percent", "gpu_utilization_percent"),
    *("ram_utilization_percent", "ram_used_gb", "on_cloud", "pue", "wue"),
)
_J_PER_KWH = 3.6e6
_GPU = re.compile(r"(?:nvml|amdsmi)\.gpu\d+\.")
_PARTS = ("cpu", "gpu", "ram")


def row(record: RunRecord) -> dict[str, Any]:
    """The run's row by column; None for what is not known."""
    about = record.manifest
    seen: dict[str, Any] = about.get("conditions") or {}
    seconds, total = _run(record, "wall_s", ""), _run(record, "energy_j", "total")
    seconds_s = None if seconds is None else seconds.value
    gpus = [str(one) for one in seen.get("gpus") or ()]
    out: dict[str, Any] = dict.fromkeys(COLUMNS)
    out |= {
        "timestamp": _stamp(about.get("ended_at")),
        "project_name": (about.get("workload") or {}).get("name"),
        "run_id": record.run_id,
        "experiment_id": about.get("plan_hash"),
        "duration": seconds_s,
        "os": seen.get("os"),
        "cpu_count": seen.get("cpus_online"),
        "cpu_model": seen.get("cpu"),
        "gpu_count": len(gpus) or None,
        "gpu_model": ", ".join(gpus) or None,
        "tracking_mode": "process" if total is not None and total.scope == "process" else "machine",
    }
    memory = seen.get("memory_total_bytes")
    out["ram_total_size"] = memory / 2**30 if isinstance(memory, int) else None
    if total is not None and total.value is not None:
        out["energy_consumed"] = total.value / _J_PER_KWH
    for part in _PARTS:
        joules = _part(record, part)
        out[f"{part}_energy"] = None if joules is None else joules / _J_PER_KWH
        out[f"{part}_power"] = joules / seconds_s if joules is not None and seconds_s else None
    return out


def _run(record: RunRecord, name: str, source: str) -> Measure | None:
    found = (one for one in record.measures if (one.name, one.phase, one.source) == (name, "run", source))
    return next(found, None)


def _part(record: RunRecord, part: str) -> float | None:
    """Joules of the counters of a part; None where one of them has no energy."""
    mine = [
        one
        for one in record.measures
        if one.name == "energy_j" and one.phase == "run" and one.source != "total" and _of(one.source) == part
    ]
    known = [one.value for one in mine if one.value is not None]
    return sum(known) if mine and len(known) == len(mine) else None


def _of(source: str) -> str:
    leaf = source.rpartition("/")[2].rpartition(".")[2]
    if source.startswith("codecarbon."):  # of an import
        return leaf
    if source.startswith("rapl."):
        return "cpu" if PACKAGE.fullmatch(leaf) else "ram" if leaf == "dram" else ""
    return "gpu" if _GPU.match(source) else ""


def _stamp(text: object) -> str | None:
    """As codecarbon writes a time, in UTC."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S") if text else None
    except (ValueError, OverflowError):
        return None
