"""Engines for targets: the stock programs of llama.cpp, compiled from their own source where no engine is at hand."""

from __future__ import annotations

from meltbench.builds.make import PROGRAMS, Record, ensure, record_of
from meltbench.builds.variants import TARGETS, VARIANTS, Target, Variant, best_variant, variant

__all__ = [
    "PROGRAMS",
    "TARGETS",
    "VARIANTS",
    "Record",
    "Target",
    "Variant",
    "best_variant",
    "ensure",
    "record_of",
    "variant",
]
