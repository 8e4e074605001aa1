"""What is put on a target, and how it is checked there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from meltbench import deploy, workload
from meltbench.report.progress import Quiet
from meltbench.targets.cache import PushCache

ENGINE, MODEL = Path("/here/llama-server"), Path("/here/model.gguf")


def asked(monkeypatch: pytest.MonkeyPatch, *, rehash: bool, kind: str = "ssh") -> list[tuple[str, list[str], str]]:
    """What a cache is asked to see to: how, for which files, by which policy."""
    calls = []

    def ensure(_: Any, files: list[Path], watch: Any, *, policy: str) -> dict[Path, str]:
        calls.append(("ensure", [one.name for one in files], policy))
        return {one: f"/there/{one.name}" for one in files}

    def tree(_: Any, files: dict[str, Path], watch: Any, *, policy: str) -> str:
        calls.append(("tree", [*files], policy))
        return "/there/tree"

    monkeypatch.setattr(PushCache, "ensure", ensure)
    monkeypatch.setattr(PushCache, "tree", tree)
    plan: Any = SimpleNamespace(
        engine=SimpleNamespace(files=(ENGINE,)),
        spec=SimpleNamespace(rehash=rehash),
        known=SimpleNamespace(name="pi", place=SimpleNamespace(kind=kind)),
        work=workload.load("quick"),
    )
    site: Any = SimpleNamespace(probe=SimpleNamespace(name="pi", root="/there/runs"))
    model: Any = SimpleNamespace(path=str(MODEL), files=(MODEL,), at=str(MODEL))
    found = deploy.files_there(plan, site, model, Quiet())
    assert found == (
        ({}, "", str(MODEL))
        if kind == "local"
        else ({ENGINE: f"/there/{ENGINE.name}", MODEL: f"/there/{MODEL.name}"}, "/there/tree", f"/there/{MODEL.name}")
    )
    return calls


@pytest.mark.parametrize(("rehash", "policy"), [(False, "fast"), (True, "full")])
def test_the_engine_is_checked_where_it_runs_from_too(
    rehash: bool, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert asked(monkeypatch, rehash=rehash) == [
        ("ensure", [ENGINE.name, MODEL.name], policy),
        ("tree", [ENGINE.name], policy),
    ]


def test_on_this_machine_nothing_is_put_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    assert asked(monkeypatch, rehash=True, kind="local") == []
