"""The user's own catalogue, and the commands that list, show, add and requantise models."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from ggufmaker import LLAMA, gguf
from hypothesis import given, settings
from hypothesis import strategies as st
from jsoncheck import NAMED, problems
from typer.testing import CliRunner

from meltbench import models
from meltbench.cli.models import models_app
from meltbench.errors import MeltbenchError, UserError
from meltbench.models import own
from meltbench.models.catalogue import Artifact, Entry, catalogue

WEIGHTS = [
    ("token_embd.weight", (32, 3), "F32"),
    ("blk.0.attn_norm.weight", (32,), "F32"),
    ("a.weight", (33, 2), "F32"),
]
SOURCE = gguf(LLAMA | {"general.file_type": ("u32", 0)}, WEIGHTS, filler=b"\0")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "tiny.gguf").write_bytes(SOURCE)
    return tmp_path


def command(*args: str) -> str:
    """What a sub-command prints; its error is raised."""
    done = CliRunner().invoke(models_app, args, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def printed(*args: str) -> Any:
    return json.loads(command(*args, "--json"))


def entry(name: str, **said: Any) -> Entry:
    return Entry(name, artifact=(Artifact(path=f"/{name}.gguf"),), **said)


def test_a_model_is_added_and_all_else_stays(home: Path) -> None:
    own.add(entry("first"))
    where = own.path()
    assert where == home / "config" / "meltbench" / "data" / "models.toml"
    text = "# mine\n" + where.read_text() + "\n# a remark at the end"
    where.write_text(text)
    own.add(entry("second", title='say "hi" \\ ü 🙂', license="MIT", parameters_billion=0.5))
    assert where.read_text().startswith(text)
    assert catalogue()["first"] == entry("first")
    assert catalogue()["second"].title == 'say "hi" \\ ü 🙂'
    assert [one.name for one in where.parent.iterdir() if not one.name.endswith(".lock")] == ["models.toml"]


def test_a_linked_file_is_replaced_where_it_lies(home: Path) -> None:
    real = home / "dotfiles.toml"
    real.write_text("")
    own.path().parent.mkdir(parents=True)
    own.path().symlink_to(real)
    own.add(entry("first"))
    assert own.path().is_symlink()
    assert "first" in real.read_text()


def test_several_at_once_are_all_written(home: Path) -> None:
    threads = [threading.Thread(target=own.add, args=(entry(f"m{n}"),)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {f"m{n}" for n in range(8)} <= set(catalogue())


@settings(max_examples=40)
@given(title=st.text(max_size=30), path=st.text(max_size=30))
def test_any_text_is_read_back_or_refused(tmp_path_factory: pytest.TempPathFactory, title: str, path: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("own")))
        wanted = Entry("any", title=title, artifact=(Artifact(path=f"/{path}"),))
        try:
            own.add(wanted)
        except UserError:
            assert not own.path().exists()
        else:
            assert catalogue()["any"] == wanted


def test_what_cannot_be_added_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("smollm2-135m", "smollm2-135m-q4_1", "smollm2-135m-q4"):
        with pytest.raises(UserError, match=r"is in the catalogue already; take another name, or edit"):
            own.check_name(name)
    for name in ("", "a b", "-x", "a/b", "x" * 90, "a\x1b[2J"):
        with pytest.raises(UserError, match="cannot be a model's name"):
            own.check_name(name)
    own.path().parent.mkdir(parents=True)
    own.path().write_text("[[model]]\nname = 7\n")
    with pytest.raises(UserError, match=r"first cannot be added: .*models.toml: model\[0\].name"):
        own.add(entry("first"))
    assert own.path().read_text() == "[[model]]\nname = 7\n"
    (home / "file").write_text("")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "file"))
    with pytest.raises(UserError, match="cannot write"):
        own.add(entry("first"))


def test_the_list_has_every_model_and_says_what_is_here(home: Path) -> None:
    command("add", "mine", str(home / "tiny.gguf"))
    rows = printed("list")
    assert problems(NAMED["models"], rows) == []
    assert json.loads(command("--json")) == rows
    by_name = {row["name"]: row for row in rows}
    assert by_name["mine"]["artifacts"][0]["path"] == str(home / "tiny.gguf")
    assert by_name["smollm2-135m-q4"]["alias_of"] == "smollm2-135m"
    assert [one["path"] for one in by_name["qwen3-4b"]["artifacts"]] == [None, None]
    (home / "tiny.gguf").unlink()
    assert {row["name"]: row for row in printed("list")}["mine"]["artifacts"][0]["path"] is None
    text = command()
    assert "smollm2-135m-q4 stands for smollm2-135m" in text
    assert "Llama 3.2 Community" in text


@pytest.mark.parametrize("name", ["mine", "{}/tiny.gguf"])
def test_a_model_is_shown_with_what_its_file_says(home: Path, name: str) -> None:
    command("add", "mine", "tiny.gguf")
    row = printed("show", name.format(home))
    assert problems(NAMED["model"], row) == []
    (form,) = row["artifacts"]
    assert (form["path"], form["sha256_from"], form["problem"]) == (str(home / "tiny.gguf"), "file", None)
    head = form["header"]
    assert (head["architecture"], head["n_params"], head["context_tokens"], head["vocabulary"]) == ("llama", 194, 64, 3)
    assert (head["chat_template"], head["bits_per_weight"], head["tensors"]) == (True, 32.0, {"F32": 3})
    text = command("show", name.format(home))
    for words in ("194 parameters", "vocabulary 3, with a chat template, 32 bits per weight", "3 F32", form["sha256"]):
        assert words in text


def test_a_model_that_is_not_here_is_shown_with_how_to_get_it(home: Path) -> None:
    row = printed("show", "qwen-1.5b-q4")
    assert problems(NAMED["model"], row) == []
    assert (row["name"], row["license"], row["context_tokens"]) == ("qwen2.5-1.5b-instruct", "Apache-2.0", 32768)
    assert [one["format"] for one in row["artifacts"]] == ["gguf", "mlc"]
    text = command("show", "qwen2.5-1.5b-instruct-q4f16_1")
    assert "here    no: meltbench models pull qwen2.5-1.5b-instruct-q4f16_1" in text
    assert "GGUF" not in text


def test_a_damaged_file_is_shown_with_its_problem(home: Path) -> None:
    (home / "cut.gguf").write_bytes(SOURCE[:-80])
    row = printed("show", "./cut.gguf")
    assert problems(NAMED["model"], row) == []
    assert "truncated" in row["artifacts"][0]["problem"]
    assert "truncated" in command("show", "./cut.gguf")


def test_words_of_a_file_do_nothing_to_a_terminal(home: Path) -> None:
    evil = gguf(LLAMA | {"general.name": ("str", "[red]x\x1b[2J")})
    (home / "evil.gguf").write_bytes(evil)
    text = command("show", "./evil.gguf")
    assert "\x1b" not in text
    assert "[red]x" in text


def test_models_are_added_by_path_folder_and_hub(home: Path) -> None:
    told = printed("add", "mine", "tiny.gguf")
    assert problems(NAMED["model added"], told) == []
    assert (told["format"], told["source"], told["catalogue"]) == ("gguf", str(home / "tiny.gguf"), str(own.path()))
    folder = home / "onnx"
    folder.mkdir()
    (folder / "genai_config.json").write_text("{}")
    command("add", "graph", "./onnx")
    command("add", "far", "o/r:m.gguf")
    assert "hub:o/r@main:int4/" in command("add", "far-mlc", "o/r:int4", "--format", "mlc")
    assert models.resolve("graph", ("onnx-genai",)).source == models.FileSource(folder)
    assert str(models.resolve("far").source) == "hub:o/r@main:m.gguf"
    assert models.resolve("far-mlc", ("mlc",)).source == models.FolderSource("o/r", "int4")
    with pytest.raises(UserError, match="mine is in the catalogue already"):
        command("add", "mine", "tiny.gguf")
    with pytest.raises(UserError, match="smollm2-135m-q4_1 has a name"):
        command("add", "other", "smollm2-135m-q4")
    with pytest.raises(MeltbenchError, match="unknown format 'ggfu'; did you mean gguf"):
        command("add", "other", "tiny.gguf", "--format", "ggfu")


def test_a_ladder_is_made_once_and_can_be_named(home: Path) -> None:
    command("add", "tiny-f32", "tiny.gguf")
    made = printed("quantize", "tiny-f32", "--type", "Q8_0, q4_0")
    assert problems(NAMED["model quantised"], made) == []
    assert [(one["name"], one["anew"], one["fell_back"]) for one in made] == [
        ("tiny-f32-q8_0", True, 1),
        ("tiny-f32-q4_0", True, 1),
    ]
    assert made[0]["bits_per_weight"] == 8 * (3 * 34 + 4 * 32 + 2 * 66) / 194
    found = models.resolve("tiny-f32-q8_0")
    assert (found.quantisation, found.sha256, found.entry) == ("Q8_0", made[0]["sha256"], "tiny-f32")
    assert found.bits_per_weight == made[0]["bits_per_weight"]
    assert found.descends_from is not None
    assert found.descends_from.startswith("tiny-f32 (F32, sha256 ")
    assert models.resolve("tiny-f32").quantisation == "F32"  # the first of its artifacts stays the one that is meant
    written = own.path().read_text()
    again = printed("quantize", "tiny-f32", "--type", "Q8_0")
    assert (again[0]["anew"], again[0] | {"anew": True}) == (False, made[0])
    Path(made[0]["path"]).unlink()
    with pytest.raises(UserError, match="tiny-f32-q8_0: no model file at"):
        models.resolve("tiny-f32-q8_0")
    (remade,) = printed("quantize", "tiny-f32", "--type", "Q8_0")
    assert remade == made[0]
    assert own.path().read_text() == written
    text = command("quantize", "tiny-f32", "--type", "Q8_0")
    assert "requantised from tiny-f32 (F32, sha256" in text
    second = printed("quantize", "tiny-f32-q8_0", "--type", "Q4_1", "--out", str(home / "out"))
    assert (second[0]["name"], Path(second[0]["path"]).parent) == ("tiny-f32-q8_0-q4_1", home / "out")
    assert "; which descends from tiny-f32 (F32" in second[0]["descends_from"]


def test_a_file_that_has_no_name_gets_one_of_its_own(home: Path) -> None:
    (home / "my model.gguf").write_bytes(SOURCE)
    (made,) = printed("quantize", "./my model.gguf", "--type", "Q5_0")
    assert made["name"] == "my-model-q5_0"
    assert models.resolve("my-model-q5_0").title == "Tiny"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (
            ("tiny.gguf", "--type", "Q4_K_M"),
            r"'Q4_K_M' is no type that can be made here; one of Q8_0, .*llama-quantize",
        ),
        (("tiny.gguf", "--type", ""), "'' is no type"),
        (("smollm2-135m-q0f16", "--type", "Q8_0"), "mlc-chat-config.json, models quantize takes a GGUF file"),
        (("taken.gguf", "--type", "Q8_0"), "taken-q8_0 is in the catalogue already, at /taken-q8_0.gguf; leave --out"),
        (("q8.gguf", "--type", "Q8_0,Q4_0"), "q8 is Q8_0 already; leave that type out"),
        (("tiny.gguf", "--type", "Q8_0", "--out", "tiny.gguf"), "cannot write .*; give another --out"),
    ],
)
def test_what_cannot_be_requantised_is_said_before_anything_is_made(
    home: Path, args: tuple[str, ...], words: str
) -> None:
    (home / "taken.gguf").write_bytes(SOURCE)
    (home / "q8.gguf").write_bytes(gguf(LLAMA | {"general.file_type": ("u32", 7)}))
    own.add(entry("taken-q8_0"))
    before = own.path().read_text()
    with pytest.raises(UserError, match=words):
        command("quantize", *args)
    assert own.path().read_text() == before
    assert not list(home.glob("cache/models/made/*"))
