"""The jobs of a store that are under way: what is known of each, and that no device is asked."""

from __future__ import annotations

import io
import json
import os
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import journalmaker as make
import pytest
from jsoncheck import NAMED, problems
from rich.console import Console
from test_live_picture import begun, second
from test_live_picture import ticket as read

from meltbench.controller import this_process
from meltbench.live import jobs as module
from meltbench.live import notes
from meltbench.live.jobs import DETACHED, ENDED, UNWATCHED, Job, Jobs
from meltbench.live.picture import Now, Sight
from meltbench.report import living
from meltbench.report.progress import Steps
from meltbench.report.sheet import markdown, rich_table
from meltbench.store import Store, open_store

GONE = {"host": os.uname().nodename, "pid": 1 << 22, "start_ticks": 1}
SIGHT = Sight(
    {"state": "running", "step": 3, "op": "http", "name": "requests", "done": 1, "of": 4},
    12.0,
    Now(48.25, "tokens that arrived, of all requests"),
    Now(None, reason="no_energy_source: none\x1b[2J"),
    Now(51.5, "thermal.cpu"),
    (None, 20.0, 48.25),
    (None, None, None),
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return open_store(tmp_path / "data")


def ticket(**more: Any) -> dict[str, Any]:
    ago = datetime.now(UTC) - timedelta(seconds=30)
    return (
        read()
        | {
            "device": {"name": "desk", "target": "local"},
            "model": {"name": "tiny"},
            "workload": {"name": "quick", "kind": "generate"},
            "spec": {"command": []},
            "started_at": ago.isoformat(),
            "expected_s": 3600.0,
            "controller": this_process(),
        }
        | more
    )


def begin(store: Store, there: Path | None = None, **more: Any) -> str:
    """A run that has begun; with ``there`` its folder lies on this machine."""
    folder = store.new_run({})
    where = f"{there or '/home/lab/.meltbench'}/runs/{folder.run_id}"
    folder.write_ticket(ticket(folder=where, **more) | {"run_id": folder.run_id})
    return folder.run_id


def at_work(there: Path, run_id: str, state: str = "running", pid: int | None = None) -> Path:
    """What a probe keeps in the folder of a run."""
    folder = there / "runs" / run_id
    folder.mkdir(parents=True)
    mine = this_process()
    told = {"state": state, "pid": pid or mine["pid"], "start_ticks": mine["start_ticks"]}
    (folder / "state").write_text(json.dumps(told))
    (folder / "journal").write_bytes(make.journal(*begun(), *(frame for n in range(6) for frame in second(n))))
    return folder


def only(found: list[Job]) -> Job:
    (job,) = found
    return job


def test_the_journal_of_this_machine_is_read_and_that_is_left_for_the_record(store: Store, tmp_path: Path) -> None:
    run_id = begin(store, tmp_path)
    folder = at_work(tmp_path, run_id)
    jobs = Jobs(store)
    job = only(jobs.look())
    assert (job.run_id, job.state, job.device, job.model, job.note) == (run_id, "running", "desk", "tiny", "")
    assert job.sight is not None
    assert job.sight.power.value == pytest.approx(12.5, rel=0.02)
    assert job.sight.token_rate.value == pytest.approx(25, rel=0.02)
    assert job.elapsed_s == pytest.approx(5.98, abs=0.05), "of the device's clock"
    assert job.left_s == pytest.approx(3600 - 5.98, abs=0.05)
    with (folder / "journal").open("ab") as file:
        file.write(b"".join(frame for n in range(6, 12) for frame in second(n, 25.0)))
    later = only(jobs.look())
    assert later.sight is not None
    assert later.sight.power.value == pytest.approx(25, rel=0.02)
    took = notes.gathered(run_id)
    assert took is not None
    assert (took["looks"], took["bytes"]) == (2, (folder / "journal").stat().st_size)
    assert notes.gathered(run_id) is None


def test_another_device_is_not_asked_and_what_its_controller_saw_is_shown(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "Looker", None)
    monkeypatch.setattr(subprocess, "Popen", None)
    far = {"name": "board", "target": "ssh"}
    watched, alone, left = (begin(store, device=far, controller=one) for one in (this_process(), this_process(), GONE))
    notes.publish(watched, SIGHT)
    notes.publish(left, SIGHT)
    by_id = {job.run_id: job for job in Jobs(store).look()}
    assert by_id[watched].sight == SIGHT
    assert (by_id[watched].note, by_id[watched].elapsed_s) == ("", 12.0)
    assert (by_id[alone].state, by_id[alone].sight, by_id[alone].note) == ("running", None, UNWATCHED)
    assert by_id[alone].elapsed_s == pytest.approx(30, abs=20)
    assert (by_id[left].state, by_id[left].sight, by_id[left].note) == ("detached", None, DETACHED)
    notes.withdraw(watched)
    assert notes.published(watched) is None


def test_a_run_without_a_controller_is_watched_all_the_same_and_one_that_ended_waits(
    store: Store, tmp_path: Path
) -> None:
    goes_on, ended, dead = (begin(store, tmp_path, controller=GONE) for _ in range(3))
    at_work(tmp_path, goes_on)
    at_work(tmp_path, ended, "ended")
    at_work(tmp_path, dead, pid=1 << 22)
    by_id = {job.run_id: job for job in Jobs(store).look()}
    assert (by_id[goes_on].state, by_id[goes_on].note) == ("detached", DETACHED)
    assert by_id[goes_on].sight is not None
    assert (by_id[ended].state, by_id[ended].note, by_id[ended].sight) == ("ended", ENDED, None)
    assert (by_id[dead].state, by_id[dead].note) == ("ended", ENDED)
    assert by_id[goes_on].left_s is not None
    assert (by_id[ended].left_s, by_id[dead].left_s) == (None, None)


def test_one_that_is_brought_in_or_gone_is_shown_no_more(store: Store, tmp_path: Path) -> None:
    stored, removed = begin(store, tmp_path), begin(store, tmp_path)
    jobs = Jobs(store)
    assert len(jobs.look()) == 2
    (store.folder(stored).path / "manifest.json").write_text("{}")
    store.discard(store.folder(removed))
    assert jobs.look() == []


def test_a_ticket_that_is_none_of_ours_is_shown_as_such(store: Store, tmp_path: Path) -> None:
    strange = store.new_run({"folder": "/x", "device": 3}).run_id
    elsewhere = begin(store, controller=GONE)
    abroad = store.new_run({}).run_id
    store.folder(abroad).write_ticket(ticket(folder="/etc", controller=GONE))
    early = store.new_run({"controller": this_process()}).run_id
    by_id = {job.run_id: job for job in Jobs(store).look()}
    assert (by_id[strange].state, by_id[strange].note) == ("unknown", "its ticket lacks what ours have")
    assert (by_id[elsewhere].state, by_id[elsewhere].note) == ("unknown", "nothing of it is on this machine")
    assert by_id[abroad].state == "unknown"
    assert "names '/etc' as its folder" in by_id[abroad].note
    assert (by_id[early].state, by_id[early].device) == ("running", "?")


def test_a_journal_that_may_not_be_read_is_told(store: Store, tmp_path: Path) -> None:
    run_id = begin(store, tmp_path)
    journal = at_work(tmp_path, run_id) / "journal"
    journal.unlink()
    journal.mkdir()
    job = only(Jobs(store).look())
    assert (job.state, job.sight) == ("unknown", None)
    assert "Is a directory" in job.note


def test_files_of_others_beside_the_notes_do_no_harm(store: Store) -> None:
    run_id = begin(store)
    notes.publish(run_id, SIGHT)
    path = next(notes._folder().glob(f"{run_id}*"))
    for text in ("", "[]", "{", '{"token_rate": 3}', "[" * 5000):
        path.write_text(text)
        assert notes.published(run_id) is None
    for name, text in (
        ("top-1", '{"looks": "x"}'),
        ("top-2", "{"),
        ("top-3", '{"looks": 2, "bytes": 7, "cpu_s": 0.5}'),
    ):
        (notes._folder() / f"{run_id}.{name}").write_text(text)
    forgotten = notes._folder() / "20200101T000000Z-000001.top-9"
    forgotten.write_text("{}")
    os.utime(forgotten, (1.6e9, 1.6e9))
    assert notes.gathered(run_id) == {"looks": 2, "bytes": 7, "cpu_s": 0.5}
    assert list(notes._folder().iterdir()) == []


# --- in words ---


def look(job: Job) -> Any:
    assert job.sight is not None
    return Steps().look(job.sight.status)


JOBS = [
    Job("20261120T000000Z-000001", "running", "board", "ssh", "tiny", "llama.cpp", "quick", None, 12.0, 90.0, SIGHT),
    Job("20261120T000000Z-000002", "running", "bo\x1bard", "ssh", elapsed_s=75.0, note=UNWATCHED),
]


def test_rows_say_what_is_known_and_what_is_not() -> None:
    text = markdown(living.jobs_sheet(JOBS, look))
    first, second_row = text.splitlines()[2:]
    assert "| answering requests, 1 of 4 | 12 s | ≤ 1 min 30 s | 48.2 tok/s | — | 51.5 °C |  ▄█ |" in first
    assert f"| running | 1 min 15 s | — | — | — | — | {UNWATCHED} |" in second_row
    assert "\x1b" not in text
    narrow = rich_table(living.jobs_sheet([*JOBS, replace(JOBS[0], model="m" * 40)], look, width=80))
    drawn = Console(width=80, file=io.StringIO(), record=True)
    drawn.print(narrow)
    shown = drawn.export_text()
    for words in ("board", "tiny", "answering", "running:", "crosses", "12 s", "48.2 tok/s", "51.5 °C"):
        assert words in shown, words
    slim = Console(width=60, file=io.StringIO(), record=True)
    slim.print(rich_table(living.jobs_sheet([replace(JOBS[0], device="workbench"), *JOBS], look, width=60)))
    shown = slim.export_text()
    for words in ("workbench", "answering", "watched", "48.2 tok/s", "51.5 °C"):
        assert words in shown, words
    assert "crosses" not in shown
    assert "<= 1 min 30 s" in "".join(living.jobs_sheet(JOBS, look, bars=False).rows[0])


def test_every_key_of_the_document_is_described_and_a_missing_number_has_its_reason() -> None:
    told = living.jobs_json([*JOBS, replace(JOBS[0], sight=replace(SIGHT, power=Now(float("nan"))))], look)
    assert problems(NAMED["top"], told) == []
    assert (told[0]["tokens_per_s"], told[0]["power_w"], told[0]["temp_c"]) == (48.25, None, 51.5)
    assert told[0]["power_w_reason"] == "no_energy_source: none\ufffd[2J"
    assert told[1]["tokens_per_s_reason"] == UNWATCHED
    assert told[2]["power_w"] is None
    assert json.dumps(told, allow_nan=False)


def test_a_line_names_what_is_missing_and_draws_how_it_went() -> None:
    assert living.line(SIGHT) == "48.2 tok/s  ▄█, no power (no_energy_source), 51.5 °C"
    assert living.line(SIGHT, bars=False) == "48.2 tok/s, no power (no_energy_source), 51.5 °C"
    assert (
        living.job_line(JOBS[0], look)
        == f"{JOBS[0].run_id} board: answering requests, {living.line(SIGHT, bars=False)}"
    )
    assert living.job_line(JOBS[1], look) == f"{JOBS[1].run_id} bo\ufffdard: running, {UNWATCHED}"
    assert living.spark([None, None]) == ""
    assert living.spark([0.0]) == ""
    assert len(living.spark([1.0] * 40)) == 12


def test_where_there_is_no_terminal_lines_are_few() -> None:
    said: list[str] = []
    now = [100.0]
    ticker = living.Ticker(said.append, lambda: now[0])
    ticker.show(replace(SIGHT, status={"state": "starting"}))
    assert said == []
    for _ in range(11):
        ticker.show(SIGHT)
        now[0] += 1
    assert said == [f"answering requests: {living.line(SIGHT, bars=False)}"] * 3
    ticker.show(replace(SIGHT, token_rate=Now(None, reason="no_token: none")))
    assert said[3:] == ["answering requests: no token rate (no_token), no power (no_energy_source), 51.5 °C"]
