"""Prints what NVML says of every NVIDIA GPU, one JSON line a GPU and reading. A helper of meltbench (docs/probe.md).

    python -B -P nvml.py PERIOD_MS

    {"gpu":0,"uuid":"GPU-...","t0_ns":N,"t1_ns":N,"end_ns":N,"energy_mj":N,"power_mw":N,"power_average_mw":N,...,
     "nulls":{"sm_mhz":"NOT_SUPPORTED"}}

Stamps are CLOCK_BOOTTIME: energy is read between the first two, everything else between the second and the third. A
value that could not be read is null, and ``nulls`` holds NVML's name for why. Where nothing can be read at all, one
line says so: {"cannot":"denied|absent|error","detail":"..."}. Imports nothing of meltbench; ends on SIGTERM, or when
nobody reads what it prints.
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

_ABSENT = ("LIBRARY_NOT_FOUND", "DRIVER_NOT_LOADED", "NOT_FOUND")


def say(line: dict[str, Any]) -> None:
    # One write: a line is shorter than a pipe's page, so it is never torn.
    os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def cannot(word: str, detail: str, **more: Any) -> None:
    say({**more, "cannot": word, "detail": detail[:300]})


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Gpu:
    """One GPU: reads each of its values by itself, so that one that fails takes no other with it."""

    def __init__(self, nvml: Any, names: dict[int, str], number: int) -> None:
        self.nvml, self.names, self.number = nvml, names, number
        self.handle = nvml.nvmlDeviceGetHandleByIndex(number)
        self.uuid = str(nvml.nvmlDeviceGetUUID(self.handle))

    def reading(self) -> dict[str, Any]:
        """One line: every value, or null and why."""
        n, h = self.nvml, self.handle
        line: dict[str, Any] = {"gpu": self.number, "uuid": self.uuid}
        nulls: dict[str, str] = {}

        def put(key: str, read: Callable[[], Any]) -> None:
            try:
                line[key] = read()
            except n.NVMLError as error:
                line[key], nulls[key] = None, self.name(error.value)

        t0 = boot_ns()
        put("energy_mj", lambda: n.nvmlDeviceGetTotalEnergyConsumption(h))
        t1 = boot_ns()
        for key, field in (
            ("power_mw", n.NVML_FI_DEV_POWER_INSTANT),
            ("power_average_mw", n.NVML_FI_DEV_POWER_AVERAGE),
        ):
            put(key, lambda field=field: self.field(field))
        if line["power_mw"] is None:  # older drivers; whether that is a mean or of now depends on the GPU
            put("usage_mw", lambda: n.nvmlDeviceGetPowerUsage(h))
            put("compute", self.compute)
        put("temp_c", lambda: n.nvmlDeviceGetTemperature(h, n.NVML_TEMPERATURE_GPU))
        put("memory_bytes", lambda: n.nvmlDeviceGetMemoryInfo(h).used)
        put("sm_mhz", lambda: n.nvmlDeviceGetClockInfo(h, n.NVML_CLOCK_SM))
        put("throttle", self.throttle)
        put("processes", lambda: len(n.nvmlDeviceGetComputeRunningProcesses(h)))
        line |= {"t0_ns": t0, "t1_ns": t1, "end_ns": boot_ns()}
        return line | ({"nulls": nulls} if nulls else {})

    def field(self, number: int) -> int:
        """A field value in mW; each carries an error of its own."""
        n = self.nvml
        (found,) = n.nvmlDeviceGetFieldValues(self.handle, [number])
        if found.nvmlReturn != n.NVML_SUCCESS:
            raise n.NVMLError(found.nvmlReturn)
        if found.valueType == n.NVML_VALUE_TYPE_DOUBLE:
            return round(found.value.dVal)
        wide = found.valueType == n.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
        return int(found.value.ullVal if wide else found.value.uiVal)

    def compute(self) -> int:
        """Ten times the compute capability: 80 is a GA100, 86 the next of its generation."""
        major, minor = self.nvml.nvmlDeviceGetCudaComputeCapability(self.handle)
        return 10 * int(major) + int(minor)

    def throttle(self) -> int:
        """Why the clock is lower than it could be, as bits; drivers before 535 know it by its old name alone."""
        n = self.nvml
        try:
            return int(n.nvmlDeviceGetCurrentClocksEventReasons(self.handle))
        except n.NVMLError_FunctionNotFound:
            return int(n.nvmlDeviceGetCurrentClocksThrottleReasons(self.handle))

    def name(self, code: int) -> str:
        """NVML's own name of an error."""
        return self.names.get(code, str(code))


def opened(nvml: Any, names: dict[int, str]) -> list[Gpu]:
    """Every GPU that answers; each that does not is told."""
    nvml.nvmlInit()
    gpus = []
    for number in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus.append(Gpu(nvml, names, number))
        except nvml.NVMLError as error:
            tell(names, error, gpu=number)
    return gpus


def tell(names: dict[int, str], error: Any, **more: Any) -> None:
    name = names.get(error.value, str(error.value))
    word = "denied" if name == "NO_PERMISSION" else "absent" if name in _ABSENT else "error"
    cannot(word, f"NVML: {error}", **more)


def main() -> int:
    # Python's own handlers would run only between the library's calls; the default ends the process at once.
    for number in (signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    period_s = float(sys.argv[1]) / 1000
    try:
        import pynvml as nvml
    except ImportError as error:
        cannot("absent", f"nvidia-ml-py is not installed: {error}")
        return 1
    start = "NVML_ERROR_"
    names = {code: name.removeprefix(start) for name, code in vars(nvml).items() if name.startswith(start)}
    try:
        gpus = opened(nvml, names)
    except nvml.NVMLError as error:
        tell(names, error)
        return 1
    if not gpus:
        cannot("absent", "NVML has no GPU to read")
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
