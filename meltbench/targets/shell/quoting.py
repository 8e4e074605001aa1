"""The one line that sshd hands to the login shell of the device's user, whichever that shell is."""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Sequence

# The kernel takes 128 KiB for one argument, and the line is one argument of the login shell (execve(2)).
MAX_LINE_BYTES = (128 << 10) - 1
_PLAIN = re.compile(r"[A-Za-z0-9_./:,@+-]+")
_PIECES = re.compile(r"[A-Za-z0-9_./:,@+-]+|'+|[\\!]|[^A-Za-z0-9_./:,@+'\\!-]+")
_VISIBLE = re.compile(r"[ -~]*")


def line(argv: Sequence[str], mark: str) -> str:
    """A command line that runs ``argv`` as it stands, after writing ``mark`` as a line to stdout.

    What stands before the mark is of the login shell's start-up files (.bashrc, .cshrc, ~/.ssh/rc), and is cut off. On
    stderr they are not told apart: no word for that redirection is common to all shells, and a further sh between would
    make a short command a third slower. The login shell becomes the program, so that sshd tells which signal ended it.
    Raises UserError for what no command can be given: a NUL, or too much.
    """
    if not argv or any("\0" in word for word in argv):
        raise UserError("a command for a device is at least one word, and none holds a NUL byte")
    says, argv = f"echo {mark}; ", list(argv)
    if argv[:2] == ["sh", "-c"] and len(argv) > 2:
        argv[2], says = says + argv[2], ""  # there are vendors whose every shell prints something as it starts
    if all(map(_VISIBLE.fullmatch, argv)):
        made = f"{says}exec {' '.join(map(_word, argv))}"
    else:
        # csh takes no newline within quotes, and some shells are picky about bytes beyond ASCII: as octal digits, which
        # printf of sh puts back.
        made = f"exec sh -c '{says}eval \"exec $(printf %b \"$1\")\"' sh '{_octal(shlex.join(argv))}'"
    if len(made) > MAX_LINE_BYTES:
        raise UserError(f"a command of {len(made)} bytes is more than a device takes", hint="push it as a file")
    return made


def _word(word: str) -> str:
    """A word of visible ASCII that sh, bash, zsh, csh, tcsh and fish all read as it is.

    Single quotes are not read alike: csh looks into them for ``!``, fish for ``\\``; both are escaped outside of them.
    """
    if _PLAIN.fullmatch(word):
        return word
    return "".join(map(_piece, _PIECES.findall(word))) or "''"


def _piece(piece: str) -> str:
    if _PLAIN.fullmatch(piece):
        return piece
    if piece[0] == "'":
        return f'"{piece}"'
    return f"\\{piece}" if piece in "\\!" else f"'{piece}'"


def _octal(text: str) -> str:
    """The form that ``printf %b`` of POSIX decodes: \\0 and three octal digits."""
    data = text.encode("utf-8", "surrogateescape")
    return "".join(chr(byte) if chr(byte) in _BARE else f"\\0{byte:03o}" for byte in data)


_BARE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_./:,@+- ")
