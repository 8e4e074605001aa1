"""What is told of a package that is installed: by real packages, and by one that is made here under another name."""

from __future__ import annotations

import importlib
from importlib import metadata
from pathlib import Path

import pytest

from meltbench.installed import look, version_of


def test_a_package_is_told_by_the_name_that_pip_has_for_it() -> None:
    found = look("numpy", "numpy")
    assert found is not None
    assert (found.name, found.version) == ("numpy", metadata.version("numpy"))
    assert found.libraries == tuple(sorted(found.libraries))
    assert all(".so" in path.name for path in found.libraries)


def test_another_build_of_a_package_has_a_name_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, info = tmp_path / "some_engine", tmp_path / "some_engine_cuda-1.2.dist-info"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError('never imported')")
    (package / "libengine.so.1.2").write_bytes(b"\x7fELF")
    (package / "kernel.so").write_bytes(b"\x7fELF")
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: some-engine-cuda\nVersion: 1.2\n")
    (info / "top_level.txt").write_text("some_engine\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    found = look("some_engine", "some-engine")
    assert found is not None
    assert (found.name, found.version) == ("some-engine-cuda", "1.2")
    assert [path.name for path in found.libraries] == ["kernel.so", "libengine.so.1.2"]


def test_what_is_not_there_is_none() -> None:
    assert look("no_such_package", "no-such-package") is None
    assert version_of("no-such-package") is None
