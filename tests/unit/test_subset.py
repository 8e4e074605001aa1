"""A subset of a set of questions is the same for everybody, as if drawn at random, and part of a run's key."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.errors import DefinitionError, UserError
from meltbench.plan import make
from meltbench.questions.subset import drawn
from meltbench.spec import Spec, parse_sets

IDS = st.lists(st.text(max_size=6), unique=True, max_size=60)


def planned(workload: str, *sets: str, seed: int = 0) -> Any:
    return make(Spec(workload=workload, knobs=parse_sets(sets), seed=seed))


def ids(plan: Any) -> list[str]:
    return [item["id"] for item in plan.work.items]


@given(IDS, st.integers(0, 60), st.integers(0, 60), st.randoms())
def test_the_smaller_is_in_the_larger_whatever_the_order(names: list[str], a: int, b: int, rng: Any) -> None:
    small, large = sorted((a, b))
    mixed = rng.sample(names, len(names))
    assert drawn(names, small) == drawn(mixed, small) <= drawn(names, large) <= set(names)
    assert len(drawn(names, small)) == min(small, len(names))


@given(IDS, st.integers(0, 30))
def test_an_item_more_moves_no_other(names: list[str], n: int) -> None:
    kept = drawn(names, n)
    assert all(drawn([one for one in names if one != left], n) >= kept - {left} for left in names[:5])


def test_it_is_no_share_of_the_file_that_could_be_guessed() -> None:
    names = [str(n) for n in range(1, 10_001)]
    taken = sorted(map(int, drawn(names, 1000)))
    by_tenth = [sum(lo < one <= lo + 1000 for one in taken) for lo in range(0, 10_000, 1000)]
    assert all(65 <= n <= 140 for n in by_tenth)  # 100 expected of each, standard deviation 9
    assert sum(one % 2 for one in taken) == pytest.approx(500, abs=60)


def test_a_device_and_a_host_have_the_same_items_whatever_their_seeds() -> None:
    whole, part, again = planned("smoke"), planned("smoke", "subset=8"), planned("smoke", "subset=8", seed=7)
    assert ids(part) == ids(again)
    assert len(ids(part)) == 8
    assert ids(part) == [name for name in ids(whole) if name in set(ids(part))]  # in the order of the set
    assert part.work.sha256 == whole.work.sha256, "the items and their definition are the same"
    assert part.hash != whole.hash
    assert part.work.workload.told()["subset"] == 8
    assert "subset" not in whole.work.workload.told()
    assert set(ids(planned("smoke", "subset=4", "n_items=10"))) <= set(ids(planned("smoke", "n_items=10")))


def test_of_a_set_it_is_drawn_of_its_rows(tmp_path: Path) -> None:
    rows = [{"question": f"{n} and 1?", "answer": f"#### {n + 1}"} for n in range(20)]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = (f"data={tmp_path}/q.jsonl", "shots=0")
    whole, part = planned("gsm8k", *common), planned("gsm8k", *common, "subset=5")
    assert set(ids(part)) == drawn(ids(whole), 5)
    assert part.work.sha256 == whole.work.sha256
    with pytest.raises(UserError, match=r"subset = 21 is more than the 20 items of gsm8k"):
        planned("gsm8k", *common, "subset=21")


@pytest.mark.parametrize("text", ["0", "-1", "x", "1.5", "100001"])
def test_a_subset_of_nothing_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="subset = "):
        planned("smoke", f"subset={text}")


def test_it_is_a_setting_of_questions_alone() -> None:
    with pytest.raises(UserError, match="subset is no setting of kind grid"):
        planned("grid", "subset=3")


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    rows = [{"id": "a", "prompt": "1?", "answer": "1"}, {"id": "a", "prompt": "2?", "answer": "2"}]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "workloads").mkdir()
    mine = tmp_path / "workloads" / "mine.toml"
    mine.write_text('title = "t"\nversion = 1\nkind = "generate"\nscore = "match"\n[questions]\nrecipe = "fields"\n')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        with pytest.raises(DefinitionError, match="id 'a' stands twice"):
            planned("mine", "data=q.jsonl")
