"""Writes journals as docs/probe.md describes them, for tests of what reads them."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterable
from typing import Any

MAGIC = b"MELTJNL1"


def frame(kind: int, payload: bytes) -> bytes:
    head = struct.pack("<HHI", kind, 0, len(payload))
    return struct.pack("<I", 0x4A544C4D) + head + struct.pack("<I", zlib.crc32(head + payload)) + payload


def event(event_: str, boot_ns: int = 0, **fields: Any) -> bytes:
    return frame(1, json.dumps({"event": event_, "seq": 0, "boot_ns": boot_ns, **fields}).encode())


def readings(stream: int, rows: Iterable[tuple[int, int, int, bytes]]) -> bytes:
    rows = list(rows)
    n = len(rows)
    columns = [struct.pack(f"<{n}{code}", *(row[at] for row in rows)) for at, code in ((0, "q"), (1, "q"), (2, "i"))]
    lengths = struct.pack(f"<{n}I", *(len(row[3]) for row in rows))
    return frame(2, struct.pack("<II", stream, n) + b"".join(columns) + lengths + b"".join(row[3] for row in rows))


def stream(number: int, channel: str, path: str, kind: str = "file", status: str = "ok", errno: int = 0) -> bytes:
    return event("stream", stream=number, channel=channel, kind=kind, path=path, status=status, errno=errno)


def journal(*frames: bytes) -> bytes:
    return MAGIC + b"".join(frames)
