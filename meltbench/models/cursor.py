"""Steps through an untrusted little-endian file with bounded memory; every step is checked against the file's end."""

from __future__ import annotations

import struct
from typing import IO, TYPE_CHECKING, NoReturn

from meltbench.errors import ModelDamaged

if TYPE_CHECKING:
    from pathlib import Path

_WINDOW = 1 << 20
_U64 = struct.Struct("<Q")


class Cursor:
    """A position in ``file``, which is ``size`` bytes long; ``path`` is named in errors."""

    def __init__(self, file: IO[bytes], path: Path, size: int) -> None:
        self.path, self.size, self.pos = path, size, 0
        self._file, self._base, self._buf = file, 0, b""

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        """Raise ModelDamaged, "corrupt GGUF" for byte ``at`` (default: here)."""
        where = self.pos if at is None else at
        raise ModelDamaged(
            f"corrupt GGUF {self.path}: byte {where}: expected {expected}",
            hint="fetch the file again, or convert the model again",
        )

    def skip(self, count: int, what: str) -> None:
        """Step over ``count`` bytes of ``what``."""
        if count > self.size - self.pos:
            self.fail(f"{what} ({count} bytes), but the file ends at byte {self.size}")
        self.pos += count

    def take(self, count: int, what: str) -> bytes:
        """Return the next ``count`` bytes; the caller bounds ``count``."""
        start = self._window(count, what)
        self.pos += count
        return self._buf[start : start + count]

    def scalar(self, form: str, what: str) -> int | float:
        """Return one number of struct format ``form``."""
        value: int | float = struct.unpack(form, self.take(struct.calcsize(form), what))[0]
        return value

    def u32(self, what: str) -> int:
        """Return an unsigned 32-bit number."""
        return int.from_bytes(self.take(4, what), "little")

    def u64(self, what: str) -> int:
        """Return an unsigned 64-bit number."""
        return int.from_bytes(self.take(8, what), "little")

    def string(self, limit: int, what: str) -> str:
        """Return a length-prefixed UTF-8 string of at most ``limit`` bytes."""
        start = self.pos
        length = self.u64(f"the length of {what}")
        if length > limit:
            self.fail(f"{what} of at most {limit} bytes, got {length}", start)
        try:
            return self.take(length, what).decode("utf-8")
        except UnicodeDecodeError:
            self.fail(f"{what} in UTF-8", start)

    def skip_strings(self, count: int, what: str) -> None:
        """Step over ``count`` length-prefixed strings; the caller bounds ``count``."""
        length_at = _U64.unpack_from
        while count:
            at = self._window(8, what)
            buf, base = self._buf, self._base
            last = len(buf) - 8
            while count and at <= last:
                at += 8 + length_at(buf, at)[0]
                count -= 1
            if base + at > self.size:
                self.fail(f"{what}, but a string in it goes past the file's end at byte {self.size}")
            self.pos = base + at

    def _window(self, count: int, what: str) -> int:
        """Make ``count`` bytes from here available and return where in the window they start."""
        if count > self.size - self.pos:
            self.fail(f"{what} ({count} bytes), but the file ends at byte {self.size}")
        if not self._base <= self.pos <= self._base + len(self._buf) - count:
            self._file.seek(self.pos)
            self._base, self._buf = self.pos, self._file.read(max(count, _WINDOW))
            if len(self._buf) < count:
                self.fail(f"{what}: the file became shorter while it was read")
        return self.pos - self._base
