"""The processors that engines are built for: a table of targets, and of the levels that a processor may reach.

A level is what /proc/cpuinfo must list for its instructions to run. Names of features: x86's ``flags`` and ARM's
``Features`` by the kernel's own tables (arch/x86/include/asm/cpufeatures.h, Documentation/arch/arm64/elf_hwcaps.rst,
arch/arm/include/uapi/asm/hwcap.h).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench.errors import UnknownName, UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

GENERIC = "generic"


@dataclass(frozen=True)
class Target:
    """A system that programs are built for. ``machines``: what ``uname -m`` says where they run.

    ``zig`` and ``gnu`` are the names that the two kinds of compiler give it, ``processor`` is CMake's.
    """

    name: str
    zig: str
    gnu: str
    processor: str
    machines: tuple[str, ...]


@dataclass(frozen=True)
class Variant:
    """A target and a level of its processors: the words of zig and of gcc for it, and what the processor must have."""

    target: Target
    cpu: str
    zig: tuple[str, ...]
    gcc: tuple[str, ...]
    needs: tuple[str, ...]
    title: str

    @property
    def name(self) -> str:
        """Such as "aarch64-linux-dotprod"."""
        return f"{self.target.name}-{self.cpu}"


TARGETS = {
    target.name: target
    for target in (
        Target("x86_64-linux", "x86_64-linux-musl", "x86_64-linux-gnu", "x86_64", ("x86_64", "amd64")),
        Target("aarch64-linux", "aarch64-linux-musl", "aarch64-linux-gnu", "aarch64", ("aarch64", "arm64")),
        Target("armv7-linux", "arm-linux-musleabihf", "arm-linux-gnueabihf", "armv7l", ("armv7l", "armv8l")),
        Target("riscv64-linux", "riscv64-linux-musl", "riscv64-linux-gnu", "riscv64", ("riscv64",)),
    )
}

_V2 = ("cx16", "lahf_lm", "popcnt", "pni", "sse4_1", "sse4_2", "ssse3")
_V3 = (*_V2, "abm", "avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "movbe", "xsave")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_ARM82 = ("atomics", "asimdrdm", "crc32")
_DOTPROD = (*_ARM82, "asimddp", "fphp", "asimdhp")

# Zig refuses -march=armv8.2-a+...: what a level has is added to a processor that has nothing special. Its compiler says
# that it knows the vectors of RISC-V also where the processor has none, and llama.cpp believes it.
_ROWS: tuple[tuple[str, str, str, str, tuple[str, ...], str], ...] = (
    ("x86_64-linux", GENERIC, "-mcpu=x86_64", "-march=x86-64", (), "any 64-bit x86 processor"),
    ("x86_64-linux", "v2", "-mcpu=x86_64_v2", "-march=x86-64-v2", _V2, "SSE 4.2: small processors without AVX"),
    ("x86_64-linux", "v3", "-mcpu=x86_64_v3", "-march=x86-64-v3", _V3, "AVX2, FMA, F16C: most since 2015"),
    ("x86_64-linux", "v4", "-mcpu=x86_64_v4", "-march=x86-64-v4", _V4, "AVX-512"),
    (
        "aarch64-linux",
        GENERIC,
        "-mcpu=generic",
        "-march=armv8-a",
        (),
        "any 64-bit ARM processor: Pi 3, Pi 4, Jetson Nano",
    ),
    (
        *(
            "aarch64-linux",
            "dotprod",
            "-mcpu=generic+v8_2a+dotprod+fullfp16",
            "-march=armv8.2-a+dotprod+fp16",
            _DOTPROD,
        ),
        "Armv8.2 with dot products and half floats: Pi 5, Jetson Orin",
    ),
    (
        *("aarch64-linux", "i8mm", "-mcpu=generic+v8_2a+dotprod+fullfp16+i8mm", "-march=armv8.2-a+dotprod+fp16+i8mm"),
        *((*_DOTPROD, "i8mm"), "dot products, half floats and 8-bit matrices: Jetson Thor, newer servers"),
    ),
    (
        *(
            "armv7-linux",
            GENERIC,
            "-mcpu=generic+v7a+vfp4+neon+fp16",
            "-march=armv7-a -mfpu=neon-vfpv4 -mfloat-abi=hard",
        ),
        *(("neon", "vfpv4"), "32-bit ARM with NEON and VFPv4: Pi 2 and later on a 32-bit kernel"),
    ),
    (
        "riscv64-linux",
        GENERIC,
        "-mcpu=baseline_rv64 -U__riscv_v_intrinsic",
        "-march=rv64gc -mabi=lp64d",
        (),
        "64-bit RISC-V without vectors",
    ),
)
VARIANTS = tuple(
    Variant(TARGETS[target], cpu, tuple(zig.split()), tuple(gcc.split()), needs, title)
    for target, cpu, zig, gcc, needs, title in _ROWS
)


def variant(target: str, cpu: str = GENERIC) -> Variant:
    """The row of a target and a level. Raises UnknownName with the nearest ones."""
    if target not in TARGETS:
        raise UnknownName("target", target, TARGETS)
    rows = {row.cpu: row for row in VARIANTS if row.target.name == target}
    if cpu not in rows:
        raise UnknownName(f"level of {target} processors", cpu, rows)
    return rows[cpu]


def target_of(arch: str) -> Target:
    """The target of a machine by what ``uname -m`` says of it. Raises UserError where no engine is built for it."""
    for target in TARGETS.values():
        if arch in target.machines:
            return target
    hint = "give an engine that was built for it: --engine PATH"
    raise UserError(f"no engine is built for {arch[:40]} processors", hint=hint)


def best_variant(arch: str, features: Iterable[str]) -> Variant:
    """The highest level that a device can execute, by ``Facts.arch`` and ``Facts.cpu_features``.

    Where the features are not known it is the one for any processor of that kind. Raises UserError where even that
    needs more than the device has.
    """
    target, has = target_of(arch), set(features)
    rows = [row for row in VARIANTS if row.target == target]
    fitting = [row for row in rows if has >= set(row.needs) or (not has and row.cpu == GENERIC)]
    if not fitting:
        lacks = ", ".join(sorted(set(rows[0].needs) - has))
        hint = "give an engine that was built for it: --engine PATH"
        raise UserError(f"this {arch} processor lacks {lacks}, which engines are built with here", hint=hint)
    return fitting[-1]


def missing(needs: Iterable[str], features: Iterable[str]) -> tuple[str, ...]:
    """What a build needs and a processor does not list; nothing where the processor's list is not known."""
    has = set(features)
    return tuple(need for need in needs if need not in has) if has else ()
