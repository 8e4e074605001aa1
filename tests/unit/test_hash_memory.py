"""Hashes of large files are computed once and remembered, also where many threads ask."""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from meltbench.models import hashes


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were read to the end."""
    read: list[str] = []
    digest = hashlib.file_digest

    def counted(file: object, name: str) -> object:
        read.append(os.path.basename(file.name))  # type: ignore[attr-defined]
        return digest(file, name)  # type: ignore[arg-type]

    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashlib, "file_digest", counted)
    return read


def at_once(paths: list[Path]) -> list[str]:
    barrier = Barrier(len(paths))

    def one(path: Path) -> str:
        barrier.wait(20)
        return hashes.file_sha256(path)

    with ThreadPoolExecutor(len(paths)) as pool:
        return list(pool.map(one, paths))


def test_threads_that_ask_for_one_file_have_it_read_once(tmp_path: Path, asked: list[str]) -> None:
    (tmp_path / "model").write_bytes(b"x" * 5_000_000)
    assert set(at_once([tmp_path / "model"] * 12)) == {hashlib.sha256(b"x" * 5_000_000).hexdigest()}
    assert asked == ["model"]


def test_threads_that_ask_for_many_files_forget_none(tmp_path: Path, asked: list[str]) -> None:
    paths = [tmp_path / f"model-{i}" for i in range(16)]
    for path in paths:
        path.write_text(path.name)
    found = at_once(paths)
    assert found == [hashlib.sha256(path.name.encode()).hexdigest() for path in paths]
    assert sorted(asked) == sorted(path.name for path in paths)
    assert at_once(paths) == found
    assert len(asked) == len(paths)


def test_a_file_that_was_written_anew_is_read_anew(tmp_path: Path, asked: list[str]) -> None:
    path = tmp_path / "model"
    for text in ("one", "another"):
        path.write_text(text)
        assert hashes.file_sha256(path) == hashes.file_sha256(path) == hashlib.sha256(text.encode()).hexdigest()
    assert asked == ["model", "model"]
