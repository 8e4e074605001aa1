"""Upstream's release archives: one for Android runs on a phone and is refused elsewhere, and the other way round.

No bionic is here. What stands for its loader on a made phone is glibc's, at bionic's place: the archive, its libraries,
the push, and the loader that the programs name are as in a real one, and so are the tokens.
"""

from __future__ import annotations

import shutil
import tarfile
from pathlib import Path

import pytest
from cli import Bench
from engines_kit import stock_folder
from phone_road_kit import PhoneRoad
from phones_kit import Phone

from meltbench.elf import header_of

BIONIC = "/system/bin/linker64"


def archive(folder: Path, loader: str) -> Path:
    """The stock programs and libraries, as a release has them, with another loader's name in the programs."""
    inside = folder / "build/bin"
    shutil.copytree(stock_folder(), inside, symlinks=True)
    for program in inside.glob("llama-*"):
        data = program.read_bytes()
        header = header_of(data)
        assert header is not None
        assert header.loader is not None
        room = len(header.loader)
        assert data.count(header.loader.encode()) == 1
        program.write_bytes(data.replace(header.loader.encode(), loader.encode().ljust(room, b"\0")))
    made = folder / "llama-b9999-bin-android-arm64.tar.gz"
    with tarfile.open(made, "w:gz", compresslevel=1) as bundle:
        bundle.add(folder / "build", "build")
    return made


@pytest.fixture
def road(tmp_path: Path, phone: Phone, probe_binary: Path) -> PhoneRoad:
    return PhoneRoad(tmp_path / "road", target=phone).added()


@pytest.mark.engine
def test_the_archive_for_android_is_pushed_with_its_libraries_and_runs(
    tmp_path: Path, road: PhoneRoad, phone: Phone, default_model: Path
) -> None:
    given, bionic = archive(tmp_path, BIONIC), phone.room.path(BIONIC)
    words = ("run", "--device", "box", "--engine", str(given), "--set", "max_tokens=4", "--set", "repeat=1")
    words += ("--set", "warmup=0", "--set", "idle_s=0.3")
    refused = road.run(*words)
    assert refused.returncode == 2
    assert f"was built for Android: {BIONIC}, which starts it, is not on box (Android " in refused.stderr
    assert "pushing llama-server" not in refused.stderr
    bionic.symlink_to(glibc())
    try:
        (run,) = road.json(*words)
    finally:
        bionic.unlink()
    assert run["outcome"] == "done"
    assert all(one["n_out"] == 4 for one in run["requests"])
    road.nothing_left()


def glibc() -> str:
    header = header_of((stock_folder() / "llama-server").read_bytes())
    assert header is not None
    assert header.loader is not None
    return header.loader


@pytest.mark.engine
def test_an_archive_for_android_is_refused_on_another_linux_in_one_line(tmp_path: Path, default_model: Path) -> None:
    done = Bench(tmp_path).run("run", "--engine", str(archive(tmp_path, BIONIC)))
    assert done.returncode == 2
    *_, line = done.stderr.strip().splitlines()
    assert "llama-server was built for Android: /system/bin/linker64, which starts it, is not on local (" in line
    assert "leave --engine out" in line


def test_a_build_for_glibc_is_refused_on_a_phone_without_it(tmp_path: Path, road: PhoneRoad) -> None:
    given = archive(tmp_path, "/lib/ld-linux-none.so.1")  # the made phone's own programs need the real one
    done = road.run("run", "--device", "box", "--engine", str(given))
    assert done.returncode == 2
    assert "was built for Linux with glibc: /lib/ld-linux-none.so.1, which starts it, is not on box" in done.stderr
