"""Workload definitions: what is asked of an engine, how often, and how long the idle windows are."""

from __future__ import annotations

import json
import random
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench import catalog
from meltbench.engines.prompts import Ask, Kind, Point, grid_asks, point
from meltbench.errors import DefinitionError, UserError
from meltbench.spec import digest
from meltbench.tables import read_table

if TYPE_CHECKING:
    from collections.abc import Iterator

_MAX_ITEMS_BYTES = 64 << 20
_ITEM_KEYS = {"id", "prompt", "messages", "max_tokens"}


_KNOBS: dict[Kind, tuple[str, ...]] = {
    "generate": ("idle_s", "timeout_s", "warmup", "repeat", "max_tokens"),
    "grid": ("idle_s", "timeout_s", "warmup", "repeat", "points"),
    "idle": ("idle_s", "window_s"),
    "exec": ("idle_s", "timeout_s"),
}


@dataclass(frozen=True)
class Workload:
    """A workload as defined in workloads/NAME.toml.

    ``kind``: ``generate`` asks the items of a JSONL file, ``grid`` asks points such as pp512 or tg128@d4096,
    ``idle`` measures doing nothing for ``window_s``, ``exec`` meters a command. ``repeat``
    passes over all items are timed after ``warmup`` requests. ``timeout_s`` bounds each request and the command of
    ``exec``, and the wait for an engine to be ready (at most five minutes).
    """

    title: str
    version: int
    kind: Kind
    idle_s: float = 10.0
    warmup: int = 1
    repeat: int = 1
    max_tokens: int = 64
    ignore_eos: bool = True
    window_s: float = 10.0
    timeout_s: float = 600.0
    items: str | None = None
    points: tuple[str, ...] = ()

    @property
    def knobs(self) -> tuple[str, ...]:
        """The settings that change what this kind does."""
        return _KNOBS[self.kind]

    def check(self, where: str) -> None:
        """Refuse values that cannot be run."""
        ranges = {
            "idle_s": (0, 3600),
            "warmup": (0, 100),
            "repeat": (1, 10_000),
            "max_tokens": (1, 1_000_000),
            "window_s": (0.1, 86_400),
            "timeout_s": (1, 86_400),
        }
        for name, (low, high) in ranges.items():
            if not low <= getattr(self, name) <= high:
                raise UserError(
                    f"{where}: {name} = {getattr(self, name)} is out of range", hint=f"give {low} to {high}"
                )
        if self.kind == "grid" and not self.points:
            raise DefinitionError(f"{where}: a grid needs points", hint="such as pp512,tg128")
        if self.kind == "generate" and not self.items:
            raise DefinitionError(f"{where}: kind generate needs items", hint='write items = "name.jsonl"')


@dataclass(frozen=True)
class Loaded:
    """A workload with its name, content hash and items (empty for kinds that have none)."""

    name: str
    sha256: str
    workload: Workload
    items: tuple[dict[str, Any], ...]

    @property
    def grid(self) -> list[Point]:
        """The points of a grid, read."""
        return [point(text) for text in self.workload.points]

    @property
    def longest_point(self) -> str:
        """The name of the grid's point that needs most context."""
        return max(self.grid, key=lambda p: p.n_ctx).name

    @property
    def n_requests(self) -> int:
        """Requests of one run at most, the ones that set up a depth included."""
        work = self.workload
        if work.kind == "grid":
            return sum(1 + bool(p.depth) for p in self.grid) * work.repeat + 2 * work.warmup
        return work.warmup + work.repeat * len(self.items) if work.kind == "generate" else 0

    @property
    def n_ctx(self) -> int:
        """Context tokens every request fits in; the tokenizer is not known here, so a byte counts as a token."""
        if self.workload.kind == "grid":
            return max(p.n_ctx for p in self.grid)
        longest = max((len(json.dumps(item)) for item in self.items), default=0)
        asked = max((int(item.get("max_tokens", 0)) for item in self.items), default=0)
        return longest + max(asked, self.workload.max_tokens) + 64

    def asks(self, n_vocab: int, seed: int) -> list[Ask]:
        """The requests of one run, in order."""
        work = self.workload
        if work.kind == "grid":
            return grid_asks(self.grid, work.repeat, n_vocab, seed, work.warmup)
        if work.kind != "generate":
            return []
        # Each pass has an order of its own, so that what drifts in a run does not fall on the same items every time.
        rng = random.Random(seed)  # noqa: S311
        order = [("warmup", self.items[i % len(self.items)]) for i in range(work.warmup)]
        order += [("timed", item) for _ in range(work.repeat) for item in rng.sample(self.items, len(self.items))]
        return [
            Ask(
                file=f"{index:05d}",
                item=str(item["id"]),
                role="warmup" if role == "warmup" else "timed",
                n_out=int(item.get("max_tokens", work.max_tokens)),
                seed=seed,
                ignore_eos=work.ignore_eos,
                messages=tuple(item["messages"]) if "messages" in item else None,
                prompt=item.get("prompt"),
            )
            for index, (role, item) in enumerate(order)
        ]


def load(name: str) -> Loaded:
    """A workload by name, or a JSONL file of one's own: every item asked once, answers as long as they get."""
    own = Path(name)
    if own.suffix.lower() == ".jsonl":
        items = _items(own)
        work = Workload(f"the items of {own.name}", 1, "generate", items=own.name, max_tokens=128, ignore_eos=False)
        return Loaded(own.stem, digest([asdict(work), items]), work, items)
    found = catalog.load("workloads", name)
    work = read_table(Workload, found.data, found.path)
    work.check(str(found.path))
    items = _items(found.path.parent / work.items) if work.items else ()
    return Loaded(name, found.sha256, work, items)


def _items(path: Path) -> tuple[dict[str, Any], ...]:
    if not path.is_file():
        raise UserError(f"no such file: {path}", hint="a workload of one's own is a JSONL file: one item a line")
    if path.stat().st_size > _MAX_ITEMS_BYTES:
        raise UserError(f"{path} is larger than {_MAX_ITEMS_BYTES >> 20} MiB", hint="split it")
    items = tuple(_read_items(path))
    if not items:
        raise DefinitionError(f"{path} has no items", hint='write lines such as {"id": "a", "prompt": "Hello"}')
    ids = [item["id"] for item in items]
    if len(set(ids)) != len(ids):
        twice = next(i for i in ids if ids.count(i) > 1)
        raise DefinitionError(f"{path}: id {twice!r} stands twice", hint="give every item an id of its own")
    return items


def _read_items(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise DefinitionError(f"{path} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            item = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DefinitionError(f"{where} is not JSON: {error}", hint="one JSON object a line") from None
        if not isinstance(item, dict):
            raise DefinitionError(f"{where} is not an object", hint='write {"prompt": "..."}')
        yield _item(item, where, number)


def _item(item: dict[str, Any], where: str, number: int) -> dict[str, Any]:
    if re.search("[\ud800-\udfff]", json.dumps(item, ensure_ascii=False)):
        raise DefinitionError(f"{where} holds half of a character (a lone surrogate)", hint="write the whole character")
    if unknown := sorted(set(item) - _ITEM_KEYS):
        raise DefinitionError(f"{where}: unknown key {unknown[0]!r}", hint=f"known: {', '.join(sorted(_ITEM_KEYS))}")
    if ("prompt" in item) == ("messages" in item):
        raise DefinitionError(f"{where} needs either prompt or messages", hint='write {"prompt": "Hello"}')
    if "prompt" in item and not (isinstance(item["prompt"], str) and item["prompt"]):
        raise DefinitionError(f"{where}: prompt is not a text", hint='write {"prompt": "Hello"}')
    if "messages" in item and not _are_messages(item["messages"]):
        hint = 'write "messages": [{"role": "user", "content": "Hello"}]'
        raise DefinitionError(f"{where}: messages are not role and content pairs", hint=hint)
    asked = item.get("max_tokens", 1)
    if not isinstance(asked, int) or isinstance(asked, bool) or not 1 <= asked <= 1_000_000:
        raise DefinitionError(f"{where}: max_tokens is not a count", hint="give 1 to 1000000")
    name = item.get("id", f"line{number}")
    if not isinstance(name, str | int) or isinstance(name, bool) or name == "":
        raise DefinitionError(f"{where}: id is neither a text nor a number", hint='write {"id": "a", ...}')
    return {**item, "id": str(name)}


def _are_messages(messages: object) -> bool:
    return (
        isinstance(messages, list)
        and bool(messages)
        and all(
            isinstance(m, dict) and set(m) == {"role", "content"} and all(isinstance(v, str) for v in m.values())
            for m in messages
        )
    )
