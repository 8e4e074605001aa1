"""What every transport to another machine holds, whatever carries it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from meltbench.deadline import Deadline
from meltbench.targets import Feed, Transport

SOON = 20.0
# Words that one shell or another would take for something else.
ODD = (
    "a b",
    "$HOME",
    "`id`",
    "x;y",
    "'",
    '"',
    "''\"\"",
    "*",
    "~",
    "!x",
    "a\\b",
    "\\\\",
    "",
    "-n",
    "{a,b}",
    "=ls",
    "#",
    "%1",
)
LINES = ("\n", "a\nb\n", "ü€\t\x7f", "'\n'", "\\n", "\r")


def soon() -> Deadline:
    return Deadline.after(SOON)


def no_shell_sees_arguments(to: Transport, lines: Sequence[str] = LINES) -> None:
    for words in (ODD, lines):
        done = to.run(["sh", "-c", 'for w; do printf "%s\\0" "$w"; done', "sh", *words], soon())
        assert done.stdout.decode().split("\0")[:-1] == [*words]


def stdin_is_what_is_fed(to: Transport, data: bytes, file: Path) -> int:
    """``data``: of more than 1 MiB; ``file`` is written. How much was told of what is behind its first MiB."""
    file.write_bytes(data)
    told: list[int] = []
    assert to.run(["cat"], soon()).stdout == b""
    assert to.run(["cat"], soon(), feed=Feed(data, 3)).stdout == data[3:]
    assert to.run(["cat"], soon(), feed=Feed(file, 1 << 20, told.append)).stdout == data[1 << 20 :]
    assert told == sorted(told)
    return told[-1]


def floods_are_bounded(to: Transport) -> None:
    flood = "head -c 20000000 /dev/zero & head -c 20000000 /dev/zero >&2; wait"
    done = to.run(["sh", "-c", flood], Deadline.after(60))
    assert (done.code, len(done.stdout), len(done.stderr)) == (0, 8 << 20, 8 << 20)
