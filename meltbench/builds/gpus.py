"""Which accelerators an engine can use, by what it is made of, and the warning where a device's GPU stands idle."""

from __future__ import annotations

import mmap
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from meltbench.targets.facts import Facts

# llama.cpp's backends: the library of each, and words that stand in a program which it was linked into.
_BACKENDS = {
    "CUDA": ("libggml-cuda", b"ggml_cuda_init"),
    "HIP": ("libggml-hip", b"ggml_hip"),
    "Vulkan": ("libggml-vulkan", b"ggml_vulkan: "),
    "SYCL": ("libggml-sycl", b"ggml_sycl"),
    "OpenCL": ("libggml-opencl", b"ggml_opencl: "),
    "CANN": ("libggml-cann", b"ggml_backend_cann"),
}
_COMPUTE = ("NVIDIA", "AMD", "Intel")


def accelerators(program: Path) -> tuple[str, ...]:
    """The kinds of GPU that a program was built for, from itself and the libraries beside it. Raises OSError."""
    beside = [path.name for path in program.parent.iterdir()]
    with program.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as body:
        return tuple(
            kind
            for kind, (library, words) in _BACKENDS.items()
            if any(name.startswith(library) for name in beside) or body.find(words) >= 0
        )


def no_gpu_warning(facts: Facts, usable: Collection[str], device: str) -> str | None:
    """What it means that an engine without a GPU runs on a device that has one; None where there is nothing to warn of.

    ``usable``: what ``accelerators`` says of the engine. ``device``: its name, for the command that mends it.
    """
    if usable:
        return None
    jetson = any(name.startswith("nvidia,tegra") for name in facts.compatible)
    gpus = [gpu for gpu in facts.gpus if gpu.startswith(_COMPUTE)] or (["a Jetson's own GPU"] if jetson else [])
    if not gpus:
        return None
    nvidia = jetson or any(gpu.startswith("NVIDIA") for gpu in gpus)
    way = f"meltbench runners build llamacpp --on-device {device} --cuda, or " if nvidia else ""
    kind = "CUDA" if nvidia else "Vulkan"
    return (
        f"{device} has {', '.join(gpus)}, and this engine computes on the CPU only: these are not the GPU's figures "
        f"({way}--engine PATH with a {kind} build)"
    )
