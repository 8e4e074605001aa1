"""Whatever happens to the link, the device or the controller in a run: it is stored whole, or as what it is."""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from road_kit import EXEC, GATED, Road, numbers, reasons
from rooms_kit import RoomTarget, plain_room
from targets_kit import Keys, keygen, sh

SLEEP = ("--", "sleep", "1")


@pytest.fixture
def own_room(tmp_path: Path, probe_binary: Path) -> Iterator[RoomTarget]:
    """A room for a test that leaves it another than it was."""
    with plain_room(tmp_path / "room", Keys(tmp_path / "keys"), "lab-own") as target:
        yield target


# --- the link ---

# Where and how it is cut, and what the run comes to: refused before anything was made of it, given up and nothing is
# left of it once it was reached again, or a run that `collect` brings in.
GONE = [
    ("connect", "drop", "refused"),
    ("probe", "reset", "refused"),
    ("before:lease", "cut", "refused"),
    ("before:unpack", "reset", "given up"),
    ("before:run", "drop", "given up"),
    ("lost:run", "cut", "collected"),
    ("pull", "reset", "collected"),
]


@pytest.mark.parametrize(("stage", "how", "comes_to"), GONE)
def test_the_link_is_gone_for_longer_than_anybody_waits(road: Road, stage: str, how: str, comes_to: str) -> None:
    if stage == "probe":
        shutil.rmtree(road.there / "bin")
    controller = road.staged(stage, *EXEC, *SLEEP).reached()
    getattr(road.target.wire, how)()
    controller.go()
    code, _, err = controller.end()
    road.target.wire.restore()
    assert code == 1
    assert "meltbench: lab@lab-plain cannot be reached" in err or "the link to lab@lab-plain was lost" in err
    runs = road.run_ids()
    if comes_to == "refused":
        assert runs == []
    else:
        (run,) = runs
        assert f"meltbench collect {run}" in err
        done = road.run("collect")
        assert done.returncode == 0, done.stderr
        assert ("was never started: removed" in done.stderr) == (comes_to == "given up")
    assert len(road.honest()) == (comes_to == "collected")
    if stage == "probe":  # sshd there was not told either: it finds out by its own TCPKeepAlive, which takes two hours
        road.target.kill_sshd()
        road.target.ready()
    road.nothing_left()


@pytest.mark.parametrize("stage", ["lost:run", "pull"])
def test_a_link_that_comes_back_in_time_costs_nobody_a_run(road: Road, stage: str) -> None:
    road.env["STAGED_PAUSE_S"] = "1"
    controller = road.staged(stage, *EXEC, *SLEEP).reached()
    road.target.wire.reset()
    threading.Timer(1.5, road.target.wire.restore).start()
    controller.go()
    code, _, err = controller.end()
    assert code == 0, err
    (run,) = road.honest()
    assert run["outcome"] == "done"
    road.nothing_left()


def test_a_start_that_arrives_once_it_was_given_up_starts_nothing(road: Road) -> None:
    road.close_gate()
    code, _, err = road.staged("late:run", *EXEC, *GATED).end()
    assert (code, "the link was cut while it was sent" in err) == (1, True)
    assert road.run_ids() == []
    road.nothing_left()


def test_a_run_that_was_stored_and_not_removed_is_removed_by_collect(road: Road) -> None:
    controller = road.staged("fetched", *EXEC, *SLEEP).reached()
    road.target.wire.reset()
    controller.go()
    code, _, err = controller.end()
    road.target.wire.restore()
    assert (code, "is stored, and lies on its device still" in err) == (0, True)
    assert len(road.honest()) == 1
    assert road.device_files() != []
    assert road.json("collect", "--device", "box") == []
    road.nothing_left()


@pytest.mark.parametrize(("name", "how"), [("idle_before", "cut"), ("run", "drop"), ("idle_after", "cut")])
def test_the_link_is_gone_while_it_measures(road: Road, name: str, how: str) -> None:
    controller = road.staged("never", *EXEC, "--set", "idle_s=1.5", *SLEEP)
    step = "engine" if name == "run" else name
    road.until_run(lambda state: state.get("name") == step)
    getattr(road.target.wire, how)()
    road.until_ended()
    road.target.wire.restore()
    code, _, err = controller.end()
    assert code == 0, err
    (run,) = road.honest()
    assert run["outcome"] == "done"
    road.nothing_left()


def test_a_link_that_blinks_all_the_time(road: Road) -> None:
    over = threading.Event()

    def blink() -> None:
        while not over.wait(0.8):
            road.target.wire.cut()
            time.sleep(0.4)
            road.target.wire.restore()

    thread = threading.Thread(target=blink)
    thread.start()
    try:
        done = road.run(*EXEC, "--", "sleep", "2")
    finally:
        over.set()
        thread.join()
    assert done.returncode == 0, done.stderr
    (run,) = road.honest(2.0)
    assert run["outcome"] == "done"
    road.nothing_left()


def test_sshd_killed_while_it_measures(road: Road) -> None:
    controller = road.staged("never", *EXEC, "--", "sleep", "2")
    road.until_run(lambda state: state.get("op") == "exec")
    road.target.kill_sshd()
    code, _, err = controller.end()
    assert code == 0, err
    assert "the link is lost" in err
    (run,) = road.honest(2.0)
    assert run["outcome"] == "done"
    road.nothing_left()


def test_another_host_key_is_refused_at_once_and_its_run_is_not_lost(tmp_path: Path, own_room: RoomTarget) -> None:
    road = Road(tmp_path / "a", target=own_room).added()
    controller = road.staged("never", *EXEC, "--", "sleep", "2")
    road.until_run(lambda state: state.get("op") == "exec")
    old = own_room.room.path("/etc/ssh/host_key").read_bytes()
    new = keygen(own_room.room.path("/etc/ssh/host_key"))
    road.target.kill_sshd()
    code, _, err = controller.end()
    assert code == 1
    line = err.splitlines()[-1]
    assert "host key" in line, err
    (run,) = road.run_ids()
    assert f"meltbench collect {run}" in line
    refused = road.run("collect")
    assert (refused.returncode, "host key" in refused.stderr) == (1, True)
    assert road.stored() == []
    assert old != new.read_bytes()
    own_room.keys.known.write_text("")  # and nor is one taken that nobody knows
    refused = road.run(*EXEC, *SLEEP)
    assert (refused.returncode, "SHA256:" in refused.stderr) == (1, True), refused.stderr
    own_room.keys.trust(own_room.name, new)
    assert [one["outcome"] for one in road.json("collect")] == ["done"]
    road.honest(2.0)
    road.nothing_left()


def test_a_device_that_moves_while_it_measures_is_found_by_its_board(tmp_path: Path, own_room: RoomTarget) -> None:
    road = Road(tmp_path / "a", target=own_room).added()
    controller = road.staged("never", *EXEC, "--", "sleep", "2")
    road.until_run(lambda state: state.get("op") == "exec")
    address = own_room.wire.change_address()
    for _ in range(2):  # nobody hears that it moved, for nothing is asked; who gives up is told what to do
        controller.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
    code, _, err = controller.end()
    assert code == 1
    assert f"meltbench collect {road.run_ids()[0]}" in err
    lost = road.run("collect")
    assert (lost.returncode, "cannot be reached" in lost.stderr) == (1, True)
    host_key = own_room.room.path("/etc/ssh/host_key")
    own_room.keys.add("lab-moved", address, 22, own_room.user, host_key)
    added = road.run("devices", "add", "box", "--ssh", f"{own_room.user}@lab-moved")
    assert (added.returncode, "moved" in added.stdout) == (0, True), added.stderr + added.stdout
    assert [one["outcome"] for one in road.json("collect")] == ["done"]
    road.honest(2.0)
    own_room.keys.move(own_room.name, address)
    road.nothing_left()


def test_nothing_crosses_the_link_while_it_measures(road: Road) -> None:
    net = f"--net={road.target.room.net}"
    rule = "meta l4proto { tcp, udp, icmp } counter"  # all but the kernel's search for neighbours
    table = (
        f"table inet seen {{\nchain in {{\ntype filter hook input priority -9; iif lo accept; {rule}\n}}\n"
        f"chain out {{\ntype filter hook output priority -9; oif lo accept; {rule}\n}}\n}}\n"
    )

    def packets() -> int:
        told = sh("nsenter", net, "nft", "list", "table", "inet", "seen")
        return sum(int(count) for count in re.findall(r"packets (\d+)", told))

    sh("nsenter", net, "nft", table)
    try:
        controller = road.staged("after:run", *EXEC, "--set", "idle_s=2", "--", "sleep", "10").reached()
        at_start = packets()
        controller.go()
        road.until_run(lambda state: state.get("op") == "exec")
        before = packets()
        road.until_run(lambda state: state.get("name") == "idle_after")
        within = packets() - before
        code, _, err = controller.end()
    finally:
        sh("nsenter", net, "nft", "delete", "table", "inet", "seen")
    assert code == 0, err
    assert before > at_start, "the counters count"
    assert within == 0
    (run,) = road.honest(10.0)
    assert "link_traffic" not in reasons(run)


# --- the device ---


def test_a_reboot_in_a_run_ends_it_as_such(road: Road) -> None:
    controller = road.staged("never", *EXEC, "--", "sleep", "30")
    road.until_run(lambda state: state.get("op") == "exec")
    road.target.reboot()
    code, _, err = controller.end()
    assert code == 1, err
    (run,) = road.honest()
    assert run["outcome"] == "failed"
    assert "device_rebooted" in reasons(run)
    assert [phase["name"] for phase in run["phases"]][:1] == ["idle_before"], "what there is is kept"
    road.nothing_left()


@pytest.mark.parametrize("victims", [("pid",), ("guard_pid",), ("guard_pid", "pid")])
def test_the_probe_killed_on_the_device(road: Road, victims: tuple[str, ...]) -> None:
    controller = road.staged("never", *EXEC, "--", "sleep", "30")
    state = road.until_run(lambda state: state.get("op") == "exec")
    for victim in victims:
        road.kill_there(int(state[victim]))
    code, _, err = controller.end()
    assert code in (1, 130), err
    (run,) = road.honest()
    assert run["outcome"] in ("failed", "stopped")
    road.nothing_left()


def test_a_disk_that_is_full_before_the_start(road: Road) -> None:
    road.fill_disk()
    try:
        done = road.run(*EXEC, *SLEEP)
    finally:
        road.drain_disk()
    assert done.returncode == 1
    (said,) = (line for line in done.stderr.splitlines() if line.startswith("meltbench: "))
    assert re.fullmatch(r".*: No space left on device; free space there, .*: meltbench devices cache box", said), said
    assert road.honest() == []
    assert road.run_ids() == []
    road.nothing_left()


def test_a_disk_that_fills_while_the_journal_is_written(road: Road) -> None:
    controller = road.staged("never", *EXEC, "--", "sleep", "8")
    road.until_run(lambda state: state.get("op") == "exec")
    road.fill_disk()
    try:
        code, _, err = controller.end()
    finally:
        road.drain_disk()
    assert code == 1, err
    (run,) = road.honest()
    assert run["outcome"] == "failed"
    assert "journal_full" in reasons(run)
    road.nothing_left()


# --- the controller ---


@pytest.mark.parametrize(
    "stage", ["probe", "before:lease", "before:unpack", "after:unpack", "after:run", "pull", "fetched"]
)
def test_the_controller_killed_at_a_stage(road: Road, stage: str) -> None:
    if stage == "probe":
        shutil.rmtree(road.there / "bin")
    road.staged(stage, *EXEC, *SLEEP).reached().kill()
    runs = road.run_ids()
    started = stage in ("after:run", "pull", "fetched")
    if stage in ("probe", "before:lease"):
        assert runs == []
    else:
        collected = road.json("collect")
        assert [one["outcome"] for one in collected] == ["done"] * started
    assert len(road.honest()) == started
    road.nothing_left()


def test_another_controller_brings_a_run_in_with_the_inventory_alone(road: Road, tmp_path: Path) -> None:
    controller = road.staged("after:run", *EXEC, *SLEEP).reached()
    controller.kill()
    (run,) = road.run_ids()
    road.until_ended()
    (folder,) = (path.parent for path in road.jobs())
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    shutil.copytree(road.data, tmp_path / "kept")

    other = Road(tmp_path / "other", target=road.target).knows(road)
    blind = other.run("collect")
    say = f"box holds a run ({run}) that is not in this store: meltbench collect --device box"
    assert (blind.returncode, say in blind.stderr) == (1, True), blind.stderr  # there is no store yet
    (brought,) = other.json("collect", "--device", "box")
    assert brought["run_id"] == run
    assert len(other.honest()) == 1
    other.nothing_left()
    after = other.run("collect")
    assert (after.returncode, "holds" in after.stderr) == (0, False), after.stderr

    # What the controller that is gone would have made of it.
    shutil.copytree(tmp_path / "copy", folder)
    for path in (folder, *folder.rglob("*")):
        os.chown(path, 1000, 1000)
    (own,) = road.json("collect")
    assert numbers(own) == numbers(brought)
    again = other.run("collect", "--device", "box")
    assert (again.returncode, "nothing to collect" in again.stderr) == (0, True)
    road.nothing_left()


def test_ten_runs_with_faults_in_a_row_leave_nothing(road: Road) -> None:
    stages = ["before:unpack", "lost:run", "after:run", "pull", "fetched"]
    for number, stage in enumerate(stages * 2):
        controller = road.staged(stage, *EXEC, "--", "sleep", "0.2").reached()
        road.target.wire.reset()
        if number < len(stages):
            controller.kill()
        else:
            controller.go()
            if stage == "after:run":
                road.until_ended()
                road.target.wire.restore()
            controller.end()
        road.target.wire.restore()
    assert road.run("collect", "--device", "box").returncode == 0
    runs = road.honest(0.2)
    assert [run["outcome"] for run in runs] == ["done"] * 8
    road.nothing_left()
