"""What is asked of an engine, before any protocol: prompts in words, messages or token ids."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.records import Role

_POINT = re.compile(r"(?:pp(?P<pp>\d{1,9}))?(?:(?:^|(?<=\d)\+)tg(?P<tg>\d{1,9}))?(?:@d(?P<d>\d{1,9}))?", re.ASCII)


@dataclass(frozen=True)
class Ask:
    """One request to be made.

    Exactly one of ``messages``, ``prompt`` and ``tokens`` is set. ``n_out`` tokens are asked for;
    ``ignore_eos`` makes the engine produce all of them. ``n_in`` and ``n_cached`` are what the prompt must come
    to, where that is known beforehand (grids); ``keep_cache`` lets the engine reuse the prompt's common prefix.
    ``sampling``: how tokens are drawn, by name, where it is not just the best one.
    ``point`` names what the request may be condensed with: a point of a grid, a level of concurrency, the first or the
    later turns of conversations; empty where the requests of a run are alike.
    ``answer``: the right one, where somebody says which that is, and ``group`` what it is summed up with; the engine
    is told neither. ``stop``: texts that end an answer; ``allowed``: the only ones it may give. ``thinks``: whether a
    model that can reason before it answers is to, None where that is left to it. ``vote``: requests with one number
    answer one question, and the commonest answer is taken. ``target``: a token whose log-probability after the prompt
    is asked for, in place of an answer. ``repeats``: the share of its prompt that an earlier request of the run begins
    with (meltbench.engines.reuse).
    """

    file: str
    item: str
    role: Role
    n_out: int
    seed: int
    ignore_eos: bool = True
    keep_cache: bool = False
    messages: tuple[Mapping[str, str], ...] | None = None
    prompt: str | None = None
    tokens: tuple[int, ...] | None = None
    n_in: int | None = None
    n_cached: int | None = None
    point: str = ""
    sampling: Mapping[str, float] = field(default_factory=dict)
    answer: str | None = None
    group: str = ""
    stop: tuple[str, ...] = ()
    allowed: tuple[str, ...] = ()
    thinks: bool | None = None
    vote: int | None = None
    target: int | None = None
    repeats: float = 0.0


@dataclass(frozen=True)
class Sent:
    """The probe's own record of a request: its place in the run, and when it was sent and ended."""

    index: int
    t_send_ns: int
    t_end_ns: int
    error: str = ""


@dataclass(frozen=True)
class Point:
    """A cell of a grid, in llama-bench's terms: prompt tokens, generated tokens, context depth."""

    prefill: int
    generate: int
    depth: int

    @property
    def name(self) -> str:
        """As llama-bench prints it, such as ``pp512``, ``tg128 @ d4096`` written ``tg128@d4096``."""
        parts = [f"pp{self.prefill}"] * bool(self.prefill) + [f"tg{self.generate}"] * bool(self.generate)
        return "+".join(parts) + (f"@d{self.depth}" if self.depth else "")

    @property
    def n_ctx(self) -> int:
        """Context the point needs, in tokens; a pure generation still starts from one token."""
        return self.depth + max(self.prefill, 1) + self.generate + 8


def point(text: str) -> Point:
    """Read ``pp512``, ``tg128``, ``pp512+tg128`` or any of them with ``@d4096``."""
    match = _POINT.fullmatch(text)
    numbers = [int(match[k] or 0) for k in ("pp", "tg", "d")] if match else [0, 0, 0]
    if not numbers[0] and not numbers[1]:
        raise UserError(
            f"{text[:40]!r} is not a point of a grid", hint="write pp512, tg128, pp512+tg128 or tg128@d4096"
        )
    if max(numbers) > 1_000_000:
        raise UserError(f"{text!r} asks for more than a million tokens")
    return Point(*numbers)


def random_tokens(count: int, n_vocab: int, seed: int) -> tuple[int, ...]:
    """Token ids drawn evenly from the vocabulary, as llama-bench does; the same for the same seed."""
    rng = random.Random(seed)  # noqa: S311  (a workload must repeat; nothing here is secret)
    return tuple(rng.randrange(n_vocab) for _ in range(count))


def grid_asks(points: Sequence[Point], repeat: int, n_vocab: int, seed: int, warmup: int) -> list[Ask]:
    """The requests of a grid: each round asks every point once, in an order of its own.

    A depth is filled by a setup request whose prefix the engine then keeps, so that the timed request finds
    exactly ``depth`` tokens in the cache. A pure prefill generates one token, because a server must.
    """
    rng = random.Random(seed)  # noqa: S311
    asks: list[Ask] = []

    def add(item: str, role: Role, tokens: tuple[int, ...], n_out: int, cached: int, keep: bool) -> None:
        asks.append(
            Ask(
                file=f"{len(asks):05d}",
                item=item,
                role=role,
                n_out=n_out,
                seed=seed,
                keep_cache=keep,
                tokens=tokens,
                n_in=len(tokens),
                n_cached=cached,
                point=item,
            )
        )

    rounds: list[tuple[Role, list[Point]]] = [("warmup", list(points[:1]))] * warmup
    rounds += [("timed", rng.sample(list(points), len(points))) for _ in range(repeat)]
    for role, order in rounds:
        for cell in order:
            depth = random_tokens(cell.depth, n_vocab, rng.randrange(2**31))
            if depth:
                add(cell.name, "setup", depth, 0, 0, keep=False)
            fresh = random_tokens(max(cell.prefill, 1), n_vocab, rng.randrange(2**31))
            add(cell.name, role, depth + fresh, cell.generate, cell.depth, keep=bool(depth))
    return asks


Kind = Literal["generate", "chat", "grid", "sustained", "choices", "perplexity", "infer", "idle", "exec"]
FIRST_TURN, LATER_TURNS = "first_turn", "later_turns"  # points of a chat: without and with what the cache holds
