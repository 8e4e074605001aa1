from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from store_kit import open_run, store_at

from meltbench import road
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

    monkeypatch.setattr(road, "_collect_one", one)
    records, failed = road.collect(store, SimpleNamespace(say=said.append), ids)  # type: ignore[arg-type]
    assert [record.run_id for record in records] == ids[2:]
    assert failed == 2
    assert [line.split(": ")[0] for line in said] == ids[:2]
    assert "RecursionError: too deep; please report it" in said[0]
