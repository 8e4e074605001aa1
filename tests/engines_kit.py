"""Where the lab keeps real engines, and how a test that needs one finds it or skips with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from benchmarks.kit import lab


def stock_folder() -> Path:
    """Stock programs beside the libraries they share, as upstream's release archives have them."""
    found = sorted(lab().glob("llama.cpp-shared-of-*/llama-bench"))
    if not found:
        pytest.skip(f"no stock llama.cpp in {lab()}: make lab builds one")
    return found[-1].parent


def in_process_env() -> dict[str, str]:
    """The environment in which llama-cpp-python is installed, on the stock libraries."""
    found = sorted(lab().glob("llama-cpp-python-*/llama_cpp"))
    if not found:
        pytest.skip(f"no llama-cpp-python in {lab()}: make lab installs one")
    path = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(found[-1].parent)]))
    return {"PYTHONPATH": path, "LLAMA_CPP_LIB_PATH": str(stock_folder())}
