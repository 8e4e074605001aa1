"""The transport `adb` against adb's own client, at Android's own adbd; and what a run sends while it is measured."""

from __future__ import annotations

import ctypes
import os
import socket
import statistics
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import kit
from benchmarks.claims import Claim, Part, Row, Site, Unmeasurable
from benchmarks.controller import enrolled
from benchmarks.rooms import phone
from meltbench import site
from meltbench.models.hashes import file_sha256
from meltbench.probe.journal import Journal, read_journal
from meltbench.report.progress import Quiet
from meltbench.targets import Place
from meltbench.targets.cache import PushCache

PUSH = Claim("adb push of 200 MB, rate over adb's own", ">=", 0.9)
WARM = Claim("warm push of 200 MB over adb", "<=", 0.3, "s")
SILENT = Claim("payload on a phone's wire while it is measured", "<=", 0, "bytes")

_BYTES, _DISK_BYTES = 200_000_000, 2 << 30
_THERE = "/data/local/tmp/pushed"
_IDLE_S, _SLEEP_S = 3.0, 15.0  # longer than any silence after which a link could be tried
_CAPTURE_BYTES, _BUFFER_BYTES = 128, 64 << 20
_ALL, _TIMESTAMPNS, _FORCED, _STATISTICS = 0x0003, 35, 33, 6  # if_ether.h, asm-generic/socket.h, if_packet.h
_PACKET = 263  # SOL_PACKET of socket(7)


def _pushes(here: Site) -> Iterator[Row]:
    source = here.folder / "source"
    source.write_bytes(os.urandom(_BYTES // 20 if here.quick else _BYTES))  # as a quantised model: nothing to compress
    rounds, warm = (1 if here.quick else 15), []
    with phone(here.folder / "push", _DISK_BYTES) as one:
        probe = site.reach(Place("adb", one.serial), None, Quiet())
        cache = PushCache.beside(probe)

        def ours(*, hashed_before: bool = True) -> float:
            os.utime(source)  # from here on its hash is not remembered
            if hashed_before:
                file_sha256(source)
            took = _took(lambda: cache.ensure([source], Quiet()))
            warm.append(_took(lambda: cache.ensure([source], Quiet())))
            cache.drop(None)
            return took

        def theirs(*options: str) -> float:
            took = _took(lambda: one.adb("push", *options, str(source), _THERE))
            one.shell(f"rm {_THERE}")
            return took

        try:
            ours()  # what is made once, on either side
            theirs()
            warm.clear()
            arms: dict[str, Callable[[], float]] = {
                "meltbench": ours,
                "adb": theirs,
                "adb, not compressed": partial(theirs, "-Z"),
                "meltbench, hashed here first": partial(ours, hashed_before=False),
            }
            found = kit.interleaved(arms, rounds, here.say)
        finally:
            probe.transport.close()
    pairs = [adb / own for own, adb in zip(found["meltbench"], found["adb"], strict=True)]
    low, high = kit.median_interval(pairs)
    size = source.stat().st_size / 1e6
    beside: dict[str, float | str] = {f"{name} MB/s": size / statistics.median(took) for name, took in found.items()}
    yield PUSH.row(statistics.median(pairs), beside | {"low": low, "high": high}, kit.undecided(low, high, PUSH.limit))
    yield WARM.row(statistics.median(warm), {"least s": min(warm), "most s": max(warm)})


def _took(call: Callable[[], object]) -> float:
    start = time.monotonic()
    call()
    return time.monotonic() - start


@dataclass
class _Heard:
    """What passed a card in both directions: when, ns by the wall clock, and bytes of payload, -1 where it is not TCP.

    ``lost``: packets that came faster than they were heard.
    """

    packets: list[tuple[int, int]] = field(default_factory=list)
    lost: int = 0


@contextmanager
def _heard(card: str) -> Iterator[_Heard]:
    """Hear every packet of a network card meanwhile, stamped by the kernel."""
    found, over = _Heard(), threading.Event()
    try:
        ear = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(_ALL))
    except PermissionError:
        raise Unmeasurable("a network card is heard by root alone") from None
    with ear:
        ear.setsockopt(socket.SOL_SOCKET, _FORCED, _BUFFER_BYTES)
        ear.setsockopt(socket.SOL_SOCKET, _TIMESTAMPNS, 1)
        ear.bind((card, _ALL))
        ear.settimeout(0.1)

        def listen() -> None:
            while not over.is_set():
                try:
                    data, more, _, address = ear.recvmsg(_CAPTURE_BYTES, 64)
                except TimeoutError:
                    continue
                found.packets.append((_stamp(more), _payload(data, address[1])))

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield found
        finally:
            over.set()
            thread.join()
            _, found.lost = struct.unpack("II", ear.getsockopt(_PACKET, _STATISTICS, 8))


def _stamp(more: list[tuple[int, int, bytes]]) -> int:
    ((_, _, data),) = more
    seconds, ns = struct.unpack("ll", data[: 2 * ctypes.sizeof(ctypes.c_long)])
    return int(seconds) * 1_000_000_000 + int(ns)


def _payload(packet: bytes, kind: int) -> int:
    """Bytes of payload of a packet of TCP over IPv4 (RFC 791, RFC 9293); -1 for any other."""
    if kind != 0x0800 or packet[9] != socket.IPPROTO_TCP:
        return -1
    head = (packet[0] & 15) * 4
    return int.from_bytes(packet[2:4], "big") - head - (packet[head + 12] >> 4) * 4


def _silence(here: Site) -> Iterator[Row]:
    idle = f"idle_s={0.5 if here.quick else _IDLE_S}"
    words = ["exec", "--device", "box", "--set", "gate_timeout_s=0", "--set", idle, "--", "sleep"]
    with phone(here.folder / "silence", _DISK_BYTES) as one, _heard(one.wire.card) as heard:
        enrolled({"box": one.serial}, "adb")
        kit.meltbench(here.folder, *words, "0")  # which pushes what runs need
        began = len(heard.packets)
        (told,) = kit.meltbench(here.folder, *words, str(1 if here.quick else _SLEEP_S))
    if heard.lost:
        raise RuntimeError(f"{heard.lost} packets were not heard")
    journal = read_journal(Path(told["stored"]) / "evidence" / "journal")
    first, last = _window_ns(journal)
    inside = [size for at, size in heard.packets[began:] if first <= at <= last]
    around = [size for at, size in heard.packets[began:] if not first <= at <= last]
    if not any(size > 0 for size in around):
        raise RuntimeError("nothing was heard of the run itself: the card or the clock is another")
    beside = {
        "window s": (last - first) / 1e9,
        "packets without payload in it": float(sum(size == 0 for size in inside)),
        "packets that are not TCP in it": float(sum(size < 0 for size in inside)),
        "payload before and after it, bytes": float(sum(size for size in around if size > 0)),
    }
    yield SILENT.row(sum(size for size in inside if size > 0), beside)


def _window_ns(journal: Journal) -> tuple[int, int]:
    """From where the idle window before begins to where that after ends, by the wall clock, which a room shares."""
    begin = journal.first("begin")
    assert begin is not None
    idle = [step["boot_ns"] - begin["boot_ns"] for step in journal.named("step") if step["op"] == "idle"]
    return begin["wall_ns"] + min(idle), begin["wall_ns"] + max(idle)


PARTS = (Part(_pushes, (PUSH, WARM)), Part(_silence, (SILENT,)))
