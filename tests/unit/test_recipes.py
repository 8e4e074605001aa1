from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from meltbench.errors import DefinitionError, UnknownName, UserError
from meltbench.knobs import Knob
from meltbench.plan import Plan, make
from meltbench.report import matrix
from meltbench.runners import Recipe, load, recipes
from meltbench.spec import Spec, parse_sets
from meltbench.tables import read_table

LEAST = {"title": "t", "protocol": "openai", "mode": "server", "arguments": [], "program": "p"}


def recipe(**more: Any) -> Recipe:
    return read_table(Recipe, LEAST | more, "runner.toml")


def test_a_knob_is_a_number_a_choice_a_file_or_a_text(tmp_path: Path) -> None:
    assert Knob(1, "h", 0, 9).read("k", "9") == 9
    device = Knob("auto", "h", choices=("auto", "cpu", "cuda"))
    assert (device.read("device", "cuda"), device.read("device", "none")) == ("cuda", "none")
    with pytest.raises(UnknownName, match="unknown value of device: 'cude'") as refused:
        device.read("device", "cude")
    assert str(refused.value.hint).startswith("did you mean cuda")
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    assert Knob("none", "h", file=True).read("tokenizer", str(file)) == str(file)
    assert Knob("none", "h").read("overrides", "a=1;b=2") == "a=1;b=2"


@pytest.mark.parametrize("text", ["", "a\nb", "\x1b[2J", "x" * 5000])
def test_a_text_is_short_and_printable(text: str) -> None:
    with pytest.raises(UserError, match="no printable text of 1 to 4096 characters"):
        Knob("none", "h").read("overrides", text)


@pytest.mark.parametrize("text", ["/nowhere/tokenizer.json", "/", "a\0b", "x" * 5000])
def test_a_file_that_is_not_there_is_named(text: str) -> None:
    with pytest.raises(UserError, match="tokenizer: no file at "):
        Knob("none", "h", file=True).read("tokenizer", text)


@pytest.mark.parametrize("knob", [{"low": 1}, {"low": 1, "high": 2, "file": True}, {"choices": ["a"], "file": True}])
def test_a_knob_of_two_kinds_is_refused(knob: dict[str, Any]) -> None:
    with pytest.raises(DefinitionError, match="a knob has low and high, or choices, or file = true"):
        recipe(knobs={"k": {"default": "none", "help": "h"} | knob})


def test_what_a_server_knows_is_said_by_recipes_of_the_protocol_openai_alone() -> None:
    found = recipe(asks={"path": "", "token_ids": True, "fields": ["ignore_eos"]})
    assert found.asks is not None
    assert (found.asks.path, found.asks.token_ids, found.asks.fields) == ("", True, ("ignore_eos",))
    with pytest.raises(DefinitionError, match="asks is of the protocol openai"):
        recipe(protocol="llama-server", asks={})
    with pytest.raises(DefinitionError, match=r"expected one of .*ignore_eos"):
        recipe(asks={"fields": ["ignore_eso"]})
    with pytest.raises(DefinitionError, match="is no path"):
        recipe(asks={"health": "http://x"})


def planned(*sets: str, **more: Any) -> Plan:
    asked: dict[str, Any] = {
        "runner": "openai",
        "model": "m",
        "engine": "http://127.0.0.1:8000/v2",
        "workload": "quick",
    }
    return make(Spec(**asked | more, knobs=parse_sets(sets)))


def test_a_server_that_runs_already_is_asked_at_its_own_path() -> None:
    plan = planned("concurrency=1,4")
    assert plan.dialect is not None
    assert plan.dialect.path == "/v2"
    assert (plan.model.name, plan.model.format) == ("m", "served") if plan.model else False
    assert plan.unseen == plan.unloaded == "not_started_here: the server was running before the run"
    assert plan.describe()["runner"]["url"] == "http://127.0.0.1:8000/v2"
    assert planned(engine="http://127.0.0.1:8000").hash != plan.hash


@pytest.mark.parametrize(
    ("sets", "more", "said"),
    [
        ([], {"model": Spec.model}, "runner openai takes what its server has"),
        (
            [],
            {"model": Spec.model, "runner": "mlc", "engine": None},
            r"^runner mlc must be told its model; --model NAME: of the catalogue .*, a folder with mlc-chat-config",
        ),
        ([], {"workload": "grid"}, "not known to take token ids, which a grid is made of"),
        (["repeat_penalty=1.1"], {}, "not known to take repeat_penalty"),
        (["load=cold"], {}, "load is of an engine that is started"),
        (["cpus=0"], {}, "cpus is of an engine that is started"),
        (["threads=2"], {}, "unknown key of workload quick 'threads'"),
        (["energy_source=wattmeter"], {}, "unknown source of .*: 'wattmeter'"),
        (["tokenizer=/nowhere"], {}, "tokenizer: no file at /nowhere"),
        ([], {"runner": "lm-studio", "engine": "https://h/v1"}, "asks a server of the same machine"),
    ],
)
def test_what_such_a_server_cannot_be_asked_is_said_first(sets: list[str], more: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError, match=said):
        planned(*sets, **more)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"workload": "mmlu"}, r"not known to take the only answers that it may give; --runner llamacpp"),
        ({"workload": "wikitext-2"}, "a question about a token's log-probability; --runner llamacpp"),
        (
            {"workload": "wikitext-2", "resume": True, "runner": "llamacpp", "engine": None, "model": Spec.model},
            "--resume is for questions with right answers",
        ),
    ],
)
def test_no_questions_are_fetched_for_what_cannot_be_asked(
    more: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meltbench.questions.load.fetched", pytest.fail)
    with pytest.raises(UserError, match=said):
        planned(**more)


@pytest.mark.parametrize("device", ["pixel6", "pixel6@SERIAL", "adb:SERIAL", "macbook"])
def test_a_device_is_not_looked_for_where_its_kind_says_that_it_cannot_be(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meltbench.targets.adb.attached.of_profile", pytest.fail)
    monkeypatch.setattr("meltbench.targets.adb.attached.of_serial", pytest.fail)
    why = "cannot be run on" if device == "macbook" else f"runner onnx does not run on {device}: Android has no Python"
    with pytest.raises(UserError, match=why):
        make(Spec(device=device, runner="onnx"))


def test_a_named_source_is_the_total_of_a_server() -> None:
    assert [one.source for one in planned("energy_source=rapl").profile.total] == ["rapl"]
    name = next(one.name for one in planned().profile.source if one.name != "rapl")
    assert [(one.source, one.rails) for one in planned(f"energy_source={name}").profile.total] == [(name, ())]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"program": None}, "either program or embedded"),
        ({"url": ""}, "either program or embedded"),
        ({"relay": "relay.py"}, "relay is of a server that runs already"),
        ({"cannot": {"adn": "no"}}, "'adn' is no kind of target: local, ssh, adb"),
        ({"checked": "hoped"}, "expected one of 'run', 'contract'"),
    ],
)
def test_a_recipe_that_contradicts_itself_is_refused(more: dict[str, Any], said: str) -> None:
    table = {key: value for key, value in (LEAST | more).items() if value is not None}
    with pytest.raises(DefinitionError, match=said):
        read_table(Recipe, table, "runner.toml")


def test_the_environment_of_an_engine_is_filled_in_like_its_command_line() -> None:
    made = recipe(env={"HOST": "127.0.0.1:{port}", "SLOTS": "{parallel}", "CTX": "{ctx}"}, arguments=[["serve"]])
    assert made.takes("parallel")
    assert made.environment({"ctx": "none"}, {"port": "1", "parallel": "4"}) == {"HOST": "127.0.0.1:1", "SLOTS": "4"}


def test_docs_engines_md_has_the_matrix(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    text = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    assert matrix.render_docs(recipes()) in text, "put render_docs(recipes()) of meltbench.report.matrix into it"


def test_every_recipe_can_be_loaded_and_says_where_it_runs() -> None:
    for name, one in recipes().items():
        load(name)
        row = matrix.row_json(one)
        assert set(row["targets"]) == {"local", "ssh", "adb"}
        for target in row["targets"].values():
            assert target["runs"] == bool(target["how"]) == (target["why"] is None)
        assert row["targets"]["local"]["runs"]


@pytest.mark.parametrize(
    ("runner", "why"),
    [
        ("mlc", "MLC on Android is an app"),
        ("vllm", "vLLM is a Python package"),
        ("llama-cpp-python", "it is a package of this machine's Python"),
    ],
)
def test_a_pair_that_cannot_be_is_told_in_one_line(
    runner: str, why: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inventory = tmp_path / "inventory.toml"
    inventory.write_text('[pixel]\nprofile = "generic-android"\nadb = "SERIAL"\nidentity = "0123456789abcdef"\n')
    monkeypatch.setenv("MELTBENCH_INVENTORY", str(inventory))
    with pytest.raises(UserError, match=f"runner {runner} does not run on pixel: {why}") as refused:
        make(Spec(device="pixel", runner=runner, model="m", workload="quick"))
    assert refused.value.hint == "meltbench runners"
