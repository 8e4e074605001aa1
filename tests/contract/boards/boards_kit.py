"""Recorded output of boards, of our own making in the words of the real tools, as the streams that readers take."""

from pathlib import Path

import numpy as np

from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.records import Readings, Stream

HERE = Path(__file__).parent
SECOND = 1_000_000_000


def of(reader, raw, period_ms=1000.0, **options):
    """The series by name and the status of a recorded text (bytes, or a file of this folder)."""
    text = raw if isinstance(raw, bytes) else (HERE / raw).read_bytes()
    return got(reader, captured(READERS[reader], text, period_ms), **options)


def got(reader, streams, **options):
    series, status = read(reader, reader, streams, options)
    assert len({one.name for one in series}) == len(series)
    return {one.name: one for one in series}, status


def stream(path, raw, *, kind="file", status="ok", period_ns=100_000_000, t0_ns=0, read_ns=20_000):
    """A source that was read every period; an item of ``raw`` is bytes, an errno, or both: what came with an error."""
    items = [(0, item) if isinstance(item, bytes) else (item, b"") if isinstance(item, int) else item for item in raw]
    t = np.array([t0_ns + i * period_ns for i in range(len(items))], dtype=np.int64)
    err = np.array([number for number, _ in items], dtype=np.int32)
    return Stream(0, "c", kind, path, status, 0, Readings.of(t, t + read_ns, err, [text for _, text in items]))


def ints(values):
    return [b"%d\n" % v for v in values]


def poll(command, raw, **more):
    return stream(command, raw, kind="poll", **more)


def lines(raw, **more):
    return stream("", raw, kind="lines", **more)


def values(found):
    """Every value by name: of one sample the number, else the list."""
    return {name: one.value.tolist() if len(one) != 1 else one.value[0] for name, one in found.items()}
