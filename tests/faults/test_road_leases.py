"""Two controllers and one device, over the whole road: one measures at a time, and what the other ends is told so."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from road_kit import EXEC, GATED, Road, reasons
from rooms_kit import RoomTarget


@pytest.fixture
def both(tmp_path: Path, plain: RoomTarget, first: Road) -> Iterator[tuple[Road, Road]]:
    """Two controllers with stores of their own that know one room."""
    one, other = (Road(tmp_path / name, target=plain).knows(first) for name in ("one", "other"))
    one.close_gate()
    yield one, other
    one.nothing_left()
    other.nothing_left()


def test_the_second_is_told_who_measures_and_waits_or_takes_it(both: tuple[Road, Road]) -> None:
    one, other = both
    controller = one.staged("never", *EXEC, *GATED)
    one.until_run(lambda state: state.get("op") == "exec")
    refused = other.run(*EXEC, "--", "true")
    assert refused.returncode == 1
    line = refused.stderr.splitlines()[-1]
    for word in (
        "the target is leased: ",
        f"process {controller.process.pid}",
        str(one.data)[:20],
        "--wait",
        "--steal",
    ):
        assert word in line
    assert other.run_ids() == []
    waiting = other.staged("waiting", *EXEC, "--wait", "--", "sleep", "1").reached()
    waiting.go()
    one.open_gate()
    code, _, err = controller.end()
    assert code == 0, err
    code, _, err = waiting.end()
    assert code == 0, err
    assert "waiting for the target: " in err
    (of_one,), (of_other,) = one.honest(0.0), other.honest(1.0)
    assert of_one["ended_at"] < of_other["started_at"]
    # Who was refused looked and asked, once each; so did who waited, once, and then sent nothing until the end.
    (traffic,) = (one["detail"] for one in of_one["reasons"] if one["code"] == "link_traffic")
    assert "4 visits of others over the link" in traffic
    assert "link_traffic" not in reasons(of_other)


def test_a_theft_ends_the_run_of_the_other_and_stands_in_both(both: tuple[Road, Road]) -> None:
    one, other = both
    controller = one.staged("never", *EXEC, "--reps", "2", "--", "sleep", "60")
    one.until_run(lambda state: state.get("op") == "exec")
    done = other.run(*EXEC, "--steal", "the rack is mine", "--", "sleep", "1")
    assert done.returncode == 0, done.stderr
    code, _, err = controller.end()
    assert code == 130 or "taken over" in err, err
    (lost,), (won,) = one.honest(), other.honest(1.0)
    assert lost["outcome"] == "stopped"
    assert "took the device over" in lost["failure"]
    lease = won["conditions"]["lease"]
    assert (str(controller.process.pid) in lease["stolen_from"], lease["reason"]) == (True, "the rack is mine")
    assert (lost["conditions"]["lease"]["stolen_by"], lost["conditions"]["lease"]["stolen_for"]) == (
        lease["holder"],
        "the rack is mine",
    )


def test_a_holder_that_is_stopped_past_its_lease_is_refused_when_it_goes_on(both: tuple[Road, Road]) -> None:
    one, other = both
    one.env["STAGED_TTL_S"] = "1.5"
    controller = one.staged("start", *EXEC, "--", "sleep", "1").reached()
    controller.process.send_signal(signal.SIGSTOP)
    controller.go()
    done = other.run(*EXEC, "--wait", "--", "sleep", "1")
    assert done.returncode == 0, done.stderr
    controller.process.send_signal(signal.SIGCONT)
    code, _, err = controller.end()
    assert code == 1
    assert "the lease" in err.splitlines()[-1], err
    assert (one.run_ids(), len(other.honest(1.0))) == ([], 1)


def test_a_holder_that_is_stopped_while_its_run_measures_has_it_when_it_goes_on(both: tuple[Road, Road]) -> None:
    one, other = both
    one.env["STAGED_TTL_S"] = "1.5"
    controller = one.staged("never", *EXEC, *GATED)
    one.until_run(lambda state: state.get("op") == "exec")
    controller.process.send_signal(signal.SIGSTOP)
    time.sleep(2)  # longer than the lease of an idle device lasts: its job holds it
    assert other.run(*EXEC, "--", "true").returncode == 1
    one.open_gate()
    one.until_ended()
    following = other.run(*EXEC, "--wait", "--", "sleep", "1")
    assert following.returncode == 0, following.stderr
    controller.process.send_signal(signal.SIGCONT)
    code, _, err = controller.end()
    assert code == 0, err
    assert [run["outcome"] for run in one.honest(0.0) + other.honest(1.0)] == ["done", "done"]


def test_who_was_killed_holds_nothing_once_its_run_has_ended(both: tuple[Road, Road]) -> None:
    one, other = both
    one.env["STAGED_TTL_S"] = "60"
    one.staged("after:run", *EXEC, *GATED).reached().kill()
    waiting = other.staged("waiting", *EXEC, "--wait", "--", "sleep", "1").reached()
    waiting.go()
    one.open_gate()
    code, _, err = waiting.end()
    assert code == 0, err
    assert "its process has ended" in err
    assert [run["outcome"] for run in one.json("collect") + other.honest(1.0)] == ["done", "done"]
    one.honest(0.0)


def test_of_two_that_begin_at_once_one_is_refused(both: tuple[Road, Road]) -> None:
    ends: list[int] = []
    controllers = [road.staged("before:lease", *EXEC, "--", "sleep", "2").reached() for road in both]
    for controller in controllers:
        controller.go()
    threads = [threading.Thread(target=lambda c=controller: ends.append(c.end()[0])) for controller in controllers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ends) == [0, 1]
    assert len(both[0].honest(2.0)) + len(both[1].honest(2.0)) == 1
