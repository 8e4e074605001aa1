"""Folders of the hub as one model, and models that a person brought here: against a real server on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import heed_interrupts
from files_server import Files
from ggufmaker import LLAMA, gguf
from jsoncheck import NAMED, problems
from typer.testing import CliRunner

from meltbench.cli.models import models_app
from meltbench.errors import FetchError, ModelDamaged, UserError
from meltbench.models import adopt, cached, ensure, resolve
from meltbench.models.download import Patience
from meltbench.models.hashes import pins, pins_path
from meltbench.models.header import LOCAL, sha256_of_model

QUICK = Patience(attempts=3, backoff_s=0.01, connect_s=5, read_s=5)
COMMIT, LATER = "a" * 40, "b" * 40
SHARD = bytes(range(256)) * 8192  # 2 MiB
FILES = {
    "mlc-chat-config.json": json.dumps({"model_type": "llama", "vocab_size": 7}).encode(),
    "params_shard_0.bin": SHARD,
    "tokenizer.json": b"{}",
}
MLC = ("mlc",)


@pytest.fixture
def files() -> Iterator[Files]:
    server = Files()
    yield server
    server.close()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Files) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HF_ENDPOINT", files.base)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    return tmp_path


def publish(files: Files, held: dict[str, bytes] = FILES, folder: str = "", commit: str = COMMIT, **how: Any) -> None:
    """A repository at a commit, as the hub lists it."""
    prefix = f"{folder}/" if folder else ""
    siblings: list[dict[str, Any]] = [{"rfilename": "README.md", "size": 3}, {"rfilename": ".gitattributes", "size": 3}]
    for name, content in held.items():
        listed: dict[str, Any] = {"rfilename": prefix + name, "size": len(content)}
        if name.endswith(".bin"):
            listed["lfs"] = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        siblings.append(listed)
        files.put(f"/o/mlc/resolve/{commit}/{prefix}{name}", content, **(how if name.endswith(".bin") else {}))
    listing(files, {"sha": commit, "siblings": siblings})


def listing(files: Files, answer: Any) -> None:
    files.put("/api/models/o/mlc/revision/main", json.dumps(answer).encode())


def held(path: Path) -> dict[str, bytes]:
    return {one.name: one.read_bytes() for one in path.iterdir()}


def shard(files: Files, commit: str = COMMIT) -> list[tuple[Any, int]]:
    """Range and status of each request for the large file."""
    return [(entry[1], entry[3]) for entry in files.log if entry[0] == f"/o/mlc/resolve/{commit}/params_shard_0.bin"]


def test_every_file_of_a_repository_is_pulled_and_pinned_as_a_set(files: Files, home: Path) -> None:
    publish(files)
    model, seen, said = resolve("o/mlc", MLC), list[tuple[int, int | None]](), list[str]()
    assert (model.format, model.filename, model.sha256) == ("mlc", "mlc", None)
    path = ensure(model, lambda *at: seen.append(at), said.append, QUICK)
    whole = sum(map(len, FILES.values()))
    assert held(path) == FILES
    assert path == home / "cache" / "models" / sha256_of_model(path) / "mlc"
    assert seen[-1] == (whole, whole)
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert said[0] == f"o/mlc: 3 files of o/mlc at {COMMIT}"
    assert pins() == {"hub:o/mlc@main:/": sha256_of_model(path)}
    requests = len(files.log)
    assert ensure(resolve("o/mlc", MLC), patience=QUICK) == path
    assert len(files.log) == requests  # a cached copy needs no hub


def test_the_command_pulls_the_artifact_that_is_asked_for(files: Files, home: Path) -> None:
    publish(files)
    (home / "data").mkdir()
    (home / "data" / "models.toml").write_text(
        '[[model]]\nname = "tiny"\n[[model.artifact]]\nrepo = "o/r"\nfile = "m.gguf"\n'
        '[[model.artifact]]\nformat = "mlc"\nrepo = "o/mlc"\nquantisation = "q4f16_1"\n'
    )
    done = CliRunner().invoke(models_app, ["pull", "tiny", "--format", "mlc", "--json"], catch_exceptions=False)
    told = json.loads(done.stdout)
    assert problems(NAMED["model pulled"], told) == []
    assert (told["name"], told["format"], told["sha256_from"]) == ("tiny-q4f16_1", "mlc", "pin")
    assert held(Path(told["path"])) == FILES
    assert "tiny stands for tiny-q4f16_1" in done.stderr
    (home / "m.gguf").write_bytes(MODEL)
    done = CliRunner().invoke(models_app, ["pull", "tiny", "--from", "m.gguf"], catch_exceptions=False)
    assert "hub:o/r@main:m.gguf" in done.stdout
    assert ensure(resolve("tiny"), patience=QUICK).read_bytes() == MODEL


def test_one_folder_of_a_repository(files: Files, home: Path) -> None:
    publish(files, {**FILES, "sub/other.bin": b"below"}, folder="gpu/int4")
    path = ensure(resolve("o/mlc:gpu/int4", MLC), patience=QUICK)
    assert (path.name, held(path)) == ("int4", FILES)
    with pytest.raises(FetchError, match=r"o/mlc holds no mlc-chat-config.json; name the folder"):
        ensure(resolve("o/mlc", MLC), patience=QUICK)


def test_what_a_folder_holds_is_seen_where_the_engine_does_not_say(files: Files, home: Path) -> None:
    publish(files, folder="x")
    assert resolve("o/mlc:x", ("onnx-genai", "mlc")).format == "mlc"
    with pytest.raises(UserError, match=r"o/mlc holds neither genai_config.json nor mlc-chat-config.json"):
        resolve("o/mlc", LOCAL)
    publish(files)
    assert resolve("o/mlc", LOCAL).format == "mlc"
    with pytest.raises(UserError, match="is no folder of a repository"):
        resolve("o/mlc:../x", MLC)


def test_a_cut_file_is_continued_and_whole_ones_are_not_asked_for_again(files: Files, home: Path) -> None:
    publish(files, script=["cut:1179648", "503", "503", "503"])
    with pytest.raises(FetchError, match="HTTP 503"):
        ensure(resolve("o/mlc", MLC), patience=QUICK)
    assert cached(resolve("o/mlc", MLC)) is None
    first = files.statuses(f"/o/mlc/resolve/{COMMIT}/mlc-chat-config.json")
    publish(files)
    assert held(ensure(resolve("o/mlc", MLC), patience=QUICK)) == FILES
    assert shard(files)[-1] == ("bytes=1179648-", 206)
    assert files.statuses(f"/o/mlc/resolve/{COMMIT}/mlc-chat-config.json") == first == [200]
    assert [one.suffix for one in home.glob("cache/models/partial/*")] == [".lock"]


def test_files_of_two_commits_are_never_mixed(files: Files, home: Path) -> None:
    publish(files, script=["503", "503", "503"])
    with pytest.raises(FetchError):
        ensure(resolve("o/mlc", MLC), patience=QUICK)
    later = {**FILES, "mlc-chat-config.json": b'{"model_type": "other"}'}
    publish(files, later, commit=LATER)
    assert held(ensure(resolve("o/mlc", MLC), patience=QUICK)) == later


CHILD = """
from meltbench.models import ensure, resolve
print(ensure(resolve("o/mlc", ("mlc",)), lambda done, total: print("at", done, flush=True)))
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_a_pull_that_ended_is_gone_on_with(files: Files, home: Path, end: signal.Signals) -> None:
    publish(files, script=["slow"])
    files.gate.clear()
    command = [sys.executable, "-c", CHILD]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=-1, text=True, env=env, preexec_fn=heed_interrupts
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line.split()[1]) >= 1 << 20:
                break
        process.send_signal(end)
        process.communicate(timeout=30)
    (part,) = home.glob("cache/models/partial/*.d/.*.part")
    have = part.stat().st_size
    files.gate.set()
    assert held(ensure(resolve("o/mlc", MLC), patience=QUICK)) == FILES
    assert shard(files)[-1] == (f"bytes={have}-", 206)


def test_a_set_that_changed_is_refused_and_a_damaged_one_is_fetched_anew(files: Files, home: Path) -> None:
    publish(files)
    path = ensure(resolve("o/mlc", MLC), patience=QUICK)
    (path / "tokenizer.json").write_bytes(b"[]")
    assert cached(resolve("o/mlc", MLC)) is None
    (path / "sub").mkdir()
    assert cached(resolve("o/mlc", MLC)) is None
    assert held(ensure(resolve("o/mlc", MLC), patience=QUICK)) == FILES
    (path / "tokenizer.json").unlink()
    publish(files, {**FILES, "tokenizer.json": b'{"new": 1}'}, commit=LATER)
    with pytest.raises(ModelDamaged, match=r"o/mlc is not what it was: expected sha256 .*pins.toml"):
        ensure(resolve("o/mlc", MLC), patience=QUICK)
    assert [one.suffix for one in home.glob("cache/models/partial/*")] == [".lock"]


def test_the_listings_word_of_a_file_is_held(files: Files, home: Path) -> None:
    publish(files)
    files.paths[f"/o/mlc/resolve/{COMMIT}/params_shard_0.bin"].content = SHARD[::-1]
    with pytest.raises(ModelDamaged, match=r"params_shard_0.bin of o/mlc is not the file it was"):
        ensure(resolve("o/mlc", MLC), patience=QUICK)
    files.paths[f"/o/mlc/resolve/{COMMIT}/params_shard_0.bin"].content = SHARD[:-1]
    with pytest.raises(FetchError, match=f"has {len(SHARD) - 1} bytes, expected {len(SHARD)}"):
        ensure(resolve("o/mlc", MLC), patience=QUICK)
    assert not pins_path().exists()


def test_what_is_no_model_is_not_kept(files: Files, home: Path) -> None:
    publish(files, {**FILES, "mlc-chat-config.json": b"<html>"})
    with pytest.raises(ModelDamaged, match=r"what was fetched for o/mlc is no good: .*is not JSON"):
        ensure(resolve("o/mlc", MLC), patience=QUICK)
    assert not pins_path().exists()
    assert [one.suffix for one in home.glob("cache/models/partial/*")] == [".lock"]


@pytest.mark.parametrize(
    ("siblings", "words"),
    [
        ([{"rfilename": "mlc-chat-config.json"}, {"rfilename": "a b\x1b[2J.bin"}], "is no name of a model's file"),
        ([{"rfilename": f"f{n}.bin"} for n in range(1001)], "1001 files are in one folder"),
        ([{"size": 3}], "does not answer like a model hub"),
        ([7], "does not answer like a model hub"),
        ([{"rfilename": "../mlc-chat-config.json"}], "holds no mlc-chat-config.json"),
        ([], "holds no mlc-chat-config.json"),
    ],
)
def test_an_odd_listing_is_one_line(files: Files, home: Path, siblings: Any, words: str) -> None:
    listing(files, {"sha": COMMIT, "siblings": siblings})
    with pytest.raises(FetchError, match=words) as caught:
        ensure(resolve("o/mlc", MLC), patience=QUICK)
    assert "\n" not in str(caught.value)


def test_a_listing_without_commit_sizes_and_hashes_does(files: Files, home: Path) -> None:
    for name, content in FILES.items():
        files.put(f"/o/mlc/resolve/main/{name}", content)
    odd = {"size": True, "lfs": {"sha256": "no"}}
    listing(files, {"sha": "../../x", "siblings": [{"rfilename": name, **odd} for name in FILES]})
    assert held(ensure(resolve("o/mlc", MLC), patience=QUICK)) == FILES


MODEL = gguf(LLAMA)


def test_without_the_hub_it_is_said_what_to_bring_and_where_to_put_it(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name, what in (
        ("o/r:m.gguf", "download http://127.0.0.1:9/o/r/resolve/main/m.gguf elsewhere"),
        ("o/mlc:x", "download every file of http://127.0.0.1:9/o/mlc/tree/main/x elsewhere"),
    ):
        with pytest.raises(FetchError) as caught:
            ensure(resolve(name, ("gguf",) if name.endswith("gguf") else MLC), patience=QUICK)
        assert f"{what}, then: meltbench models pull {name} --from PATH" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_what_was_brought_by_hand_is_checked_pinned_and_used(home: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    (home / "m.gguf").write_bytes(MODEL)
    said: list[str] = []
    path = adopt(resolve("o/r:m.gguf"), home / "m.gguf", said.append)
    assert path.read_bytes() == MODEL
    assert "nobody has vouched for this file before" in said[0]
    assert ensure(resolve("o/r:m.gguf"), patience=QUICK) == path
    assert resolve("o/r").name == "o/r:m.gguf"  # the one file that was pulled from it, without asking
    folder = home / "brought"
    folder.mkdir()
    for name, content in FILES.items():
        (folder / name).write_bytes(content)
    assert held(adopt(resolve("o/mlc", MLC), folder)) == FILES
    (home / "m.gguf").write_bytes(gguf(LLAMA, filler=b"\x11"))
    with pytest.raises(ModelDamaged, match="is not what it was"):
        adopt(resolve("o/r:m.gguf"), home / "m.gguf")
    (home / "m.gguf").write_bytes(MODEL[:-40])
    with pytest.raises(UserError, match=rf"^o/other:m\.gguf: .* GGUF {home}/m\.gguf: truncated.*; give what was"):
        adopt(resolve("o/other:m.gguf"), home / "m.gguf")
    for name, form, source in (("o/mlc", MLC, home / "m.gguf"), ("o/r:m.gguf", ("gguf",), folder)):
        with pytest.raises(UserError, match=r"is a (file|folder), .* is none; give what was downloaded"):
            adopt(resolve(name, form), source)
    with pytest.raises(UserError, match="is not fetched from anywhere; leave --from out"):
        adopt(resolve(str(path)), home / "m.gguf")
    assert [one.suffix for one in home.glob("cache/models/partial/*")] == [".lock"] * 2
