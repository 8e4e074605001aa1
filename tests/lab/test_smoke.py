"""An engine that cannot be executed is explained: real programs, each with something wrong, under the real kernel."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from meltbench import paths
from meltbench.builds.smoke import Smoke, smoke, smoked
from meltbench.deadline import Deadline
from meltbench.probe import build
from meltbench.targets import facts as device_facts
from meltbench.targets.facts import Facts
from meltbench.targets.local import LocalTransport

HELLO = '#include <stdio.h>\nint main(void) { puts("version: 4 (build 2)"); return 0; }\n'
# No library and no start-up code: what a processor makes of it is all that there is.
DOTPROD = """void _start(void) {
    __asm__ volatile("udot v0.4s, v1.16b, v2.16b\\n mov x8, #93\\n mov x0, #0\\n svc #0");
}
"""
CORTEX_A72 = ("fp", "asimd", "evtstrm", "crc32", "cpuid")
CORTEX_A76 = (*CORTEX_A72, "atomics", "asimdrdm", "asimddp", "fphp", "asimdhp")


def asked(program: Path, seconds: float = 20, facts: Facts | None = None, **more: object) -> Smoke:
    here = facts or replace(host(), cpu_features=("sse4_2",))
    return smoke(LocalTransport(), str(program), {}, here, Deadline.after(seconds), **more)  # type: ignore[arg-type]


def host() -> Facts:
    machine = subprocess.check_output(["uname", "-m"], text=True).strip()
    return replace(device_facts.parse({"uname": {"machine": machine}}), identity="a board", os="Some Linux 12")


def compiled(folder: Path, text: str, *words: str, name: str = "llama-server") -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no cc on this machine")
    source = folder / "source.c"
    source.write_text(text)
    subprocess.run([compiler, str(source), "-o", str(folder / name), *words], check=True)
    return folder / name


def zigged(folder: Path, target: str, text: str, *words: str) -> Path:
    if not build.zig_there():
        pytest.skip("the pinned ziglang is not installed")
    (folder / "zig.c").write_text(text)
    build.zig_cc(
        ["-target", target, "-o", str(folder / "llama-server"), str(folder / "zig.c"), *words],
        paths.cache_dir() / "probe" / "zig",
    )
    return folder / "llama-server"


def test_a_program_that_runs_says_its_version(tmp_path: Path) -> None:
    assert asked(compiled(tmp_path, HELLO)) == Smoke(True, "4 (build 2)", None)


def test_the_environment_reaches_the_program(tmp_path: Path) -> None:
    said = 'printf("version: %s\\n", getenv("WHICH"))'
    text = f"#include <stdio.h>\n#include <stdlib.h>\nint main(void) {{ {said}; return 0; }}\n"
    program = compiled(tmp_path, text)
    found = smoke(LocalTransport(), str(program), {"WHICH": "a b"}, host(), Deadline.after(20))
    assert found == Smoke(True, "a b", None)


def test_an_instruction_that_the_processor_lacks(tmp_path: Path) -> None:
    program = compiled(tmp_path, "int main(void) { __builtin_trap(); }\n")
    found = asked(program, facts=replace(host(), arch="aarch64", cpu_features=CORTEX_A76))
    if host().arch == "x86_64":  # the header is for another machine than those facts
        assert "is built for x86_64, and this device is aarch64" in str(found.explanation)
    found = asked(program)
    assert not found.ok
    assert "stopped at an instruction that this processor does not have" in str(found.explanation)
    assert "It lists: sse4_2" in str(found.explanation)


def test_dot_products_on_a_cortex_a72(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static")
    if emulator is None:
        pytest.skip("no qemu-aarch64-static: make lab installs it")
    words = ("-mcpu=generic+v8_2a+dotprod", "-nostdlib", "-static", "-O1")
    program = zigged(tmp_path, "aarch64-linux-musl", DOTPROD, *words)
    script = tmp_path / "device"  # stands for a board: the emulator runs the program as that processor would
    board = replace(host(), arch="aarch64", cpu_features=CORTEX_A72)
    for cpu, runs in (("cortex-a76", True), ("cortex-a72", False)):
        script.write_text(f'#!/bin/sh\nexec {emulator} -cpu {cpu} {program} "$@"\n')
        script.chmod(0o755)
        found = asked(script, facts=board)
        assert found.ok is runs, found
    assert "does not have" in str(found.explanation)
    assert "It lists: fp asimd evtstrm crc32 cpuid" in str(found.explanation)
    assert "meltbench runners build llamacpp --target aarch64-linux --cpu generic" in str(found.explanation)


def test_what_a_build_is_known_to_need_is_not_tried(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"  # it is not even there
    board = replace(host(), arch="aarch64", cpu_features=CORTEX_A76)
    found = asked(program, facts=board, needs=("asimddp", "i8mm"))
    assert "was built for processors with i8mm." in str(found.explanation)
    assert "--cpu dotprod" in str(found.explanation)


def test_a_program_for_another_machine(tmp_path: Path) -> None:
    text = "void _start(void) { for (;;) {} }\n"
    program = zigged(tmp_path, "powerpc64le-linux-musl", text, "-nostdlib", "-static")
    found = asked(program)
    assert f"is built for ppc64le, and this device is {host().arch}" in str(found.explanation)
    assert "meltbench runners build llamacpp --target" in str(found.explanation)


@pytest.mark.parametrize(
    ("name", "advice"),
    [("vulkan", "libvulkan1"), ("ggml-base", "whole folder"), ("cublas", "CUDA's"), ("odd", "the package that has it")],
)
def test_a_library_that_is_missing_is_named_with_what_has_it(tmp_path: Path, name: str, advice: str) -> None:
    library = f"lib{name}.so"
    compiled(tmp_path, "int there(void) { return 0; }\n", "-shared", "-fPIC", f"-Wl,-soname,{library}", name=library)
    program = compiled(tmp_path, "int there(void); int main(void) { return there(); }\n", str(tmp_path / library))
    (tmp_path / library).unlink()
    found = asked(program)
    assert f"needs {library}, which is not on the device: " in str(found.explanation)
    assert advice in str(found.explanation)


def test_a_system_that_is_too_old(tmp_path: Path) -> None:
    # Linked to a C library of a release that is yet to come.
    versions = tmp_path / "versions"
    versions.write_text("GLIBC_2.99 { newer; };\n")
    words = ("-shared", "-fPIC", "-nostdlib", "-Wl,-soname,libc.so.6", f"-Wl,--version-script={versions}")
    library = compiled(tmp_path, "int newer(void) { return 0; }\n", *words, name="libnewer.so")
    text = "int newer(void); void _start(void) { newer(); for (;;) {} }\n"
    found = asked(compiled(tmp_path, text, "-nostdlib", "-nostartfiles", str(library)))
    assert "needs GLIBC_2.99, and the C library (glibc) of Some Linux 12 is older." in str(found.explanation)


def test_a_loader_that_is_missing(tmp_path: Path) -> None:
    program = compiled(tmp_path, HELLO, "-Wl,--dynamic-linker=/lib/ld-nowhere.so.1")
    found = asked(program)
    assert "is started by /lib/ld-nowhere.so.1, which is not on the device" in str(found.explanation)
    script = tmp_path / "script"
    script.write_text("#!/nowhere/python\n")
    script.chmod(0o755)
    assert "is a script, and what its first line names is not on the device" in str(asked(script).explanation)


def test_a_file_that_may_not_be_executed(tmp_path: Path) -> None:
    program = compiled(tmp_path, HELLO)
    program.chmod(0o644)
    assert f"is not marked executable: chmod +x {program}" in str(asked(program).explanation)


@pytest.fixture
def noexec(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "mounted"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "noexec", "none", str(folder)], capture_output=True).returncode:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_folder_from_which_nothing_may_be_executed(noexec: Path, tmp_path: Path) -> None:
    shutil.copy2(compiled(tmp_path, HELLO), noexec)
    assert f"lies on {noexec}, which is mounted noexec" in str(asked(noexec / "llama-server").explanation)


def test_a_program_that_is_not_there_hangs_or_fails(tmp_path: Path) -> None:
    assert asked(tmp_path / "nothing").explanation == f"{tmp_path}/nothing is not on the device"
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 61\n")
    hanging.chmod(0o755)
    assert "did not end within" in str(asked(hanging, seconds=2.5).explanation)
    failing = tmp_path / "failing"
    failing.write_text("#!/bin/sh\necho 'no such option' >&2; exit 3\n")
    failing.chmod(0o755)
    assert asked(failing).explanation == f"{failing} --version ended with exit status 3: no such option"


def test_that_it_runs_is_remembered_for_that_engine_device_and_system(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    calls = 0

    def ask(answer: Smoke) -> Smoke:
        nonlocal calls
        calls += 1
        return answer

    board = host()
    good, bad = Smoke(True, "4", None), Smoke(False, None, "a library is missing")
    assert smoked("a" * 64, board, lambda: ask(bad)) == bad  # and installed meanwhile
    assert smoked("a" * 64, board, lambda: ask(good)) == good
    assert smoked("a" * 64, board, lambda: ask(bad)) == good
    assert calls == 2
    for other in (replace(board, identity="another"), replace(board, os="Some Linux 13"), replace(board, kernel="7")):
        assert smoked("a" * 64, other, lambda: ask(bad)) == bad
    assert smoked("b" * 64, board, lambda: ask(bad)) == bad
    for file in (tmp_path / "meltbench" / "smoke").iterdir():
        file.write_text('{"ok": tru')
    assert smoked("a" * 64, board, lambda: ask(bad)) == bad
