from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from probe_kit import Lab, call, probe_path, py, result, sh

from meltbench.probe.journal import parse_journal

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    (tmp_path / "knob").write_text("old")
    return Lab(tmp_path)


FLOOD = f"channel f lines -- {py('while True: print(chr(122) * 2000, flush=True)')}"
FORKS = "(setsid sleep 300 &); sleep 301 & echo up; exec sleep 302"


def job(knob: Path) -> list[str]:
    return [
        "channel u file /proc/uptime 5000000",
        f"channel p poll 30000000 500 -- {sh('echo x')}",
        f"channel l lines -- {sh('while true; do echo y; sleep 0.01; done')}",
        f"step undo -- {sh(f'echo more >> {knob}')}",
        f"step set {knob} new",
        f"step spawn p -- {sh(FORKS)}",
        "step idle long 60000",
    ]


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.05, 0.3])
@pytest.mark.parametrize("victims", [("pid",), ("guard_pid",), ("pid", "guard_pid"), ("guard_pid", "pid")])
def test_a_kill_leaves_nothing_behind(lab: Lab, tmp_path: Path, victims: tuple[str, ...], delay_s: float) -> None:
    knob = tmp_path / "knob"
    running = lab.start(*job(knob))
    time.sleep(delay_s)
    state = lab.state()
    for victim in victims:
        os.kill(state[victim], signal.SIGKILL)
    running.wait(30)
    if victims == ("guard_pid",):
        lab.until(lambda: lab.state()["state"] == "ended")
        assert result(lab.journal()) == ("stopped", "guard")
    elif victims == ("pid",):
        assert result(lab.journal()) == ("failed", "probe_killed")
    else:
        assert lab.journal().end is None or delay_s == 0
        lab.until(lambda: call("recover", lab.root).returncode == 0)
        assert result(lab.journal()) == ("failed", "probe_killed")
    assert knob.read_text().splitlines()[0] in ("old", "oldmore")
    lab.until(lambda: lab.left() == [])
    assert lab.state()["state"] == "ended"
    assert not (lab.dir / "undo").exists()
    assert not (lab.dir / "reserve").exists()
    before = (lab.dir / "journal").read_bytes()
    assert call("recover", lab.root).returncode == 0
    assert call("stop", lab.dir).returncode == 0
    assert (lab.dir / "journal").read_bytes() == before
    assert [e["seq"] for e in lab.journal().events] == list(range(len(lab.journal().events)))


def test_the_next_run_mends_what_died(lab: Lab, tmp_path: Path) -> None:
    running = lab.start(*job(tmp_path / "knob"))
    lab.until(lambda: lab.state().get("name") == "long")
    os.kill(lab.state()["guard_pid"], signal.SIGSTOP)
    os.kill(lab.state()["pid"], signal.SIGKILL)
    os.kill(lab.state()["guard_pid"], signal.SIGKILL)
    running.wait(30)
    assert (tmp_path / "knob").read_text() == "new"
    following = Lab(tmp_path)
    assert result(following.run("step mark m")) == ("done", "")
    assert (tmp_path / "knob").read_text() == "oldmore\n"
    assert result(lab.journal()) == ("failed", "probe_killed")
    assert lab.left() == []


@pytest.mark.parametrize("state", ["", None, '{"state":"ended"}'])
def test_a_power_cut_may_take_the_state(lab: Lab, tmp_path: Path, state: str | None) -> None:
    running = lab.start(f"step set {tmp_path}/knob new", "step idle long 60000")
    lab.until(lambda: lab.state().get("name") == "long")
    os.kill(lab.state()["guard_pid"], signal.SIGSTOP)
    for victim in ("pid", "guard_pid"):
        os.kill(lab.state()[victim], signal.SIGKILL)
    running.wait(30)
    (lab.dir / "state").unlink() if state is None else (lab.dir / "state").write_text(state)
    assert call("recover", lab.root).returncode == 0
    assert (tmp_path / "knob").read_text() == "old"
    assert result(lab.journal()) == ("failed", "probe_killed")
    assert (lab.state()["state"], (lab.dir / "undo").exists()) == ("ended", False)


def test_a_long_undo_list_is_worked_off_whole(lab: Lab, tmp_path: Path) -> None:
    values = [f"{i:02d}" + "#" * 4000 for i in range(99)]  # three bytes each in the list: more than 1 MiB
    for i, value in enumerate(values):
        (tmp_path / f"v{i:02d}").write_text(value)
    assert result(lab.run(f"step set {tmp_path}/v* new")) == ("done", "")
    assert [(tmp_path / f"v{i:02d}").read_text() for i in range(99)] == values


@pytest.mark.parametrize("killed", [False, True])
def test_undo_commands_leave_no_process(lab: Lab, tmp_path: Path, killed: bool) -> None:
    running = lab.start(
        f"channel p poll 20000000 5000 -- {sh('(setsid sleep 300 &)')}",
        f"step undo -- {sh(f'(setsid sleep 300 &); echo ran > {tmp_path}/knob')}",
        f"step idle a {60000 if killed else 100}",
    )
    if killed:
        lab.until(lambda: lab.state().get("name") == "a")
        os.kill(lab.state()["pid"], signal.SIGKILL)
    running.wait(20)
    assert (tmp_path / "knob").read_text() == "ran\n"
    assert lab.left() == []


def test_a_recycled_pid_is_never_signalled(lab: Lab) -> None:
    running = lab.start("step idle long 60000")
    state = lab.state()
    for victim in ("guard_pid", "pid"):
        os.kill(state[victim], signal.SIGKILL)
    running.wait(30)
    time.sleep(0.05)  # starts are told apart by kernel ticks of 10 ms
    with subprocess.Popen(["sleep", "300"]) as innocent:
        try:
            text = (lab.dir / "state").read_text()
            for victim in ("guard_pid", "pid"):
                text = text.replace(str(state[victim]), str(innocent.pid))
            (lab.dir / "state").write_text(text)
            assert call("stop", lab.dir).returncode == 0
            assert innocent.poll() is None
        finally:
            innocent.kill()
    assert result(lab.journal()) == ("failed", "probe_killed")


def test_other_children_of_the_caller_are_left_alone(lab: Lab, tmp_path: Path) -> None:
    # A shell that becomes the guard keeps the children it had.
    lab.job("step idle long 60000")
    script = f"sleep 300 & echo $! > {tmp_path}/mine; exec {probe_path()} run {lab.dir}"
    with subprocess.Popen(["sh", "-c", script]) as running:
        lab.until(lambda: lab.state().get("name") == "long")
        mine = int((tmp_path / "mine").read_text())
        os.kill(lab.state()["pid"], signal.SIGKILL)
        running.wait(30)
    os.kill(mine, 0)
    os.kill(mine, signal.SIGKILL)
    assert result(lab.journal()) == ("failed", "probe_killed")


@pytest.mark.parametrize("killed", [False, True])
def test_a_caller_that_ignores_its_children(lab: Lab, tmp_path: Path, killed: bool) -> None:
    # An ignored SIGCHLD outlives exec, and the kernel then reaps what the probe waits for.
    knob = tmp_path / "knob"
    lab.job(f"step undo -- {sh('exit 3')}", f"step set {knob} new", f"step idle a {60000 if killed else 1}")
    running = subprocess.Popen(
        [probe_path(), "run", lab.dir], preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    )
    try:
        if killed:
            lab.until(lambda: lab.state().get("name") == "a")
            os.kill(lab.state()["pid"], signal.SIGKILL)
        assert running.wait(20) == 0
    finally:
        running.kill()
    assert result(lab.journal()) == (("failed", "probe_killed") if killed else ("done", ""))
    assert [e["result"] for e in lab.journal().named("undo")] == ["ok", "exit 3"]
    assert knob.read_text() == "old"


def test_a_journal_cut_anywhere_can_be_read(lab: Lab) -> None:
    journal = lab.run(
        "channel u file /proc/uptime 0", "step mark a", "step idle b 10", f"step exec c 5000 -- {sh('echo hi')}"
    )
    whole = (lab.dir / "journal").read_bytes()
    seen = 0
    for cut in range(len(whole)):
        part = parse_journal(whole[:cut])
        assert part.events == journal.events[: len(part.events)]
        assert len(part.events) >= seen
        assert part.end is None
        seen = len(part.events)
    for at in range(0, len(whole), 7):
        bent = parse_journal(whole[:at] + bytes([whole[at] ^ 0x55]) + whole[at + 1 :])
        assert bent.events == journal.events[: len(bent.events)]


def test_a_torn_journal_is_mended(lab: Lab) -> None:
    lab.run("channel u file /proc/uptime 0", "step mark a", "step idle b 10")
    whole = (lab.dir / "journal").read_bytes()
    dead = (lab.dir / "state").read_text().replace('"ended"', '"running"')
    for cut in (*range(40), *range(60, len(whole), 131)):
        (lab.dir / "journal").write_bytes(whole[:cut])
        (lab.dir / "state").write_text(dead)
        assert call("recover", lab.root).returncode == 0
        assert result(lab.journal()) == ("failed", "probe_killed")
        mended = (lab.dir / "journal").read_bytes()
        kept = len(whole[:cut]) - parse_journal(whole[:cut]).dropped_bytes
        assert mended[:kept] == whole[:kept]
        assert (lab.state()["state"], lab.state()["result"]) == ("ended", "failed")


def test_the_bound_of_the_journal_stops_the_job(lab: Lab) -> None:
    journal = lab.run("limit journal_bytes 300000", FLOOD, "step idle a 60000", "step mark never")
    assert result(journal) == ("stopped", "full")
    assert [e["reason"] for e in journal.named("full")] == ["limit"]
    assert (lab.dir / "journal").stat().st_size <= 300_000
    assert journal.named("mark") == []
    assert lab.left() == []


def test_steps_obey_the_bound_too(lab: Lab, tmp_path: Path) -> None:
    journal = lab.run("limit journal_bytes 262144", *["step idle a 0"] * 1500)
    assert result(journal) == ("stopped", "full")
    assert (lab.dir / "journal").stat().st_size <= 262_144
    assert [e["seq"] for e in journal.events] == list(range(len(journal.events)))
    last = journal.named("step")[-1]
    assert (last["state"], last["step"] < 1499) == ("end", True)


ATTACH, DETACH, TO_NEXT_CALL, ALL = 16, 17, 24, 0x40000000  # of ptrace, and of waitpid


def stall(pid: int, task: int, pause: Callable[[int], None]) -> None:
    """Holds one thread at each of its writes until ``pause`` returns, up to a write of more than 1 MiB."""
    ptrace = ctypes.CDLL(None).ptrace
    if ptrace(ATTACH, task, None, None) != 0:
        pytest.skip("may not trace a process here")
    _, status = os.waitpid(task, ALL)
    try:
        bytes_written = 0
        while bytes_written < 1 << 20:
            stop = os.WSTOPSIG(status)
            ptrace(TO_NEXT_CALL, task, None, None if stop in (signal.SIGTRAP, signal.SIGSTOP) else stop)
            _, status = os.waitpid(task, ALL)
            call_now = Path(f"/proc/{pid}/task/{task}/syscall").read_text().split()
            if len(call_now) > 3 and int(call_now[1], 16) < 1000:  # a descriptor: what is no write is a futex
                bytes_written = int(call_now[3], 16)
                pause(bytes_written)
    finally:  # a thread that is still traced could not be reaped by its own parent
        ptrace(DETACH, task, None, None)


@pytest.fixture
def small_disk(tmp_path: Path) -> Path:
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root to mount a small file system in a namespace of its own")
    return place


def start_in_namespace(place: Path, script: str) -> subprocess.Popen[bytes]:
    mount = f"mount -t tmpfs -o size=200k none {place} && {script}"
    command = ["unshare", "-m", "--propagation", "private", "sh", "-c", mount]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def in_namespace(place: Path, script: str) -> subprocess.CompletedProcess[bytes]:
    with start_in_namespace(place, script) as running:
        out, err = running.communicate()
    return subprocess.CompletedProcess(script, running.returncode, out, err)


@pytest.mark.parametrize("filler", ["none", "other"])
def test_a_full_disk_ends_the_job_well(small_disk: Path, tmp_path: Path, filler: str) -> None:
    lab = Lab(tmp_path)
    fill = f"step exec fill 9000 -- {sh(f'dd if=/dev/zero of={small_disk}/junk bs=4k; true')}"
    knob = tmp_path / "knob"
    knob.write_text("old")
    lab.job(
        f"step set {knob} new",
        fill if filler == "other" else "step mark m",
        FLOOD,
        "step idle a 60000",
    )
    run = f"{probe_path()} run {small_disk}/r/{lab.run_id}"
    done = in_namespace(small_disk, f"cp -r {lab.root} {small_disk}/r; {run} && cp -r {small_disk}/r {tmp_path}/out")
    assert done.returncode == 0, done.stderr
    lab.dir = tmp_path / "out" / lab.run_id
    journal = lab.journal()
    assert result(journal) == ("stopped", "full")
    assert [e["reason"] for e in journal.named("full")] == ["enospc"]
    assert [e["result"] for e in journal.named("undo")] == ["ok"]
    assert knob.read_text() == "old"
    assert not (lab.dir / "reserve").exists()
    assert lab.left() == []


def test_a_slow_disk_that_fills_up_ends_the_job_well(small_disk: Path, tmp_path: Path) -> None:
    # The writer stands still until all others wait for it, and then meets the full disk.
    lab = Lab(tmp_path)
    go, told = tmp_path / "go", tmp_path / "told"
    told.write_text("0")
    flood = f"""
import os, time
while not os.path.exists({str(go)!r}):  # a write is small until it is held
    print(flush=True)
    time.sleep(0.05)
told, n = os.open({str(told)!r}, os.O_WRONLY), 0
while True:
    print("z" * 2000, flush=True)
    n += 2001
    os.pwrite(told, b"%d" % n, 0)
"""
    lab.job(f"channel f lines -- {py(flood)}", "step idle a 60000")
    run = f"{probe_path()} run {small_disk}/r/{lab.run_id}"
    script = f"cp -r {lab.root} {small_disk}/r; {run} && cp -r {small_disk}/r {tmp_path}/out"

    def until_all_wait(bytes_held: int) -> None:
        go.touch()
        # Besides what is held, the backlog of 8 MiB is full but for what the next half second brings.
        lab.until(lambda: int(told.read_text()) > bytes_held + (7 << 20))
        time.sleep(0.5)

    with start_in_namespace(small_disk, script) as running:
        lab.dir = Path(f"/proc/{running.pid}/root{small_disk}/r/{lab.run_id}")
        lab.until(lambda: lab.state().get("op") == "idle")
        worker = lab.state()["pid"]
        writer = sorted(int(task) for task in os.listdir(f"/proc/{worker}/task"))[1]
        try:
            stall(worker, writer, until_all_wait)
            assert running.wait(20) == 0
        finally:
            if running.poll() is None:
                os.kill(worker, signal.SIGKILL)
    lab.dir = tmp_path / "out" / lab.run_id
    assert result(lab.journal()) == ("stopped", "full")
    (full,) = lab.journal().named("full")
    # What waited is dropped too: it would fill the room that was given back for the events that close the run.
    assert (full["reason"], full["dropped_frames"] > 4) == ("enospc", True)
    assert lab.left() == []


def test_stop_does_not_wait_for_a_probe_that_hangs(lab: Lab, tmp_path: Path) -> None:
    running = lab.start(f"step set {tmp_path}/knob new", "step idle long 60000")
    lab.until(lambda: lab.state().get("name") == "long")
    os.kill(lab.state()["pid"], signal.SIGSTOP)
    assert call("stop", lab.dir, timeout=20).returncode == 0  # as long as the client waits
    running.wait(5)
    assert result(lab.journal()) == ("failed", "probe_killed")
    assert (tmp_path / "knob").read_text() == "old"


def test_a_disk_that_is_full_from_the_start_is_said(small_disk: Path, tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    lab.job("step mark a")
    fill = f"dd if=/dev/zero of={small_disk}/junk bs=4k 2>/dev/null"
    run = f"{probe_path()} run {small_disk}/r/{lab.run_id}"
    done = in_namespace(small_disk, f"cp -r {lab.root} {small_disk}/r; {fill}; {run}")
    assert done.returncode == 73
    assert b"No space left" in done.stderr
