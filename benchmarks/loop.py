"""The peer: a sampler as one writes it in Python with psutil, opening, reading and parsing every file at each tick.

``loop.py PERIOD_S FILE...``, until killed. It imports nothing that it does not need.
"""

import sys
import time


def main() -> None:
    period, paths = float(sys.argv[1]), sys.argv[2:]
    latest = {}
    deadline = time.monotonic()
    while True:
        deadline += period
        time.sleep(max(0.0, deadline - time.monotonic()))
        for path in paths:
            with open(path, "rb") as file:
                latest[path] = int(file.read())


if __name__ == "__main__":
    main()
