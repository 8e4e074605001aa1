"""Prints what AMD SMI says of every AMD GPU, one JSON line a GPU and reading. A helper of meltbench (docs/probe.md).

    python -B -P amdsmi.py PERIOD_MS

    {"gpu":0,"t0_ns":N,"t1_ns":N,"end_ns":N,"energy_counts":N,"resolution_uj":15.3,"counter_ns":N,"power_w":N,
     "average_w":N,"edge_c":N,"hotspot_c":N,"memory_c":N,"vram_mib":N,"nulls":{"edge_c":"NOT_SUPPORTED"}}

Stamps are CLOCK_BOOTTIME: energy is read between the first two, everything else between the second and the third;
``counter_ns`` is the driver's own stamp of the counter. A value that could not be read is null, and ``nulls`` holds AMD
SMI's name for why. Where nothing can be read at all, one line says so: {"cannot":"denied|absent|error","detail":"..."}.
Imports nothing of meltbench; ends on SIGTERM, or when nobody reads what it prints.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

PIPE = os.dup(1)  # what meltbench reads; the package and its library print words of their own to 1
_ABSENT = ("NOT_FOUND", "DRIVER_NOT_LOADED", "NO_DRV")
_TEMPS = {"edge_c": "EDGE", "hotspot_c": "HOTSPOT", "memory_c": "VRAM"}
_POWERS = {"power_w": "current_socket_power", "average_w": "average_socket_power"}


def say(line: dict[str, Any]) -> None:
    # One write: a line is shorter than a pipe's page, so it is never torn.
    os.write(PIPE, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def cannot(word: str, detail: str, **more: Any) -> None:
    say({**more, "cannot": word, "detail": " ".join(detail.split())[:300]})


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Gpu:
    """One GPU: reads each of its values by itself, so that one that fails takes no other with it."""

    def __init__(self, smi: Any, number: int, handle: Any) -> None:
        self.smi, self.number, self.handle = smi, number, handle

    def reading(self) -> dict[str, Any]:
        """One line: every value, or null and why."""
        smi, h = self.smi, self.handle
        line: dict[str, Any] = {"gpu": self.number}
        nulls: dict[str, str] = {}

        def put(keys: tuple[str, ...], read: Callable[[], tuple[Any, ...]]) -> None:
            try:
                values = read()
            except smi.AmdSmiException as error:
                values = (None,) * len(keys)
                nulls.update(dict.fromkeys(keys, name_of(error)))
            line.update(zip(keys, values, strict=True))

        t0 = boot_ns()
        put(("energy_counts", "resolution_uj", "counter_ns"), lambda: energy(smi.amdsmi_get_energy_count(h)))
        t1 = boot_ns()
        put((*_POWERS,), lambda: powers(smi.amdsmi_get_power_info(h)))
        current = smi.AmdSmiTemperatureMetric.CURRENT
        for key, place in _TEMPS.items():
            sensor = getattr(smi.AmdSmiTemperatureType, place)
            put((key,), lambda sensor=sensor: (smi.amdsmi_get_temp_metric(h, sensor, current),))
        put(("vram_mib",), lambda: (smi.amdsmi_get_gpu_vram_usage(h)["vram_used"],))
        nulls |= {key: nulls.get(key, "NOT_SUPPORTED") for key, value in line.items() if value is None}
        line |= {"t0_ns": t0, "t1_ns": t1, "end_ns": boot_ns()}
        return line | ({"nulls": nulls} if nulls else {})


def energy(said: dict[str, Any]) -> tuple[Any, ...]:
    """Counts, microjoules a count, the driver's stamp; before ROCm 6.1 the counts stand under "power"."""
    counts = said["energy_accumulator"] if "energy_accumulator" in said else said["power"]
    return counts, round(float(said["counter_resolution"]), 4), said["timestamp"]


def powers(said: dict[str, Any]) -> tuple[Any, ...]:
    """Watts of now and of the firmware's mean; the package says "N/A" for one that there is not."""
    return tuple(value if isinstance(value := said.get(key), int) else None for key in _POWERS.values())


def name_of(error: Any) -> str:
    """AMD SMI's own name of an error."""
    if not hasattr(error, "get_error_info"):
        return type(error).__name__
    return str(error.get_error_info(detailed=False)).strip().removeprefix("AMDSMI_STATUS_")


def opened(smi: Any) -> list[Gpu]:
    smi.amdsmi_init(smi.AmdSmiInitFlags.INIT_AMD_GPUS)
    return [Gpu(smi, number, handle) for number, handle in enumerate(smi.amdsmi_get_processor_handles())]


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    period_s = float(sys.argv[1]) / 1000
    os.dup2(2, 1)
    try:
        import amdsmi as smi
    except ImportError as error:
        cannot("absent", f"amdsmi is not installed: {error}")
        return 1
    except (OSError, KeyError, AttributeError) as error:  # of a driver's library that is missing, or of another release
        cannot("absent", f"amdsmi found no library of its release: {error!r}")
        return 1
    try:
        gpus = opened(smi)
    except smi.AmdSmiException as error:
        name = name_of(error)
        word = "denied" if name == "NO_PERM" else "absent" if name in _ABSENT else "error"
        cannot(word, f"AMD SMI: {name}")
        return 1
    if not gpus:
        cannot("absent", "AMD SMI has no GPU to read")
        return 1
    due = time.monotonic()
    while True:
        for gpu in gpus:
            say(gpu.reading())
        # Absolute deadlines; those that were missed are skipped, not made up for.
        due += period_s * max(1, -(-(time.monotonic() - due) // period_s))
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
