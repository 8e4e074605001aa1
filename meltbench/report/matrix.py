"""Which engine runs on which kind of target, and how that was checked: a table, JSON, and a part of docs/engines.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, get_args

from meltbench.report.sheet import Column, Sheet, markdown
from meltbench.runners import Place, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

PLACES: dict[Place, str] = {"local": "this machine", "ssh": "Linux over SSH", "adb": "Android"}
CHECKED = {"run": "run", "contract": "contract only"}


def row_json(recipe: Recipe) -> dict[str, Any]:
    """What a recipe says of its engine (docs/json.md)."""
    return {
        "protocol": recipe.protocol,
        "mode": recipe.mode,
        "models": list(recipe.models),
        "checked": recipe.checked,
        "targets": {
            place: {"runs": not recipe.refusal(place), "how": recipe.comes(place), "why": recipe.refusal(place) or None}
            for place in get_args(Place)
        },
    }


def sheet(recipes: Mapping[str, Recipe]) -> tuple[Sheet, list[str]]:
    """The matrix, and a line for each pair that cannot be."""
    columns = [Column(heading, whole=at == 0) for at, heading in enumerate(("runner", "mode", "models"))]
    columns += [Column(PLACES[place]) for place in get_args(Place)] + [Column("checked")]
    rows, whys = [], []
    for name, recipe in sorted(recipes.items()):
        cells = ["no" if recipe.refusal(place) else recipe.comes(place) for place in get_args(Place)]
        rows.append((name, recipe.mode, ", ".join(recipe.models), *cells, CHECKED[recipe.checked]))
        whys += [f"{name}: not on {PLACES[p]}: {why}" for p in get_args(Place) if (why := recipe.refusal(p))]
    return Sheet("", tuple(columns), rows), whys


def render_docs(recipes: Mapping[str, Recipe]) -> str:
    """The part of docs/engines.md that has the matrix."""
    table, whys = sheet(recipes)
    return "\n".join([markdown(table), *(f"* {why}" for why in whys), ""])
