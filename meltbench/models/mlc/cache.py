"""What lies in a model's folder of MLC's form: raw weights with their table in JSON, compiled libraries; and whether
it is whole."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from meltbench.elf import machine_of
from meltbench.errors import ModelDamaged, UserError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAMES = ("tensor-cache.json", "ndarray-cache.json")  # the second until 2025


def cache_of(folder: Path) -> Path | None:
    """The table of a model's folder, None where there is none."""
    return next((folder / name for name in NAMES if (folder / name).is_file()), None)


def check_whole(cache: Path, table: Mapping[str, Any]) -> None:
    """Raise ModelDamaged unless every file that the table names lies beside it with as many bytes as it says."""
    shards = table.get("records")
    for shard in shards if isinstance(shards, list) else ():
        name = shard.get("dataPath") if isinstance(shard, dict) else None
        if not isinstance(name, str) or os.path.basename(name) != name or name in ("", ".", ".."):
            said = name if isinstance(name, str) else "no file"
            raise ModelDamaged(f"{cache} names {said[:80]!r}, which is not beside it", hint="fetch the model again")
        file = cache.parent / name
        there = file.stat().st_size if file.is_file() else None
        if there is None or there != shard.get("nbytes"):
            is_ = "is not there" if there is None else f"has {there} bytes"
            said = str(shard.get("nbytes"))[:20]
            raise ModelDamaged(f"{file} {is_}, {cache.name} says {said}", hint="fetch or build the model again")


def libraries_of(folder: Path) -> list[Path]:
    """The compiled libraries in a model's folder, by their names."""
    return sorted(folder.glob("*.so"))


def check_libraries(folder: Path) -> None:
    """Raise ModelDamaged for a compiled library that is none, or of which a part is missing: to load it would crash."""
    for library in libraries_of(folder):
        try:
            machine_of(library)
        except UserError as error:
            raise ModelDamaged(error.message, hint="compile or fetch the library again") from None
