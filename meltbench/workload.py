"""Workloads: a definition with its items, and the requests that a run of it makes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench import arms, catalog, tensors
from meltbench.asks import Play, chat_plays, circle_plays, item_asks, item_plays
from meltbench.definition import BY_TOKEN, Workload
from meltbench.engines.prompts import Point, grid_asks, point
from meltbench.errors import DefinitionError, UserError
from meltbench.items import check_conversations, read_items, turns
from meltbench.questions.load import load_set
from meltbench.questions.subset import subset
from meltbench.spec import digest
from meltbench.tables import read_table

if TYPE_CHECKING:
    from meltbench.engines.prompts import Ask
    from meltbench.measure.answers import Method
    from meltbench.watch import Watch


@dataclass(frozen=True)
class Loaded:
    """A workload with its name, content hash and items (empty for kinds that have none).

    ``left``: those of the items that a run asks which takes up others (meltbench.resuming); None: all of them.
    """

    name: str
    sha256: str
    workload: Workload
    items: tuple[dict[str, Any], ...]
    left: tuple[dict[str, Any], ...] | None = None

    @property
    def asked(self) -> tuple[dict[str, Any], ...]:
        """The items of one run."""
        return self.items if self.left is None else self.left

    @property
    def grid(self) -> list[Point]:
        """The points of a grid, read."""
        return [point(text) for text in self.workload.points]

    @property
    def longest_point(self) -> str:
        """The name of the grid's point that needs most context."""
        return max(self.grid, key=lambda p: p.n_ctx).name

    @property
    def slots(self) -> int:
        """Requests that are under way at a time at most."""
        return max(*self.workload.concurrency, *self.workload.samples)

    @property
    def n_requests(self) -> int:
        """Requests of one run at most, the ones that set up a depth included; of a circle, one round."""
        work, n_items = self.workload, len(self.asked)
        match work.kind:
            case "grid":
                return sum(1 + bool(p.depth) for p in self.grid) * work.repeat + 2 * work.warmup
            case "generate":
                asked = sum(n for _, _, n in arms.of(work)) * len(work.concurrency)
                return self.slots * work.warmup + asked * work.repeat * n_items
            case "chat":
                return work.warmup + work.repeat * sum(turns(item) for item in self.items)
            case "sustained":
                return work.warmup + n_items
            case "infer":
                return work.warmup + work.repeat * n_items
        return 0  # of what is asked by the token they are counted once its tokens are known

    @property
    def parts(self) -> int | None:
        """Into how many chunks a text is cut at most; None where there is no text."""
        if self.workload.kind != "perplexity":
            return None
        longest = max((len(str(item.get("text", ""))) for item in self.items), default=0)
        return self.workload.chunks or -(-longest // self.workload.chunk)

    def check(self, where: str) -> None:
        """Refuse settings that cannot be run, by themselves or with these items."""
        self.workload.check(where)
        a_level = self.workload.repeat * len(self.items)
        if self.workload.kind == "generate" and max(self.workload.concurrency) > a_level > 0:
            raise UserError(
                f"{where}: concurrency = {self.slots} is more than the {a_level} requests of a level",
                hint=f"give repeat = {-(-self.slots // len(self.items))} or more",
            )

    @property
    def n_ctx(self) -> int:
        """Context tokens every request fits in; the tokenizer is not known here, so a byte counts as a token."""
        if self.workload.kind == "grid":
            return max(p.n_ctx for p in self.grid)
        if self.workload.kind == "perplexity":
            return self.workload.chunk + 8
        longest = max((len(json.dumps(item)) for item in self.items), default=0)
        asked = max((int(item.get("max_tokens", 0)) for item in self.items), default=0)
        budget = max(self.workload.budget, default=0) * (arms.SOFT_ROOM if self.workload.soft else 1)
        return longest + max(asked, self.workload.max_tokens, budget) + 64

    def plays(self, n_vocab: int, seed: int) -> list[Play]:
        """The requests of one run, in the order and company in which they are made."""
        work = self.workload
        if work.kind == "grid":
            return [Play(tuple(grid_asks(self.grid, work.repeat, n_vocab, seed, work.warmup)))]
        if work.kind == "chat":
            return chat_plays(self.items, work, seed)
        if work.kind == "sustained":
            return circle_plays(self.items, work, seed)
        if work.kind in BY_TOKEN:
            return [Play(tuple(item_asks(self.asked, seed)))]
        if work.kind == "infer":
            return [Play(tuple(tensors.asks(self.items, work, seed)))]
        return item_plays(self.asked, work, seed) if work.kind == "generate" else []

    def asks(self, n_vocab: int, seed: int) -> list[Ask]:
        """The requests of one run, in order; of a circle, one round."""
        return [ask for play in self.plays(n_vocab, seed) for ask in play.asks]


def filled(loaded: Loaded, watch: Watch | None = None) -> Loaded:
    """The workload with the items of its set of questions, read or fetched; as it is where it has items of its own.

    Raises what ``load_set`` does.
    """
    work = loaded.workload
    if work.kind == "infer":
        items = tensors.items(work)
        return replace(loaded, items=items, sha256=digest([loaded.sha256, [one.get("sha256") for one in items]]))
    if work.questions is None:
        return replace(loaded, items=subset(loaded.items[: work.n_items], work.subset, loaded.name))
    found = load_set(work.questions, loaded.name, work.data, work.n_items, work.shots, work.examples, watch)
    items = subset(found.items, work.subset, loaded.name)
    return replace(loaded, items=items, sha256=digest([loaded.sha256, *found.sha256]))


def load(name: str) -> Loaded:
    """A workload by name, or a JSONL file of one's own: every item asked once, answers as long as they get.

    Of items with ``choices`` the likeliest is taken, other answers are compared where an item says what is right.
    """
    own = Path(name)
    if own.suffix.lower() == ".jsonl":
        items = read_items(own)
        work = _of_own(own, items)
        return Loaded(own.stem, digest([work.told(), items]), work, items)
    found = catalog.load("workloads", name)
    work = read_table(Workload, found.data, found.path)
    work.check_keys(str(found.path))
    work.check(str(found.path))  # before its items are looked for
    items = read_items(found.path.parent / work.items) if work.items else ()
    if work.kind == "chat":
        check_conversations(found.path.parent / str(work.items), items)
    loaded = Loaded(name, found.sha256, work, items)
    loaded.check(str(found.path))
    return loaded


def _of_own(path: Path, items: tuple[dict[str, Any], ...]) -> Workload:
    title = f"the items of {path.name}"
    with_choices = sum("choices" in item for item in items)
    if with_choices not in (0, len(items)):
        raise DefinitionError(f"{path}: some items have choices and some have none", hint="make two files of them")
    if with_choices:
        return Workload(title, 1, "choices", items=path.name, normalise="characters")
    score: Method | None = "match" if any("answer" in item for item in items) else None
    return Workload(title, 1, "generate", items=path.name, max_tokens=128, ignore_eos=False, score=score)
