"""The controller's half of the push cache, over the local transport: the real probe, a real folder."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer
from cache_kit import Box, CutLink, Link, Told, pusher, sha_of
from hypothesis import given
from hypothesis import strategies as st
from jsoncheck import NAMED, problems
from probe_kit import probe_path
from typer.testing import CliRunner

from meltbench.cli import cache as command
from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, LinkLost, MeltbenchError, TargetBusy, UnknownName, UserError
from meltbench.models import hashes
from meltbench.probe import build
from meltbench.probe.client import Probe
from meltbench.targets import Completed, Feed, cache, venvs
from meltbench.targets.local import LocalTransport

A, B, C = b"a" * 300_000, b"b" * 200_000, b"c" * 100_000


@pytest.fixture(autouse=True)
def own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashes, "_memory", lambda: tmp_path / "hashes.json")
    monkeypatch.setattr(cache, "_PAUSE_S", 0.0)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("a.gguf", "b.gguf", "c.gguf", "again.gguf")]
    for path, data in zip(paths, (A, B, C, A), strict=True):
        path.write_bytes(data)
    return paths


def test_what_is_there_costs_one_round_trip(tmp_path: Path, files: list[Path]) -> None:
    link, watch = Link(), Told()
    there = pusher(tmp_path / "pi", link).ensure(files, watch)
    assert [Path(there[path]).read_bytes() for path in files] == [A, B, C, A]
    assert link.commands() == ["look", "put", "put", "put"]
    assert watch.lines == ["pushing a.gguf, b.gguf, c.gguf (0.6 MB) to pi"]
    assert watch.bytes[-1] == (600_000, 600_000)
    warm, quiet = Link(), Told()
    assert pusher(tmp_path / "pi", warm).ensure(files, quiet) == there
    assert (len(warm.calls), quiet.lines, quiet.bytes) == (1, [], [])


def test_a_cut_push_goes_on_from_where_it_was(tmp_path: Path, files: list[Path]) -> None:
    link, watch = CutLink(100_000, 0, 0, 0, 0, 50_000, 0), Told()
    there = pusher(tmp_path / "pi", link).ensure(files[:1], watch)
    assert Path(there[files[0]]).read_bytes() == A
    offsets = [int(argv[6]) for argv in link.calls if argv[3] == "put"]
    assert offsets == [0, *[100_000] * 5, 150_000, 150_000]


def test_cuts_without_progress_are_given_up(tmp_path: Path, files: list[Path]) -> None:
    link = CutLink(1000, *[0] * 5)
    with pytest.raises(LinkLost, match="cut"):
        pusher(tmp_path / "pi", link).ensure(files[:1], Told())
    assert link.commands().count("put") == 6
    assert Box(tmp_path / "pi").state(sha_of(A)) == "partial"


class DeadLink(LocalTransport):
    """Is gone for so many calls."""

    def __init__(self, calls: int) -> None:
        self.left = calls

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        self.left -= 1
        if self.left >= 0:
            raise LinkLost("no route to host")
        return super().run(argv, deadline, feed=feed)


def test_the_first_look_waits_for_the_link(tmp_path: Path, files: list[Path]) -> None:
    pusher(tmp_path / "pi", DeadLink(4)).ensure(files, Told())
    with pytest.raises(LinkLost, match="no route"):
        pusher(tmp_path / "pi", DeadLink(5)).ensure(files, Told())


class WrongLink(Link):
    """Sends another byte than was given, so many times."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def fate(self, argv: Sequence[str], deadline: Deadline, feed: Feed) -> Completed:
        assert isinstance(feed.source, Path)
        data = bytearray(feed.source.read_bytes()[feed.offset :])
        self.times -= 1
        data[7] ^= self.times >= 0
        return super().fate(argv, deadline, Feed(bytes(data)))


def test_what_arrives_damaged_is_pushed_once_more(tmp_path: Path, files: list[Path]) -> None:
    watch = Told()
    there = pusher(tmp_path / "pi", WrongLink(1)).ensure(files[:1], watch)
    assert Path(there[files[0]]).read_bytes() == A
    assert watch.lines[1] == "! a.gguf did not arrive whole on pi: pushing it again"
    with pytest.raises(DeviceError, match=r"b\.gguf does not arrive whole on pi"):
        pusher(tmp_path / "pi", WrongLink(2)).ensure(files[1:2], Told())
    assert Box(tmp_path / "pi").state(sha_of(B)) == "absent"


def test_no_room_says_what_to_do(tmp_path: Path, files: list[Path]) -> None:
    with pytest.raises(DeviceError) as small:
        pusher(tmp_path / "pi", Link(), cap_bytes=250_000).ensure(files, Told())
    assert "no room: a file of 0.3 MB does not fit a cache of at most 0.2 MB" in str(small.value)
    assert "meltbench devices cache pi" in str(small.value)
    with pytest.raises(DeviceError, match="to stay free"):
        pusher(tmp_path / "pi", Link(), reserve_bytes=10**15 - 1).ensure(files[1:2], Told())


def test_policy_full_hashes_every_byte(tmp_path: Path, files: list[Path]) -> None:
    here = pusher(tmp_path / "pi", Link())
    blob = Path(here.ensure(files[:1], Told())[files[0]])
    forge(blob, b"X")
    assert here.ensure(files[:1], Told()) == {files[0]: str(blob)}
    assert blob.read_bytes() != A  # no record of times can know it
    watch = Told()
    here.ensure(files[:1], watch, policy="full")
    assert blob.read_bytes() == A
    assert watch.lines[0] == "! a.gguf was damaged in the cache of pi and removed there"


def forge(blob: Path, byte: bytes) -> None:
    """Change a byte as a dying disk does: no time, no size, no inode tells of it."""
    before = blob.stat()
    with blob.open("r+b") as file:
        file.write(byte)
    os.utime(blob, ns=(before.st_atime_ns, before.st_mtime_ns))
    record = blob.with_name(f"{blob.name}.ok")
    record.write_text(record.read_text().replace(str(before.st_ctime_ns), str(blob.stat().st_ctime_ns)))


def test_a_tree_is_made_of_what_is_pushed_for_it(tmp_path: Path, files: list[Path]) -> None:
    link, watch = Link(), Told()
    here = pusher(tmp_path / "pi", link)
    names = {"llama-server": files[0], "libggml.so": files[1]}
    folder = Path(here.tree(names, watch))
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."} == {
        "llama-server": A, "libggml.so": B,
    }  # fmt: skip
    assert link.commands() == ["tree", "look", "put", "put", "tree"]
    assert here.tree(dict(reversed(names.items())), watch) == str(folder)
    assert link.commands()[5:] == ["tree"]
    with pytest.raises(UserError, match="not put on a device"):
        here.tree({"../x": files[0]}, watch)


def test_policy_full_hashes_every_file_of_a_tree(tmp_path: Path, files: list[Path]) -> None:
    here, watch = pusher(tmp_path / "pi", Link()), Told()
    names = {"llama-server": files[0], "libggml.so": files[1]}
    folder = Path(here.tree(names, watch, policy="full"))
    forge(Path(here.path(sha_of(B))), b"X")
    assert Path(here.tree(names, watch)) == folder
    assert (folder / "libggml.so").read_bytes() != B
    assert here.tree(names, watch, policy="full") == str(folder)
    assert (folder / "libggml.so").read_bytes() == B
    assert watch.lines[1] == "! libggml.so was damaged in the cache of pi and is pushed again"


class MadeLink(LocalTransport):
    """Answers as no probe of ours does."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        return Completed(0, self.answer, b"")


@pytest.mark.parametrize(
    "answer",
    [b"", b"\xff", b"[]", b"[" * 100_000, b"{}", b'{"blobs":[]}', b'{"blobs":{"x":{}},"used_bytes":1}',
     b'{"blobs":{"%b":{"state":"whole","bytes":"1"}}}' % sha_of(A).encode(),
     b'{"blobs":{"%b":{"state":"fine","bytes":1}}}' % sha_of(A).encode()],
)  # fmt: skip
def test_nonsense_is_an_error_in_one_line(tmp_path: Path, files: list[Path], answer: bytes) -> None:
    here = pusher(tmp_path / "pi", MadeLink(answer))
    calls: list[Callable[[], object]] = [lambda: here.ensure(files[:1], Told()), here.holding]
    for call in calls:
        with pytest.raises(DeviceError) as found:
            call()
        assert "\n" not in str(found.value)


# ---- meltbench devices cache


def run(tmp_path: Path, folder: str, *args: str) -> tuple[int, str, MeltbenchError | None]:
    """The command on this machine, with its folder of ours in another place than the user's."""
    app = typer.Typer()
    app.callback()(lambda: None)
    app.command()(command.cache)
    found = SimpleNamespace(probe=Probe(LocalTransport(), probe_path(), f"{folder}/runs"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("meltbench.site.meet", lambda *_: found)
        done = CliRunner().invoke(app, ["cache", "local", *args])
    error = done.exception if isinstance(done.exception, MeltbenchError) else None
    if error is None and done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.exit_code, done.stdout, error


@pytest.fixture
def full(tmp_path: Path, files: list[Path]) -> str:
    here = pusher(tmp_path / "pi", Link())
    here.ensure(files[1:2], Told())
    here.tree({"llama-server": files[0]}, Told())
    with pytest.raises(LinkLost):
        pusher(tmp_path / "pi", CutLink(60_000, *[0] * 9)).ensure(files[2:3], Told())
    return str(tmp_path / "pi")


def test_the_command_lists_drops_and_speaks_json(tmp_path: Path, full: str) -> None:
    code, out, _ = run(tmp_path, full)
    lines = out.splitlines()
    assert code == 0
    assert [line.split()[0] for line in lines if "KiB" in line][:3] == [sha_of(data)[:12] for data in (C, A, B)]
    assert "partial" in out
    assert "llama-server" in out
    assert "b.gguf" in out  # as it is called here
    assert "3 files, 547 KiB; " in lines[-1]
    code, out, _ = run(tmp_path, full, "--drop", sha_of(B)[:8], "--drop", "llama-server", "--json")
    told = json.loads(out)
    assert problems(NAMED["cache"], told) == []
    assert (code, [blob["state"] for blob in told["blobs"]]) == (0, ["partial"])
    assert sorted(told["dropped"]["dropped"]) == sorted([sha_of(A), sha_of(B)])
    assert told["dropped"]["freed_bytes"] == 500_000
    code, out, _ = run(tmp_path, full, "--all")
    assert (code, out.splitlines()[-1]) == (0, "removed 1 files, 58.6 KiB")


def test_a_name_that_means_nothing_or_much_is_refused(tmp_path: Path, full: str) -> None:
    _, _, error = run(tmp_path, full, "--drop", "llama-serve")
    assert isinstance(error, UnknownName)
    assert error.nearest == ["llama-server"]
    _, _, error = run(tmp_path, full, "--drop", sha_of(A)[:3])
    assert isinstance(error, UnknownName)
    _, _, error = run(tmp_path, full, "--drop", "llama-server", "--all")
    assert isinstance(error, UserError)


KEY, OTHER = "0123456789abcdef", "fedcba9876543210"


def environment(folder: str, key: str, *packages: str, whole: bool = True) -> Path:
    """An environment as it is made of wheels, with a program of this machine for its Python."""
    path = Path(folder) / "cache" / "venvs" / key
    (path / "bin").mkdir(parents=True)
    (Path(folder) / "runs").mkdir(exist_ok=True)  # the probe's own, there wherever it was installed
    (path / "bin" / "python").symlink_to("/bin/sleep")
    (path / "lib").mkdir()
    (path / "lib" / "big.so").write_bytes(b"x" * (1 << 20))
    for package in packages:
        (path / "lib/python3.11/site-packages" / f"{package}.dist-info").mkdir(parents=True)
    if whole:
        (path / "whole").touch()
    return path


def test_environments_of_python_are_listed_and_dropped_as_files_are(tmp_path: Path, full: str) -> None:
    mine = environment(full, KEY, "numpy-2.1.0", "some_engine-1.0")
    cut = environment(full, f"{OTHER}.part", whole=False)
    others = ["of somebody", "cafe", KEY + "0", f"{KEY[:8]}.part", KEY.upper()]
    for name in others:
        (mine.parent / name).mkdir()
    code, out, _ = run(tmp_path, full)
    (line,) = [line for line in out.splitlines() if line.strip().startswith(KEY)]
    assert (code, line.split()[3:]) == (0, ["whole", "numpy-2.1.0,", "some_engine-1.0"])
    assert any(f"{OTHER}.part" in line and "partial" in line for line in out.splitlines())
    code, out, _ = run(tmp_path, full, "--json", "--drop", "some_engine-1.0", "--drop", f"{OTHER}.part")
    told = json.loads(out)
    assert problems(NAMED["cache"], told) == []
    assert (told["environments"], told["dropped"]["dropped"]) == ([], [KEY, f"{OTHER}.part"])
    assert told["dropped"]["freed_bytes"] > 2 << 20
    assert (mine.exists(), cut.exists(), len(told["blobs"])) == (False, False, 3)
    environment(full, KEY)
    code, out, _ = run(tmp_path, full, "--all")
    assert (code, out.splitlines()[-1].rpartition(",")[0]) == (0, "removed 3 files and 1 Python environments")
    assert sorted(path.name for path in mine.parent.iterdir()) == sorted(others)


def test_an_environment_that_something_runs_out_of_stays(tmp_path: Path, full: str) -> None:
    mine, other = environment(full, KEY), environment(full, OTHER)
    with subprocess.Popen([mine / "bin" / "python", "600"]) as running:
        code, out, _ = run(tmp_path, full, "--drop", KEY[:6], "--drop", OTHER)
        running.kill()
    assert (code, out.splitlines()[-1]) == (1, f"{KEY[:12]} is in use and stays")
    assert (mine.exists(), other.exists()) == (True, False)


def test_no_environment_is_dropped_while_somebody_has_the_device(
    tmp_path: Path, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = environment(full, KEY)
    monkeypatch.setattr(Probe, "lease_show", lambda _: {"holder": "me", "held_ms": 1000, "left_ms": 1000})
    assert run(tmp_path, full, "--drop", KEY)[0] == 1
    assert mine.exists()


def test_the_lease_is_held_while_environments_are_dropped(
    tmp_path: Path, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = environment(full, KEY)
    probe, held = Probe(LocalTransport(), probe_path(), f"{full}/runs"), []
    remove = venvs._remove

    def watched(there: Probe, keys: Sequence[str]) -> None:
        with pytest.raises(TargetBusy):
            probe.lease_take("a run", 60_000)
        held.append(keys)
        remove(there, keys)

    monkeypatch.setattr(venvs, "_remove", watched)
    assert run(tmp_path, full, "--drop", KEY)[0] == 0
    assert (held, mine.exists(), probe.lease_show()["holder"]) == ([[KEY]], False, None)


def test_an_environment_that_is_taken_into_use_after_the_look_stays(
    tmp_path: Path, full: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a run, which has the lease by then, or by somebody who takes none."""
    mine, looked = environment(full, KEY), venvs.listed
    probe, started = Probe(LocalTransport(), probe_path(), f"{full}/runs"), []

    def then(happens: Callable[[], object]) -> Callable[[Probe], tuple[venvs.Venv, ...]]:
        def listed(there: Probe) -> tuple[venvs.Venv, ...]:
            found = looked(there)
            started.append(happens())
            return found

        return listed

    monkeypatch.setattr(venvs, "listed", then(lambda: probe.lease_take("a run", 60_000)["token"]))
    code, out, _ = run(tmp_path, full, "--drop", KEY)
    assert (code, out.splitlines()[-1], mine.exists()) == (1, f"{KEY[:12]} is in use and stays", True)
    probe.lease_drop(started[-1])
    running: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(
        venvs, "listed", then(lambda: running.append(subprocess.Popen([mine / "bin" / "python", "600"])))
    )
    code, out, _ = run(tmp_path, full, "--drop", KEY)
    for one in running:
        one.kill()
        one.wait()
    assert (code, out.splitlines()[-1], mine.exists()) == (1, f"{KEY[:12]} is in use and stays", True)


@given(
    st.binary(max_size=60)
    | st.builds(lambda *parts: " ".join(parts).encode() + b"\n", *[st.sampled_from(words) for words in (
        [KEY, f"{KEY}.part", "../x", "-rf"], ["whole", "partial", "x"], ["used", "idle"], ["0", "12", "1e9", "-1"],
        ["", "a-1.0", "\x1b[2J"])])
)  # fmt: skip
def test_what_a_device_says_of_its_environments_is_checked(answer: bytes) -> None:
    probe = Probe(MadeLink(answer), "/probe", "/root/runs", "pi")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Probe, "lease_show", lambda _: {"holder": None})
        try:
            found = venvs.listed(probe)
        except DeviceError:
            return
    for one in found:
        assert re.fullmatch(r"[0-9a-f]{16}(\.part)?", one.key)
        assert one.bytes >= 0
        assert all(package.isprintable() for package in one.packages)


# ---- the probe itself


def test_a_probe_that_is_not_what_was_put_is_put_again(tmp_path: Path) -> None:
    link = Link()
    root = str(tmp_path / "root")

    def install() -> Probe:
        return Probe.install(link, root, build.host_target(), print)

    probe = install()
    assert len(link.calls) == 2
    assert install() == probe
    assert len(link.calls) == 3
    good = Path(probe.path).read_bytes()
    at = good.rindex(b"meltprobe %s+%s")
    Path(probe.path).write_bytes(good[:at] + b"X" + good[at + 1 :])
    assert install() == probe
    assert Path(probe.path).read_bytes() == good
    assert Path(probe.root).is_dir()
    (tmp_path / "root" / "bin").rename(tmp_path / "root" / "old")
    (tmp_path / "root" / "bin").write_text("")
    with pytest.raises(DeviceError):
        install()


class ForgetfulLink(Link):
    """A disk that keeps something else than it was given."""

    def push(self, source: Path | bytes, path: str, deadline: Deadline, *, executable: bool = False) -> None:
        super().push(b"#!/bin/sh\nexit 0\n", path, deadline, executable=executable)


def test_a_target_that_keeps_another_probe_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="is not what was sent"):
        Probe.install(ForgetfulLink(), str(tmp_path / "root"), build.host_target(), print)


def test_hashes_of_files_there(tmp_path: Path, files: list[Path]) -> None:
    here = Probe(LocalTransport(), probe_path(), str(tmp_path / "runs"))
    paths = [str(files[0]), str(tmp_path / "none")]
    assert here.hashes(paths, Deadline.after(20)) == {paths[0]: sha_of(A), paths[1]: None}


class Patient(LocalTransport):
    """Notes how long it is given for each file."""

    def __init__(self) -> None:
        self.given_s: dict[str, float] = {}

    def pull(self, path: str, destination: Path, deadline: Deadline) -> None:
        self.given_s[destination.name] = deadline.remaining()
        destination.write_bytes(b"meltjob 1\nrun a\nlimit journal_bytes 4294967296\n")


def test_a_long_journal_has_the_time_that_it_takes_over_a_slow_link(tmp_path: Path) -> None:
    way = Patient()
    Probe(way, "p", "/r").fetch("/r/a", tmp_path)
    assert way.given_s["job"] <= 600 < (4 << 30) / 100_000 < way.given_s["journal"]
