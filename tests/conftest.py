from __future__ import annotations

from pathlib import Path

import pytest
from cli import Bench

from meltbench import models
from meltbench.probe import build


@pytest.fixture(scope="session")
def probe_binary() -> Path:
    """The probe for this machine; its first build takes half a minute."""
    return build.binary(build.host_target())


@pytest.fixture(scope="session")
def default_model() -> Path:
    """The default model, fetched once into the user's cache."""
    return models.ensure(models.resolve("smollm2-135m-q4"))


@pytest.fixture
def bench(tmp_path: Path, probe_binary: Path) -> Bench:
    """A place to run the command line in, with the probe built beforehand so that no test waits for it."""
    return Bench(tmp_path)
