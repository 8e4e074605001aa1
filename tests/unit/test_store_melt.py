"""Prompts of our runs in the form and by the definitions of MELT's own table."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from store_kit import manifest_of, store_at

from meltbench.errors import UserError
from meltbench.records import OK, Request, RunRecord, Series
from meltbench.store.export import export, melt_text
from meltbench.store.melt import COLUMNS, csv_text, discharged_c, results

S = 10**9


def current(values: list[float], name: str = "meter.current_a", scope: Any = "battery") -> Series:
    t = np.arange(len(values), dtype=np.int64) * S
    return Series(name, "A", "gauge", "m", scope, t, t, np.array(values), np.full(len(values), OK, np.uint8))


def asked(item: str, send_s: float, end_s: float, **more: Any) -> Request:
    return Request(0, item, "timed", "ok", round(send_s * S), round(end_s * S), **more)


def run(*requests: Request, rep: int = 0, series: list[Series] | None = None) -> RunRecord:
    return RunRecord("r", manifest_of("r") | {"rep": rep}, requests=list(requests), series=series or [])


ANSWERED = {"n_in": 30, "n_cached": 10, "n_out": 9, "engine_prefill_tps": 80.0, "engine_decode_s": 2.0}


def test_a_row_has_melts_columns_and_definitions() -> None:
    amps = current([0.5] * 11)
    one = asked("talk/2", 1.0, 5.0, energy_j=7.2, **ANSWERED)
    (row,) = results([run(replace(one, index=1), rep=3, series=[amps])])
    told = dict(zip(COLUMNS, row, strict=True))
    assert told == {
        "iteration": 3,
        "conversation": 0,
        "prompt": 0,
        "duration (sec)": 4.0,
        "original_session_tokens": 10,
        "input_tokens": 20,  # those that were evaluated
        "output_tokens": 8,  # without the first
        "prefill_tps": 80.0,
        "tps": 4.0,
        "energy_pt (mWh)": pytest.approx(7.2 / 3.6 / 8),
        "discharge_pt (mAh)": pytest.approx(0.5 * 4 / 3.6 / 8),
    }


def test_conversations_are_numbered_by_name_in_all_runs_alike_and_prompts_by_their_order() -> None:
    first = run(asked("b/1", 1, 2), asked("b/2", 3, 4), asked("a/1", 5, 6))
    second = run(asked("a/1", 1, 2), asked("b/1", 3, 4), asked("b/2", 5, 6), rep=1)
    assert [row[:3] for row in results([first, second])] == [
        [0, 1, 0],
        [0, 1, 1],
        [0, 0, 0],
        [1, 0, 0],
        [1, 1, 0],
        [1, 1, 1],
    ]
    singles = run(asked("x", 1, 2), asked("y", 3, 4), asked("z/q", 5, 6))
    assert [row[:3] for row in results([singles])] == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]


def test_what_was_not_measured_is_an_empty_cell_and_what_failed_no_row() -> None:
    bare = run(asked("x", 1, 2), replace(asked("y", 3, 4), status="timeout"), replace(asked("w", 0, 1), role="warmup"))
    (row,) = csv.DictReader(io.StringIO(csv_text([bare])))
    assert {name: row[name] for name in COLUMNS[4:]} == {
        "original_session_tokens": "-1",
        **dict.fromkeys(COLUMNS[5:], ""),
    }


@pytest.mark.parametrize("n_out", [0, 1])
def test_an_answer_of_one_token_has_nothing_to_divide_by(n_out: int) -> None:
    (row,) = results([run(asked("x", 1, 2, n_out=n_out, energy_j=5.0), series=[current([1.0] * 9)])])
    assert row[-2:] == [None, None]


def test_trap_1_a_meter_counts_what_is_drawn_and_a_batterys_gauge_what_flows_in() -> None:
    ramp = [float(n) for n in range(9)]
    # 1.5 to 4 s of a ramp: its mean is 2.75 A.
    assert discharged_c([current(ramp)], 1_500_000_000, 4 * S) == pytest.approx(2.75 * 2.5)
    own = current([-a for a in ramp], "battery.current_a")
    assert discharged_c([own], 1_500_000_000, 4 * S) == pytest.approx(2.75 * 2.5)


@pytest.mark.parametrize(
    "series",
    [
        [],
        [current([1.0] * 3)],  # it ends within
        [current([1.0] * 9), current([1.0] * 9, "battery.current_a")],  # which one?
        [current([1.0] * 9, scope="rail")],
        [current([float("nan")] * 9)],
    ],
)
def test_without_one_current_of_the_battery_around_it_a_prompt_has_no_charge(series: list[Series]) -> None:
    assert discharged_c(series, 1 * S, 4 * S) is None


def test_it_is_exported_from_a_store_and_a_run_without_prompts_is_told(tmp_path: Any) -> None:
    store = store_at(tmp_path / "store", runs=2)
    (path,) = export(store, store.run_ids(), "melt", tmp_path / "results.csv")
    rows = list(csv.reader(io.StringIO(path.read_text())))
    assert tuple(rows[0]) == COLUMNS
    assert path.read_text() == melt_text(store, store.run_ids())
    with pytest.raises(UserError, match="none of these runs has a prompt"):
        melt_text(store, [])
    with pytest.raises(UserError, match="format melt has no one table"):
        export(store, store.run_ids(), "melt", table="requests")
