"""The push cache while processes are killed, disks fill and bytes change: what is called whole is what was pushed."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cache_kit import Box, CutLink, Link, Told, pusher, sha_of

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, LinkLost, TargetBusy
from meltbench.models import hashes
from meltbench.targets import Completed, Feed, cache

BIG = random.Random(5).randbytes(24 << 20)
SHA = sha_of(BIG)


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_memory", lambda: tmp_path / "hashes.json")
    monkeypatch.setattr(cache, "_PAUSE_S", 0.0)
    monkeypatch.setattr(cache, "_BUSY_PAUSE_S", 0.05)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(BIG)
    return path


@pytest.fixture
def box(tmp_path: Path) -> Box:
    (tmp_path / "pi").mkdir()
    return Box(tmp_path / "pi")


class KillingLink(Link):
    """Kills the probe at a moment of its push, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times, self.random, self.killed = times, random.Random(7), 0

    def fate(self, argv: Sequence[str], deadline: Deadline, feed: Feed) -> Completed:
        if self.killed == self.times:
            return super().fate(argv, deadline, feed)
        assert isinstance(feed.source, Path)
        with feed.source.open("rb") as given:
            given.seek(feed.offset)
            probe = subprocess.Popen(argv, stdin=given, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            time.sleep(self.random.uniform(0, 0.06))
            probe.kill()
            out, err = probe.communicate()
        self.killed += probe.returncode == -9
        return Completed(probe.returncode, out, err)


def test_the_probe_killed_at_random_moments(box: Box, file: Path) -> None:
    link, rounds = KillingLink(20), 0
    here = pusher(box.home, link)
    while link.killed < link.times:
        rounds += 1
        with contextlib.suppress(LinkLost):  # five kills in a row that let nothing through
            there = here.ensure([file], Told())[file]
            assert Path(there).read_bytes() == BIG
            here.drop(None)
        assert rounds < 200
    there = here.ensure([file], Told())[file]
    assert Path(there).read_bytes() == BIG
    assert box.state(SHA, "--full") == "whole"
    assert {path.name for path in (box.dir / "blobs").iterdir()} == {SHA, f"{SHA}.ok"}


def test_the_link_cut_at_random_bytes(box: Box, file: Path) -> None:
    cuts = sorted(random.Random(9).sample(range(1, len(BIG) // 8), 7))
    here = pusher(box.home, CutLink(*cuts, *[1] * 5))
    assert Path(here.ensure([file], Told())[file]).read_bytes() == BIG


def test_a_byte_flipped_is_seen_by_its_time(box: Box, file: Path) -> None:
    here = pusher(box.home, Link())
    blob = Path(here.ensure([file], Told())[file])
    for keep_time in (False, True):
        before = blob.stat()
        with blob.open("r+b") as out:
            out.seek(12_345)
            out.write(bytes([BIG[12_345] ^ 1]))
        if keep_time:
            os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
        watch = Told()
        here.ensure([file], watch)
        assert watch.lines[0] == "! model.gguf was damaged in the cache of pi and removed there"
        assert blob.read_bytes() == BIG


def test_a_file_cut_short_is_seen(box: Box, file: Path) -> None:
    here = pusher(box.home, Link())
    folder = Path(here.tree({"engine": file}, Told()))
    os.truncate(box.blob(SHA), len(BIG) - 1)
    assert here.tree({"engine": file}, Told()) == str(folder)
    assert (folder / "engine").read_bytes() == BIG
    os.truncate(box.blob(SHA), 0)
    box.blob(SHA).unlink()
    here.ensure([file], Told())
    assert (Path(here.tree({"engine": file}, Told())) / "engine").read_bytes() == BIG


def begun(box: Box, size: int) -> subprocess.Popen[bytes]:
    """A push of BIG that has brought so many bytes, and waits to be told more."""
    put = box.start_put(BIG)
    assert put.stdin is not None
    put.stdin.write(BIG[:size])
    put.stdin.flush()
    while not box.part(SHA).exists() or box.part(SHA).stat().st_size < size:
        time.sleep(0.005)
    return put


def test_two_pushes_of_one_file(box: Box, file: Path) -> None:
    first = begun(box, 1 << 20)
    assert box.put(BIG).returncode == 75
    assert box.json("list")["blobs"][SHA]["in_use"] is True
    assert b"in_use" in box.call("drop", SHA).stdout
    link = Link()
    waiting = threading.Thread(target=lambda: pusher(box.home, link).ensure([file], Told()))
    waiting.start()
    while link.commands().count("put") < 2:
        time.sleep(0.005)
    first.stdin.write(BIG[1 << 20 :])
    first.communicate()
    assert first.returncode == 0
    waiting.join(60)
    assert not waiting.is_alive()
    assert box.blob(SHA).read_bytes() == BIG


def test_four_controllers_at_once(box: Box, file: Path) -> None:
    found: list[bytes] = []

    def push() -> None:
        there = pusher(box.home, Link()).tree({"engine": file, "lib.so": file}, Told())
        found.append((Path(there) / "lib.so").read_bytes())

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == [BIG] * 4
    assert box.json("list")["used_bytes"] == len(BIG)
    assert len(list((box.dir / "trees").iterdir())) == 1


def test_another_push_that_does_not_get_on(box: Box, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_BUSY_TRIES", 3)
    first = box.start_put(BIG)
    while not box.part(SHA).exists():
        time.sleep(0.005)
    with pytest.raises(TargetBusy, match=r"model\.gguf"):
        pusher(box.home, Link()).ensure([file], Told())
    first.kill()
    first.communicate()


@pytest.mark.slow
def test_a_sender_that_falls_silent_does_not_hold_the_file(box: Box) -> None:
    put = box.start_put(BIG)
    assert put.stdin is not None
    put.stdin.write(BIG[:1000])
    put.stdin.flush()
    assert put.wait(30) == 74
    put.communicate()
    assert box.put(BIG, offset=1000).returncode == 0


@pytest.fixture
def small_disk(box: Box) -> Iterator[Path]:
    """A disk of 32 MiB where the cache lies."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a disk of its own")
    box.dir.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "tmpfs", str(box.dir)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    yield box.dir
    subprocess.run(["umount", str(box.dir)], check=True)


def fill(path: Path) -> None:
    """Let a file grow until the disk is full."""
    with path.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while True:
            out.write(bytes(1 << 16))


def test_a_full_disk_is_told_before_the_push(box: Box, file: Path, small_disk: Path) -> None:
    here = pusher(box.home, Link(), reserve_bytes=1 << 20)
    other = file.with_name("other.gguf")
    other.write_bytes(BIG[::-1])
    for path in (file, other, file):  # there is room for one of them: the other makes it
        here.ensure([path], Told())
        assert box.held() == {sha_of(path.read_bytes())}
    (small_disk / "somebody's").write_bytes(bytes(6 << 20))
    before = {path.name: path.stat().st_ino for path in (small_disk / "blobs").iterdir()}
    large = file.with_name("large.gguf")
    large.write_bytes(BIG + BIG)
    with pytest.raises(
        DeviceError, match=r"no room: 50\.3 MB are to come and 1\.0 MB to stay free, but .*devices cache"
    ):
        here.ensure([large], Told())
    assert {path.name: path.stat().st_ino for path in (small_disk / "blobs").iterdir()} == before


def test_a_disk_that_fills_during_the_push(box: Box, small_disk: Path) -> None:
    put = begun(box, 8 << 20)
    filler = small_disk / "somebody's"
    fill(filler)
    with pytest.raises(BrokenPipeError):
        put.stdin.write(BIG[8 << 20 :])
    assert b"No space left on device after " in put.communicate()[1]
    assert put.returncode == 73
    kept = box.part(SHA).stat().st_size
    assert kept >= 8 << 20
    assert box.call("look", SHA).returncode == 0
    filler.unlink()
    assert box.put(BIG, offset=kept).returncode == 0
    assert box.blob(SHA).read_bytes() == BIG


def test_records_that_found_no_room_cost_time_and_no_truth(box: Box, small_disk: Path) -> None:
    box.keep(BIG)
    (small_disk / "blobs" / f"{SHA}.ok").unlink()
    filler = small_disk / "somebody's"
    fill(filler)
    assert box.state(SHA) == "whole"
    assert box.state(SHA) == "whole"


def test_where_links_are_denied_a_tree_is_a_copy(box: Box, file: Path) -> None:
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("only root can mount a file system over the trees")
    here = pusher(box.home, Link())
    here.ensure([file], Told())
    trees = box.dir / "trees"
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(trees)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        engine = Path(here.tree({"engine": file}, Told())) / "engine"
        made = engine.stat()
        assert (engine.read_bytes(), made.st_mode & 0o777, made.st_nlink) == (BIG, 0o755, 1)
        assert box.json("list")["used_bytes"] == 2 * len(BIG)
        here.tree({"engine": file}, Told())
        assert engine.stat().st_ino == made.st_ino
        with engine.open("r+b") as out:
            out.write(b"X")
        os.utime(engine, ns=(made.st_atime_ns, made.st_mtime_ns))
        here.tree({"engine": file}, Told())
        assert engine.read_bytes() == BIG
        assert here.drop(None).freed_bytes == 2 * len(BIG)
        assert list(trees.iterdir()) == []
    finally:
        subprocess.run(["umount", str(trees)], check=True)


def test_a_disk_that_became_read_only_is_said(box: Box, small_disk: Path) -> None:
    box.keep(b"abc")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    done = box.put(BIG)
    assert done.returncode == 73
    assert done.stderr == f"meltprobe: {small_disk}: Read-only file system\n".encode()
