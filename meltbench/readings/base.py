"""What every reader is made of: paths to sample, and a pure function from streams to series.

A reader never raises on what a target sent. A reading that cannot be understood becomes NaN with a status word;
a source that gave nothing becomes a ``Sighting`` that says why. A run may have more samples than fit in memory, so a
reader is given its streams a slice at a time (files that are read at transitions alone, whole each time): it keeps
nothing between slices and names a signal the same way in each.
"""

from __future__ import annotations

import errno
import re
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np

from meltbench.readings.integers import parse_ints
from meltbench.records import (
    ABSENT,
    AGAIN,
    DENIED,
    ERROR,
    OK,
    STATUSES,
    UNPARSED,
    Series,
    SourceStatus,
    Status,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt

    from meltbench.records import Kind, Readings, Scope, Stream

    Floats = npt.NDArray[np.float64]
    Codes = npt.NDArray[np.uint8]
    Parse = Callable[[str, Sequence[Stream], Mapping[str, object]], tuple[list[Series], "Sighting"]]

Asked = Literal["heat", "charge"]
_MAX_NOTES = 64  # of a source; those of one slice mostly say the same as those of the next
MAX_SERIES = 1024  # of one source; a machine with more zones or cores than this is not one we know
NAN = float("nan")

# Of several causes the first here is the one to tell: it names the nearest thing somebody can mend.
_TELLING: tuple[Status, ...] = ("denied", "gated", "again", "error", "unparsed", "implausible", "absent")
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
    ``lines``: one reading of it has several, which a recorded dump names one by one.
    """

    glob: str
    periodic: bool = True
    min_period_ns: int = 0
    lines: bool = False

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
    meltbench.targets.facts.Facts, that begins with ``begins``; and the Python ``package`` where one is named. Without a
    ``fact`` nothing on the device could tell, as of a meter at its plug, and the profile that names it wants it.
    ``own_sys``: it looks below /sys itself, so that a tree that stands in for /sys would not be what it reads.
    ``command`` is its first word after the period; ``told`` are the source's options that it is given, as NAME=VALUE.
    """

    script: str
    fact: str = ""
    begins: str = ""
    package: str | None = None
    own_sys: bool = False
    command: str = ""
    told: tuple[str, ...] = ()

    def there(self, facts: object) -> bool:
        """Whether a device has what it reads; ``facts`` are those of meltbench.targets.facts.Facts."""
        return not self.fact or any(one.startswith(self.begins) for one in getattr(facts, self.fact))

    def words(self, period_ms: float, options: Mapping[str, object]) -> list[str]:
        """What follows its name on the command line."""
        given = [f"{name}={options[name]}" for name in self.told if name in options]
        return [f"{period_ms:g}", *([self.command] if self.command else []), *given]


@dataclass(frozen=True)
class Command:
    """A program that the target has, whose output is the readings.

    ``poll``: it is run at the period and one output is one reading, killed after ``deadline_s``; else it runs all the
    time and each line is one. In ``argv`` the word ``{period_ms}`` stands for the period in whole milliseconds.
    Its streams have the kind ``poll`` or ``lines``; a poll's ``path`` is the command line, words between blanks.
    It is started only where its first word can be found on the target, or ``needs``, where that is a shell.
    """

    argv: tuple[str, ...]
    poll: bool = True
    deadline_s: float = 2.0
    needs: str = ""

    @property
    def program(self) -> str:
        """What the target must have for it."""
        return self.needs or self.argv[0]

    def words(self, period_ms: float) -> list[str]:
        """The command line at a period."""
        return [word.replace("{period_ms}", f"{max(1, round(period_ms))}") for word in self.argv]


@dataclass(frozen=True)
class Reader:
    """One source of signals: where it lies, how it is parsed, which options a profile may give it.

    What it reads are files (``paths``), the output of the target's programs (``commands``), or of a ``helper`` of ours.
    ``asked``: of what the controller asks it before a run, by a single reading.
    """

    name: str
    paths: tuple[PathSpec, ...]
    parse: Parse
    options: frozenset[str] = frozenset()
    helper: Helper | None = None
    commands: tuple[Command, ...] = ()
    asked: tuple[Asked, ...] = ()


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


def int_values(readings: Readings) -> tuple[Floats, Codes]:
    """Values of a file that holds one integer: NaN where it held none, with a status code a reading."""
    codes = read_codes(readings)
    numbers, good = parse_ints(readings)
    codes[(codes == OK) & ~good] = UNPARSED
    values = numbers.astype(np.float64)
    values[codes != OK] = NAN
    return values, codes


def int_series(
    source: str,
    stream: Stream,
    column: Column,
    *,
    scale: float,
    wrap: float | None = None,
    klass: str | None = None,
    update_s: float = 0.0,
) -> Series:
    """A series from a file that holds one integer, ``scale`` units a count."""
    values, codes = int_values(stream.readings)
    return make_series(source, stream, column, values * scale, codes, wrap=wrap, klass=klass, update_s=update_s)


def make_series(
    source: str,
    stream: Stream,
    column: Column,
    values: Floats,
    status: Codes,
    *,
    wrap: float | None = None,
    klass: str | None = None,
    update_s: float = 0.0,
) -> Series:
    """A series that carries the stream's times and path."""
    r = stream.readings
    return Series(
        column.name, column.unit, column.kind, source, column.scope, r.t0_ns, r.t1_ns, values, status,
        path=stream.path, klass=klass, wrap=wrap, update_s=update_s,
    )  # fmt: skip


def text_series(
    source: str, stream: Stream, columns: Sequence[Column], row: Callable[[bytes], Sequence[float]]
) -> list[Series]:
    """Series from a text that holds several numbers; ``row`` gives one a column, NaN for one it does not find.

    A text cut at the probe's limit (E2BIG) is still read: what is missing is NaN. A column that was never found
    gives no series, unless a reading failed.
    """
    readings = stream.readings
    codes = read_codes(readings)
    usable = (codes == OK) | (readings.err == errno.E2BIG)
    table = np.full((len(readings), len(columns)), NAN)
    raw = readings.raw
    for i in np.flatnonzero(usable).tolist():
        table[i] = row(raw[i])
    out = []
    for j, column in enumerate(columns):
        values = table[:, j].copy()
        found = np.isfinite(values)
        # A slice without it may still show that reading failed.
        if found.any() or not usable.all():
            status = np.where(found, OK, np.where(usable, UNPARSED, codes)).astype(np.uint8)
            out.append(make_series(source, stream, column, values, status))
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


@dataclass(frozen=True)
class Sighting:
    """What one slice of a run showed of a source; slices add up, and the whole is told as one SourceStatus.

    ``paths`` of it were opened or tried, ``unopened`` of them could not be; ``tally`` counts samples by status.
    ``absent`` says what was looked for, ``note`` what else there is to say.
    """

    source: str
    paths: int
    readings: int
    tally: Counter[Status]
    unopened: Counter[Status]
    absent: str = ""
    note: str = ""

    def __add__(self, later: Sighting) -> Sighting:
        notes = dict.fromkeys(filter(None, (*self.note.split("; "), *later.note.split("; "))))
        note = "; ".join([*notes][:_MAX_NOTES])
        return replace(self, readings=self.readings + later.readings, tally=self.tally + later.tally, note=note)

    def without(self, series: Sequence[Series], readings: int) -> Sighting:
        """Less what these series showed, made of so many readings."""
        tally = self.tally.copy()
        tally.subtract(word for one in series for word in one.words)
        return replace(self, readings=self.readings - readings, tally=tally)

    def marked(self, n: int) -> Sighting:
        """With ``n`` of the samples that had a value found to be implausible."""
        found: Counter[Status] = Counter({"implausible": n, "ok": -n})
        found.update(self.tally)
        return replace(self, tally=found)

    def told(self) -> SourceStatus:
        """One row about a source: ``ok`` when any value came of it, else the most telling cause."""
        if not self.paths:
            return SourceStatus(self.source, "absent", 0, 0, "; ".join(filter(None, (self.absent, self.note))))
        tally = self.tally + self.unopened
        if self.readings == 0 and not tally:
            detail = "; ".join(filter(None, ("opened, never read", self.note)))
            return SourceStatus(self.source, "absent", self.paths, 0, detail)
        status: Status = "ok" if tally["ok"] else next((w for w in _TELLING if tally[w]), "unparsed")
        bad = ", ".join(f"{tally[w]} {w}" for w in _TELLING if tally[w])
        return SourceStatus(self.source, status, self.paths, self.readings, "; ".join(filter(None, (bad, self.note))))


def sighting(
    source: str, streams: Sequence[Stream], series: Sequence[Series], *, absent: str = "", note: str = ""
) -> Sighting:
    """What was seen in ``series`` made of ``streams``: those that carry values."""
    codes = [one.status for one in series]
    if not series:
        codes = [found[found != OK] for found in (read_codes(stream.readings) for stream in streams)]
    counts = sum((np.bincount(one, minlength=len(STATUSES)) for one in codes), np.zeros(len(STATUSES), np.int64))
    tally: Counter[Status] = Counter({word: int(n) for word, n in zip(STATUSES, counts.tolist(), strict=True) if n})
    unopened: Counter[Status] = Counter(stream.status for stream in streams if stream.status != "ok")
    readings = sum(len(stream.readings) for stream in streams)
    return Sighting(source, len(streams), readings, tally, unopened, absent, note)
