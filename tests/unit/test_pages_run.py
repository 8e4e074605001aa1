"""The page of one run: what it was, its traces, and the command that measures it again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from contrast_kit import MadeIndex
from pages_kit import checked, page_of
from store_kit import manifest_of, store_at

from benchmarks import made_store
from meltbench.pages.address import Address
from meltbench.pages.drawn import Drawn
from meltbench.pages.kinds.run import _command
from meltbench.pages.page import pages
from meltbench.pages.panel import contexts, draw, rows_of
from meltbench.pages.published import Published
from meltbench.selecting import Selection
from meltbench.store import Store


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store.small(tmp_path_factory.mktemp("made") / "data", runs=40, samples=900)


def drawn_of(store: Store, run: str) -> dict[str, Drawn]:
    file = pages()["run"]
    assert file.page is not None
    with Published(store).snapshot().asking(Selection()) as asking:
        held = contexts(store, asking, Address(run=run), file.page)
        return {one.panel.title: checked(draw(one, file, at)) for at, one in enumerate(held)}


def ask(store: Store, sql: str) -> list[tuple[Any, ...]]:
    with Published(store).snapshot().asking(Selection()) as asking:
        return asking.ask(sql).rows


def test_every_run_can_be_looked_at(made: Store) -> None:
    for run in made.run_ids():
        found = drawn_of(made, run)
        assert not any(one.troubled for one in found.values())
        facts = dict(found["What it was"].facts)
        ((validity, outcome, failure),) = ask(
            made, f"SELECT validity, outcome, failure FROM runs WHERE run_id = '{run}'"
        )
        assert facts["validity"] == (f"{validity}: {failure}" if outcome != "done" else validity)
        assert facts["raw evidence"] == str(made.folder(run).path / "evidence")
        assert found["What it was"].says == f"Run {run}, {validity}."


def test_traces_have_their_phases_and_requests(made: Store) -> None:
    ((run,),) = ask(
        made, "SELECT run_id FROM results WHERE device = 'orin-nano' AND point = '' AND energy_j IS NOT NULL LIMIT 1"
    )
    trace = drawn_of(made, run)["Traces"]
    assert trace.says.startswith("power, temperature, ")
    assert trace.answer is not None
    assert {"power", "temperature"} <= {*trace.answer.column("signal")}
    assert [*trace.answer.column("t_s")]
    assert trace.figure is not None
    assert len(trace.figure["data"]) >= 2


def test_a_measure_without_a_value_says_why(made: Store) -> None:
    ((run,),) = ask(made, "SELECT run_id FROM results WHERE device = 'cloud-vm' AND point = '' LIMIT 1")
    grid = drawn_of(made, run)["Measures"].grid
    assert grid is not None
    lacking = [row for row in grid.texts if row["value"] == "—"]
    assert lacking
    assert all(row["reason"] != "—" for row in lacking)
    assert all(row["reason"] == "—" for row in grid.texts if row["value"] != "—")


def test_a_run_that_is_not_there_is_told(made: Store) -> None:
    found = drawn_of(made, "20991231T000000Z-abcdef")
    for title in ("What it was", "Traces"):
        assert found[title].troubled
        assert found[title].says.startswith("there is no run '20991231T000000Z-abcdef' in this store")
    assert "No run is chosen" in drawn_of(made, "")["Traces"].says


def test_a_run_whose_folder_is_gone_still_says_what_it_was(tmp_path: Path) -> None:
    store = store_at(tmp_path, runs=1)
    (run,) = store.run_ids()
    for path in store.folder(run).path.glob("*.parquet"):
        path.chmod(0o644)
        path.write_bytes(b"PAR1 nothing")
    found = drawn_of(store, run)
    assert not found["What it was"].troubled
    assert found["Traces"].troubled
    assert "\n" not in found["Traces"].says


def test_an_imported_run_is_told_as_such() -> None:
    made = MadeIndex()
    made.add({"decode_tps": 3.0}, origin="MELT", validity="degraded", model="<b>\x1b")
    run = "20261120T200000Z-abcdef"
    made.connection.execute(f"UPDATE runs SET run_id = '{run}'")
    facts = dict(page_of(made, "run", query=f"run={run}")["What it was"].facts)
    assert facts["imported from"] == "MELT"
    assert facts["run it again"] == "not with meltbench: another tool measured it"
    assert facts["model"] == "<b>\ufffd"


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"device": "pi 5", "model": "m", "runner": "llamacpp", "workload": None, "seed": 3, "threads": [2, 4]},
            "meltbench run --device 'pi 5' --model m --runner llamacpp --threads 2,4 --seed 3",
        ),
        (
            {"device": "d", "model": "$(x)", "seed": 0, "engine": "/opt/e", "knobs": [["ctx", "512"], ["a", "b c"]]},
            "meltbench run --device d --model '$(x)' --engine /opt/e --seed 0 --set ctx=512 --set 'a=b c'",
        ),
        (
            {"device": "d", "model": "m", "command": ["sleep", "1 0"], "knobs": [["idle_s", "1"]], "seed": 0},
            "meltbench exec --device d --set idle_s=1 -- sleep '1 0'",
        ),
    ],
)
def test_the_command_that_measures_it_again(spec: dict[str, Any], said: str) -> None:
    assert _command(manifest_of("r") | {"spec": spec}) == said


def test_rows_behind_a_table_are_all_of_them(made: Store) -> None:
    run = made.run_ids()[0]
    file = pages()["run"]
    assert file.page is not None
    with Published(made).snapshot().asking(Selection()) as asking:
        held = contexts(made, asking, Address(run=run), file.page)
        ((n,),) = asking.ask(f"SELECT count(*) FROM measures WHERE run_id = '{run}'").rows
        (measures,) = (one for one in held if one.panel.title == "Measures")
        assert len(rows_of(measures).rows) == n
