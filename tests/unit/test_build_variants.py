"""Which build a processor gets, and what is said of logs, programs and devices; nothing is compiled."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from meltbench import builds
from meltbench.builds.gpus import accelerators, no_gpu_warning
from meltbench.builds.log import edge_of, why
from meltbench.builds.variants import missing
from meltbench.errors import UnknownName, UserError
from meltbench.targets import facts

FACTS = facts.parse({"uname": {"machine": "aarch64"}})

# What /proc/cpuinfo lists, by the kernels of these boards.
PI4 = "fp asimd evtstrm crc32 cpuid"
PI5 = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"
NEOVERSE_V1 = (
    PI5 + " sha3 sm3 sm4 sha512 sve asimdfhm dit uscat ilrcpc flagm ssbs paca pacg dcpodp svei8mm svebf16 i8mm bf16"
)
PI2 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpv4 idiva idivt vfpd32 lpae evtstrm"
CORTEX_A9 = "half thumb fastmult vfp edsp neon vfpv3 tls vfpd32"
CELERON = "fpu lm pni ssse3 cx16 sse4_1 sse4_2 movbe popcnt lahf_lm aes rdrand"
DESKTOP = CELERON + " abm avx avx2 bmi1 bmi2 f16c fma xsave"
SERVER = DESKTOP + " avx512f avx512dq avx512cd avx512bw avx512vl"


@pytest.mark.parametrize(
    ("arch", "features", "name"),
    [
        ("aarch64", PI4, "aarch64-linux-generic"),
        ("aarch64", PI5, "aarch64-linux-dotprod"),
        ("aarch64", NEOVERSE_V1, "aarch64-linux-i8mm"),
        ("aarch64", PI5.replace("asimdhp ", ""), "aarch64-linux-generic"),
        ("armv7l", PI2, "armv7-linux-generic"),
        ("x86_64", "fpu lm sse2", "x86_64-linux-generic"),
        ("x86_64", CELERON, "x86_64-linux-v2"),
        ("x86_64", DESKTOP, "x86_64-linux-v3"),
        ("x86_64", SERVER, "x86_64-linux-v4"),
        ("x86_64", SERVER.replace("fma ", ""), "x86_64-linux-v2"),
        ("riscv64", "rv64imafdc zicsr", "riscv64-linux-generic"),
        ("aarch64", "", "aarch64-linux-generic"),
        ("armv7l", "", "armv7-linux-generic"),
    ],
)
def test_a_device_gets_the_highest_level_that_it_can_execute(arch: str, features: str, name: str) -> None:
    assert builds.best_variant(arch, features.split()).name == name


def test_a_processor_that_can_execute_none_is_told_what_it_lacks() -> None:
    with pytest.raises(UserError, match="this armv7l processor lacks vfpv4"):
        builds.best_variant("armv7l", CORTEX_A9.split())
    with pytest.raises(UserError, match=r"no engine is built for ppc64le processors; .*--engine"):
        builds.best_variant("ppc64le", ())


def test_each_target_begins_with_the_level_for_any_of_its_processors_and_needs_more_with_each() -> None:
    for target in builds.TARGETS.values():
        rows = [row for row in builds.VARIANTS if row.target == target]
        assert rows[0].cpu == "generic"
        for lower, higher in itertools.pairwise(rows):
            assert set(lower.needs) < set(higher.needs)
    assert len({row.name for row in builds.VARIANTS}) == len(builds.VARIANTS)


def test_names_that_nobody_knows_are_told_with_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean aarch64-linux"):
        builds.variant("arch64-linux")
    with pytest.raises(UnknownName, match="did you mean dotprod"):
        builds.variant("aarch64-linux", "dotprot")


def test_what_a_level_needs_and_a_processor_lacks() -> None:
    i8mm = builds.variant("aarch64-linux", "i8mm")
    assert missing(i8mm.needs, PI5.split()) == ("i8mm",)
    assert missing(i8mm.needs, NEOVERSE_V1.split()) == ()
    assert missing(i8mm.needs, ()) == ()


@pytest.mark.parametrize(
    ("line", "at"),
    [("[12/214] Building C object x.o", (12, 214)), ("[  7%] Building C", (7, 100)), ("[100%] Linking", (100, 100))],
)
def test_how_far_a_build_is(line: str, at: tuple[int, int]) -> None:
    assert edge_of(line) == at
    assert edge_of(f"-- {line}") is None


def test_the_first_error_is_told_not_what_follows_from_it() -> None:
    log = [
        "[3/9] Building CXX object a.o",
        "FAILED: a.o ",
        "a.cpp:4:2: warning: odd",
        "a.cpp:7:10: fatal error: 'nothing.h' file not found",
        "1 error generated.",
        "b.cpp:1:1: error: unknown type name 'x'",
        "ninja: build stopped: subcommand failed.",
    ]
    assert why(log, 1) == "a.cpp:7:10: fatal error: 'nothing.h' file not found"
    configure = ["CMake Error at ggml/CMakeLists.txt:3 (message):", "", "  CUDA is too", "  old", ""]
    assert why(configure, 1) == "CMake Error at ggml/CMakeLists.txt:3 (message): CUDA is too old"
    assert why(["strange"], 7) == "exit status 7"
    assert len(why(["error: " + "x" * 5000], 1)) == 300


def test_which_accelerators_a_program_can_use_is_seen_in_it_and_beside_it(tmp_path: Path) -> None:
    program = tmp_path / "llama-server"
    program.write_bytes(b"\x7fELF plain")
    assert accelerators(program) == ()
    (tmp_path / "libggml-vulkan.so").write_bytes(b"")
    assert accelerators(program) == ("Vulkan",)
    program.write_bytes(b"\x7fELF ... ggml_cuda_init: found %d CUDA devices\0")
    assert accelerators(program) == ("CUDA", "Vulkan")


def test_an_idle_gpu_is_warned_of_with_what_mends_it() -> None:
    orin = replace(FACTS, gpus=(), compatible=("nvidia,p3768-0000+p3767-0005", "nvidia,p3767-0005", "nvidia,tegra234"))
    said = no_gpu_warning(orin, (), "orin")
    assert said is not None
    assert "\n" not in said
    assert "a Jetson's own GPU" in said
    assert "meltbench runners build llamacpp --on-device orin --cuda" in said
    desktop = no_gpu_warning(replace(FACTS, gpus=("AMD",), compatible=()), (), "tower")
    assert desktop is not None
    assert "--cuda" not in desktop
    assert "Vulkan" in desktop
    assert no_gpu_warning(orin, ("CUDA",), "orin") is None
    assert no_gpu_warning(replace(FACTS, gpus=(), compatible=("raspberrypi,5-model-b",)), (), "pi5") is None
    # What draws a virtual machine's screen, or a server's console, computes nothing.
    assert no_gpu_warning(replace(FACTS, gpus=("0x1af4", "0x1a03"), compatible=()), (), "vm") is None
