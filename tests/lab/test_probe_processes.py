from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from probe_kit import Lab, call, only, probe_path, py, result, sh

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    assert lab.left() == []


def test_a_child_starts_clean(lab: Lab) -> None:
    script = """
import os, signal
print(sorted(os.listdir('/proc/self/fd'), key=int)[:-1])
print(os.getpgrp() == os.getpid(), os.readlink('/proc/self/fd/0'))
print(signal.pthread_sigmask(signal.SIG_BLOCK, []), os.environ['K'], os.environ['MELTBENCH_RUN'])
ignored = next(l for l in open('/proc/self/status') if l.startswith('SigIgn'))
# Python ignores SIGPIPE and SIGXFSZ; signals 32 and 33 are the C library's own, and no program may reset them.
print(int(ignored.split()[1], 16) & ~(1 << 12 | 1 << 24 | 1 << 31 | 1 << 32))
"""
    lab.job(f"step exec c 20000 env=K=%C3%A9 -- {py(script)}")
    spare = os.open("/dev/null", os.O_RDONLY)
    assert subprocess.run([probe_path(), "run", lab.dir], pass_fds=[spare]).returncode == 0
    os.close(spare)
    fds, group, mask, ignored = only(lab.journal(), "c", "out").readings.raw
    assert fds == b"['0', '1', '2']"
    assert group == b"True /dev/null"
    assert mask == f"set() é {lab.run_id}".encode()
    assert ignored == b"0"


def test_a_program_that_is_not_there(lab: Lab) -> None:
    journal = lab.run("step mark a", "step spawn p -- /no/such/program", "step mark b")
    assert result(journal) == ("failed", "cannot start: No such file or directory")
    assert [e["name"] for e in journal.named("mark")] == ["a"]
    assert journal.named("spawn") == []


def test_exec_fails_with_its_status_and_at_its_deadline(lab: Lab, tmp_path: Path) -> None:
    assert result(lab.run(f"step exec e 9000 -- {sh('exit 3')}")) == ("failed", "process e ended with 3")
    slow = Lab(tmp_path / "slow")
    assert result(slow.run("step exec e 100 -- sleep 60")) == ("failed", "timeout")
    assert slow.left() == []


def test_a_try_that_fails_is_told_and_the_job_goes_on(lab: Lab, tmp_path: Path) -> None:
    journal = lab.run(
        f"step try bad 5000 -- {sh('echo no >&2; exit 3')}",
        "step try slow 100 -- sleep 100",
        "step try gone 100 -- /no/such/program",
        "step try good 5000 -- true",
        f"step exec last 5000 -- touch {tmp_path}/reached",
    )
    assert result(journal) == ("done", "")
    assert (tmp_path / "reached").exists()
    told = [e["result"] for e in journal.named("step") if e["state"] == "end"]
    assert told == ["process bad ended with 3", "timeout", "cannot start: No such file or directory", "ok", "ok"]
    assert only(journal, "bad", "err").readings.raw == [b"no"]
    assert lab.left() == []


def test_stop_reaches_the_deaf_and_the_daemons(lab: Lab) -> None:
    daemons = "(setsid sleep 300 &); setsid sh -c 'trap \"\" TERM; sleep 301' &"
    deaf = f"trap '' TERM; {daemons} echo up; while true; do sleep 1; done"
    journal = lab.run(f"step spawn p -- {sh(deaf)}", "step idle a 300", "step stop p 200", "step idle b 50")
    (gone,) = journal.named("exit")
    assert (gone["signal"], gone["by_us"], gone["oom"]) == (9, True, False)
    assert result(journal) == ("done", "")


RECYCLE = """
import os, pathlib, subprocess, sys, time
probe, dir, root = sys.argv[1:]
sys.path.insert(0, root)
from meltbench.probe.journal import read_journal
running = subprocess.Popen([probe, "run", dir])
def group():
    try: return read_journal(pathlib.Path(dir, "journal")).named("spawn")[0]["pgid"]
    except (OSError, LookupError): return 0
def lives(group):
    try: return os.kill(-group, 0) is None
    except OSError: return False
while not group() or lives(group()): time.sleep(0.01)
open("/proc/sys/kernel/ns_last_pid", "w").write(str(group() - 1))
stranger = subprocess.Popen(["sleep", "60"], start_new_session=True)
same = stranger.pid == group()
running.wait()
print(same, stranger.poll())
stranger.kill()
"""


def test_a_group_whose_number_became_anothers_is_left_alone(lab: Lab) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root to choose the next process id in a namespace of its own")
    lab.job(f"step spawn p -- {sh('sleep 0.2 & exit 0')}", "step idle a 700", "step stop p 100")
    root = str(Path(__file__).parents[2])
    script = [sys.executable, "-c", RECYCLE, probe_path(), str(lab.dir), root]
    done = subprocess.run(["unshare", "-m", "-p", "-f", "--mount-proc", *script], capture_output=True, timeout=60)
    assert done.stdout == b"True None\n", done.stderr
    assert result(lab.journal()) == ("done", "")


def test_a_killed_process_was_not_killed_by_us(lab: Lab) -> None:
    journal = lab.run(f"step exec p 9000 -- {sh('kill -9 $$')}")
    (gone,) = journal.named("exit")
    assert (gone["signal"], gone["by_us"]) == (9, False)
    assert gone["oom"] in (False, None)
    assert result(journal) == ("failed", "process p died of signal 9")


def test_out_of_memory_is_told(lab: Lab) -> None:
    group = f"/sys/fs/cgroup/memory/{lab.run_id}"
    try:
        os.mkdir(group)
    except OSError as error:
        pytest.skip(f"no memory cgroup to die in: {error}")
    try:
        Path(f"{group}/memory.limit_in_bytes").write_text("30000000")
        eat = f'echo $$ > {group}/cgroup.procs; exec python3 -c "x = bytearray(10**9); print(len(x))"'
        journal = lab.run(f"step exec eat 30000 -- {sh(eat)}")
    finally:
        lab.until(lambda: not Path(f"{group}/cgroup.procs").read_text())
        os.rmdir(group)
    (gone,) = journal.named("exit")
    assert (gone["signal"], gone["by_us"], gone["oom"]) == (9, False, True)


def test_stop_ends_the_job_and_the_second_stop_is_harmless(lab: Lab) -> None:
    running = lab.start("step spawn p -- sleep 300", "step idle long 60000", "step mark never")
    lab.until(lambda: lab.state().get("name") == "long")
    status = json.loads(call("status", lab.dir).stdout)
    assert (status["state"], status["alive"], status["op"], status["step"]) == ("running", True, "idle", 1)
    assert call("stop", lab.dir).returncode == 0
    assert running.wait(20) == 0
    assert result(lab.journal()) == ("stopped", "stop")
    assert call("stop", lab.dir).returncode == 0
    assert json.loads(call("status", lab.dir).stdout)["alive"] is False


@pytest.mark.parametrize("who", ["pid", "guard_pid"])
def test_a_signal_to_either_is_a_clean_stop(lab: Lab, who: str) -> None:
    running = lab.start("step idle long 60000")
    lab.until(lambda: lab.state().get("name") == "long")
    os.kill(lab.state()[who], 15)
    assert running.wait(20) == 0
    assert result(lab.journal()) == ("stopped", "signal")


def test_the_duration_bounds_the_job(lab: Lab) -> None:
    journal = lab.run("limit duration_ms 200", "step idle long 60000")
    assert result(journal) == ("stopped", "duration")
    assert [e["by"] for e in journal.named("stopping")] == ["duration"]


def test_a_long_grace_does_not_hold_up_the_end(lab: Lab) -> None:
    deaf = "trap '' TERM; echo up; while true; do sleep 0.1; done"
    journal = lab.run("limit duration_ms 400", f"step spawn p -- {sh(deaf)}", "step idle a 200", "step stop p 25000")
    assert result(journal) == ("stopped", "duration")
    (gone,) = journal.named("exit")
    assert (gone["signal"], gone["by_us"]) == (9, True)
    assert journal.events[-1]["boot_ns"] - journal.events[0]["boot_ns"] < 15_000_000_000


def test_detached_and_attached(lab: Lab) -> None:
    lab.job("step idle a 300", "step mark m")
    assert call("run", lab.dir, "--detach").returncode == 0
    assert lab.state()["pid"] > 0
    attached = call("attach", lab.dir)
    events = [json.loads(line) for line in attached.stdout.splitlines()]
    assert (attached.returncode, events[0]["event"], events[-1]["event"]) == (0, "begin", "end")
    lab.until(lambda: lab.state()["state"] == "ended")


def test_one_job_at_a_time(lab: Lab) -> None:
    running = lab.start("step idle long 60000")
    other = Lab(lab.root.parent)
    other.job("step mark a")
    assert call("run", other.dir).returncode == 75
    assert call("recover", lab.root).returncode == 75
    assert call("stop", lab.dir).returncode == 0
    running.wait(20)
    assert call("run", other.dir).returncode == 0
    assert call("run", other.dir).returncode == 73  # never twice in one folder


def test_settings_are_put_back_in_reverse(lab: Lab, tmp_path: Path) -> None:
    for name, text in (("a1", "slow\n"), ("a2", "always [madvise] never\n"), ("log", "")):
        (tmp_path / name).write_text(text)
    journal = lab.run(
        f"step undo -- sh -c {'echo%20first%20%3E%3E'}{tmp_path}/log",
        f"step undo -- sh -c {'echo%20second%20%3E%3E'}{tmp_path}/log",
        f"step set {tmp_path}/a? fast",
        f"step set {tmp_path}/none 1",
        f"step exec look 5000 -- cat {tmp_path}/a1 {tmp_path}/a2",
    )
    assert b"".join(only(journal, "look", "out").readings.raw) == b"fastfast"
    assert [(e["old"], e["result"]) for e in journal.named("set")] == [
        ("slow", "ok"), ("madvise", "ok"), (None, "absent")
    ]  # fmt: skip
    assert (tmp_path / "a1").read_text() == "slow"
    assert (tmp_path / "a2").read_text() == "madvise"
    assert (tmp_path / "log").read_text() == "second\nfirst\n"
    assert [e["result"] for e in journal.named("undo")] == ["ok"] * 4
    assert not (lab.dir / "undo").exists()


def test_pages_and_gate(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(b"m" * 1_000_000)
    (tmp_path / "t1").write_text("41.5\n")
    (tmp_path / "t2").write_text("-3\n")
    journal = lab.run(
        f"step pages {tmp_path}/model measure",
        f"step pages {tmp_path}/none drop",
        f"step gate warm {tmp_path}/t? below 42 100 5000",
        f"step gate cold {tmp_path}/t? below 41.5 100 300",
        f"step gate gone {tmp_path}/none below 1 0 100",
    )
    here, none = journal.named("pages")
    assert (here["resident_bytes"], here["total_bytes"], here["status"]) == (1_000_000, 1_000_000, "ok")
    assert (none["resident_bytes"], none["total_bytes"], none["status"]) == (None, None, "unknown")
    gates = [(e["name"], e["held"], e["value"]) for e in journal.named("gate")]
    assert gates == [("warm", True, 41.5), ("cold", False, 41.5), ("gone", False, None)]
    assert result(journal) == ("done", "")


def test_facts(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\x00\xff\n")
    (tmp_path / "large").write_bytes(b"z" * 100_000)
    done = call("facts", tmp_path, tmp_path / "*", tmp_path / "none")
    facts = json.loads(done.stdout)
    assert facts["page_bytes"] == os.sysconf("SC_PAGESIZE")
    assert facts["disk"]["free_bytes"] > 0
    assert facts["uname"]["machine"] == os.uname().machine
    files = facts["files"]
    assert files[f"{tmp_path}/bytes"] == {"status": "ok", "errno": 0, "cut": False, "text": "\x00\xff\n"}
    assert (len(files[f"{tmp_path}/large"]["text"]), files[f"{tmp_path}/large"]["cut"]) == (65536, True)
    assert (files[f"{tmp_path}/none"]["status"], files[f"{tmp_path}/none"]["errno"]) == ("absent", 2)


def test_clock(tmp_path: Path) -> None:
    answers = call("clock", input=b"a\nb\n").stdout.splitlines()
    first, second = ([int(n) for n in line.split()] for line in answers)
    assert all(a <= b for a, b in zip(first, second, strict=True))


def test_burn_loads_as_many_processors_for_as_long_as_it_was_told(lab: Lab) -> None:
    lines = (
        f"step exec one 20000 -- {probe_path()} burn 1 300",
        f"step exec all 20000 -- {probe_path()} burn 0 300",
    )
    journal = lab.run(*lines)
    assert result(journal) == ("done", "")
    one, all_ = journal.named("exit")
    said = [only(journal, name, "out").readings.raw[0].split() for name in ("one", "all")]
    assert [words[2] for words in said] == [b"1", str(os.cpu_count()).encode()]
    for gone, words in zip((one, all_), said, strict=True):
        assert int(words[0]) > 0
        assert int(words[4]) >= 300_000_000
        # Processor time, not the clock on the wall: others may have the machine meanwhile, which makes it less.
        assert 0 < gone["utime_ns"] + gone["stime_ns"] <= 1.2 * int(words[2]) * int(words[4])


def test_burn_ends_at_once_by_a_signal_and_with_the_job(lab: Lab) -> None:
    burning = subprocess.Popen([probe_path(), "burn", "0", "60000"])
    burning.terminate()
    assert burning.wait(10) == -15
    journal = lab.run(f"step spawn b -- {probe_path()} burn 0 60000", "step idle i 200", "step stop b 2000")
    assert result(journal) == ("done", "")
    (gone,) = journal.named("exit")
    assert (gone["signal"], gone["by_us"]) == (15, True)


@pytest.mark.parametrize("words", [("0",), ("1", "0"), ("1025", "10"), ("1", "3600001"), ("-1", "10"), ("1", "ten")])
def test_burn_refuses_what_it_would_not_do(words: tuple[str, ...]) -> None:
    done = call("burn", *words)
    assert (done.returncode, done.stdout) == (64, b"")
    assert b"burn" in done.stderr


def test_the_clock_is_named_by_boot_and_time_namespace(lab: Lab, tmp_path: Path) -> None:
    facts = json.loads(call("facts", tmp_path).stdout)
    begin = lab.run("step mark a").first("begin")
    assert begin is not None
    assert (begin["boot_id"], begin["time_namespace"]) == (facts["boot_id"], facts["time_namespace"])
    where = Path("/proc/self/ns/time")
    assert facts["time_namespace"] == (int(os.readlink(where)[6:-1]) if where.exists() else None)
