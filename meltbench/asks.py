"""From the items of a workload to the requests of a run, in the order and company in which they are made."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench import arms
from meltbench.engines.prompts import FIRST_TURN, LATER_TURNS, Ask

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meltbench.definition import Workload
    from meltbench.records import Role

    Item = Mapping[str, Any]


@dataclass(frozen=True)
class Play:
    """Requests that follow one another, ``concurrency`` of them under way at a time.

    In a ``circle`` they are asked over and over, until a limit of the workload is reached.
    """

    asks: tuple[Ask, ...]
    concurrency: int = 1
    circle: bool = False


def item_plays(items: Sequence[Item], work: Workload, seed: int) -> list[Play]:
    """Every item in each pass; each pass has an order of its own, so that what drifts in a run does not fall on the
    same items every time. Several levels of concurrency are played one after the other and are points of their own.

    Where each is asked in several ways (meltbench.arms), those are points, and a question has a play of its own.

    The warm-up comes first, in the one play of a run of single requests, else in a play at the highest level, so that
    no timed request shares the engine with it and each of the engine's slots has worked once. Where tokens are drawn,
    each pass draws with a seed of its own: with the same one every pass would be a copy of the first.
    """
    if not arms.plain(work):
        asks = [_ask(item, work, seed, "timed") for item in items]
        warm = [_ask(items[i % len(items)], work, seed, "warmup") for i in range(work.warmup * max(work.samples))]
        return _numbered([(warm, max(work.samples)), *arms.groups(asks, work, seed)])
    rng = random.Random(seed)  # noqa: S311  (a workload must repeat; nothing here is secret)
    levels = work.concurrency
    warm = [_ask(items[i % len(items)], work, seed, "warmup") for i in range(work.warmup * max(levels))]
    passes = [
        [
            _ask(item, work, arms.own_seed(seed, k) if work.temperature else seed, "timed")
            for k in range(work.repeat)
            for item in rng.sample(items, len(items))
        ]
        for _ in levels
    ]
    if levels == (1,):
        return _numbered([(warm + passes[0], 1)])
    several = len(levels) > 1
    timed = [
        ([replace(ask, point=arms.named(ask.point, f"c{level}")) for ask in asks] if several else asks, level)
        for level, asks in zip(levels, passes, strict=True)
    ]
    return _numbered([(warm, max(levels)), *timed])


def chat_plays(items: Sequence[Item], work: Workload, seed: int) -> list[Play]:
    """Conversations in an order that is each pass's own, turns in theirs; every turn of the user is one request.

    The first turn of a conversation is asked without the engine's cache and the later ones with it: what is asked next
    begins with all that was asked before. The warm-up shares no beginning with any of them.
    """
    rng = random.Random(seed)  # noqa: S311
    warm = [_warm_turn(items[i % len(items)], work, seed) for i in range(work.warmup)]
    talks = [item for _ in range(work.repeat) for item in rng.sample(items, len(items))]
    return _numbered([(warm + [turn for item in talks for turn in _turns(item, work, seed)], 1)])


def circle_plays(items: Sequence[Item], work: Workload, seed: int) -> list[Play]:
    """Each item once, in an order fixed by the seed, to be asked in a circle; before it the warm-up."""
    order = random.Random(seed).sample(items, len(items))  # noqa: S311
    warm = [_ask(items[i % len(items)], work, seed, "warmup") for i in range(work.warmup)]
    *first, circle = _numbered([(warm, 1), ([_ask(item, work, seed, "timed") for item in order], 1)])
    return [*first, replace(circle, circle=True)]


def _ask(item: Item, work: Workload, seed: int, role: Role) -> Ask:
    return Ask(
        file="",
        item=str(item["id"]),
        role=role,
        n_out=int(item.get("max_tokens", work.max_tokens)),
        seed=seed,
        ignore_eos=work.ignore_eos,
        sampling=work.sampling,
        messages=_messages(item, work),
        prompt=None if work.chat else item.get("prompt"),
        answer=_answer(item),
        group=str(item.get("group", "")),
        point=str(item.get("point", "")),
        stop=tuple(item.get("stop", ())),
        allowed=tuple(item.get("choices", ())) if work.score == "letter" else (),
        thinks=None if work.thinking is None else work.thinking == "on",
    )


def item_asks(items: Sequence[Item], seed: int) -> list[Ask]:
    """Items that are scored by the token, one request each: for an engine that does all of it by itself."""
    return [
        Ask(
            file=f"{at:05d}",
            item=str(item["id"]),
            role="timed",
            n_out=0,
            seed=seed,
            ignore_eos=False,
            prompt=item.get("prompt", item.get("text")),
            answer=None if item.get("answer") is None else str(item["answer"]),
            group=str(item.get("group", "")),
            allowed=tuple(item.get("choices", ())),
        )
        for at, item in enumerate(items)
    ]


def _messages(item: Item, work: Workload) -> tuple[Mapping[str, str], ...] | None:
    if "messages" in item:
        return tuple(item["messages"])
    return ({"role": "user", "content": item["prompt"]},) if work.chat else None


def _answer(item: Item) -> str | None:
    """The right answer as text; of choices the one that its number names."""
    answer = item.get("answer")
    if "choices" in item and isinstance(answer, int):
        return str(item["choices"][answer]).strip()
    return None if answer is None else str(answer)


def _turns(item: Item, work: Workload, seed: int) -> Iterable[Ask]:
    messages = item["messages"]
    users = [at for at, message in enumerate(messages) if message["role"] == "user"]
    whole = _ask(item, work, seed, "timed")
    for number, at in enumerate(users, 1):
        yield replace(
            whole,
            item=f"{whole.item}/{number}",
            point=LATER_TURNS if number > 1 else FIRST_TURN,
            keep_cache=number > 1,
            messages=tuple(messages[: at + 1]),
        )


def _warm_turn(item: Item, work: Workload, seed: int) -> Ask:
    """The last thing the user says, without what led to it."""
    return replace(_ask(item, work, seed, "warmup"), item="warmup", messages=(item["messages"][-1],))


def _numbered(groups: Sequence[tuple[Sequence[Ask], int]]) -> list[Play]:
    """Plays of the groups that have a request, each request with a file of its own."""
    plays: list[Play] = []
    count = 0
    for asks, concurrency in groups:
        named = tuple(replace(ask, file=f"{count + k:05d}") for k, ask in enumerate(asks))
        count += len(named)
        if named:
            plays.append(Play(named, concurrency))
    return plays
