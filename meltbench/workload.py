"""Workload definitions: what is asked of an engine, how often, and how long the idle windows are."""

from __future__ import annotations

import json
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from meltbench import catalog
from meltbench.asks import Play, chat_plays, circle_plays, item_plays
from meltbench.engines.prompts import Kind, Point, grid_asks, point
from meltbench.errors import DefinitionError, UserError
from meltbench.items import check_conversations, read_items, turns
from meltbench.spec import digest
from meltbench.tables import read_table

if TYPE_CHECKING:
    from meltbench.engines.prompts import Ask

MAX_LEVEL = 64
GATE_HOLD_S = 60.0  # how long the thermal gate wants a steady temperature: less time to wait could only run out
CHARGE_LIMIT = "charge_timeout_s"
SAMPLING = ("temperature", "top_k", "top_p", "repeat_penalty")
_BEFORE = ("idle_s", "gate_timeout_s", CHARGE_LIMIT)
_BETWEEN = ("pause_s", *SAMPLING)
_KNOBS: dict[Kind, tuple[str, ...]] = {
    "generate": (*_BEFORE, "timeout_s", "warmup", "repeat", "max_tokens", "concurrency", *_BETWEEN),
    "chat": (*_BEFORE, "timeout_s", "warmup", "repeat", "max_tokens", *_BETWEEN),
    "grid": (*_BEFORE, "timeout_s", "warmup", "repeat", "points"),
    "sustained": (
        *(*_BEFORE, "timeout_s", "warmup", "max_tokens"),
        *("limit_s", "limit_temp_c", "limit_soc_percent"),
        *_BETWEEN,
    ),
    "idle": (*_BEFORE, "window_s"),
    "exec": (*_BEFORE, "timeout_s"),
}
ASKED: tuple[Kind, ...] = ("generate", "chat", "grid", "sustained")  # kinds that need an engine
SETTINGS = {key for keys in _KNOBS.values() for key in keys}
_OF_ITEMS: tuple[Kind, ...] = ("generate", "chat", "sustained")
_RANGES = {
    "gate_timeout_s": (0, 7200),
    "charge_timeout_s": (0, 86_400),
    "idle_s": (0, 3600),
    "warmup": (0, 100),
    "repeat": (1, 10_000),
    "max_tokens": (1, 1_000_000),
    "window_s": (0.1, 86_400),
    "timeout_s": (1, 86_400),
    "limit_s": (1, 86_400),
    "limit_temp_c": (1, 150),
    "limit_soc_percent": (1, 99),
    "pause_s": (0, 600),
    "temperature": (0, 5),
    "top_k": (1, 1_000_000),
    "top_p": (0, 1),
    "repeat_penalty": (0.1, 10),
}


@dataclass(frozen=True)
class Workload:
    """A workload as defined in workloads/NAME.toml.

    ``kind``: ``generate`` asks the items of a JSONL file, ``chat`` the turns of conversations, ``grid`` points such as
    pp512 or tg128@d4096; ``sustained`` asks its items in a circle for ``limit_s``, or until a thermal zone reaches
    ``limit_temp_c`` or a battery falls to ``limit_soc_percent``; ``idle`` measures doing nothing for ``window_s``,
    ``exec`` meters a command. ``repeat`` passes over all items are timed after ``warmup`` requests, with
    ``concurrency`` requests under way at a time: one level after the other where there are several. ``timeout_s``
    bounds each request and the command of ``exec``, and the wait for an engine to be ready (at most five minutes).
    ``gate_timeout_s`` bounds the wait for a steady temperature beforehand; 0: there is none. ``charge_timeout_s``
    bounds that for a battery which is below the window of charge that its profile wants. ``pause_s`` are waited
    before each request, the warm-up too. ``temperature`` 0 takes the best token each time; above it ``top_k`` and
    ``top_p`` bound the choice; ``repeat_penalty`` is llama.cpp's. None leaves each to the engine.
    """

    title: str
    version: int
    kind: Kind
    gate_timeout_s: float = 300.0
    charge_timeout_s: float = 3600.0
    idle_s: float = 10.0
    warmup: int = 1
    repeat: int = 1
    max_tokens: int = 64
    ignore_eos: bool = True
    window_s: float = 10.0
    timeout_s: float = 600.0
    items: str | None = None
    points: tuple[str, ...] = ()
    concurrency: tuple[int, ...] = (1,)
    limit_s: float = 600.0
    limit_temp_c: float | None = None
    limit_soc_percent: float | None = None
    pause_s: float = 0.0
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    repeat_penalty: float | None = None

    @property
    def sampling(self) -> dict[str, float]:
        """How tokens are drawn, where it is not just the best one; by the names that llama.cpp's server knows."""
        return {name: value for name in SAMPLING if (value := getattr(self, name))}

    @property
    def knobs(self) -> tuple[str, ...]:
        """The settings that change what this kind does."""
        return _KNOBS[self.kind]

    def check(self, where: str) -> None:
        """Refuse values that cannot be run."""
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise UserError(f"{where}: {name} = {value} is out of range", hint=f"give {low} to {high}")
        if 0 < self.gate_timeout_s < GATE_HOLD_S:
            said, hint = f"gate_timeout_s = {self.gate_timeout_s:g}", f"give {GATE_HOLD_S:g} or more, or 0 for no gate"
            raise UserError(f"{where}: {said} is shorter than the {GATE_HOLD_S:g} s that a gate watches", hint=hint)
        if not self.temperature and (self.top_k or self.top_p is not None):
            raise UserError(f"{where}: top_k and top_p change nothing at temperature 0", hint="write temperature = 0.9")
        if self.kind == "grid" and not self.points:
            raise DefinitionError(f"{where}: a grid needs points", hint="such as pp512,tg128")
        if self.kind in _OF_ITEMS and not self.items:
            raise DefinitionError(f"{where}: kind {self.kind} needs items", hint='write items = "name.jsonl"')
        levels = self.concurrency
        if not levels or len(set(levels)) != len(levels) or not all(1 <= level <= MAX_LEVEL for level in levels):
            said = ",".join(map(str, levels))
            hint = f"give levels of 1 to {MAX_LEVEL}, none of them twice, such as 1,2,4"
            raise UserError(f"{where}: concurrency = {said} cannot be run", hint=hint)

    def check_keys(self, where: str) -> None:
        """Refuse what is set and would change nothing of this kind."""
        own = {"timeout_s", *self.knobs, *(("items", "ignore_eos") if self.kind in _OF_ITEMS else ())}
        for field in fields(self):
            default = field.default
            if field.name not in own and default is not MISSING and getattr(self, field.name) != default:
                raise DefinitionError(f"{where}: {no_setting(field.name, self.kind)}", hint="leave it out")


def no_setting(key: str, kind: Kind) -> str:
    """That a setting does nothing for a kind, and for which kinds it does."""
    having = [name for name in get_args(Kind) if key in _KNOBS[name]]
    return f"{key} is no setting of kind {kind}" + (f", only of {' and '.join(having)}" if having else "")


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
    def slots(self) -> int:
        """Requests that are under way at a time at most."""
        return max(self.workload.concurrency)

    @property
    def n_requests(self) -> int:
        """Requests of one run at most, the ones that set up a depth included; of a circle, one round."""
        work, n_items = self.workload, len(self.items)
        match work.kind:
            case "grid":
                return sum(1 + bool(p.depth) for p in self.grid) * work.repeat + 2 * work.warmup
            case "generate":
                return self.slots * work.warmup + len(work.concurrency) * work.repeat * n_items
            case "chat":
                return work.warmup + work.repeat * sum(turns(item) for item in self.items)
            case "sustained":
                return work.warmup + n_items
        return 0

    def check(self, where: str) -> None:
        """Refuse settings that cannot be run, by themselves or with these items."""
        self.workload.check(where)
        a_level = self.workload.repeat * len(self.items)
        if self.workload.kind == "generate" and self.slots > a_level:
            raise UserError(
                f"{where}: concurrency = {self.slots} is more than the {a_level} requests of a level",
                hint=f"give repeat = {-(-self.slots // len(self.items))} or more",
            )

    @property
    def n_ctx(self) -> int:
        """Context tokens every request fits in; the tokenizer is not known here, so a byte counts as a token."""
        if self.workload.kind == "grid":
            return max(p.n_ctx for p in self.grid)
        longest = max((len(json.dumps(item)) for item in self.items), default=0)
        asked = max((int(item.get("max_tokens", 0)) for item in self.items), default=0)
        return longest + max(asked, self.workload.max_tokens) + 64

    def plays(self, n_vocab: int, seed: int) -> list[Play]:
        """The requests of one run, in the order and company in which they are made."""
        work = self.workload
        if work.kind == "grid":
            return [Play(tuple(grid_asks(self.grid, work.repeat, n_vocab, seed, work.warmup)))]
        if work.kind == "chat":
            return chat_plays(self.items, work, seed)
        if work.kind == "sustained":
            return circle_plays(self.items, work, seed)
        return item_plays(self.items, work, seed) if work.kind == "generate" else []

    def asks(self, n_vocab: int, seed: int) -> list[Ask]:
        """The requests of one run, in order; of a circle, one round."""
        return [ask for play in self.plays(n_vocab, seed) for ask in play.asks]


def load(name: str) -> Loaded:
    """A workload by name, or a JSONL file of one's own: every item asked once, answers as long as they get."""
    own = Path(name)
    if own.suffix.lower() == ".jsonl":
        items = read_items(own)
        work = Workload(f"the items of {own.name}", 1, "generate", items=own.name, max_tokens=128, ignore_eos=False)
        return Loaded(own.stem, digest([asdict(work), items]), work, items)
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
