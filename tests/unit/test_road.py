from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from store_kit import open_run, store_at

from meltbench import collecting, follow
from meltbench.errors import StoreError


def test_one_bad_run_keeps_no_other_from_being_collected(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_at(tmp_path, runs=0)
    ids = [open_run(store).run_id for _ in range(3)]
    said: list[str] = []

    def one(_store: Any, run_id: str, *_: Any, **__: Any) -> Any:
        if run_id == ids[0]:
            raise RecursionError("too deep")
        if run_id == ids[1]:
            raise StoreError("damaged")
        return SimpleNamespace(run_id=run_id)

    monkeypatch.setattr(collecting, "_collect_one", one)
    records, failed = collecting.collect(store, SimpleNamespace(say=said.append), ids)  # type: ignore[arg-type]
    assert [record.run_id for record in records] == ids[2:]
    assert failed == 2
    assert [line.split(": ")[0] for line in said] == ids[:2]
    assert "RecursionError: too deep; please report it" in said[0]


def test_looks_are_far_apart_while_a_run_measures_and_close_where_its_last_window_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 100.0
    monkeypatch.setattr(follow.time, "monotonic", lambda: now)
    pauses = follow.Pauses(3.5)
    assert pauses.after({"op": "spawn", "name": "engine"}) == 0.25
    assert pauses.after({"op": "idle", "name": "idle_before"}) == 1.0
    assert pauses.after({"op": "http", "name": "requests"}) == 1.0
    # Seen after a pause of 1 s, so it ends between 102.5 and 103.5.
    last = {"op": "idle", "name": "idle_after"}
    looks = []
    while now < 103.5:
        now += pauses.after(last)
        looks.append(now)
    assert looks == [101.0, 102.0, 102.5, 102.75, 103.0, 103.25, 103.5]


def test_a_state_that_says_nothing_is_looked_at_again_soon() -> None:
    assert follow.Pauses(0.0).after({}) == 0.25
    assert follow.Pauses(0.0).after({"op": "idle", "name": "idle_after"}) == 0.25
