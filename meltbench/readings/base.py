"""What every reader is made of: paths to sample, and a pure function from streams to series.

A reader never raises on what a target sent. A reading that cannot be understood becomes NaN with a status word;
a source that gave nothing becomes a ``SourceStatus`` that says why.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from meltbench.records import Series, SourceStatus, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from meltbench.records import Kind, Readings, Scope, Stream

    Floats = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.uint8]
    Parse = Callable[[str, Sequence[Stream], Mapping[str, object]], tuple[list[Series], SourceStatus]]

MAX_SERIES = 1024  # of one source; a machine with more zones or cores than this is not one we know
NAN = float("nan")

_WORDS: tuple[Status, ...] = ("ok", "denied", "absent", "again", "error", "unparsed", "gated")
OK, DENIED, ABSENT, AGAIN, ERROR, UNPARSED, GATED = range(len(_WORDS))
# Of several causes the first here is the one to tell: it names the nearest thing somebody can mend.
_TELLING: tuple[Status, ...] = ("denied", "gated", "again", "error", "unparsed", "absent")
_ERRNO = {
    errno.EACCES: DENIED,
    errno.EPERM: DENIED,
    errno.ENOENT: ABSENT,
    errno.ENODEV: ABSENT,
    errno.ENXIO: ABSENT,
    errno.ESRCH: ABSENT,
    errno.EAGAIN: AGAIN,
}


@dataclass(frozen=True)
class PathSpec:
    """A file, or a glob of files, of the target.

    ``periodic``: read at the profile's period, else only at transitions. ``min_period_ns``: a floor for that
    period where reading disturbs the engine. ``{pid:NAME}`` stands for the pid of a process of the job.
    """

    glob: str
    periodic: bool = True
    min_period_ns: int = 0

    def match(self, path: str) -> tuple[str, ...] | None:
        """What each wildcard stands for in ``path``, or None.

        A recorded tree may stand in for /sys or /proc, so only what follows the first folder must agree.
        """
        found = _pattern(self.glob).fullmatch(path)
        return None if found is None else found.groups()


@dataclass(frozen=True)
class Helper:
    """A program whose lines are the readings: runners/helpers/``script``.py, given the period in ms.

    It is started only where the device has what it reads: an entry of ``fact``, one of the tuples of
    meltbench.targets.facts.Facts, that begins with ``begins``; and the Python ``package`` where one is named.
    ``own_sys``: it looks below /sys itself, so that a tree that stands in for /sys would not be what it reads.
    """

    script: str
    fact: str
    begins: str
    package: str | None = None
    own_sys: bool = False


@dataclass(frozen=True)
class Reader:
    """One source of signals: where it lies, how it is parsed, which options a profile may give it."""

    name: str
    paths: tuple[PathSpec, ...]
    parse: Parse
    options: frozenset[str] = frozenset()
    helper: Helper | None = None


@dataclass(frozen=True)
class Column:
    """One signal found in a text."""

    name: str
    unit: str
    kind: Kind
    scope: Scope = "system"


@lru_cache(maxsize=256)
def _pattern(glob: str) -> re.Pattern[str]:
    own = "{pid:" in glob
    below = glob if own else "/" + glob.split("/", 2)[2]
    parts = re.split(r"(\*|\{pid:[^}]*\})", below)
    body = "".join("([^/]*)" if i % 2 else re.escape(part) for i, part in enumerate(parts))
    # /proc/stat is the machine's and /proc/4120/stat a process's: without this one would pass for the other.
    other = "" if own else "(?!.*/proc/[0-9]+/)"
    return re.compile(f"(?s:{other}.*){body}")


def matching(spec: PathSpec, streams: Iterable[Stream]) -> list[tuple[tuple[str, ...], Stream]]:
    """The streams of ``spec`` with what its wildcards stand for, ordered as a person counts (zone2 before zone10)."""
    found = [(groups, stream) for stream in streams if (groups := spec.match(stream.path)) is not None]
    # A glob that matched nothing is a stream of its own, under its pattern; denied it says something, absent nothing.
    found = [(groups, stream) for groups, stream in found if "*" not in groups or stream.status != "absent"]
    return sorted(found, key=lambda item: [natural(g) for g in item[0]])[:MAX_SERIES]


def natural(text: str) -> list[tuple[int, int, str]]:
    """A sort key that puts zone2 before zone10."""
    parts = re.split(r"([0-9]{1,18})", text)
    return [(1, int(p), "") if i % 2 else (0, 0, p) for i, p in enumerate(parts)]


def folder(path: str) -> str:
    """The folder a file lies in: files of one zone, policy or domain share it."""
    return path.rpartition("/")[0]


def read_codes(readings: Readings) -> Codes:
    """One status code a reading, from its errno alone."""
    codes = np.zeros(len(readings.err), dtype=np.uint8)
    for number in np.unique(readings.err[readings.err != 0]).tolist():
        codes[readings.err == number] = _ERRNO.get(number, ERROR)
    return codes


def words(codes: Codes) -> list[Status]:
    """Status words for status codes."""
    if not codes.any():
        return ["ok"] * len(codes)
    table = np.array(_WORDS, dtype=object)
    out: list[Status] = table[codes].tolist()
    return out


def int_values(readings: Readings) -> tuple[Floats, Codes]:
    """Values of a file that holds one integer: NaN where it held none, with a status code a reading."""
    codes = read_codes(readings)
    numbers, good = parse_ints(readings.raw)
    codes[(codes == OK) & ~good] = UNPARSED
    values = numbers.astype(np.float64)
    values[codes != OK] = NAN
    return values, codes


def parse_ints(raw: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Integers of up to 18 digits, each alone in its text but for white space after it; False where there is none."""
    values = np.zeros(len(raw), dtype=np.int64)
    good = np.zeros(len(raw), dtype=np.bool_)
    step = 1 << 16  # a block of columns stays in the processor's cache
    for start in range(0, len(raw), step):
        block = raw[start : start + step]
        values[start : start + step], good[start : start + step] = _parse_block(block)
    return values, good


def _parse_block(raw: Sequence[bytes]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Reads all texts of a block at once, one character column after the other."""
    length = np.fromiter(map(len, raw), dtype=np.int64, count=len(raw))
    width = int(min(max(length.max(), 1), 24))
    columns = np.ascontiguousarray(np.array(raw, dtype=f"S{width}").view(np.uint8).reshape(len(raw), width).T)
    good = (length > 0) & (length <= width)
    negative = columns[0] == ord("-")
    value = np.zeros(len(raw), dtype=np.int64)
    digits = np.zeros(len(raw), dtype=np.int8)
    inside = np.ones(len(raw), dtype=np.bool_)
    for j in range(width):
        digit = columns[j] - np.uint8(48)  # wraps below '0', so one comparison is enough
        take = inside & (digit < 10) & (digits < 18)
        np.copyto(value, value * 10 + digit, where=take)
        digits += take
        rest = ~take if j else ~take & ~negative
        inside &= ~rest
        good &= ~rest | np.isin(columns[j], (9, 10, 13, 32)) | (length <= j)
    good &= digits > 0
    return np.where(negative, -value, value), good


def int_series(
    source: str, stream: Stream, column: Column, *, scale: float, wrap: float | None = None, klass: str | None = None
) -> Series:
    """A series from a file that holds one integer, ``scale`` units a count."""
    values, codes = int_values(stream.readings)
    return make_series(source, stream, column, values * scale, words(codes), wrap=wrap, klass=klass)


def make_series(
    source: str,
    stream: Stream,
    column: Column,
    values: Floats,
    status: list[Status],
    *,
    wrap: float | None = None,
    klass: str | None = None,
) -> Series:
    """A series that carries the stream's times and path."""
    r = stream.readings
    return Series(
        column.name, column.unit, column.kind, source, column.scope, r.t0_ns, r.t1_ns, values, status,
        path=stream.path, klass=klass, wrap=wrap,
    )  # fmt: skip


def text_series(
    source: str, stream: Stream, columns: Sequence[Column], row: Callable[[bytes], Sequence[float]]
) -> list[Series]:
    """Series from a text that holds several numbers; ``row`` gives one a column, NaN for one it does not find.

    A text cut at the probe's limit (E2BIG) is still read: what is missing is NaN. A column that was never found
    gives no series.
    """
    readings = stream.readings
    codes = read_codes(readings)
    usable = (codes == OK) | (readings.err == errno.E2BIG)
    table = np.full((len(readings), len(columns)), NAN)
    for i in np.flatnonzero(usable).tolist():
        table[i] = row(readings.raw[i])
    out = []
    for j, column in enumerate(columns):
        values = table[:, j].copy()
        found = np.isfinite(values)
        if found.any():
            status = np.where(found, OK, np.where(usable, UNPARSED, codes)).astype(np.uint8)
            out.append(make_series(source, stream, column, values, words(status)))
    return out


def last_text(stream: Stream | None, limit: int = 64) -> str | None:
    """The last readable text of a file that holds one word: printable ASCII, or None."""
    for text in reversed(texts(stream, limit)):
        return text
    return None


def texts(stream: Stream | None, limit: int = 64) -> list[str]:
    """The different texts a file held, in order of first sight: printable ASCII, bounded."""
    if stream is None:
        return []
    seen: dict[str, None] = {}
    for raw, err in zip(stream.readings.raw, stream.readings.err.tolist(), strict=True):
        text = raw[: 4 * limit].decode("ascii", "replace").strip()
        if err == 0 and 0 < len(text) <= limit and text.isprintable() and text.isascii():
            seen.setdefault(text)
        if len(seen) == 16:
            break
    return list(seen)


def last_int(stream: Stream | None) -> int | None:
    """The last whole number a file held, or None."""
    if stream is None:
        return None
    values, codes = int_values(stream.readings)
    good = np.flatnonzero(codes == OK)
    return int(values[good[-1]]) if len(good) else None


def unique_names(names: Iterable[str]) -> list[str]:
    """The names with ``#2``, ``#3`` ... after those seen before."""
    count: Counter[str] = Counter()
    out = []
    for name in names:
        count[name] += 1
        out.append(name if count[name] == 1 else f"{name}#{count[name]}")
    return out


def source_status(
    source: str, streams: Sequence[Stream], series: Sequence[Series], *, absent: str = "", note: str = ""
) -> SourceStatus:
    """One row about a source: ``ok`` when any value came of it, else the most telling cause.

    ``streams`` are those that carry values; ``absent`` says what was looked for when there is none of them.
    """
    readings = sum(len(s.readings) for s in streams)
    if not streams:
        return SourceStatus(source, "absent", 0, 0, "; ".join(filter(None, (absent, note))))
    tally: Counter[Status] = Counter()
    for one in series:
        tally.update(one.status)
    for stream in streams:
        if stream.status != "ok":
            tally[stream.status] += 1
        if not series:
            tally.update(words(read_codes(stream.readings)[stream.readings.err != 0]))
    if readings == 0 and not tally:
        return SourceStatus(source, "absent", len(streams), 0, "; ".join(filter(None, ("opened, never read", note))))
    status: Status = "ok" if tally["ok"] else next((w for w in _TELLING if tally[w]), "unparsed")
    bad = ", ".join(f"{tally[w]} {w}" for w in _TELLING if tally[w])
    return SourceStatus(source, status, len(streams), readings, "; ".join(filter(None, (bad, note))))
