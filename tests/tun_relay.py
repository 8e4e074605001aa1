"""Carries packets between a TUN device here and one in another network namespace, late, and not all of them.

    python tun_relay.py NAMESPACE NAME DELAY_MS JITTER_MS LOSS_PERCENT

NAME is the device here; that in the namespace is called tun0. It ends when it is killed, or with its parent.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import random
import select
import struct
import sys
import time
from collections import deque

from room import dies_with_parent

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEWNET, _TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x40000000, 0x400454CA, 1, 0x1000
_BACKLOG = 1000  # packets under way in one direction, as netem's own limit; more are lost


def tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return device


def relay(ends: tuple[int, int], delay_s: float, jitter_s: float, loss: float) -> None:
    """Packets of one direction keep their order: what varies is how long the line stands still."""
    queues: dict[int, deque[tuple[float, bytes]]] = {end: deque() for end in ends}
    while True:
        due = min((queue[0][0] for queue in queues.values() if queue), default=None)
        wait = None if due is None else max(0.0, due - time.monotonic())
        for end in select.select(ends, (), (), wait)[0]:
            packet = os.read(end, 65536)
            other = queues[ends[1 - ends.index(end)]]
            if random.random() >= loss and len(other) < _BACKLOG:
                at = time.monotonic() + delay_s + random.uniform(-jitter_s, jitter_s)
                other.append((max(at, other[-1][0]) if other else at, packet))
        now = time.monotonic()
        for end, queue in queues.items():
            while queue and queue[0][0] <= now:
                packet = queue.popleft()[1]
                try:
                    os.write(end, packet)
                except OSError as error:  # a device that is not up yet loses what it is given
                    if error.errno != errno.EIO:
                        raise


def main(namespace: str, name: str, delay_ms: str, jitter_ms: str, loss_percent: str) -> None:
    dies_with_parent()
    here = tun(name)
    with open(namespace) as other:
        if _LIBC.setns(other.fileno(), _NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    there = tun("tun0")
    print("ready", flush=True)
    relay((here, there), float(delay_ms) / 1e3, float(jitter_ms) / 1e3, float(loss_percent) / 1e2)


if __name__ == "__main__":
    main(*sys.argv[1:])
