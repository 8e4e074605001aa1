from __future__ import annotations

from pathlib import Path

import pytest
from box_kit import stock_engine

from meltbench import builds, paths
from meltbench.probe import build


@pytest.fixture(scope="session")
def made_nvml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libnvidia-ml.so.1 that stands for the driver."""
    if not build.zig_there():
        pytest.skip("the pinned ziglang, which compiles the made driver, is not installed")
    folder = tmp_path_factory.mktemp("nvml")
    source = Path(__file__).with_name("made_nvml.c")
    words = ["-shared", "-fPIC", "-O1", "-o", str(folder / "libnvidia-ml.so.1"), str(source)]
    build.zig_cc(words, paths.cache_dir() / "probe" / "zig")
    return folder


@pytest.fixture(scope="session")
def stock() -> builds.Record:
    """What meltbench knows of the engine that it built for arm64 machines, which a run takes by itself."""
    return stock_engine()
