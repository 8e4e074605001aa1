"""The commands of the push cache, each on its own: the real probe in a folder of the test's own."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from cache_kit import Box, sha_of
from probe_kit import Lab, call, py

A, B, C = (letter * 1000 for letter in (b"a", b"b", b"c"))
SHA, OTHER = sha_of(A), sha_of(B)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["look"],
        ["look", SHA[:-1]],
        ["look", SHA.upper()],
        ["look", SHA + "0"],
        ["look", "../" + SHA[3:]],
        ["look", "--all", SHA],
        ["put", SHA, "1", "0", "1"],
        ["put", SHA, "-1", "0", "1", "1"],
        ["put", SHA, "1", "2", "1", "1"],
        ["put", SHA, "1x", "0", "1", "1"],
        ["put", "x/" + SHA[2:], "1", "0", "1", "1"],
        ["tree", SHA],
        ["tree", "x", f"a={SHA}"],
        ["tree", SHA, f"={SHA}"],
        ["tree", SHA, f"a/b={SHA}"],
        ["tree", SHA, f"..={SHA}"],
        ["tree", SHA, f".files={SHA}"],
        ["tree", SHA, f"-a={SHA}"],
        ["tree", SHA, f"a b={SHA}"],
        ["tree", SHA, f"a\n={SHA}"],
        ["tree", SHA, "a=b"],
        ["tree", SHA, f"{'a' * 129}={SHA}"],
        ["tree", SHA, f"a={SHA}", f"a={OTHER}"],
        ["list", "x"],
        ["drop"],
        ["drop", "--all", SHA],
        ["drop", "*"],
        ["burn", SHA],
    ],
)
def test_any_other_words_are_usage_and_touch_nothing(box: Box, words: list[str]) -> None:
    done = box.call(*words)
    assert (done.returncode, done.stderr.count(b"\n")) == (64, 1)
    assert done.stderr.startswith(b"usage: meltprobe cache DIR look [--full] SHA...")
    assert not box.dir.exists()


def test_a_file_is_put_seen_and_dropped(box: Box) -> None:
    assert box.json("look", SHA)["blobs"] == {SHA: {"state": "absent", "bytes": 0}}
    assert box.keep(A) == SHA
    seen = box.json("look", SHA, OTHER)
    assert seen["blobs"] == {SHA: {"state": "whole", "bytes": 1000}, OTHER: {"state": "absent", "bytes": 0}}
    assert seen["used_bytes"] == 1000
    assert seen["disk"]["total_bytes"] > seen["disk"]["free_bytes"] > 0
    assert box.blob(SHA).stat().st_mode & 0o777 == 0o755
    assert json.loads(box.call("drop", SHA, OTHER).stdout) == {"dropped": [SHA], "in_use": [], "freed_bytes": 1000}
    assert list((box.dir / "blobs").iterdir()) == []
    assert box.keep(b"") == sha_of(b"")


def test_what_is_there_is_not_asked_for_again(box: Box) -> None:
    box.keep(A)
    put = box.start_put(A)  # stdin stays open, nothing is sent
    assert put.stdout is not None
    assert json.loads(put.stdout.read())["state"] == "whole"
    put.communicate()


def test_a_push_that_ends_early_is_gone_on_with(box: Box) -> None:
    done = box.call("put", SHA, "1000", "0", "9999", "0", input=A[:300])
    assert (done.returncode, done.stdout) == (74, b"")
    assert done.stderr.decode() == f"meltprobe: {SHA}: 300 of 1000 bytes came\n"
    assert box.json("look", SHA)["blobs"][SHA] == {"state": "partial", "bytes": 300}
    assert box.call("put", SHA, "1000", "301", "9999", "0", input=A[301:]).returncode == 74
    assert box.put(A, offset=200).returncode == 0  # what is there past it is not believed
    assert box.blob(SHA).read_bytes() == A


def test_another_file_than_was_promised_is_removed(box: Box) -> None:
    box.call("put", SHA, "1000", "0", "9999", "0", input=A[:300])
    with box.part(SHA).open("r+b") as part:
        part.write(b"X")  # what a power cut makes of a file
    done = box.put(A, offset=300)
    assert done.returncode == 65
    assert b"another file" in done.stderr
    assert box.state(SHA) == "absent"
    box.keep(A)


def test_a_changed_file_is_hashed_again_and_removed_when_damaged(box: Box) -> None:
    box.keep(A)
    os.utime(box.blob(SHA))
    assert box.json("list")["blobs"][SHA]["state"] == "unchecked"
    assert box.state(SHA) == "whole"
    assert box.json("list")["blobs"][SHA]["state"] == "whole"
    (box.dir / "blobs" / f"{SHA}.ok").write_text("meltblob 1 of another day\n")
    assert box.state(SHA) == "whole"
    box.blob(SHA).write_bytes(A[:-1] + b"b")
    assert box.state(SHA) == "damaged"
    assert box.state(SHA) == "absent"
    assert list((box.dir / "blobs").iterdir()) == []


def test_the_least_recently_used_go_first(box: Box) -> None:
    a, _, c = (box.keep(data) for data in (A, B, C))
    assert box.state(a) == "whole"  # the second is now the oldest
    d = box.keep(b"d" * 1000, room=(3000, 0))
    assert box.held() == {a, c, d}
    box.keep(b"e" * 2000, room=(3000, 0))
    assert box.held() == {sha_of(b"e" * 2000), d}


def test_uses_are_in_order_though_the_clock_was_set_back(box: Box) -> None:
    a, b = box.keep(A), box.keep(B)
    future = time.time() + 7200
    os.utime(box.dir / "blobs" / f"{b}.ok", (future, future))
    assert box.state(a) == "whole"
    box.keep(C, room=(2000, 0))
    assert box.held() == {a, sha_of(C)}
    assert box.json("list")["blobs"][a]["idle_s"] == 0


def test_an_old_partial_goes_before_any_file(box: Box) -> None:
    a = box.keep(A)
    for data, age in ((B, 7200), (C, 60)):
        box.call("put", sha_of(data), "1000", "0", "9999", "0", input=data[:900])
        then = time.time() - age
        os.utime(box.part(sha_of(data)), (then, then))
    box.keep(b"d" * 100, room=(2000, 0))
    assert box.held() == {a, sha_of(C), sha_of(b"d" * 100)}


def test_no_room_is_said_before_anything_is_read_or_dropped(box: Box) -> None:
    box.keep(A)
    done = box.put(B, room=(999, 0))
    assert done.returncode == 73
    assert b"no room: a file of 0.0 MB does not fit a cache of at most 0.0 MB" in done.stderr
    put = box.start_put(B, room=(1 << 40, 900_000_000_000_000))  # no byte is sent
    assert put.stdout is not None
    assert put.stdout.read() == b""
    assert put.stderr is not None
    assert b"are to come and 900000000.0 MB to stay free, but " in put.stderr.read()
    put.communicate()
    assert put.returncode == 73
    assert {path.name for path in (box.dir / "blobs").iterdir()} == {SHA, f"{SHA}.ok"}


def test_what_a_running_job_names_is_kept(tmp_path: Path) -> None:
    lab, box = Lab(tmp_path), Box(tmp_path)
    a, b, c = (box.keep(data) for data in (A, B, C))
    box.json("tree", "0" * 64, f"engine={b}")
    go = tmp_path / "go"
    wait = f"import os, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)"
    job = lab.start(f"step exec e 60000 -- {py(wait)} {box.blob(a)} {box.dir}/trees/{'0' * 64}/engine")
    blobs = box.json("list")["blobs"]
    assert {sha: blobs[sha]["in_use"] for sha in (a, b, c)} == {a: True, b: True, c: False}
    done = box.call("drop", "--all")
    assert (done.returncode, json.loads(done.stdout)["dropped"]) == (75, [c])
    assert set(json.loads(done.stdout)["in_use"]) == {a, b}
    assert json.loads(call("cache", f"{box.dir}//", "drop", "--all").stdout)["dropped"] == []
    done = box.put(b"d" * 1500, room=(3000, 0))
    assert (done.returncode, b"of which 0.0 MB are in use" in done.stderr) == (73, True)
    go.touch()
    assert job.wait(30) == 0
    assert set(json.loads(box.call("drop", "--all").stdout)["dropped"]) == {a, b}
    assert list((box.dir / "trees").iterdir()) == []


def test_links_that_lead_out_of_the_folder_are_not_followed(box: Box) -> None:
    box.keep(B)
    outside = box.home / "outside"
    outside.write_bytes(A)
    box.blob(SHA).symlink_to(outside)
    assert box.state(SHA) == "damaged"
    assert not box.blob(SHA).is_symlink()
    box.part(SHA).symlink_to(outside)
    (box.dir / "blobs" / f"{SHA}.ok").symlink_to(outside)
    box.keep(A)
    assert not box.blob(SHA).is_symlink()
    assert outside.read_bytes() == A
    assert box.json("list")["blobs"][SHA]["state"] in ("whole", "unchecked")
    (box.dir / "trees").rename(box.home / "elsewhere")
    (box.dir / "trees").symlink_to(box.home / "elsewhere")
    assert box.call("look", SHA).returncode == 73


def test_the_folder_itself_may_lie_on_another_disk(box: Box) -> None:
    (box.home / "disk").mkdir()
    box.dir.symlink_to(box.home / "disk")
    box.keep(A)
    assert (box.home / "disk" / "blobs" / SHA).read_bytes() == A


def test_a_folder_that_cannot_be_is_said(box: Box) -> None:
    box.dir.write_text("")
    done = box.call("look", SHA)
    assert (done.returncode, done.stderr) == (73, f"meltprobe: {box.dir}: Not a directory\n".encode())
    assert call("cache", box.home / "no" / "where", "list").returncode == 73


DIGEST = "5" * 64


def tree_of(box: Box) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (box.dir / "trees" / DIGEST).iterdir() if path.name != ".files"}


def test_a_tree_gives_names_and_keeps_what_it_was(box: Box) -> None:
    a, b = box.keep(A), box.keep(B)
    words = [DIGEST, f"engine={a}", f"libx.so.1={b}", f"libx++.so={b}"]
    assert box.json("tree", *words) == {"path": f"{box.dir}/trees/{DIGEST}"}
    wanted = {"engine": A, "libx.so.1": B, "libx++.so": B}
    assert tree_of(box) == wanted
    made = (box.dir / "trees" / DIGEST).stat().st_ino
    assert os.access(box.dir / "trees" / DIGEST / "engine", os.X_OK)
    box.json("tree", *words)
    assert (box.dir / "trees" / DIGEST).stat().st_ino == made
    listed = box.json("list")
    assert listed["blobs"][b]["names"] == ["libx.so.1", "libx++.so"]
    assert {blob["state"] for blob in listed["blobs"].values()} == {"whole"}  # no link made a record stale
    assert listed["used_bytes"] == 2000


def spoil_add(tree: Path) -> None:
    (tree / "libplanted.so").write_bytes(b"x")


def spoil_other(tree: Path) -> None:
    (tree / "engine").unlink()
    (tree / "engine").write_bytes(A)


def spoil_link(tree: Path) -> None:
    (tree / "engine").rename(tree.parent.parent / "engine")
    (tree / "engine").symlink_to(tree.parent.parent / "engine")


def spoil_list(tree: Path) -> None:
    (tree / ".files").write_bytes(b"\xff" * 3000)


def spoil_nothing_left(tree: Path) -> None:
    for path in tree.iterdir():
        path.unlink()


def spoil_folder(tree: Path) -> None:
    (tree / "engine").unlink()
    (tree / "engine" / "deep").mkdir(parents=True)


@pytest.mark.parametrize(
    "spoil",
    [spoil_add, spoil_other, spoil_link, spoil_list, spoil_nothing_left, spoil_folder],
    ids=lambda f: f.__name__,
)
def test_a_tree_that_was_changed_is_made_anew(box: Box, spoil: object) -> None:
    words = [DIGEST, f"engine={box.keep(A)}", f"lib.so={box.keep(B)}"]
    box.json("tree", *words)
    spoil(box.dir / "trees" / DIGEST)  # type: ignore[operator]
    box.json("tree", *words)
    assert tree_of(box) == {"engine": A, "lib.so": B}
    assert [path.name for path in (box.dir / "trees").iterdir()] == [DIGEST]


def test_a_tree_wants_whole_files(box: Box) -> None:
    a = box.keep(A)
    done = box.call("tree", DIGEST, f"engine={a}", f"lib.so={OTHER}")
    assert (done.returncode, done.stderr.decode()) == (66, f"meltprobe: {OTHER}: not in the cache\n")
    box.json("tree", DIGEST, f"engine={a}")
    with (box.dir / "trees" / DIGEST / "engine").open("r+b") as file:
        file.write(b"X")
    done = box.call("tree", DIGEST, f"engine={a}")
    assert (done.returncode, done.stderr.decode()) == (66, f"meltprobe: {a}: damaged in the cache\n")
    assert box.state(a) == "damaged"
    assert list((box.dir / "trees").iterdir()) == []


def test_a_file_that_is_dropped_takes_its_trees_along(box: Box) -> None:
    a, b = box.keep(A), box.keep(B)
    box.json("tree", DIGEST, f"engine={a}", f"lib.so={b}")
    box.json("tree", "6" * 64, f"other={b}")
    box.json("drop", a)
    assert [path.name for path in (box.dir / "trees").iterdir()] == ["6" * 64]
    assert box.json("list")["blobs"][b] | {"idle_s": 0} == {
        "state": "whole", "bytes": 1000, "idle_s": 0, "in_use": False, "names": ["other"],
    }  # fmt: skip


def test_what_a_kill_left_half_made_goes_with_the_next_change(box: Box) -> None:
    box.keep(A)
    for name in (".new", ".old"):
        (box.dir / "trees" / name).mkdir()
        os.link(box.blob(SHA), box.dir / "trees" / name / "engine")
    freed = json.loads(box.call("drop", "--all").stdout)["freed_bytes"]
    assert (freed, list((box.dir / "trees").iterdir())) == (1000, [])  # else the disk would keep it all the same
