"""Prints what pyRAPL reads of RAPL, one JSON line a reading. A helper of meltbench (docs/probe.md).

    python -B -P pyrapl.py PERIOD_MS

    {"t0_ns":N,"t1_ns":N,"pkg_uj":[N,null],"dram_uj":[N,null]}

Lists are by socket, null where pyRAPL has nothing. Stamps are CLOCK_BOOTTIME around the read. What cannot be read is
one line: {"cannot":"denied|absent|error","detail":"..."}. Imports nothing of meltbench; ends on SIGTERM, or when nobody
reads what it prints.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from typing import Any


def say(line: dict[str, Any]) -> None:
    # One write: a line is shorter than a pipe's page, so it is never torn.
    os.write(1, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def cannot(word: str, detail: str) -> int:
    say({"cannot": word, "detail": detail[:300]})
    return 1


def boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def library() -> Any:
    """pyRAPL without the parts that would load pandas and pymongo; it warns of each that it does not find."""
    for heavy in ("pandas", "pymongo"):
        sys.modules[heavy] = None  # type: ignore[assignment]
    logging.disable(logging.WARNING)
    import pyRAPL

    return pyRAPL


def main() -> int:
    for number in (signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    period_s = float(sys.argv[1]) / 1000
    try:
        rapl = library()
    except ImportError as error:
        return cannot("absent", f"pyRAPL is not installed: {error}")
    try:
        rapl.setup()
    except PermissionError as error:
        return cannot("denied", f"pyRAPL: {error}")
    except (OSError, ValueError, IndexError) as error:
        return cannot("error", f"pyRAPL: {error}")
    except rapl.PyRAPLException:  # without words of its own
        return cannot("absent", "pyRAPL found no package zone a socket, which is all that it understands")
    due = time.monotonic()
    while True:
        t0 = boot_ns()
        try:
            found = [None if value < 0 else int(value) for value in rapl._sensor.energy()]
        except (OSError, ValueError, OverflowError) as error:
            cannot("error", f"pyRAPL: {error}")
        else:
            say({"t0_ns": t0, "t1_ns": boot_ns(), "pkg_uj": found[0::2], "dram_uj": found[1::2]})
        # Absolute deadlines; those that were missed are skipped, not made up for.
        due += period_s * max(1, -(-(time.monotonic() - due) // period_s))
        time.sleep(max(0.0, due - time.monotonic()))


if __name__ == "__main__":
    sys.exit(main())
