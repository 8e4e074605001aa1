from __future__ import annotations

import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest
from probe_kit import Lab, call, only, probe_path, py, result, sh

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def test_a_file_is_read_at_its_period_and_its_text_kept(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "power").write_bytes(b"1234\x00\xff\n")
    journal = lab.run(f"channel p file {tmp_path}/power 20000000", "step idle wait 1000")
    stream = only(journal, "p")
    assert result(journal) == ("done", "")
    assert (stream.kind, stream.status, stream.errno) == ("file", "ok", 0)
    took_s = (stream.readings.t0_ns[-1] - stream.readings.t0_ns[0]) / 1e9  # a busy machine ends it late
    assert 30 <= len(stream.readings) <= took_s / 0.02 + 4  # three of them at the transitions
    assert set(stream.readings.raw) == {b"1234\x00\xff\n"}
    assert (stream.readings.t1_ns >= stream.readings.t0_ns).all()
    assert (np.diff(stream.readings.t0_ns) > 0).all()


def test_readings_lie_on_both_sides_of_every_step(lab: Lab) -> None:
    journal = lab.run("channel u file /proc/uptime 0", "step idle a 20", "step mark m", "step idle b 20")
    readings = only(journal, "u").readings
    for step in journal.named("step"):
        if step["state"] == "start":
            assert (readings.t1_ns <= step["boot_ns"]).any()
        else:
            assert (readings.t0_ns >= step["boot_ns"]).any()
    ends = [s["boot_ns"] for s in journal.named("step") if s["state"] == "end"]
    starts = [s["boot_ns"] for s in journal.named("step") if s["state"] == "start"]
    for end, start in zip(ends[:-1], starts[1:], strict=True):
        assert ((readings.t0_ns >= end) & (readings.t1_ns <= start)).any()


def test_a_glob_gives_a_stream_a_match(lab: Lab, tmp_path: Path) -> None:
    for name in ("zone0", "zone1", "zone*"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "temp").write_text(name)
    journal = lab.run(f"channel t file {tmp_path}/zone*/temp 0", f"channel s file {tmp_path}/zone%2A/temp 0")
    assert {s.path: s.readings.raw[0] for s in journal.channel("t")} == {
        f"{tmp_path}/zone0/temp": b"zone0",
        f"{tmp_path}/zone1/temp": b"zone1",
        f"{tmp_path}/zone*/temp": b"zone*",
    }
    assert only(journal, "s").readings.raw[0] == b"zone*"


def test_absent_is_not_denied(lab: Lab, tmp_path: Path) -> None:
    journal = lab.run(f"channel a file {tmp_path}/none 10000000", f"channel b file {tmp_path}/n*/x 10000000")
    for name in "ab":
        stream = only(journal, name)
        assert (stream.status, stream.errno, len(stream.readings)) == ("absent", 2, 0)


def test_denied_is_told(tmp_path: Path) -> None:
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv to give up being root")
    lab = Lab(tmp_path)
    secret = tmp_path / "secret"
    secret.write_text("1")
    secret.chmod(0)
    for folder in (lab.dir, lab.root, lab.dir / "req"):
        os.chown(folder, 65534, 65534)
    for parent in (tmp_path, *tmp_path.parents):
        if not parent.stat().st_mode & 0o001:
            parent.chmod(parent.stat().st_mode | 0o011)
    binary = tmp_path / "meltprobe"
    shutil.copy(probe_path(), binary)
    lab.job(f"channel s file {secret} 10000000", f"step set {secret} 2", "step idle a 30")
    done = subprocess.run(
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", binary, "run", lab.dir], capture_output=True
    )
    assert done.returncode == 0, done.stderr
    journal = lab.journal()
    assert (only(journal, "s").status, only(journal, "s").errno) == ("denied", 13)
    (event,) = journal.named("set")
    assert (event["result"], event["old"]) == ("denied", None)
    assert secret.read_text() == "1"
    assert result(journal) == ("done", "")


def test_eagain_is_a_reading(lab: Lab, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    holder = os.open(fifo, os.O_RDWR)  # a writer that says nothing
    try:
        journal = lab.run(f"channel f file {fifo} 10000000", "step idle a 100")
    finally:
        os.close(holder)
    readings = only(journal, "f").readings
    assert len(readings) > 2
    assert set(readings.err.tolist()) == {11}
    assert set(readings.raw) == {b""}


def test_a_long_text_is_cut_and_says_so(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"x" * 200_000)
    (tmp_path / "exact").write_bytes(b"y" * 65536)
    journal = lab.run(f"channel l file {tmp_path}/long 0", f"channel e file {tmp_path}/exact 0", "step mark m")
    long, exact = only(journal, "l").readings, only(journal, "e").readings
    assert {len(raw) for raw in long.raw} == {65536}
    assert set(long.err.tolist()) == {7}
    assert {len(raw) for raw in exact.raw} == {65536}
    assert set(exact.err.tolist()) == {0}


def test_a_text_longer_than_a_page_is_whole(lab: Lab) -> None:
    journal = lab.run("channel k file /proc/kallsyms 0", "channel c file /proc/cpuinfo 0")
    assert only(journal, "c").readings.raw[0].startswith(b"processor")
    assert len(only(journal, "k").readings.raw[0]) == 65536


def test_a_process_is_sampled_while_it_lives(lab: Lab) -> None:
    journal = lab.run(
        "channel m file /proc/{pid:p}/stat 20000000",
        "channel q poll 20000000 1000 -- echo {pid:p}",
        "step idle before 50",
        "step spawn p -- sleep 60",
        "step idle with 200",
        "step stop p 1000",
        "step idle after 50",
    )
    (spawn,), (gone,) = journal.named("spawn"), journal.named("exit")
    stream = only(journal, "m")
    assert stream.path == f"/proc/{spawn['pid']}/stat"
    assert all(raw.startswith(str(spawn["pid"]).encode()) for raw in stream.readings.raw if raw)
    assert len(stream.readings) > 3
    assert stream.readings.t0_ns[-1] < gone["boot_ns"] + 1_000_000_000
    assert set(only(journal, "q").readings.raw) == {b"%d\n" % spawn["pid"]}
    assert (gone["signal"], gone["code"], gone["by_us"]) == (15, None, True)


def test_one_output_of_a_poll_is_one_reading(lab: Lab) -> None:
    journal = lab.run(
        f"channel ok poll 50000000 1000 -- {sh('echo a; echo b')}",
        f"channel bad poll 50000000 1000 -- {sh('echo why; exit 3')}",
        f"channel sig poll 50000000 1000 -- {sh('kill -9 $$')}",
        "channel none poll 50000000 1000 -- /no/such/program",
        "channel slow poll 50000000 60 -- sleep 50",
        f"channel big poll 0 5000 -- {sh('head -c 100000 /dev/zero')}",
        "step idle a 400",
    )
    assert result(journal) == ("done", "")
    first = {name: only(journal, name).readings for name in ("ok", "bad", "sig", "none", "slow", "big")}
    assert (first["ok"].raw[0], first["ok"].err[0]) == (b"a\nb\n", 0)
    assert (first["bad"].raw[0], first["bad"].err[0]) == (b"why\n", 0x103)
    assert first["sig"].err[0] == 0x209
    assert (first["none"].raw[0], first["none"].err[0]) == (b"", 2)
    assert first["slow"].err[0] == 110
    assert (len(first["big"].raw[0]), first["big"].err[0]) == (65536, 7)
    assert only(journal, "slow").overruns > 0
    assert lab.left() == []


def test_a_poll_under_way_at_an_edge_is_not_the_reading_after_it(lab: Lab) -> None:
    # After a spawn polls are started and not waited for: this one is still busy when the next step ends.
    journal = lab.run(
        f"channel q poll 0 5000 -- {sh('sleep 0.2; echo x')}",
        "step spawn p -- sleep 60",
        "step idle a 20",
        "step mark m",
    )
    readings = only(journal, "q").readings
    (idle_end,) = [e["boot_ns"] for e in journal.named("step") if (e["name"], e["state"]) == ("a", "end")]
    (mark_start,) = [e["boot_ns"] for e in journal.named("step") if (e["name"], e["state"]) == ("m", "start")]
    assert ((readings.t0_ns >= idle_end) & (readings.t1_ns <= mark_start)).any()


def test_the_end_of_the_job_is_no_reading_of_a_poll(lab: Lab) -> None:
    journal = lab.run(
        f"channel q poll 0 5000 -- {sh('sleep 0.1; echo x')}", "channel u file /proc/uptime 0", "step mark m"
    )
    readings = only(journal, "q").readings
    assert (readings.raw, readings.err.tolist()) == ([b"x\n"] * 2, [0, 0])
    assert only(journal, "u").readings.t0_ns[-1] >= journal.named("step")[-1]["boot_ns"]


def test_a_slow_poll_does_not_hold_up_the_end(lab: Lab) -> None:
    journal = lab.run("limit duration_ms 200", "channel q poll 0 20000 -- sleep 60", "step mark m")
    assert result(journal) == ("stopped", "duration")
    assert journal.events[-1]["boot_ns"] - journal.events[0]["boot_ns"] < 10_000_000_000
    assert lab.left() == []


def test_a_poll_that_cannot_start_is_told_at_once(lab: Lab) -> None:
    running = lab.start("channel none poll 0 1000 -- /no/such/program", "step idle a 60000")
    lab.until(lambda: any(len(s.readings) for s in lab.journal().channel("none")), 10)
    assert call("stop", lab.dir).returncode == 0
    running.wait(20)


def test_a_helpers_lines_are_readings(lab: Lab) -> None:
    script = "import time\nfor i in range(5): print('line', i, flush=True); time.sleep(0.02)\nprint('', end='last')"
    journal = lab.run(f"channel h lines -- {py(script)}", "channel no lines -- /no/such", "step idle a 1000")
    readings = only(journal, "h", "lines").readings
    assert readings.raw == [b"line %d" % i for i in range(5)] + [b"last"]
    assert (np.diff(readings.t1_ns) >= 0).all()
    assert (only(journal, "no").status, only(journal, "no").errno) == ("absent", 2)
    assert [e["code"] for e in journal.named("exit")] == [0]


def test_a_hostile_output_is_bounded(lab: Lab) -> None:
    script = """
import os, sys
for i in range(100): os.write(int(sys.argv[1]), b'A' * 1000000)
os.write(int(sys.argv[1]), b'\\n\\0\\x1b[31m\\xff\\xfe\\nend\\n')
"""
    journal = lab.run(f"step exec loud 60000 -- {py(script)} 1", f"step exec err 60000 -- {py(script)} 2")
    assert (lab.dir / "journal").stat().st_size < 100_000
    for name, kind in (("loud", "out"), ("err", "err")):
        stream = only(journal, name, kind)
        assert stream.readings.raw == [b"A" * 4096, b"\0\x1b[31m\xff\xfe", b"end"]
        assert stream.readings.err.tolist() == [7, 0, 0]
        assert stream.dropped_bytes == 100_000_000 - 4096


def test_the_head_and_the_tail_of_a_long_log_are_kept(lab: Lab) -> None:
    script = "for i in range(200000): print(i)"
    journal = lab.run("limit log_bytes 1000", f"step exec log 60000 -- {py(script)}")
    stream = only(journal, "log", "out")
    lines = [int(raw) for raw, err in zip(stream.readings.raw, stream.readings.err, strict=True) if err == 0]
    assert lines[:100] == list(range(100))
    assert lines[-1000:] == list(range(199000, 200000))
    assert sum(len(raw) for raw in stream.readings.raw) < 10_000
    whole = sum(len(f"{i}\n") for i in range(200000))
    kept = sum(len(raw) + 1 for raw in stream.readings.raw)
    assert stream.dropped_bytes == whole - kept


def test_events_are_numbered_without_a_gap(lab: Lab) -> None:
    journal = lab.run("channel u file /proc/uptime 10000000", "step idle a 50")
    assert [e["seq"] for e in journal.events] == list(range(len(journal.events)))
