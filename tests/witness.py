"""Sees whether this machine stood still.

Whatever else runs on its host may take this machine's processors away for a while. No program here can keep a
measurement whole then, and a run says so in its reasons: what a test measured meanwhile tells of the host and not of
meltbench. The witness sleeps for some hundredths of a second over and over, and writes down when it woke late. A test
that failed while it did is run again (conftest.py), and only such a one.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from room import dies_with_parent

SLEEP_S = 0.02
LATE_S = 0.05  # half of what lies between two readings of most sensors
SLEEPERS = 4  # not all of them on one processor, when one is taken away


class Witness:
    """``late``: a file with a line for each time it woke late, in s: when (monotonic), and how late."""

    def __init__(self) -> None:
        self._folder, self._since_s = tempfile.TemporaryDirectory(prefix="witness-"), 0.0
        self.late = Path(self._folder.name) / "late"
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
        self._folder.cleanup()


def watch(path: str) -> None:
    with open(path, "a") as out:
        while True:
            slept = time.monotonic()
            time.sleep(SLEEP_S)
            woke = time.monotonic()
            late_s = woke - slept - SLEEP_S
            if late_s > LATE_S:
                out.write(f"{woke:.3f} {late_s:.3f}\n")
                out.flush()


def main(path: str) -> None:
    dies_with_parent()  # with its tests, whatever ends those
    for _ in range(SLEEPERS):
        threading.Thread(target=watch, args=(path,)).start()


if __name__ == "__main__":
    main(sys.argv[1])
