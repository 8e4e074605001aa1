"""Files to and from a device: what runs there, what is read and written here."""

from __future__ import annotations

import contextlib
import io
import shutil
from typing import TYPE_CHECKING, BinaryIO, cast

from meltbench.errors import DeviceError
from meltbench.targets import printable
from meltbench.targets.shell.streams import Feeder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.targets import Completed, Feed

CUT = 74  # push's script: fewer bytes came than were meant
_MAX_PULL_BYTES = 16 << 30
_MAX_COUNT_BYTES = 100  # the digits of wc, with what it sets before them

# Scripts for any POSIX sh. Arguments: the folder, the temporary name, the name, the count of bytes, the mode. A link
# that is cut gives cat an end of file, as if all had come: hence the count, and the hash where the device can make one,
# before anything gets the name. adbd sends SIGHUP where its link is cut.
PUSH = (
    "LC_ALL=C; export LC_ALL; trap 'rm -f \"$2\"; exit 74' HUP; "
    'if [ -d "$3" ]; then echo "$3: Is a directory" >&2; exit 73; fi; '
    'mkdir -p "$1" || exit 73; '
    'cat >"$2" || { rm -f "$2"; exit 73; }; '
    'h=; [ -z "$6" ] || h=$(sha256sum <"$2" 2>/dev/null || toybox sha256sum <"$2" 2>/dev/null); '
    'case "$h" in "$6 "*|"") ;; *) rm -f "$2"; echo "damaged" >&2; exit 74;; esac; '
    'c=$(wc -c <"$2"); if [ "$c" -ne "$4" ]; then rm -f "$2"; echo "cut short" >&2; exit 74; fi; '
    'chmod "$5" "$2" && mv -f "$2" "$3" || { rm -f "$2"; exit 73; }'
)
PULL = (
    "LC_ALL=C; export LC_ALL; "
    'if [ -d "$1" ]; then echo "$1: Is a directory" >&2; exit 66; fi; '
    'if [ -e "$1" ] && [ ! -f "$1" ]; then echo "$1: Not a regular file" >&2; exit 66; fi; '
    'wc -c <"$1" || exit 66; exec cat "$1"'
)
_HINTS = {
    "No space left on device": "free some space and try again",
    "Disk quota exceeded": "free some space and try again",
    "Read-only file system": "choose another workdir",
    "Permission denied": "check the permissions of that path",
    "No such file": "check that it is there",
    "No such file or directory": "check that it is there",
}


class Sized:
    """Takes what pull's script writes: a count of bytes, a newline, and so many bytes."""

    def __init__(self, file: io.FileIO, destination: Path, path: str) -> None:
        self._file = file
        self._destination = destination
        self._path = path
        self._head = b""
        self._left: int | None = None

    def __call__(self, data: memoryview) -> None:
        """Take what has come. Raises DeviceError for a size that is none, or too much."""
        if self._left is None:
            before, newline, after = (self._head + bytes(data)).partition(b"\n")
            self._head = before
            if not newline and len(before) <= _MAX_COUNT_BYTES:
                return
            self._left = self._size(before)
            data = memoryview(after)
        taken = data[: self._left]
        self._left -= len(taken)
        try:
            while taken:
                taken = taken[self._file.write(taken) :]
        except OSError as error:
            raise local(self._destination, error) from error

    def _size(self, text: bytes) -> int:
        try:
            size = int(text.strip()[:20])
        except ValueError:
            raise DeviceError(f"the target told no size of {self._path}", hint="try again") from None
        free = shutil.disk_usage(self._destination.parent).free
        if not 0 <= size <= _MAX_PULL_BYTES:
            raise DeviceError(f"{self._path} has {size} bytes: more than {_MAX_PULL_BYTES} are not fetched")
        if size > free:
            raise DeviceError(f"{self._path} has {size} bytes, here are {free} free", hint="free some space here")
        return size

    def whole(self) -> bool:
        """Whether all bytes have come."""
        return self._left == 0


@contextlib.contextmanager
def opened(feed: Feed | None) -> Iterator[Feeder | None]:
    """What hands out the file of a feed from its offset on, or its bytes; nothing without a feed."""
    if feed is None:
        yield None
    elif isinstance(feed.source, bytes):
        yield Feeder(io.BytesIO(feed.source[feed.offset :]), feed.size, feed.told)
    else:
        try:
            file = feed.source.open("rb", buffering=0)
        except OSError as error:
            raise local(feed.source, error) from error
        with file:
            file.seek(feed.offset)
            yield Feeder(cast("BinaryIO", file), feed.size, feed.told)


def local(path: Path, error: OSError) -> DeviceError:
    """What this machine's own file system complained of."""
    why = error.strerror or str(error)
    return DeviceError(f"{error.filename or path}: {why}", hint=_HINTS.get(why))


def there(path: str) -> str:
    """A path that no program takes for an option."""
    return path if path.startswith("/") else f"./{path}"


def failed(address: str, path: str, done: Completed) -> DeviceError:
    """What a program of the device complained of: the words after its last colon, as strerror(3) has them."""
    why = done.complaint().rpartition(": ")[2]
    return DeviceError(f"{address}:{printable(path)}: {why}", hint=_HINTS.get(why))
