"""Only what no run of the same cell has scored is asked again, whatever became of the runs that scored the rest."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from store_kit import manifest_of, open_run, store_at

from meltbench import workload
from meltbench.account import conditions
from meltbench.asks import item_plays
from meltbench.errors import UserError
from meltbench.measure.answers import NO_GOLD
from meltbench.plan import Plan, make
from meltbench.probe.journal import Journal
from meltbench.questions.subset import drawn
from meltbench.records import RunRecord, Score
from meltbench.resuming import conclude, piece, scored_before
from meltbench.spec import Spec, digest, parse_sets
from meltbench.store import Store
from meltbench.watch import Watch

KEY = "k" * 64


class Heard:
    """What a watch was told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    warn = say

    def fetched(self, done: int, total: int | None, what: str = "") -> None: ...

    def step(self, status: dict[str, Any]) -> None: ...


def watch() -> Any:
    made: Watch = Heard()
    return made


def planned(size: int | None = None, *sets: str, name: str = "smoke", **more: Any) -> Plan:
    return make(Spec(workload=name, knobs=parse_sets(sets), resume=True, piece=size, **more))


def names(plan: Plan) -> list[str]:
    return [item["id"] for item in plan.work.items]


def mark(item: str, correct: float | None = 1.0, point: str = "", detail: str = "") -> Score:
    return Score(item, "match", correct, correct is not None, point=point, detail=detail)


def stored(store: Store, scores: list[Score], key: str = KEY, accelerator: str | None = "CPU", **about: Any) -> str:
    folder = open_run(store)
    made = manifest_of(folder.run_id) | {"cell_key": digest([key, accelerator])} | about
    runner = made["runner"] | {"accelerator": accelerator}
    store.commit(folder, RunRecord(folder.run_id, made | {"runner": runner}, scores=scores))
    store.ingest(folder.run_id)
    return folder.run_id


def test_what_was_scored_is_not_asked_again_and_it_is_told(tmp_path: Path) -> None:
    store, plan, heard = store_at(tmp_path, runs=0), planned(), watch()
    every = names(plan)
    whole = piece(plan, KEY, store, heard)
    assert whole is not None
    assert ([item["id"] for item in whole.items], heard.said) == (every, [])
    done = [stored(store, [mark(name, float(at % 2)) for at, name in enumerate(every[:10])], outcome="stopped")]
    done.append(stored(store, [mark(name) for name in every[5:12]], validity="invalid", outcome="failed"))
    stored(store, [mark(name) for name in every], key="another cell")
    left = piece(plan, KEY, store, heard)
    assert left is not None
    assert [item["id"] for item in left.items] == every[12:]
    assert heard.said == ["12 of 30 items were scored before in 2 runs; asking 18"]
    assert left.told() == {"items": 18, "of": 30, "before": 12, "runs": tuple(done)}
    stored(store, [mark(name) for name in every[12:]])
    assert piece(plan, KEY, store, heard) is None
    conclude(plan, KEY, store, heard)
    assert heard.said[-1].startswith("all 30 items are scored; together: meltbench intelligence ")
    assert all(run_id in heard.said[-1] for run_id in done)


def test_a_request_that_failed_is_asked_again_and_one_that_nobody_can_judge_is_not(tmp_path: Path) -> None:
    store, plan = store_at(tmp_path, runs=0), planned()
    first, second, *_ = every = names(plan)
    stored(store, [mark(first, None, detail="truncated"), mark(second, None, detail=NO_GOLD)])
    left = piece(plan, KEY, store, watch())
    assert left is not None
    assert [item["id"] for item in left.items] == [name for name in every if name != second]


def test_pieces_are_drawn_as_subsets_are(tmp_path: Path) -> None:
    store, plan = store_at(tmp_path, runs=0), planned(8)
    assert [cell.seed for cell in plan.cells] == [0, 1, 2, 3]
    every, asked = names(plan), set[str]()
    for n in (8, 16, 24, 30):
        part = piece(plan, KEY, store, watch())
        assert part is not None
        got = [item["id"] for item in part.items]
        assert got == [name for name in every if name in set(got)]
        assert not asked & set(got)
        asked |= set(got)
        assert asked == drawn(every, n), "so what is scored so far is a subset"
        stored(store, [mark(name) for name in got])
    assert piece(plan, KEY, store, watch()) is None


def test_an_item_is_whole_once_every_way_of_asking_it_is_scored(tmp_path: Path) -> None:
    sets = ("budget=8,16", "samples=1,2", "temperature=0.7", "repeat=2")
    store, plan = store_at(tmp_path, runs=0), planned(None, *sets)
    a, b, c, *_ = every = names(plan)
    points = ("b8.n1", "b8.n2", "b16.n1", "b16.n2")
    stored(store, [mark(name, point=point) for name in (a, b) for point in points])
    stored(store, [mark(name, point=point) for name in (a, c) for point in points])
    stored(store, [mark(b, point=point) for point in points[:3]])
    left = piece(plan, KEY, store, watch())
    assert left is not None
    assert [item["id"] for item in left.items] == [name for name in every if name != a]
    levels = planned(None, "concurrency=1,2")
    stored(store, [mark(b, point="c1"), mark(b, point="c2"), mark(c, point="c1")], key="levels")
    assert scored_before(levels.work, "levels", store, watch()).items == {b}


def test_runs_that_are_cut_off_before_any_question_is_whole_come_to_an_end(tmp_path: Path) -> None:
    store, plan = store_at(tmp_path, runs=0), planned(None, "budget=8,16,32", "temperature=0.7")
    drawn = set()
    for number in range(60):
        left = piece(plan, KEY, store, watch())
        if left is None:
            break
        seed = left.seed(plan.spec.seed)
        asked = [
            play.asks[0] for play in item_plays(left.items, plan.work.workload, seed) if play.asks[0].role == "timed"
        ]
        assert not drawn & {(ask.item, ask.point, ask.seed) for ask in asked}
        drawn |= {(ask.item, ask.point, ask.seed) for ask in asked[:20]}
        if number == 0:
            assert len({ask.item for ask in asked[:20]} & {ask.item for ask in asked[20:]}) > 10
        stored(store, [mark(ask.item, point=ask.point) for ask in asked[:20]])
    assert piece(plan, KEY, store, watch()) is None


def test_of_runs_on_two_accelerators_those_like_the_newest_count(tmp_path: Path) -> None:
    store, plan = store_at(tmp_path, runs=0), planned()
    a, b, c, *_ = names(plan)
    stored(store, [mark(a)], accelerator="CUDA")
    kept = [stored(store, [mark(b)], accelerator="CPU")]
    assert scored_before(plan.work, KEY, store, watch()).items == {b}
    kept.append(stored(store, [mark(c)], accelerator="CPU"))
    found = scored_before(plan.work, KEY, store, watch())
    assert (found.items, found.runs) == ({b, c}, tuple(kept))
    stored(store, [mark(a)], accelerator=None)  # it died before it said what it computes on, and is another cell
    assert scored_before(plan.work, KEY, store, watch()).items == {a}


def test_a_run_that_was_not_brought_in_is_told(tmp_path: Path) -> None:
    store, heard = store_at(tmp_path, runs=0), watch()
    folder = open_run(store)
    folder.write_ticket({"cell_key": KEY})
    open_run(store).write_ticket({"cell_key": "another"})
    damaged = open_run(store)
    (damaged.path / "ticket.json").write_text("{")
    piece(planned(), KEY, store, heard)
    (line,) = heard.said
    run_id = folder.run_id
    assert line.startswith(f"{run_id} asked some of these items and is not stored: meltbench collect {run_id}")


@pytest.fixture(scope="module")
def plan() -> Plan:
    return planned()


@given(left=st.sets(st.integers(0, 29)))
def test_a_part_is_asked_alone_but_identified_as_the_whole(plan: Plan, left: set[int]) -> None:
    part = replace(plan.work, left=tuple(item for at, item in enumerate(plan.work.items) if at in left) or None)
    asks = [ask for ask in part.asks(0, 0) if ask.role == "timed"]
    assert {ask.item for ask in asks} == {item["id"] for item in part.asked}
    assert len(part.asks(0, 0)) == part.n_requests
    assert (part.sha256, part.n_ctx) == (plan.work.sha256, plan.work.n_ctx), "the context is of the longest of all"


def test_the_plan_of_a_part_is_its_own() -> None:
    plain = make(Spec(workload="smoke"))
    hashes = {plain.hash, planned().hash, planned(5).hash, planned(6).hash}
    assert len(hashes) == 4
    assert planned().work.workload == plain.work.workload
    swept = planned(15, threads=(1, 2))
    assert len(swept.cells) == 4
    assert [cell.rep for cell in swept.cells] == [0, 0, 1, 1]


def test_a_set_too_large_for_a_run_is_asked_in_pieces(tmp_path: Path) -> None:
    rows = [{"question": f"{n} and 1?", "answer": f"#### {n + 1}"} for n in range(40)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    sets = (f"data={tmp_path}/q.jsonl", "shots=0", "repeat=200")
    with pytest.raises(UserError, match=r"asks 8001 requests in one run.*--resume --piece 500 of scored items"):
        planned(None, *sets, name="gsm8k")
    assert len(planned(10, *sets, name="gsm8k").cells) == 4


@pytest.mark.parametrize(
    ("given_", "said"),
    [
        ({"reps": 2, "resume": True}, "--resume asks no item twice, --reps does"),
        ({"piece": 5}, "--piece is how much of the rest a run asks; write --resume --piece 200"),
        ({"piece": 0, "resume": True}, "--piece 0 is out of range"),
    ],
)
def test_what_makes_no_sense_together_is_refused(given_: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        Spec(**given_)
    assert str(error.value).startswith(said)


@pytest.mark.parametrize("name", ["quick", "chat", "grid", "wikitext-2", "exec"])
def test_only_scored_questions_can_be_taken_up(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("words and words\n")
    sets = (f"data={tmp_path}/t.txt",) if name == "wikitext-2" else ()
    command = ("true",) if name == "exec" else ()
    with pytest.raises(UserError, match=f"--resume is for questions with right answers, {name} has none"):
        planned(None, *sets, name=name, command=command)


def test_a_part_is_named_in_the_validity_of_its_run() -> None:
    work = workload.load("smoke")
    ticket = {
        "knobs": {}, "device": {"target": "local"}, "conditions": {}, "runner": None, "workload": work.workload.told(),
        "piece": {"items": 8, "of": 30, "before": 3, "runs": ["r1"]},
    }  # fmt: skip
    found = dict(conditions(ticket, Journal(), [], {}, []))
    assert found["piece"] == "8 of 30 items; 3 were scored before in 1 run"
    whole = ticket | {"piece": {"items": 30, "of": 30, "before": 0, "runs": []}}
    assert "piece" not in dict(conditions(whole, Journal(), [], {}, []))
    assert "piece" not in dict(conditions({**ticket, "piece": None}, Journal(), [], {}, []))
