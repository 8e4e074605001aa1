"""Prints what jtop says of a Jetson, one JSON line an update of its service. A helper of meltbench (docs/probe.md).

    python -B -P jtop.py PERIOD_MS

    {"t0_ns":N,"end_ns":N,"power":{"rail":{"VDD_SOC":{"power":N,"online":true,"type":"INA3221"}},"tot":{...}},
     "temperature":{"cpu":{"temp":N,"online":true}},"stats":{"CPU1":N,"GPU":N,...}}

Stamps are CLOCK_BOOTTIME, taken when the update had come and when it had been looked through. Where nothing can be
read, one line says so: {"cannot":"denied|absent|error","detail":"..."}. Needs the package jetson-stats (the extra
``jetson``) and its service. Imports nothing of meltbench; ends on SIGTERM, or when nobody reads what it prints.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

_SHORTEST_S = 0.1  # the service itself is slower
_RAIL = ("power", "online", "type", "status", "name")
_ZONE = ("temp", "online")


def say(line: dict[str, Any]) -> None:
    os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def cannot(word: str, detail: str) -> None:
    say({"cannot": word, "detail": " ".join(detail.split())[:300]})


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def some(fields: tuple[str, ...], values: dict[str, Any]) -> dict[str, Any]:
    return {key: values[key] for key in fields if key in values}


def reading(jetson: Any) -> dict[str, Any]:
    t0 = boot_ns()
    power = jetson.power or {}
    line: dict[str, Any] = {
        "power": {
            "rail": {name: some(_RAIL, rail) for name, rail in power.get("rail", {}).items()},
            "tot": some(_RAIL, power.get("tot", {})),
        },
        "temperature": {name: some(_ZONE, zone) for name, zone in jetson.temperature.items()},
        # What stats say of power and temperatures stands above already.
        "stats": {
            key: value
            for key, value in jetson.stats.items()
            if isinstance(value, (int, float, str)) and not key.startswith(("Power", "power", "Temp"))
        },
    }
    return {"t0_ns": t0, "end_ns": boot_ns(), **line}


def main() -> int:
    # Python's own handlers would run only between the library's calls; the default ends the process at once.
    for number in (signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    period_s = max(float(sys.argv[1]) / 1000, _SHORTEST_S)
    try:
        from jtop import JtopException, jtop
    except ImportError as error:
        cannot("absent", f"jetson-stats is not installed: {error}")
        return 1
    try:
        with jtop(interval=period_s) as jetson:
            while jetson.ok():  # waits for the next update
                say(reading(jetson))
    except JtopException as error:
        words = str(error)
        # The library has one exception for all causes; its words tell them apart.
        cannot(
            "denied" if "can't access" in words else "absent" if "not active" in words else "error", f"jtop: {words}"
        )
        return 1
    except OSError as error:
        cannot("error", f"jtop: {error}")
        return 1
    cannot("error", "jtop: its service gives no more updates")
    return 1


if __name__ == "__main__":
    sys.exit(main())
