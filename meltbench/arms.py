"""Ways of asking the same questions: budgets of tokens, thinking or not, and several answers that are voted on.

Each way is a point of its own, named ``b256`` (a budget), ``n8`` (eight answers) or ``b256.n8``. As EdgeReasoning asks
them (arXiv 2511.01866): a hard budget cuts the answer off, a soft one is told to the model, in the words that L1 was
trained with (Aggarwal and Welleck 2025, arXiv:2503.04697); several answers are generated at a time, each with a seed of
its own, and the commonest is taken.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from meltbench.definition import Workload
    from meltbench.engines.prompts import Ask

    Item = Mapping[str, Any]
    Way = tuple[str, int | None, int]  # its point, its budget of tokens, answers at a time

_SOFT = " Think for maximum {} tokens."
ROUND = 16  # questions at most
SOFT_ROOM = 4  # a soft budget is a wish: the answer is cut off at so many times it


def of(work: Workload) -> list[Way]:
    """The arms of a workload; one without a name where it asks in one way only."""
    budgets: Sequence[int | None] = work.budget or (None,)
    arms = []
    for budget in budgets:
        for n in work.samples:
            parts = [f"b{budget}"] * (len(budgets) > 1) + [f"n{n}"] * (len(work.samples) > 1)
            arms.append((".".join(parts), budget, n))
    return arms


def named(*points: str) -> str:
    """The point of a request that several things name one of, such as ``w800.n8``: its item and its arm."""
    return ".".join(point for point in points if point)


def plain(work: Workload) -> bool:
    """Whether each item is asked in one way, once at a time."""
    return not work.budget and work.samples == (1,)


def groups(asks: Sequence[Ask], work: Workload, seed: int) -> list[tuple[list[Ask], int]]:
    """The requests of every arm, those of one question in an arm together: requests, and how many at a time.

    ``asks``: one of each item. Of ROUND questions at most each is asked in every arm before the next ones, in an order
    of arms of its own: what drifts in a run falls on all arms alike, a run that is cut off has whole questions, and a
    server that keeps its last prompt does not find the next one in it. Each answer to a question has a seed of its own.
    """
    rng = random.Random(seed)  # noqa: S311  (a workload must repeat; nothing here is secret)
    out: list[tuple[list[Ask], int]] = []
    ways = of(work)
    for number in range(work.repeat):
        order = rng.sample(list(asks), len(asks))
        for ask, (point, budget, n) in _turns(order, ways, rng):
            one = replace(_within(ask, budget, soft=work.soft), point=named(ask.point, point))
            vote = len(out) if n > 1 else None
            out.append(([replace(one, seed=own_seed(seed, number, k), vote=vote) for k in range(n)], n))
    return out


def _turns(order: Sequence[Ask], ways: Sequence[Way], rng: random.Random) -> Iterator[tuple[Ask, Way]]:
    """Every question in every way, a round of questions after the other."""
    size = math.ceil(len(order) / max(math.ceil(len(order) / ROUND), 1))  # rounds are as long as one another
    for at in range(0, len(order), size or 1):
        asks = order[at : at + size]
        squares: list[list[Way]] = []
        while len(squares) < len(asks):  # Latin squares, so that in each turn each way is asked as often
            row = rng.sample(ways, len(ways))
            squares += rng.sample([row[k:] + row[:k] for k in range(len(ways))], len(ways))
        for turn in range(len(ways)):
            yield from ((ask, own[turn]) for ask, own in zip(asks, squares, strict=False))


def own_seed(seed: int, number: int, k: int = 0) -> int:
    """The seed of the k-th answer to a question in a pass: of two runs, passes or answers no two are the same."""
    return random.Random(f"{seed}/{number}/{k}").randrange(2**31)  # noqa: S311


def _within(ask: Ask, budget: int | None, *, soft: bool) -> Ask:
    if budget is None:
        return ask
    if not soft:
        return replace(ask, n_out=budget)
    told = _SOFT.format(budget)
    room = budget * SOFT_ROOM
    if ask.messages is None:
        return replace(ask, n_out=room, prompt=f"{ask.prompt}{told}")
    *before, last = ask.messages
    return replace(ask, n_out=room, messages=(*before, {**last, "content": f"{last['content']}{told}"}))
