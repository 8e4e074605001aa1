"""A workload of questions taken up where earlier runs left it: what of a cell's items nobody has scored yet.

The parts of a whole are runs of one cell: their ``cell_key`` is of the whole set and its settings, so it is the same
whatever each of them asked. A score is an answer that came, was read and was compared. That its run was stopped,
failed or is invalid makes its times and energies worthless, but not the answer: it counts here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.errors import StoreError
from meltbench.measure.answers import NO_GOLD
from meltbench.questions.subset import drawn
from meltbench.spec import digest

if TYPE_CHECKING:
    from meltbench.plan import Plan
    from meltbench.store import Store
    from meltbench.watch import Watch
    from meltbench.workload import Loaded

_SCORED = """SELECT run_id, cell_key, item, point, count(*) FROM scores JOIN runs USING (run_id)
WHERE cell_key IN (SELECT unnest(?)) AND (correct IS NOT NULL OR detail = ?) GROUP BY ALL ORDER BY run_id DESC"""


@dataclass(frozen=True)
class Before:
    """What earlier runs of a cell have scored: ids of whole items, and the runs, oldest first; ``n_runs``: how many
    scored anything, be it of no whole item."""

    items: frozenset[str]
    runs: tuple[str, ...]
    n_runs: int


@dataclass(frozen=True)
class Piece:
    """The items that a run asks, of how many, and what was scored before it."""

    items: tuple[dict[str, Any], ...]
    of: int
    before: Before

    def seed(self, first: int) -> int:
        """The seed of this run, where the first of its cell had ``first``: what one that was cut off has asked is not
        asked again in the same order, which would be cut off there again, nor drawn again with the same chance."""
        return (first + self.before.n_runs) % 2**31

    def told(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {"items": len(self.items), "of": self.of, "before": len(self.before.items), "runs": self.before.runs}


def scored_before(work: Loaded, key: str, store: Store, watch: Watch) -> Before:
    """What the stored runs of a cell have scored; ``key``: as its tickets have it.

    An item is whole once it has a score for each time, and at each point, that the workload asks it. Of runs that
    differ in what their engine computed on, which a ticket does not know, those like the newest count.
    """
    from meltbench.store import index

    on = index.query(store, "SELECT DISTINCT accelerator FROM runs", None, watch.warn).fetchall()
    keys = [digest([key, accelerator]) for (accelerator,) in on]
    rows = index.query(store, _SCORED, [keys, NO_GOLD], watch.warn).fetchall()
    rows = [row for row in rows if row[1] == rows[0][1]]
    found: Counter[tuple[str, str]] = Counter()
    for _, _, item, point, n in rows:
        found[item, point] += n
    wanted = _wanted(work)
    lacking = {item for (item, point), n in wanted.items() if found[item, point] < n}
    whole = frozenset(item for item, _ in wanted if item not in lacking)
    return Before(whole, tuple(sorted({row[0] for row in rows if row[2] in whole})), len({row[0] for row in rows}))


def _wanted(work: Loaded) -> Counter[tuple[str, str]]:
    """How often a run of the whole scores each item, by item and point; several answers voted on are one score."""
    asks = [ask for ask in replace(work, left=None).asks(0, 0) if ask.role == "timed"]
    scores = {(ask.item, ask.point, ask.file if ask.vote is None else ask.vote) for ask in asks}
    return Counter((item, point) for item, point, _ in scores)


def piece(plan: Plan, key: str, store: Store, watch: Watch) -> Piece | None:
    """What the next run of a cell asks; None where nothing is left.

    A piece is drawn as a subset is, so that what the first few of them say is not of the first pages of a book.
    """
    whole = plan.work.items
    before = scored_before(plan.work, key, store, watch)
    left = [item["id"] for item in whole if item["id"] not in before.items]
    if not left:
        return None
    wanted = drawn(left, plan.spec.piece or len(left))
    made = Piece(tuple(item for item in whole if item["id"] in wanted), len(whole), before)
    if before.items:
        runs = f"{len(before.runs)} run{'s' * (len(before.runs) > 1)}"
        watch.say(f"{len(before.items)} of {len(whole)} items were scored before in {runs}; asking {len(made.items)}")
    elif len(made.items) < len(whole):
        watch.say(f"asking {len(made.items)} of {len(whole)} items")
    _tell_open(key, store, watch)
    return made


def conclude(plan: Plan, key: str, store: Store, watch: Watch) -> None:
    """Say how much of a cell is scored, in which runs, and how they are read together."""
    done, n = scored_before(plan.work, key, store, watch), len(plan.work.items)
    if not done.runs:
        return
    together = store.command("intelligence", *done.runs)
    if len(done.items) == n:
        watch.say(f"all {n} items are scored; together: {together}")
    else:
        watch.say(f"{len(done.items)} of {n} items are scored, --resume asks the rest; together so far: {together}")


def _tell_open(key: str, store: Store, watch: Watch) -> None:
    """Runs of the cell that were not brought in: their answers do not count before they are."""
    for run_id in store.open_ids():
        try:
            mine = store.folder(run_id).ticket().get("cell_key") == key
        except StoreError:
            continue
        if mine:
            watch.warn(f"{run_id} asked some of these items and is not stored: {store.command('collect', run_id)}")
