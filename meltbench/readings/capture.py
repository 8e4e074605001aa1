"""Recorded output of a source as the streams that its reader takes: a log file, a dump of a device's files.

A capture has no stamps of ours. Its readings are put one period apart; a reader whose source writes its own time
finds it in a stream of kind ``log`` and takes that instead.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from meltbench.records import Readings, Stream

if TYPE_CHECKING:
    from meltbench.readings.base import Reader

MAX_BYTES = 64 << 20
# A folder's name may hold a colon itself: iio:device0/energy_value, intel-rapl:0:1/energy_uj.
_dumped = re.compile(rb"^(/(?:[^\n:]|:(?=(?:device)?\d{1,4}(?::\d{1,4})*/[a-z])){1,400}): ?([^\n]*)\n?", re.MULTILINE)
_word_end = re.compile(rb"[\s=:]")  # behind the name that a line of a file of several lines begins with
_wild = re.compile(r"\*|\{pid:[^}]*\}")


def captured(reader: Reader, raw: bytes, period_ms: float = 1000.0) -> list[Stream]:
    """The streams of a recorded text of at most 64 MiB.

    Of a reader of files each line is ``path: content`` (what `grep -r . FOLDER` prints), a path that stands again its
    next reading; of a file of several lines those that follow one another are one, until its first word comes again. A
    text without such lines is one reading of the reader's first file. Of one that polls a command the text is one
    output; of one that does both, where no line names a file. Of any other each line is a reading.
    """
    raw = raw[:MAX_BYTES]
    binary = b"\0" in raw
    raw = raw if binary else raw.replace(b"\r\n", b"\n")
    polled = [command for command in reader.commands if command.poll]
    if reader.paths:
        files: dict[str, list[bytes]] = {}
        for path, content in [] if binary else _dumped.findall(raw):
            files.setdefault(_known(reader, path.decode("utf-8", "replace")), []).append(content + b"\n")

        files = {} if binary else _files(reader, raw)
        if not files and raw and not polled:
            files[_wild.sub("0", reader.paths[0].glob)] = [raw]
        if files or not polled:
            return [_stream(n, "file", path, texts, period_ms) for n, (path, texts) in enumerate(files.items())]
    if polled:
        return [_stream(0, "poll", " ".join(polled[0].argv), [raw], period_ms)]
    return [_stream(0, "log", "", raw.splitlines(keepends=True), period_ms)]


def _known(reader: Reader, path: str) -> str:
    """The path by which the reader knows a file: links of /sys/class lead to places below /sys/devices."""
    for spec in reader.paths if path.startswith("/sys/devices/") else ():
        _, _, kind = spec.glob.partition("/sys/class/")
        kind = kind.partition("/")[0]
        if kind and f"/{kind}/" in path:
            by_class = f"/sys/class/{kind}/" + path.rpartition(f"/{kind}/")[2]
            if spec.match(by_class):
                return by_class
    return path


def _files(reader: Reader, raw: bytes) -> dict[str, list[bytes]]:
    """The readings of each file that a dump names."""
    files: dict[str, list[list[bytes]]] = {}
    last, first, several = "", b"", False
    for raw_path, content in _dumped.findall(raw):
        path = _known(reader, raw_path.decode("utf-8", "replace"))
        word = _word_end.split(content, maxsplit=1)[0]
        goes_on = path == last and several and word != first
        if path != last:
            several = any(spec.lines and spec.match(path) for spec in reader.paths)
        readings = files.setdefault(path, [])
        if goes_on:
            readings[-1].append(content + b"\n")
        else:
            last, first = path, word
            readings.append([content + b"\n"])
    return {path: [b"".join(lines) for lines in readings] for path, readings in files.items()}


def _stream(number: int, kind: str, path: str, texts: list[bytes], period_ms: float) -> Stream:
    t = (np.arange(len(texts)) * (period_ms * 1e6)).astype(np.int64)
    err = np.zeros(len(texts), dtype=np.int32)
    return Stream(number, "capture", kind, path, "ok", 0, Readings.of(t, t, err, texts))
