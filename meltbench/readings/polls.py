"""Output of programs that the probe polls: one output is one reading, and what a program says instead of an answer.

Android's dumpsys ends with 0 whatever happened, so a refusal stands in its text: "Permission Denial: can't dump ..."
(DumpUtils.checkDumpPermission) and "Can't find service: ..." (dumpsys.cpp).
"""

from __future__ import annotations

import errno
import re
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meltbench.readings.base import NAN, read_codes
from meltbench.records import ABSENT, DENIED, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import numpy.typing as npt

    from meltbench.readings.base import Codes, Command, Floats
    from meltbench.records import Stream

_line_end = re.compile(rb"\r{1,2}\n")  # a terminal in between adds a \r, also to a line that has one
_REFUSALS = (
    (re.compile(rb"\s{0,16}[^\n]{0,200}(?:Permission Denial|SecurityException)"), DENIED),
    (re.compile(rb"\s{0,16}(?:cmd: )?Can't find service"), ABSENT),
)


class Raw(NamedTuple):
    """One value a reading, NaN where there is none, with a status code each."""

    values: Floats
    codes: Codes

    def where(self, mask: npt.NDArray[np.bool_], code: int) -> Raw:
        """Without the values that are masked, for that reason."""
        hit = (self.codes == OK) & mask
        return Raw(np.where(hit, NAN, self.values), np.where(hit, code, self.codes).astype(np.uint8))


@lru_cache(maxsize=64)
def _line(command: Command) -> re.Pattern[str]:
    """The command line as the probe writes it; what stands for a pid or a period may be anything."""
    words = re.split(r"\{[a-z_]+(?::[A-Za-z0-9_.-]+)?\}", " ".join(command.argv))
    return re.compile(r"\S{1,64}".join(re.escape(word) for word in words))


def polled(command: Command, streams: Iterable[Stream]) -> list[Stream]:
    """The streams of a command that is polled."""
    return [stream for stream in streams if stream.kind == "poll" and _line(command).fullmatch(stream.path)]


def answers(stream: Stream) -> list[tuple[int, bytes]]:
    """A status code and a text a reading; a text that was cut at the probe's limit is kept for what it still says.

    A program that failed may have said why.
    """
    r = stream.readings
    codes = read_codes(r).tolist()
    out = []
    for code, err, raw in zip(codes, r.err.tolist(), r.raw, strict=True):
        text = _line_end.sub(b"\n", raw)
        failed = OK if err == errno.E2BIG else code
        refused = next((word for pattern, word in _REFUSALS if pattern.match(text)), failed)
        out.append((refused, b"" if refused else text))
    return out


class Table:
    """Values found in texts, by name: what a text does not name is absent there, not zero."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._failed = np.full(n, OK, dtype=np.uint8)
        self._found: dict[str, Raw] = {}

    def put(self, at: int, name: str, value: float, code: int = OK) -> None:
        """One value of reading ``at``, the first of its name; with a code other than OK the reason that it has none."""
        if name not in self._found:
            self._found[name] = Raw(np.full(self._n, NAN), np.full(self._n, ABSENT, dtype=np.uint8))
        raw = self._found[name]
        if raw.codes[at] == ABSENT and np.isnan(raw.values[at]):
            raw.values[at], raw.codes[at] = (value, OK) if code == OK else (NAN, code)

    def fail(self, at: int, code: int = UNPARSED) -> None:
        """Reading ``at`` as a whole gave nothing."""
        self._failed[at] = code

    @property
    def names(self) -> list[str]:
        """Everything that any text named, in order of first sight."""
        return list(self._found)

    @property
    def failed(self) -> bool:
        """Whether any reading as a whole gave nothing."""
        return bool((self._failed != OK).any())

    def raw(self, name: str) -> Raw:
        """The values of that name, one a reading."""
        absent = Raw(np.full(self._n, NAN), np.full(self._n, ABSENT, dtype=np.uint8))
        values, codes = self._found.get(name, absent)
        return Raw(values, np.where(self._failed != OK, self._failed, codes).astype(np.uint8))


def table(stream: Stream, found: Sequence[dict[str, float] | int]) -> Table:
    """A table of what each reading of a stream said: its values by name, or a status code."""
    out = Table(len(stream.readings))
    for at, said in enumerate(found):
        if isinstance(said, int):
            out.fail(at, said)
        else:
            for name, value in said.items():
                out.put(at, name, value)
    return out
