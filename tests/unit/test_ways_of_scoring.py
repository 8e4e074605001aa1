"""docs/engines.md says which engine can score in which way; a plan must refuse the others, and those alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltbench import plan_checks, workload
from meltbench.errors import UserError
from meltbench.runners import Recipe, recipes

# The heading of a column, a workload that asks in that way, and what of it is otherwise.
WAYS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "answers": ("smoke", {}, {}),
    "ended by words": ("gsm8k", {}, {"stop": ["Question:"]}),
    "one letter of four": ("mmlu", {}, {}),
    "log-likelihood": ("hellaswag", {}, {}),
    "perplexity": ("wikitext-2", {}, {}),
    "divergence": ("wikitext-2", {"reference": "smollm2-135m-q4"}, {}),
    "thinking switched": ("smoke", {"thinking": "off"}, {}),
    "several at a time": ("smoke", {"concurrency": (1, 2)}, {}),
}


def can(name: str, recipe: Recipe, way: str) -> bool:
    """Whether a plan of this runner may ask in this way."""
    asked, more, item = WAYS[way]
    work = workload.load(asked)
    work = replace(work, items=({"id": "a", "prompt": "b"} | item,), workload=replace(work.workload, **more))
    try:
        plan_checks.check_kind(name, recipe, work)
        plan_checks.check_asked(name, recipe, work)
        plan_checks.check_items(name, recipe, work)
    except UserError:
        return False
    return True


def test_docs_engines_md_says_which_engine_scores_in_which_way(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    rows = ["| runner | " + " | ".join(WAYS) + " |", "|---" * (len(WAYS) + 1) + "|"]
    for name, recipe in sorted(recipes().items()):
        cells = ["yes" if can(name, recipe, way) else "no" for way in WAYS]
        if "yes" in cells:  # llama-bench and onnxruntime score nothing
            rows.append(f"| {name} | " + " | ".join(cells) + " |")
    text = (Path(__file__).parents[2] / "docs" / "engines.md").read_text(encoding="utf-8")
    assert "\n".join(rows) in text, "put this into docs/engines.md:\n" + "\n".join(rows)
