"""Programs that cannot run are told apart before anything is started."""

import os
import struct
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.elf import header_of, machine_of, runs_on, system_of
from meltbench.errors import UserError
from meltbench.probe import build

OWN = Path(sys.executable).resolve()


def test_real_programs_say_what_they_are_for(tmp_path):
    assert runs_on(machine_of(OWN), os.uname().machine)
    for target, machine in (("aarch64-linux-musl", "aarch64"), ("riscv64-linux-musl", "riscv64")):
        if target in build.TARGETS:
            assert machine_of(build.binary(target)) == machine
    script = tmp_path / "script"
    script.write_text("#!/bin/sh\n")
    assert machine_of(script) is None


def test_the_first_bytes_tell_the_machine_and_the_loader(tmp_path):
    for target, machine, number in (("aarch64-linux-musl", "aarch64", 183), ("arm-linux-musleabihf", "arm", 40)):
        head = header_of(build.binary(target).read_bytes()[:65536])
        assert (head.machine, head.number, head.loader) == (machine, number, None)
    own = header_of(Path("/bin/sh").resolve().read_bytes()[:65536])
    assert own.machine == machine_of(Path("/bin/sh").resolve())
    assert Path(own.loader).name.startswith("ld-")
    assert header_of(b"#!/bin/sh\n") is None


def made(loader: str, machine: int = 183) -> bytes:
    """An ELF file of 64 bits with nothing in it but the name of its loader."""
    text = loader.encode() + b"\0"
    head = (
        b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    )
    return head + struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(text), len(text), 1) + text


@pytest.mark.parametrize(
    ("loader", "system"),
    [
        ("/system/bin/linker64", "Android"),
        ("/system/bin/linker", "Android"),
        ("/apex/com.android.runtime/bin/linker64", "Android"),
        ("/lib/ld-linux-aarch64.so.1", "Linux with glibc"),
        ("/lib64/ld-linux-x86-64.so.2", "Linux with glibc"),
        ("/lib/ld-musl-aarch64.so.1", "Linux with musl"),
        ("/nix/store/ld.so", None),
    ],
)
def test_the_loader_tells_the_system_that_a_program_was_built_for(tmp_path, loader, system):
    path = tmp_path / "llama-server"
    path.write_bytes(made(loader))
    assert machine_of(path) == "aarch64"
    assert header_of(path.read_bytes()).loader == loader
    assert system_of(loader) == system


@given(st.binary(max_size=300))
def test_any_first_bytes_give_a_header_or_none(rest):
    header_of(b"\x7fELF" + rest)


@pytest.mark.parametrize(
    ("machine", "arch", "good"),
    [
        ("x86_64", "x86_64", True),
        ("aarch64", "x86_64", False),
        ("x86_64", "aarch64", False),
        ("arm", "aarch64", True),
        ("i686", "x86_64", True),
        (None, "x86_64", True),
        ("machine 4711", "x86_64", True),
        ("aarch64", "unknown", True),
    ],
)
def test_a_program_runs_where_its_machine_is(machine, arch, good):
    assert runs_on(machine, arch) is good


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (b"", "it is empty"),
        (b"not a program", "neither an ELF file nor a script"),
        (b"MZ\x90\0", "a Windows program"),
        (b"\xcf\xfa\xed\xfe" + bytes(60), "a macOS program"),
        (b"\x1f\x8b\x08", "an archive"),
        (b"\x7fELF\x02\x01", "cut off within its header"),
        (b"\x7fELF\x02\x01" + bytes(58), "names nothing to load"),
    ],
)
def test_what_is_no_program_is_said_in_one_line(tmp_path, head, said):
    path = tmp_path / "llama-server"
    path.write_bytes(head)
    with pytest.raises(UserError, match=said):
        machine_of(path)


def test_a_program_cut_off_is_found_wherever_it_was_cut(tmp_path):
    whole, path = OWN.read_bytes(), tmp_path / "llama-server"
    for size in (70, 400, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="cut off"):
            machine_of(path)


@given(st.binary(max_size=64), st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
def test_any_header_is_a_machine_or_a_reason(tmp_path_factory, tail, table, each, count):
    path = tmp_path_factory.mktemp("elf") / "p"
    head = bytearray(b"\x7fELF\x02\x01" + bytes(58))
    struct.pack_into("<Q", head, 32, table)
    struct.pack_into("<HH", head, 54, each, count)
    path.write_bytes(bytes(head) + tail)
    with suppress(UserError):
        assert machine_of(path)
