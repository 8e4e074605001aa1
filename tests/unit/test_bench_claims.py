"""The table of claims: what counts as met, missed, not measured and broken, and the closed forms behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from journalmaker import event, journal

from benchmarks import __main__ as runner
from benchmarks import kit, observer, overhead, truth, waves
from benchmarks.claims import Claim, Part, Row, Site, Unmeasurable
from meltbench.probe.journal import read_journal

FAST = Claim("fast enough", "<=", 2.0, "s")
SURE = Claim("sure enough", ">=", 0.9)
ROOT = Path(__file__).parents[2]


def site(folder: Path) -> Site:
    return Site(quick=True, folder=folder, say=lambda _: None)


def gives(*found: Row) -> Part:
    return Part(lambda _: iter(found), (FAST, SURE))


@pytest.mark.parametrize(
    ("claim", "figure", "met"), [(FAST, 2.0, True), (FAST, 2.1, False), (SURE, 0.9, True), (SURE, 0.89, False)]
)
def test_a_figure_on_the_limit_is_met(claim: Claim, figure: float, met: bool) -> None:
    assert claim.row(figure).met is met


def test_a_row_without_a_figure_is_neither_met_nor_missed() -> None:
    row = FAST.missing("no compiler")
    assert row.met is None
    assert runner.status([("x", row, False)]) == 0
    assert "not measured" in runner.as_text(row)
    assert "no compiler" in runner.as_text(row)


def test_the_exit_status_is_1_for_a_miss_and_for_a_benchmark_that_broke() -> None:
    assert runner.status([("x", FAST.row(1.0), False)]) == 0
    assert runner.status([("x", FAST.row(1.0), False), ("x", SURE.row(0.1), False)]) == 1
    assert runner.status([("x", FAST.missing("ValueError"), True)]) == 1


def test_every_claim_gets_a_row_also_when_its_benchmark_cannot_work_here(tmp_path: Path) -> None:
    def lacks(_: Site) -> Iterator[Row]:
        yield FAST.row(1.0)
        raise Unmeasurable("no stock engine")

    found = list(runner.rows(Part(lacks, (FAST, SURE)), site(tmp_path)))
    assert [(row.claim, row.met, broke) for row, broke in found] == [(FAST, True, False), (SURE, None, False)]
    assert found[1][0].note == "no stock engine"


def test_a_benchmark_that_breaks_is_told_and_its_rows_are_not_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def breaks(_: Site) -> Iterator[Row]:
        yield FAST.row(1.0)
        raise ValueError("a bug")

    found = list(runner.rows(Part(breaks, (FAST, SURE)), site(tmp_path)))
    assert [broke for _, broke in found] == [False, True]
    assert found[1][0].note == "ValueError: a bug"
    assert "Traceback" in capsys.readouterr().err


def test_a_row_that_a_benchmark_forgets_is_broken(tmp_path: Path) -> None:
    ((_, first), (row, second)) = runner.rows(gives(FAST.row(1.0)), site(tmp_path))
    assert (first, second) == (False, True)
    assert row.note == "the benchmark gave no such row"


def test_a_row_for_machines_says_all_that_the_table_says() -> None:
    told = runner.as_json("x", SURE.row(0.5, {"n": 3.0}, "why"))
    said = {"subject": "x", "name": "sure enough", "figure": 0.5, "sense": ">=", "limit": 0.9, "unit": ""}
    assert json.loads(json.dumps(told)) == said | {"met": False, "beside": {"n": 3.0}, "note": "why"}


def test_a_name_that_no_benchmark_has_is_refused_with_those_there_are() -> None:
    done = subprocess.run([sys.executable, "-m", "benchmarks", "truht"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no benchmark 'truht': there are truth, " in done.stderr


def test_claims_have_names_of_their_own_and_the_pages_that_explain_them_name_each() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    names = [claim.name for name in runner.SUBJECTS for part in runner.load(name).PARTS for claim in part.claims]
    assert len(names) == len(set(names))
    for name in names:
        assert f"`{name}`" in page, name


@given(st.lists(st.floats(0.1, 10), min_size=1, max_size=40))
def test_the_interval_of_a_median_lies_within_the_values(values: list[float]) -> None:
    low, high = kit.median_interval(values)
    assert min(values) <= low <= high <= max(values)


def test_an_interval_that_holds_the_limit_is_said_to_decide_nothing() -> None:
    assert kit.undecided(0.98, 1.01, 0.99).startswith("the interval holds the limit")
    assert kit.undecided(0.995, 1.01, 0.99) == ""
    assert kit.undecided(0.96, 1.01, 0.97, 1.03)


def test_arms_are_run_forwards_and_backwards_in_turn() -> None:
    order: list[str] = []

    def arm(name: str) -> float:
        order.append(name)
        return float(len(order))

    found = kit.interleaved({"a": lambda: arm("a"), "b": lambda: arm("b")}, 3)
    assert order == ["a", "b", "b", "a", "a", "b"]
    assert found == {"a": [1.0, 4.0, 5.0], "b": [2.0, 3.0, 6.0]}


def test_of_every_pair_of_requests_one_is_watched() -> None:
    watched = [observer._is_watched(i) for i in range(8)]
    assert watched == [True, False, False, True] * 2


def test_a_file_that_is_no_plain_number_makes_the_row_unmeasurable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = tmp_path / "flags"
    odd.write_text("0x9\n")
    monkeypatch.setattr(observer, "FILES", (str(odd),))
    with pytest.raises(Unmeasurable, match="no plain number"):
        observer.check_files()
    odd.unlink()
    with pytest.raises(Unmeasurable, match="No such file"):
        observer.check_files()


def test_the_engine_idle_and_gate_time_of_a_run_are_not_its_own(tmp_path: Path) -> None:
    s = 1_000_000_000
    at = tmp_path / "journal"
    at.write_bytes(
        journal(
            event("begin", 1 * s),
            event("step", 2 * s, op="idle", state="start"),
            event("step", 5 * s, op="idle", state="end"),
            event("step", 5 * s, op="gate", state="start"),
            event("step", 6 * s, op="gate", state="end"),
            event("spawn", 6 * s, proc="engine"),
            event("step", 6 * s, op="http", state="start"),
            event("step", 9 * s, op="http", state="end"),
            event("exit", 10 * s, proc="engine"),
            event("exit", 10 * s, proc="helper"),
            event("step", 10 * s, op="idle", state="start"),
            event("step", 13 * s, op="idle", state="end"),
            event("end", 14 * s),
        )
    )
    found = read_journal(at)
    assert overhead.spans(found) == {"engine": 4.0, "idle": 6.0, "gate": 1.0}
    assert overhead.parts(found, 0, 16 * s) == {"before the job s": 1.0, "within s": 2.0, "after s": 2.0}


@pytest.mark.parametrize("which", range(4))
def test_the_closed_form_of_every_wave_is_its_integral(which: int) -> None:
    wave = truth.made_waves(20.0, np.random.default_rng(3))[which]
    t = np.linspace(0, 26.0, 2_600_001)
    power = wave.power(t)
    numeric = np.concatenate([[0.0], np.cumsum((power[1:] + power[:-1]) / 2 * np.diff(t))])
    assert np.abs(wave.energy(t) - numeric).max() < 1e-3  # J: half a step of 17 W within one interval of 10 us, often
    assert power.min() >= 0


def test_a_made_counter_rises_by_the_true_energy_and_wraps_once() -> None:
    wave = waves.constant(5.0)
    reads = waves.counter(wave, 0.01, 10.0, np.random.default_rng(1))
    values = [int(text) for text in reads.texts]
    falls = [i for i in range(1, len(values)) if values[i] < values[i - 1]]
    assert len(falls) == 1
    rise = values[-1] - values[0] + waves.RANGE_UJ
    seconds = (reads.t0_ns[-1] - reads.t0_ns[0]) / 1e9
    assert rise == pytest.approx(5e6 * seconds, rel=1e-3)


def test_a_made_gauge_is_never_still_and_has_the_right_mean() -> None:
    reads = waves.gauge(waves.constant(5.1237), 0.01, 60.0, np.random.default_rng(1))
    watt = np.array([int(text) for text in reads.texts]) / 1e6
    assert (np.diff(watt) != 0).mean() > 0.5
    assert watt.mean() == pytest.approx(5.1237, abs=1e-3)
