"""What kind of program a file is, from its first bytes: so that a wrong one is explained before anything is started.

Offsets are those of elf(5). Only what a run would fail on is looked at: the machine it is for, and whether the parts
that are loaded are there.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from meltbench.errors import UserError

if TYPE_CHECKING:
    from pathlib import Path

# e_machine, and the names that uname -m gives to machines which run it.
_MACHINES: dict[int, tuple[str, tuple[str, ...]]] = {
    3: ("i686", ("i386", "i486", "i586", "i686", "x86_64")),
    21: ("ppc64le", ("ppc64le", "ppc64")),
    22: ("s390x", ("s390x",)),
    40: ("arm", ("armv6l", "armv7l", "armv8l", "aarch64")),
    62: ("x86_64", ("x86_64",)),
    183: ("aarch64", ("aarch64",)),
    243: ("riscv64", ("riscv64", "riscv32")),
    258: ("loongarch64", ("loongarch64",)),
}
_OTHERS = (
    ((b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe", b"\xce\xfa\xed\xfe"), "a macOS program"),
    ((b"MZ",), "a Windows program"),
    ((b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ"), "an archive"),
)
# What a loader is part of, by how its path begins.
_LOADERS = (
    (("/system/bin/linker", "/apex/com.android.runtime/bin/linker"), "Android"),
    (("/lib/ld-musl-",), "Linux with musl"),
    (("/lib/ld-linux", "/lib64/ld-linux", "/lib64/ld64.so", "/lib/ld64.so"), "Linux with glibc"),
)
_LOAD, _INTERP = 1, 3
HEAD_BYTES = 64 << 10
_MAX_HEADERS = 512
_AGAIN = "fetch or build it again"


def machine_of(path: Path) -> str | None:
    """The machine a program is for, by the name of ``uname -m`` where it has one; None for a script.

    Raises UserError for a file that is no program of Linux, or of which a part is missing; OSError as open does.
    """
    with path.open("rb") as file:
        head = file.read(64)
        if head.startswith(b"#!"):
            return None
        if not head.startswith(b"\x7fELF"):
            raise UserError(f"{path} is no program: {_described(head)}", hint="give one built for the target's Linux")
        return _machine(path, file, head, path.stat().st_size)


@dataclass(frozen=True)
class Header:
    """The machine a program is for, its number in e_machine, and the loader that it names; None where it is static."""

    machine: str
    number: int
    loader: str | None


def header_of(head: bytes) -> Header | None:
    """What the first HEAD_BYTES of a file say of a program that lies elsewhere; None for what is no ELF file."""
    if not head.startswith(b"\x7fELF") or len(head) < 64:
        return None
    wide, order = head[4:5] == b"\x02", ">" if head[5:6] == b"\x02" else "<"
    number, table, each, count, form = _layout(head, wide, order)
    loader = None
    for at in range(table, table + each * min(count, _MAX_HEADERS), max(each, 1)):
        if len(head) < at + struct.calcsize(form):
            break
        parts = struct.unpack_from(form, head, at)
        offset, length = (parts[2], parts[5]) if wide else (parts[1], parts[4])
        if parts[0] == _INTERP and length <= 4096:
            loader = head[offset : offset + length].rstrip(b"\0").decode("utf-8", "replace") or None
    return Header(_named(number), number, loader)


def system_of(loader: str) -> str | None:
    """The system whose programs are started by that loader; None where nobody knows."""
    return next((system for begins, system in _LOADERS if loader.startswith(begins)), None)


def runs_on(machine: str | None, arch: str) -> bool:
    """Whether a program for ``machine`` can run where ``uname -m`` says ``arch``; also where nobody knows."""
    known = dict(_MACHINES.values())
    return machine not in known or arch in known[machine] or arch == "unknown"


def _described(head: bytes) -> str:
    if not head:
        return "it is empty"
    for magics, what in _OTHERS:
        if head.startswith(magics):
            return f"it is {what}"
    return "it is neither an ELF file nor a script"


def _machine(path: Path, file: BinaryIO, head: bytes, size: int) -> str:
    wide, order = head[4:5] == b"\x02", ">" if head[5:6] == b"\x02" else "<"
    if len(head) < (64 if wide else 52):
        raise UserError(f"{path} is cut off within its header", hint=_AGAIN)
    machine, table, each, count, form = _layout(head, wide, order)
    if each < struct.calcsize(form) or not 0 < count <= _MAX_HEADERS:
        raise UserError(f"{path} is no program: its header names nothing to load", hint=_AGAIN)
    file.seek(min(table, size))
    headers = file.read(each * count)
    if len(headers) < each * count:
        raise UserError(f"{path} is cut off: it has {size} bytes, its header speaks of more", hint=_AGAIN)
    needed = 0
    for at in range(0, len(headers), each):
        parts = struct.unpack_from(form, headers, at)
        offset, length = (parts[2], parts[5]) if wide else (parts[1], parts[4])
        if parts[0] == _LOAD:
            needed = max(needed, offset + length)
    if needed > size:
        raise UserError(f"{path} is cut off: {size} of at least {needed} bytes are there", hint=_AGAIN)
    return _named(machine)


def _layout(head: bytes, wide: bool, order: str) -> tuple[int, int, int, int, str]:
    """e_machine; where the program headers are, the size and number of them; how the first six words of one lie."""
    machine: int = struct.unpack_from(f"{order}H", head, 18)[0]
    table: int = struct.unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)[0]
    each, count = struct.unpack_from(f"{order}HH", head, 54 if wide else 42)
    return machine, table, each, count, f"{order}IIQQQQ" if wide else f"{order}IIIII"


def _named(machine: int) -> str:
    return _MACHINES[machine][0] if machine in _MACHINES else f"machine {machine}"
