"""The made store is one: its folders verify, its index is theirs, and what was made into it is found in it."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import duckdb
import pytest

from benchmarks import kept_store, made_fleet, made_store
from meltbench.records import Series
from meltbench.store import Store, index
from meltbench.store.tables import read_record
from meltbench.store.verifying import verify


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store.small(tmp_path_factory.mktemp("made") / "data", runs=60, samples=1500)


def asked(store: Store, sql: str) -> list[tuple[object, ...]]:
    with index.attached(store.index) as connection:
        return connection.execute(sql).fetchall()


def test_it_verifies_and_has_what_pages_are_tried_on(made: Store) -> None:
    assert verify(made) == []
    assert asked(made, "SELECT count(*) FROM runs") == [(60,)]
    (row,) = asked(
        made,
        "SELECT count(DISTINCT device), count(DISTINCT model), count(DISTINCT engine), count(DISTINCT workload), "
        "count(DISTINCT night), count(DISTINCT validity), count(DISTINCT mode), count(DISTINCT point) FROM results",
    )
    assert row == (3, 5, 2, 3, 8, 3, 2, 3)
    (row,) = asked(
        made,
        "SELECT count(energy_j) FILTER (device = 'cloud-vm'), count(energy_j) FILTER (device <> 'cloud-vm' AND "
        "point = '') > 30, count(accuracy) FILTER (workload = 'gsm8k') > 5, "
        "count(ipw_per_w) > 3, count(accuracy) FILTER (workload <> 'gsm8k') FROM results",
    )
    assert row == (0, True, True, True, 0)


def test_samples_are_as_many_as_asked_for_and_the_energy_is_theirs(made: Store) -> None:
    files = f"read_parquet('{made.runs_dir}/*/samples.parquet')"
    (row,) = duckdb.execute(f"SELECT count(*) / 60 FROM {files}").fetchall()
    assert 1300 < row[0] < 1700
    (run,) = asked(
        made,
        "SELECT r.run_id, any_value(energy_j), any_value(t0_ns), any_value(t1_ns) FROM results r JOIN phases p "
        "ON p.run_id = r.run_id AND p.name = 'run' WHERE device = 'orin-nano' AND point = '' AND workload = 'gsm8k' "
        "GROUP BY r.run_id ORDER BY r.run_id LIMIT 1",
    )
    run_id, energy_j, first, last = run
    (watts,) = duckdb.execute(
        f"SELECT avg(value) FROM '{made.runs_dir}/{run_id}/samples.parquet' WHERE series = 0 AND t0_ns BETWEEN ? AND ?",
        [first, last],
    ).fetchall()
    assert isinstance(first, int)
    assert isinstance(last, int)
    assert energy_j == pytest.approx(watts[0] * (last - first) / 1e9, rel=0.02)


def test_the_same_seed_makes_the_same_runs() -> None:
    plans = made_fleet.planned(40, small=True)
    kept: list[Series] = []

    def keep(parts: list[tuple[int, Series]]) -> None:
        kept.extend(part for _, part in parts)

    records = [made_store.record_of(plans[7], made_fleet.truth(8), 800, keep) for _ in range(2)]
    assert records[0].measures == records[1].measures
    half = len(kept) // 2
    assert all((one.value == other.value).all() for one, other in zip(kept[:half], kept[half:], strict=True))


def test_the_slower_engine_is_as_much_slower_as_it_was_made() -> None:
    known = made_fleet.truth(60)
    device, engine, first, factor = known.regression
    rates: dict[bool, list[float]] = {False: [], True: []}
    for plan in made_fleet.planned(10_000):
        cell = plan.cell
        mine = (cell.device.name, cell.engine.engine, cell.workload) == (device, engine, "quick") and plan.rep == 0
        if mine and cell.model is made_fleet.MODELS[0] and cell.quantisation == "Q4_K_M" and not plan.fate:
            record = made_store.record_of(plan, known, 200, lambda _parts: None)
            (rate,) = [m.value for m in record.measures if (m.name, m.stat) == ("decode_tps", "median")]
            assert rate is not None
            rates[plan.night >= first].append(rate)
    assert min(map(len, rates.values())) > 5
    found = statistics.median(rates[False]) / statistics.median(rates[True])
    assert found == pytest.approx(factor, abs=0.02)


def test_names_can_be_hostile(tmp_path: Path) -> None:
    store = made_store.small(tmp_path / "data", runs=60, samples=200, hostile=True)
    names = {str(name) for row in asked(store, "SELECT DISTINCT device, model FROM runs") for name in row}
    for hostile in made_fleet.HOSTILE:
        assert any(hostile in name for name in names), hostile


def test_the_command_wants_a_folder_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        made_store.main([str(tmp_path)])
    assert "is there already" in capsys.readouterr().err
    assert made_store.main([str(tmp_path / "new"), "--small", "--runs", "6", "--samples", "300"]) == 0
    assert len(list((tmp_path / "new" / "runs").iterdir())) == 6


def test_one_is_kept_in_the_lab_and_a_copy_takes_more_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MELTBENCH_LAB", str(tmp_path / "lab"))
    folder = kept_store.kept(runs=4, samples=200)
    made_at = folder.stat().st_mtime_ns
    assert kept_store.kept(runs=4, samples=200) == folder
    assert folder.stat().st_mtime_ns == made_at
    copy = Store(kept_store.copied(folder, tmp_path / "copy"))
    run_id = copy.stored_ids()[0]
    again = copy.new_run({"plan_hash": "again"})
    copy.commit(again, replace(read_record(copy.folder(run_id).path), run_id=again.run_id))
    copy.ingest(again.run_id)
    assert verify(copy) == []
    assert asked(copy, "SELECT count(*) FROM runs") == [(5,)]
    assert asked(Store(folder), "SELECT count(*) FROM runs") == [(4,)]
