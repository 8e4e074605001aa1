"""Looks at a run that is under way: what they read, what they took, and that none of them can end the run."""

from __future__ import annotations

import shutil
import subprocess
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import journalmaker as make
import pytest
from test_follow import ENDED, Target, calm
from test_live_picture import begun, second, ticket

from meltbench import follow, road
from meltbench.errors import LinkLost, UserError
from meltbench.follow import Lengths, Silence
from meltbench.live import looking, notes
from meltbench.live.looking import Live, Looker, here, intent, there
from meltbench.live.picture import Picture, Sight
from meltbench.report.progress import Lines
from meltbench.targets import Completed

RUN = "20261120T000000Z-000001"


@pytest.fixture(autouse=True)
def own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(looking, "LOCAL_S", 0.0)
    monkeypatch.setattr(looking, "LINK_S", 0.0)


class Link:
    """A transport whose other end is this machine; it counts what crosses it."""

    def __init__(self, path: str | None = None) -> None:
        self.bytes = self.calls = 0
        self.lost = False
        self.env = None if path is None else {"PATH": path}

    def run(self, argv: Any, _deadline: Any) -> Completed:
        if self.lost:
            raise LinkLost("the link is cut")
        done = subprocess.run(["/bin/sh", *argv[1:]], capture_output=True, check=False, env=self.env)
        self.calls += 1
        self.bytes += len(done.stdout)
        return Completed(done.returncode, done.stdout, done.stderr)


def journal_of(folder: Path, seconds: int) -> Path:
    path = folder / "journal"
    path.write_bytes(make.journal(*begun(), *(frame for n in range(seconds) for frame in second(n))))
    return path


def live_of(folder: Path, link: str, seen: list[Sight], said: list[str]) -> tuple[Live, Link]:
    wire = Link()
    told = ticket(run_id=RUN, folder=str(folder), live=intent(link))
    probe: Any = type("P", (), {"transport": wire})()
    return Live(probe, told, seen.append, Lines(said.append)), wire


def test_both_ways_see_the_same_and_only_what_is_new_is_read(tmp_path: Path) -> None:
    link = Link()
    path = tmp_path / "journal"
    lookers = [Looker(Picture(ticket()), more) for more in (here(path), there(link, str(path)))]  # type: ignore[arg-type]
    assert [looker.look(whole=False).power.value for looker in lookers] == [None, None]
    for seconds in range(1, 9):
        journal_of(tmp_path, seconds)
        by_file, by_link = (looker.look(whole=False) for looker in lookers)
        assert by_file == by_link
    assert by_file.power.value == pytest.approx(12.5, rel=0.02)
    size = path.stat().st_size
    assert [looker.bytes for looker in lookers] == [size, size]
    assert size <= link.bytes <= size + 9 * 4096
    assert lookers[0].told()["looks"] == 9
    assert lookers[0].cpu_s > 0


def test_a_system_without_dd_tells_the_same(tmp_path: Path) -> None:
    small = tmp_path / "bin"
    small.mkdir()
    for name in ("tail", "head"):
        (small / name).symlink_to(str(shutil.which(name)))
    path = journal_of(tmp_path, 6)
    whole = path.read_bytes()
    for link in (Link(), Link(str(small))):
        more = there(link, str(path))  # type: ignore[arg-type]
        for at in (0, 1, 4095, 4096, 9000, len(whole) - 1, len(whole), len(whole) + 10_000):
            assert more(at) == whole[at:], at
        assert there(link, str(tmp_path / "none"))(0) == b""  # type: ignore[arg-type]


def test_a_long_journal_is_read_whole_where_it_is_at_hand_and_a_piece_at_a_time_over_a_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(looking, "_PIECE_BYTES", 8192)
    monkeypatch.setattr(looking, "_LINK_BYTES", 8192)
    path = journal_of(tmp_path, 20)
    whole = Looker(Picture(ticket()), here(path))
    assert whole.look().elapsed_s == pytest.approx(19.98, abs=0.03)
    link = Link()
    far = Looker(Picture(ticket()), there(link, str(path)))  # type: ignore[arg-type]
    first = far.look(whole=False)
    assert first.elapsed_s is not None
    assert first.elapsed_s < 10
    assert link.calls == 1
    for _ in range(40):
        last = far.look(whole=False)
    assert last.elapsed_s == pytest.approx(19.98, abs=0.03)


def test_what_it_took_is_told_and_what_was_published_is_taken_back(tmp_path: Path) -> None:
    journal_of(tmp_path, 6)
    seen: list[Sight] = []
    live, link = live_of(tmp_path, "ssh", seen, [])
    live.look()
    assert notes.published(RUN) == seen[0] == live.sight
    done = live.done()
    assert (done["link"], done["looks"]) == ("ssh", 1)
    assert 0 < done["bytes"] <= link.bytes
    assert notes.published(RUN) is None
    near, _ = live_of(tmp_path, "local", seen, [])
    near.look()
    assert notes.published(RUN) is None, "whoever is here reads the journal itself"
    assert near.done()["link"] == "local"


def test_looks_are_as_far_apart_as_the_record_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "LOCAL_S", 3600.0)
    journal_of(tmp_path, 3)
    seen: list[Sight] = []
    live, _ = live_of(tmp_path, "local", seen, [])
    for _ in range(5):
        live.look()
    assert len(seen) == 1
    assert live.done()["period_s"] == 3600.0


def test_a_link_that_is_cut_shows_nothing_new_and_ends_nothing(tmp_path: Path) -> None:
    journal_of(tmp_path, 3)
    seen: list[Sight] = []
    said: list[str] = []
    live, link = live_of(tmp_path, "ssh", seen, said)
    first = live.look()
    link.lost = True
    assert live.look() is first
    link.lost = False
    journal_of(tmp_path, 9)
    live.look()
    assert len(seen) == 2
    assert seen[1].elapsed_s == pytest.approx(8.98, abs=0.03)
    assert said == []


def test_a_fault_of_the_view_is_told_once_and_the_run_goes_on(tmp_path: Path) -> None:
    journal_of(tmp_path, 3)
    said: list[str] = []

    def show(_sight: Sight) -> None:
        raise ZeroDivisionError("a bug")

    live, _ = live_of(tmp_path, "local", [], said)
    live._show = show
    for _ in range(3):
        live.look()
    assert said == ["the live view has ended, the run goes on: ZeroDivisionError: a bug"]
    assert live.done()["looks"] == 1


def test_looks_over_a_link_that_is_to_be_cut_are_refused_before_anything_is_done() -> None:
    plan: Any = SimpleNamespace(spec=SimpleNamespace(unplug="hub"))
    with pytest.raises(UserError, match="--live looks over the link that --unplug cuts"):
        next(road.run(plan, None, Lines(print), None, lambda _sight: None))  # type: ignore[arg-type]


def test_a_silence_that_is_broken_with_live_shows_the_step_and_else_asks_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "_TICK_S", 0.02)
    journal_of(tmp_path, 4)
    seen: list[Sight] = []
    live, link = live_of(tmp_path, "ssh", seen, [])
    steps: list[str] = []
    watch = Lines(steps.append)
    for one in (live, None):
        target = Target([ENDED], [])
        threading.Timer(0.4, target.over.set).start()
        silence = Silence(target, "/runs/one", Lengths(0.0, 30.0, 60.0), None, one)  # type: ignore[arg-type]
        assert (dict(silence.wait(watch, calm())), silence.looks) == (ENDED, 0)
        assert target.asked == ["wait"]
        if one is not None:
            looked = link.calls
            assert looked == len(seen) > 0
            assert steps == ["answering requests"]
    assert link.calls == looked
    assert steps == ["answering requests", "measuring, with nothing asked of the device"]
