"""What llama.cpp's own log says of where a model lies; the same words in all of its programs and bindings."""

from __future__ import annotations

import re

_DEVICE = re.compile(r"using device (?P<device>[A-Za-z]+)\d*\b")
_LAYERS = re.compile(r"offloaded (?P<on>\d+)/(?P<of>\d+) layers")
_CPU = re.compile(r"CPU(?:_Mapped|_REPACK)? model buffer size|\bCPU : |common_init|server is listening|model loaded")
# llama.cpp's short name of a backend, where it is not the name by which people know it.
_NAMES = {"MTL": "Metal"}


def accelerator(log: str) -> str:
    """The device named by llama.cpp's log; CPU when it loaded a model and named no other, else unknown.

    A model that lies on the device in part is no run of that device alone, so its share is said: ``CUDA 12/31``.
    """
    if match := _DEVICE.search(log):
        layers = _LAYERS.search(log)
        whole = layers is None or layers["on"] == layers["of"]
        name = known_as(match["device"])
        return name if whole or layers is None else f"{name} {layers['on']}/{layers['of']}"
    return "CPU" if _CPU.search(log) else "unknown"


def known_as(backend: str) -> str:
    """A backend by the name people know it by."""
    return _NAMES.get(backend, backend)
