"""A model without a chat template that is asked messages: what its run says, and what is refused before it starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from ggufmaker import LLAMA, gguf

from meltbench import road
from meltbench.account import conditions
from meltbench.compose import compose
from meltbench.errors import UserError
from meltbench.models import resolve
from meltbench.plan import Plan, make
from meltbench.probe.journal import Journal
from meltbench.spec import Spec, parse_sets
from meltbench.targets.facts import parse
from meltbench.ticket import LocalModel
from meltbench.watch import Watch

TEMPLATE = "tokenizer.chat_template"
THINKS = "{% if enable_thinking is false %}</think>{% endif %}{{ messages }}"


def model(folder: Path, template: str | None = None, key: str = TEMPLATE) -> str:
    meta = {name: value for name, value in LLAMA.items() if name != TEMPLATE}
    made = folder / "base.gguf"
    made.write_bytes(gguf(meta if template is None else meta | {key: ("str", template)}))
    return str(made)


def planned(path: str, *sets: str, workload: str = "smoke", **more: Any) -> Plan:
    return make(Spec(model=path, workload=workload, knobs=parse_sets(sets), **more))


def told(plan: Plan) -> dict[str, str]:
    """What of its conditions speaks against a run of this plan."""
    path = Path(plan.spec.model)
    lies = LocalModel.of(resolve(str(path), ("gguf",)), path)
    knobs = plan.knobs | {"threads": 1, "ctx": 512}
    _, ticket = compose(plan, plan.cells[0], "r", parse({}), knobs, lies, "/x")
    return dict(conditions(ticket, Journal(), [], {}, []))


def test_messages_that_the_engine_gave_a_form_of_its_own_are_named(tmp_path: Path) -> None:
    path = model(tmp_path)
    found = told(planned(path))["no_chat_template"]
    assert found.startswith("base has none")
    assert "no_chat_template" in told(planned(path, workload="chat"))
    assert "no_chat_template" in told(planned(model(tmp_path, "")))  # llama.cpp takes an empty one for none


def test_prompts_and_a_form_of_the_models_or_the_recipes_own_are_not(tmp_path: Path) -> None:
    path = model(tmp_path)
    assert "no_chat_template" not in told(planned(path, "chat=false"))
    assert "no_chat_template" not in told(planned(path, workload="grid"))
    plan = planned(path)
    assert plan.recipe is not None
    named = replace(plan.recipe, arguments=(*plan.recipe.arguments, ("--chat-template", "vicuna")))
    assert "no_chat_template" not in told(replace(plan, recipe=named))
    assert "no_chat_template" not in told(planned(model(tmp_path, "{{ messages }}")))
    assert "no_chat_template" not in told(planned(model(tmp_path, "{{ messages }}", f"{TEMPLATE}.tool_use")))


def prepared(path: str, thinking: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned(path, f"thinking={thinking}")
    monkeypatch.setattr(road.deploy, "engine_files", lambda plan, site, watch: plan.engine)
    monkeypatch.setattr(road.deploy, "check_loader", lambda plan, site: None)
    monkeypatch.setattr(road, "check_engine", lambda plan, facts: None)
    watch = SimpleNamespace(fetched=None, say=lambda text: None)
    road.prepare(plan, cast("Any", SimpleNamespace(facts=parse({}))), cast("Watch", watch))


@pytest.mark.parametrize("thinking", ["on", "off"])
@pytest.mark.parametrize(("template", "why"), [(None, "is missing"), ("{{ messages }}", "says nothing of thinking")])
def test_thinking_is_not_switched_where_nothing_listens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, thinking: str, template: str | None, why: str
) -> None:
    with pytest.raises(UserError, match=f"the chat template of base {why}") as caught:
        prepared(model(tmp_path, template), thinking, monkeypatch)
    assert caught.value.hint


@pytest.mark.parametrize("template", [THINKS, "{{ Thinking }}", "x" * (1 << 20) + " "])
def test_what_may_have_a_switch_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    prepared(model(tmp_path, template), "on", monkeypatch)
