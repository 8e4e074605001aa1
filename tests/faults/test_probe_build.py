from __future__ import annotations

import multiprocessing
from typing import TYPE_CHECKING

import pytest

from meltbench.errors import MissingExtra, UnknownName
from meltbench.probe import build

if TYPE_CHECKING:
    from pathlib import Path

zig = pytest.mark.skipif(not build.zig_there(), reason="the pinned ziglang is not installed")


@zig
@pytest.mark.slow
def test_the_same_sources_give_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build.binary(build.host_target())  # of the checkout, with the user's cache
    copy = tmp_path / "elsewhere" / "deep" / "src"
    copy.mkdir(parents=True)
    for path in build.source_dir().iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "source_dir", lambda: copy)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CFLAGS", "-O3 -march=native")
    second = tmp_path / "there" / "b"
    build.build(build.host_target(), second, tmp_path / "cache")
    assert first.read_bytes() == second.read_bytes()
    assert str(tmp_path).encode() not in second.read_bytes()


@zig
@pytest.mark.slow
@pytest.mark.parametrize("target", build.TARGETS)
def test_every_target_builds_small_and_static(target: str) -> None:
    body = build.binary(target).read_bytes()
    assert len(body) <= build.MAX_BYTES
    assert body[:4] == b"\x7fELF"
    assert b"ld-musl" not in body
    assert target.encode() in body
    assert build.source_hash()[:16].encode() in body


def test_the_hash_follows_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in build.source_dir().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(build, "source_dir", lambda: tmp_path)
    same = build.source_hash.__wrapped__()
    assert same == build.source_hash()
    (tmp_path / "main.c").write_bytes((tmp_path / "main.c").read_bytes() + b"\n")
    assert build.source_hash.__wrapped__() != same


def test_without_the_compiler_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path))
    monkeypatch.setattr(build, "_PACKAGE", tmp_path)
    monkeypatch.setattr(build, "zig_there", lambda: False)
    with pytest.raises(MissingExtra, match=r"meltbench\[build\]"):
        build.binary(build.TARGETS[1])
    with pytest.raises(UnknownName, match="x86_64-linux-musl"):
        build.build("x86_64-linux-gnu", tmp_path / "x")


def test_a_packaged_binary_is_used_only_when_it_is_of_these_sources(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = build.TARGETS[0]
    packaged = tmp_path / "definitions" / "probe-bin" / build.source_hash() / target
    packaged.mkdir(parents=True)
    (packaged / build.NAME).write_bytes(b"packaged")
    cached = tmp_path / "cache" / "probe" / build.source_hash() / target / build.NAME
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"cached")
    monkeypatch.setattr(build, "_PACKAGE", tmp_path)
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    assert build.binary(target).read_bytes() == b"packaged"
    packaged.parent.rename(packaged.parent.with_name("0" * 64))
    assert build.binary(target).read_bytes() == b"cached"


def _count_build(folder: str, counter: str) -> None:
    import os

    def fake(target: str, out_path: Path) -> None:
        with open(counter, "a") as log:
            log.write("built\n")
        out_path.write_bytes(b"x")

    os.environ["MELTBENCH_CACHE"] = folder
    build.build = fake  # type: ignore[assignment]
    build.binary(build.TARGETS[2])


def test_two_builders_build_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    work = [spawn.Process(target=_count_build, args=(str(tmp_path), str(tmp_path / "log"))) for _ in range(3)]
    for process in work:
        process.start()
    for process in work:
        process.join()
    assert (tmp_path / "log").read_text() == "built\n"
