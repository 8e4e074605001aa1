"""What else a device is: its system, processor, memory, accelerator, and what else it is doing."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.doctor.exam import Finding, number_of
from meltbench.measure.validity import FOREIGN_CORES
from meltbench.report.units import quantity

if TYPE_CHECKING:
    from meltbench.doctor.exam import Exam

LOADED_SHARE, SOME_CORES = 0.25, 3 * FOREIGN_CORES  # of the processors, and in processors; the look itself is a part
LOW_BYTES, TIGHT_BYTES = 1 << 30, 256 << 20  # a small model with its context and the system; less than an engine's own
SWAPPED_BYTES = 64 << 20  # what an idle system pushes out by and by
_32_BIT = ("armv6l", "armv7l", "armv8l", "i686")
_swap = re.compile(r"^(\S+)\s+(\w+)\s+(\d+)\s+(\d+)", re.MULTILINE)
# What llama.cpp has kernels for, best first, and how the build that has them is asked for.
_ARM = (("i8mm", "i8mm"), ("asimddp", "dotprod"))
_X86 = (("avx512f", "AVX-512"), ("avx2", "AVX2"), ("avx", "AVX"))


def findings(exam: Exam) -> list[Finding]:
    """From the system to the load."""
    return [
        _system(exam),
        *_pages(exam),
        _processor(exam),
        *_accelerator(exam),
        _memory(exam),
        *_swapped(exam),
        _load(exam),
    ]


def _system(exam: Exam) -> Finding:
    facts = exam.facts
    assert facts is not None
    seen = ", ".join(filter(None, (facts.os, facts.kernel, facts.arch)))
    if facts.arch in _32_BIT and {"asimd", "aes", "crc32"} & set(facts.cpu_features):
        return Finding(
            "system", f"{seen}: 32 bits on a processor of 64", "advice",
            "Engines reach half its speed or less, and a model above 2 GB does not fit: install the 64-bit system.",
        )  # fmt: skip
    return Finding("system", seen)


def _pages(exam: Exam) -> list[Finding]:
    size = exam.page_bytes
    if size is None or size == 4096:
        return []
    mend = exam.advice(
        "pages", "large", "A prebuilt program that was made for pages of 4 KiB may die at its start; ours do not."
    )
    return [Finding("pages", f"of {quantity(size, 'B')}", "ok", mend)]


def _processor(exam: Exam) -> Finding:
    facts = exam.facts
    assert facts is not None
    features = set(facts.cpu_features)
    cores = facts.cores_physical or facts.cpus_online
    seen = ", ".join(filter(None, (facts.cpu, f"{cores} cores" if cores else "")))
    best = next((word for key, word in (*_ARM, *_X86) if key in features), None)
    if facts.arch == "aarch64":
        seen += f"; {f'has {best}' if best else 'neither dotprod nor i8mm'}"
    elif best is not None:
        seen += f"; has {best}"
    return Finding("processor", seen)


def _accelerator(exam: Exam) -> list[Finding]:
    facts = exam.facts
    assert facts is not None
    if facts.accelerator is None:
        return []
    name, here = exam.known.name, exam.known.place.kind == "local"
    if exam.cuda is not None and not here:
        seen = f"{facts.accelerator}; runs take the engine that was compiled there for it (CUDA {exam.cuda})"
        return [Finding("accelerator", seen)]
    if "NVIDIA" in facts.accelerator:
        after = "name the folder that this prints by --engine" if here else "later runs take it by themselves"
        way = (
            f"Where CUDA's toolkit is installed, compile one there, once; {after}:\n"
            f"    meltbench runners build llamacpp --on-device {name} --cuda\nElse give a build with its libraries:\n"
        )
    else:
        way = (
            "Give one that was built for Vulkan, as llama.cpp's releases have it. A GPU inside of the processor shares "
            "its memory, so that it reads a prompt faster at best, and seldom answers faster:\n"
        )
    generic = (
        "The default engine computes on the processor, and runs say so (gpu_unused). "
        f"{way}    meltbench run --device {name} --engine PATH"
    )
    return [Finding("accelerator", facts.accelerator, "advice", exam.advice("accelerator", "idle", generic))]


def _memory(exam: Exam) -> Finding:
    facts = exam.facts
    assert facts is not None
    free, whole = facts.memory_available_bytes, facts.memory_total_bytes
    if free is None or whole is None:
        return Finding("memory", "unknown: /proc/meminfo tells none", "advice", "Whether a model fits cannot be told.")
    seen = f"{quantity(free, 'B')} available of {quantity(whole, 'B')}"
    if free < TIGHT_BYTES:
        return Finding("memory", seen, "problem", "No model fits beside what runs there: close other programs.")
    if free < LOW_BYTES:
        mend = exam.advice("memory", "low", "Enough for the smallest models. A desktop takes half a gigabyte:\n"
                           "    sudo systemctl isolate multi-user.target")  # fmt: skip
        return Finding("memory", seen, "advice", mend)
    return Finding("memory", seen)


def _swapped(exam: Exam) -> list[Finding]:
    text = exam.text("/proc/swaps")
    if text is None:
        return []
    rows = [(path, int(size) * 1024, int(used) * 1024) for path, _, size, used in _swap.findall(text)]
    if not rows:
        return [Finding("swap", "none")]
    used = sum(one for _, _, one in rows)
    zram = any("zram" in path for path, _, _ in rows)
    seen = ", ".join(f"{path}: {quantity(one, 'B')} of {quantity(size, 'B')} used" for path, size, one in rows)
    if used < SWAPPED_BYTES:
        return [Finding("swap", seen)]
    what = (
        "What lies in zram is packed in memory: it hides how full that is, and unpacking it costs the processor. "
        if zram
        else "What lies there is read back from the disk while a run measures. "
    )
    mend = exam.advice("swap", "used", f"{what}Empty it once there is room:\n    sudo swapoff -a && sudo swapon -a")
    return [Finding("swap", seen, "advice", mend)]


def _load(exam: Exam) -> Finding:
    """What others compute: in the seconds of the look, else by the kernel's mean of a minute."""
    facts = exam.facts
    assert facts is not None
    cores = facts.cpus_online or 1
    minute = number_of((exam.text("/proc/loadavg") or "").split(" ")[0])
    busy = exam.values(begin="cpu.busy_s").get("cpu.busy_s", minute)
    if busy is None:
        return Finding("other load", "unknown: neither /proc/stat nor /proc/loadavg tells it")
    seen = f"{busy:.2g} of {cores} processors" + ("" if minute is None else f", load {minute:g} over the last minute")
    if busy > max(1.0, LOADED_SHARE * cores):
        return Finding(
            "other load",
            seen,
            "problem",
            "Runs would share the processor and be degraded (background_load). See what it is, and wait or end it:\n"
            "    top -b -n 1 | head -n 15",
        )
    if busy > SOME_CORES:
        mend = "More than an idle device has. Right after it was started that is normal; else see what it is:\n    top"
        return Finding("other load", seen, "advice", mend)
    return Finding("other load", seen)
