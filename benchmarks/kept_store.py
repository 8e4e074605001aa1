"""The made store of benchmarks, which is made once and stays in the lab, and copies of it that cost no room."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import made_fleet, made_signals, made_store
from benchmarks.kit import lab
from meltbench.store import Store, index
from meltbench.store.folder import INDEX


def kept(
    runs: int = made_store.RUNS, samples: int = made_store.SAMPLES, say: Callable[[str], None] | None = None
) -> Path:
    """The folder of a store that is made once and stays in the lab. It is not to be written to: see ``copied``."""
    text = "".join(Path(str(one.__file__)).read_text() for one in (made_fleet, made_signals, made_store))
    version = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = lab() / f"made-store-{runs}x{samples}-{version}"
    if not folder.is_dir():
        lab().mkdir(parents=True, exist_ok=True)
        for old in lab().glob(f"made-store-{runs}x{samples}-*"):  # of an earlier version; each takes a gigabyte
            shutil.rmtree(old)
        with tempfile.TemporaryDirectory(dir=lab()) as work:
            made_store.make(Path(work) / "data", runs, samples, workers=made_store.WORKERS, say=say)
            (Path(work) / "data").rename(folder)
    index.refresh(Store(folder))  # a newer meltbench has another index
    return folder


def copied(store: Path, root: Path) -> Path:
    """A store in a new folder with the same runs, to which others may be added: its files are linked, not copied."""
    shutil.copytree(store / "runs", root / "runs", copy_function=os.link)
    shutil.copyfile(store / INDEX, root / INDEX)
    return root
