"""A set of questions as items: its file is found or fetched, its rows are read, examples are put before them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.errors import DefinitionError, UserError
from meltbench.models.hashes import file_sha256
from meltbench.questions.fetch import HubFile, fetched
from meltbench.questions.recipes import RECIPES
from meltbench.questions.rows import Lacking, read_rows
from meltbench.records import SPANS

if TYPE_CHECKING:
    from collections.abc import Callable

    from meltbench.watch import Watch

    Item = dict[str, Any]

MAX_ITEMS = 100_000
_MAX_GROUP = 60


@dataclass(frozen=True)
class Data:
    """``[questions]`` of a workload: how rows become items (``recipe``), and where the set is on the hub.

    ``examples``: the file of solved questions that may be put before each one. ``fields``: which field of a row is
    what, for the recipe ``fields``.
    """

    recipe: str
    hub: str | None = None
    revision: str = "main"
    file: str | None = None
    examples: str | None = None
    fields: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise ValueError(f"recipe {self.recipe!r} is not known: {', '.join(RECIPES)}")
        if (self.hub is None) != (self.file is None):
            raise ValueError("hub and file go together")
        if self.fields and self.recipe != "fields":
            raise ValueError(f"fields change nothing of the recipe {self.recipe!r}")
        if odd := sorted(set(self.fields) - {"id", "prompt", "choices", "answer", "group"}):
            raise ValueError(f"fields: {odd[0]!r} is none of id, prompt, choices, answer and group")


@dataclass(frozen=True)
class Set:
    """A set that was read: its items, and the sha256 of the files that they came from."""

    items: tuple[Item, ...]
    sha256: tuple[str, ...]


def load_set(
    data: Data,
    name: str,
    path: str | None,
    n_items: int | None,
    shots: int,
    shots_path: str | None,
    watch: Watch | None = None,
) -> Set:
    """The first ``n_items`` items of a set, ``shots`` solved ones before each.

    ``path`` and ``shots_path`` are files of the user's; without them the hub's are fetched once. Raises UserError,
    FetchError where the hub is out of reach, DefinitionError that names the row that lacks something.
    """
    found = _found(data, data.file, path, f"--set data=FILE, a file of {name}", watch)
    items, files = _joined(data, _items(data, found, n_items)), [found]
    if not shots:
        return Set(_unlike([_whole(item, "", n) for n, item in enumerate(items, 1)], found), (file_sha256(found),))
    solved = _found(data, data.examples, shots_path, "--set examples=FILE, or --set shots=0", watch)
    files.append(solved)
    before = _examples(_items(data, solved, None), solved, shots)
    made = [_whole(item, before(str(item.get("group", ""))), n) for n, item in enumerate(items, 1)]
    return Set(_unlike(made, found), tuple(file_sha256(one) for one in files))


def _unlike(items: list[Item], path: Path) -> tuple[Item, ...]:
    """The items, none of which has the id of another: by it an item is known in other runs."""
    if twice := [name for name, n in Counter(item["id"] for item in items).items() if n > 1]:
        raise DefinitionError(f"{path}: id {twice[0][:40]!r} stands twice", hint="give every row an id of its own")
    return tuple(items)


def _examples(solved: list[Item], path: Path, shots: int) -> Callable[[str], str]:
    """What stands before a question of a group: the first examples of that group, where they have groups."""
    groups: dict[str, list[Item]] = {}
    for item in solved:
        groups.setdefault(str(item.get("group", "")), []).append(item)

    def before(group: str) -> str:
        mine = groups.get(group, [])[:shots] if any(groups) else solved[:shots]
        if len(mine) < shots:
            of = f" of {group}" if group else ""
            raise UserError(f"{path} has {len(mine)} rows{of} for {shots} shots", hint=f"--set shots={len(mine)}")
        return "".join(f"{one['prompt']}{_solution(one, path)}\n\n" for one in mine)

    return before


def _found(data: Data, file: str | None, path: str | None, option: str, watch: Watch | None) -> Path:
    if path is not None:
        return Path(path).expanduser()
    if data.hub is None or file is None:
        raise UserError("this workload has no file of its own to read", hint=f"give {option}")
    return fetched(HubFile(data.hub, data.revision, file), option, watch)


def _items(data: Data, path: Path, most: int | None) -> list[Item]:
    rows = read_rows(path, None if data.recipe == "text" else min(most or MAX_ITEMS + 1, MAX_ITEMS + 1))
    if len(rows) > MAX_ITEMS and data.recipe != "text":
        raise UserError(f"{path} has more than {MAX_ITEMS} rows", hint="--set n_items=1000 takes the first thousand")
    items = []
    for number, row in enumerate(rows, 1):
        try:
            items.append(RECIPES[data.recipe](row, data.fields))
        except Lacking as error:
            said = f"{path}, row {number}: {error.message}"
            raise DefinitionError(f"{said} (recipe {data.recipe})", hint=error.hint) from None
    return items


def _joined(data: Data, items: list[Item]) -> list[Item]:
    """The rows of a text are one text."""
    return [{"text": "".join(item["text"] for item in items)}] if data.recipe == "text" else items


def _solution(item: Item, path: Path) -> str:
    """A solved example as it stands before the question."""
    if "shown" in item:
        return str(item["shown"])
    if "choices" in item and "prompt" in item:
        return str(item["choices"][item["answer"]])
    if "answer" in item:
        return f" {item['answer']}"
    raise UserError(f"{path} has no solutions to show", hint="--set shots=0")


def _whole(item: Item, before: str, number: int) -> Item:
    """An item with all that stands before it, and an id."""
    kept = {key: value for key, value in item.items() if key not in ("before", "shown")}
    head = str(item.get("before", "")) + before
    if head and "prompt" in kept:
        kept["prompt"] = head + kept["prompt"]
    if head and "prompts" in kept:
        kept["prompts"] = [head + one for one in kept["prompts"]]
    kept["group"] = _group(str(item.get("group", "")))
    return {"id": str(number), **kept}


def _group(name: str) -> str:
    """A group as it can stand beside the phases of a run, whose names it must not have."""
    plain = "".join(c if c.isprintable() else " " for c in name)[:_MAX_GROUP].strip()
    return f"group {plain}" if plain in SPANS else plain
