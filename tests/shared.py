"""Finds the founders' material beside the checkout: captures and question sets that a fresh clone does not have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared(name: str) -> Path:
    """That file or folder of ``../shared`` (or $MELTBENCH_SHARED); the test is skipped where it is absent."""
    root = Path(os.environ.get("MELTBENCH_SHARED") or Path(__file__).parents[2] / "shared")
    if not (root / name).exists():
        pytest.skip(f"no {name} in ../shared: a fresh clone does not have it")
    return root / name
