"""Sees whether this machine stood still.

Whatever else runs on its host may take this machine's processors away for a while. No program here can keep a
measurement whole then, and a run says so in its reasons: what a test measured meanwhile tells of the host and not of
meltbench. The witness sleeps for some hundredths of a second over and over, and writes down when it woke late. A test
that failed while it did is run again (conftest.py), and only such a one.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

SLEEP_S = 0.02
LATE_S = 0.05  # half of what lies between two readings of most sensors
SLEEPERS = 4  # not all of them on one processor, when one is taken away


class Witness:
    """``folder`` is its own; a file in it has a line for each time it woke late: when (monotonic), how late, in s."""

    def __init__(self, folder: Path) -> None:
        self.late, self._since_s = folder / "late", 0.0
        self.running = subprocess.Popen([sys.executable, __file__, self.late])

    def begin(self) -> None:
        """From now on counts what it sees."""
        self._since_s = time.monotonic()

    def stood_still(self) -> bool:
        time.sleep(LATE_S)  # it may be waking up at this moment
        lines = self.late.read_text().splitlines() if self.late.exists() else []
        return any(float(line.split()[0]) > self._since_s for line in lines)

    def end(self) -> None:
        self.running.kill()
        self.running.wait()
        shutil.rmtree(self.late.parent)


def watch(path: str) -> None:
    with open(path, "a") as out:
        while True:
            slept = time.monotonic()
            time.sleep(SLEEP_S)
            woke = time.monotonic()
            if woke - slept - SLEEP_S > LATE_S:
                out.write(f"{woke:.3f} {woke - slept - SLEEP_S:.3f}\n")
                out.flush()


def main(path: str) -> None:
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)  # PR_SET_PDEATHSIG: it ends with its tests, whatever ends those
    for _ in range(SLEEPERS):
        threading.Thread(target=watch, args=(path,)).start()


if __name__ == "__main__":
    main(sys.argv[1])
