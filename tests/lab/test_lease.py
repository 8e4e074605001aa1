"""The lease that the probe keeps, and the controller's half of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from probe_kit import Lab, call, probe_path, result

from meltbench.deadline import Deadline
from meltbench.errors import DeviceError, LeaseLost, LinkLost, TargetBusy
from meltbench.probe.client import Probe
from meltbench.probe.job import Job
from meltbench.targets import lease as leases
from meltbench.targets.lease import ENDED, Lease, holder_of
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.targets import Completed, Feed

LONG_MS = 600_000


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


@pytest.fixture
def probe(lab: Lab) -> Probe:
    return Probe(LocalTransport(), probe_path(), str(lab.root))


class Told:
    """A Watch that remembers what it was told."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.steps: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        self.lines.append(text)

    warn = say

    def fetched(self, done: int, total: int | None) -> None:
        raise AssertionError("nothing is fetched")

    def step(self, status: dict[str, Any]) -> None:
        self.steps.append(status)


def take(lab: Lab, holder: str, ttl_ms: int = LONG_MS, *more: str) -> int:
    done = call("lease", lab.root, "take", holder, str(ttl_ms), *more)
    assert done.returncode == 0, (done.stdout, done.stderr)
    return int(json.loads(done.stdout)["token"])


def show(lab: Lab) -> dict[str, Any]:
    return dict(json.loads(call("lease", lab.root, "show").stdout))


def test_two_threads_of_one_process_are_two_holders(probe: Probe, tmp_path: Path) -> None:
    refused: list[Exception] = []

    def also() -> None:
        try:
            with Lease.take(probe, holder_of(tmp_path), Told(), wait=False):
                pass
        except TargetBusy as error:
            refused.append(error)

    def from_a_thread() -> None:
        thread = threading.Thread(target=also)
        thread.start()
        thread.join()

    with Lease.take(probe, holder_of(tmp_path), Told(), wait=False) as held:
        from_a_thread()
        assert f"process {os.getpid()}" in str(refused.pop())
        probe.lease_renew(held.token, LONG_MS)
    from_a_thread()
    assert refused == []


def test_one_holds_it_and_another_is_told_who(lab: Lab) -> None:
    assert show(lab) == {"token": 0, "holder": None, "left_ms": 0, "held_ms": 0, "stolen": None, "running": None}
    holder = 'a "quoted" \\ {pid:x} %41 *'
    token = take(lab, holder)
    seen = show(lab)
    assert (seen["token"], seen["holder"], seen["stolen"], seen["running"]) == (token, holder, None, None)
    assert 0 < seen["left_ms"] <= LONG_MS
    busy = call("lease", lab.root, "take", "b", "1000")
    assert (busy.returncode, json.loads(busy.stdout)["holder"]) == (75, holder)
    assert call("lease", lab.root, "renew", str(token), "1000").returncode == 0
    assert show(lab)["left_ms"] <= 1000
    assert call("lease", lab.root, "drop", str(token)).returncode == 0
    assert show(lab)["holder"] is None
    assert call("lease", lab.root, "drop", str(token)).returncode == 77
    assert take(lab, "b") == token + 1


def test_the_same_holder_fences_its_own_past(lab: Lab) -> None:
    old = take(lab, "a")
    new = take(lab, "a")
    assert new == old + 1
    for words in (("renew", str(old), "1000"), ("drop", str(old))):
        assert call("lease", lab.root, *words).returncode == 77
    assert show(lab)["token"] == new


def test_what_is_stolen_is_told_and_can_be_bound_to_a_token(lab: Lab) -> None:
    first = take(lab, "a")
    assert call("lease", lab.root, "take", "b", "1000", "steal", "why", str(first - 1)).returncode == 75
    second = take(lab, "b", LONG_MS, "steal", 'a "b" c', str(first))
    assert show(lab)["stolen"] == {"holder": "a", "reason": 'a "b" c'}
    assert call("lease", lab.root, "renew", str(first), "1000").returncode == 77
    take(lab, "b")
    assert show(lab)["stolen"] is None
    free = take(lab, "c", LONG_MS, "steal", "x")
    assert free == second + 2
    call("lease", lab.root, "drop", str(free))
    take(lab, "d", LONG_MS, "steal", "nobody had it")
    assert show(lab)["stolen"] is None


def test_it_runs_out_by_itself(lab: Lab) -> None:
    token = take(lab, "a", 100)
    lab.until(lambda: show(lab)["holder"] is None)
    for words in (("renew", str(token), "1000"), ("drop", str(token))):
        assert call("lease", lab.root, *words).returncode == 77
    lab.job("step mark m")
    assert call("run", lab.dir, "--token", str(token)).returncode == 77
    assert call("stop", lab.dir, "--token", str(token)).returncode == 77
    assert not (lab.dir / "journal").exists()


@pytest.mark.parametrize("name", ["lease", "lease.copy"])
@pytest.mark.parametrize("damage", ["gone", "empty", "torn", "bent", "other", "folder"])
def test_a_damaged_copy_takes_no_token_back(lab: Lab, name: str, damage: str) -> None:
    token = take(lab, "a")
    path = lab.root / name
    whole = path.read_bytes()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "gone":
        bent = whole.replace(str(token).encode(), str(token - 5).encode())
        path.write_bytes({"empty": b"", "torn": whole[: len(whole) // 2], "bent": bent, "other": b"\0" * 9000}[damage])
    assert show(lab)["token"] == token
    assert call("lease", lab.root, "renew", str(token), "1000").returncode == (73 if damage == "folder" else 0)
    if damage != "folder":
        assert take(lab, "a") == token + 1


def test_both_copies_lost_and_the_token_still_grows(lab: Lab) -> None:
    last = take(lab, "a")
    for _ in range(3):
        for name in ("lease", "lease.copy"):
            (lab.root / name).write_bytes(b"meltlease 1 7 9 9 9 x % y % % 00000000\n")
        assert show(lab)["holder"] is None
        now = take(lab, "a")
        assert now > last
        last = now + 1
        take(lab, "a")


def test_after_a_reboot_a_lease_is_over_and_the_token_goes_on(lab: Lab) -> None:
    token = take(lab, "a")
    # The reboot is faked at the edge: the files say another boot id, and check.
    for name in ("lease", "lease.copy"):
        words = (lab.root / name).read_bytes().split()[:-1]
        assert re.fullmatch(rb"[0-9a-f-]{36}", words[6])
        words[6] = b"00000000-0000-0000-0000-000000000000"
        text = b" ".join(words)
        (lab.root / name).write_bytes(text + b" %08x\n" % zlib.crc32(text))
    assert show(lab)["holder"] is None
    assert call("lease", lab.root, "renew", str(token), "1000").returncode == 77
    assert take(lab, "b", 1000) == token + 1
    assert show(lab)["stolen"] is None


@pytest.mark.parametrize(
    "words",
    [
        ("take", "", "1000"),
        ("take", "x" * 201, "1000"),
        ("take", "tab\there", "1000"),
        ("take", "é", "1000"),
        ("take", "a", "0"),
        ("take", "a", "1e3"),
        ("take", "a"),
        ("take", "a", "1000", "steal"),
        ("take", "a", "1000", "steal", ""),
        ("take", "a", "1000", "steal", "b", "x"),
        ("take", "a", "1000", "keep", "b"),
        ("renew", "a", "1000"),
        ("renew", "1"),
        ("drop", "-1"),
        ("show", "me"),
        ("give",),
    ],
)
def test_what_makes_no_sense_is_refused(lab: Lab, words: tuple[str, ...]) -> None:
    assert call("lease", lab.root, *words).returncode == 64
    assert [path.name for path in lab.root.iterdir()] == [lab.run_id]


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    done = call("lease", tmp_path / "none", "take", "a", "1000")
    assert (done.returncode, b"No such file" in done.stderr) == (73, True)


def test_a_job_holds_the_lease_until_its_deadline_and_gives_it_back(lab: Lab) -> None:
    token = take(lab, "a", 2000)
    lab.job("limit duration_ms 30000", "step idle long 25000")
    assert call("run", lab.dir, "--detach").returncode == 75
    assert call("run", lab.dir, "--detach", "--token", str(token)).returncode == 0
    seen = show(lab)
    assert seen["running"] == lab.run_id
    assert 85_000 < seen["left_ms"] <= 90_000  # its duration and a minute
    assert call("lease", lab.root, "renew", str(token), "2000").returncode == 0
    assert show(lab)["left_ms"] > 80_000
    assert call("lease", lab.root, "take", "b", "2000").returncode == 75
    assert call("stop", lab.dir, "--token", str(token + 1)).returncode == 77
    assert lab.state()["state"] != "ended"
    assert call("stop", lab.dir, "--token", str(token)).returncode == 0
    seen = show(lab)
    assert (seen["token"], seen["running"], seen["left_ms"] <= 2000) == (token, None, True)
    assert result(lab.journal()) == ("stopped", "stop")


def test_a_lease_that_is_dropped_under_its_job_ends_with_it(lab: Lab) -> None:
    token = take(lab, "a")
    lab.job("step idle a 300")
    assert call("run", lab.dir, "--detach", "--token", str(token)).returncode == 0
    assert call("lease", lab.root, "drop", str(token)).returncode == 0
    assert call("lease", lab.root, "take", "b", "1000").returncode == 75
    lab.until(lambda: lab.state()["state"] == "ended")
    assert show(lab)["holder"] is None
    assert take(lab, "b") == token + 1
    assert result(lab.journal()) == ("done", "")


def test_a_job_that_cannot_start_leaves_the_lease_as_it_was(lab: Lab) -> None:
    token = take(lab, "a", 5000)
    lab.job("step mark m")
    (lab.dir / "journal").write_bytes(b"")
    assert call("run", lab.dir, "--token", str(token)).returncode == 73
    seen = show(lab)
    assert (seen["running"], seen["left_ms"] <= 5000) == (None, True)


def test_a_theft_stops_the_job_that_runs(lab: Lab, tmp_path: Path) -> None:
    knob = tmp_path / "knob"
    knob.write_text("old")
    token = take(lab, "a")
    lab.job(f"step set {knob} new", "step idle long 60000")
    assert call("run", lab.dir, "--detach", "--token", str(token)).returncode == 0
    lab.until(lambda: lab.state().get("name") == "long")
    stolen = json.loads(call("lease", lab.root, "take", "b", "5000", "steal", "mine").stdout)
    assert (stolen["token"], stolen["running"]) == (token + 1, None)
    assert stolen["stolen"] == {"holder": "a", "reason": "mine"}
    assert 0 < stolen["left_ms"] <= 5000
    assert result(lab.journal()) == ("stopped", "stolen")
    assert [e["by"] for e in lab.journal().named("stopping")] == ["steal"]
    assert (lab.state()["state"], lab.state()["reason"]) == ("ended", "stolen")
    assert knob.read_text() == "old"
    assert lab.left() == []
    following = Lab(tmp_path)
    following.job("step mark m")
    assert call("run", following.dir, "--token", str(token)).returncode == 77
    assert call("run", following.dir).returncode == 75
    assert call("run", following.dir, "--token", str(token + 1)).returncode == 0


# --- the controller's half


def a_job(lab: Lab, idle_s: float) -> Job:
    job = Job(lab.run_id)
    job.idle("long", idle_s)
    return job


def test_the_holder_starts_and_stops_its_job(lab: Lab, probe: Probe) -> None:
    told = Told()
    with Lease.take(probe, "me", told, wait=False) as held:
        nobody = dict.fromkeys(("stolen_from", "reason", "stolen_by", "stolen_for"))
        assert held.told() == {"token": held.token, "holder": "me"} | nobody
        with pytest.raises(TargetBusy, match=r"leased: me, for \d+ s now, at most \d+ s more.*--steal"):
            probe.start(a_job(lab, 60))
        with pytest.raises(LeaseLost):
            probe.start(a_job(lab, 60), token=held.token + 1)
        with held.quiet():
            folder = probe.start(a_job(lab, 60), token=held.token)
            with pytest.raises(LeaseLost):
                probe.stop(folder, held.token - 1)
            probe.stop(folder, held.token)
        assert probe.lease_show()["running"] is None
    assert probe.lease_show()["holder"] is None
    assert told.lines == []
    assert threading.active_count() == 1


def test_another_is_told_who_holds_it_and_may_steal(lab: Lab, probe: Probe) -> None:
    told = Told()
    here = holder_of(Path("/data/store"))
    with Lease.take(probe, here, told, wait=False) as first:
        name = re.escape(os.uname().nodename)
        with pytest.raises(
            TargetBusy, match=rf"on {name} \(process {os.getpid()}, store /data/store\).*--wait"
        ) as busy:
            Lease.take(probe, "other", told, wait=False)
        assert busy.value.transient
        with Lease.take(probe, "other", told, wait=False, steal="  a demo\nfor é ") as second:
            assert second.told()["stolen_from"] == here
            assert second.told()["reason"] == "a demo for ?"
            with pytest.raises(LeaseLost, match="taken over: other"):
                probe.lease_renew(first.token, 1000)
        assert probe.lease_show()["holder"] is None


def test_a_lost_lease_is_noticed_by_a_renewal(lab: Lab, probe: Probe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TTL_S", 2.0)
    with Lease.take(probe, "a", Told(), wait=False) as held:
        first = held.token
        time.sleep(3.0)  # longer than it lasts: it is renewed
        assert probe.lease_show()["token"] == held.token == first
        probe.lease_take("b", LONG_MS, "why not")
        lab.until(lambda: held._lost is not None)
        with pytest.raises(LeaseLost, match="taken over: b"):
            _ = held.token
    assert probe.lease_show()["holder"] == "b"


class Cut(LocalTransport):
    """A way to the target that can be cut, and that counts what is sent."""

    cut = False
    calls = 0

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        self.calls += 1
        if self.cut:
            raise LinkLost("the link is down")
        return super().run(argv, deadline, feed=feed)


def test_a_cut_link_is_tried_again_until_the_lease_must_be_over(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TTL_S", 2.0)
    monkeypatch.setattr(leases, "_RETRY_S", 0.05)
    way, told = Cut(), Told()
    with Lease.take(Probe(way, probe_path(), str(lab.root)), "a", told, wait=False) as held:
        way.cut = True
        lab.until(lambda: way.calls > 3)
        held.check()
        way.cut = False
        seen = way.calls
        lab.until(lambda: way.calls > seen)
        held.check()
        way.cut = True
        lab.until(lambda: held._lost is not None)
        with pytest.raises(LeaseLost, match=r"must have run out.*the link is down"):
            held.check()
    assert told.lines == []
    way.cut = False
    with Lease.take(Probe(way, probe_path(), str(lab.root)), "c", told, wait=True) as held:
        way.cut = True
        held.drop()
        said = len(told.lines)
    assert "the lease was not given back" in told.lines[-1]
    assert len(told.lines) == said  # it is given back once


def test_nothing_is_sent_between_pause_and_resume(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "TTL_S", 1.0)
    way = Cut()
    probe = Probe(way, probe_path(), str(lab.root))
    with Lease.take(probe, "a", Told(), wait=False) as held:
        held.pause()
        probe.start(a_job(lab, 2.0), token=held.token)
        before = way.calls
        lab.until(lambda: lab.state()["state"] == "ended")
        assert way.calls == before
        held.resume()
        lab.until(lambda: way.calls > before)
        held.check()


def test_waiting_tells_who_and_takes_it_once_it_is_free(
    lab: Lab, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_LOOK_S", 0.05)
    first = take(lab, "a", 400)
    told = Told()
    with Lease.take(probe, "b", told, wait=True) as held:
        assert held.token == first + 1
    assert len(told.lines) == 1
    assert told.lines[0].startswith("waiting for the target: a, for 0 s now, at most 0 s more")
    assert {step["op"] for step in told.steps} == {"lease"}
    assert all(0 <= step["elapsed_ms"] <= step["limit_ms"] for step in told.steps)


ENDED_HOLDER = """
import sys
from pathlib import Path
from meltbench.targets.lease import holder_of
print(holder_of(Path("/gone")))
"""


def ended_holder() -> str:
    """Of a real process that has ended since."""
    done = subprocess.run([sys.executable, "-c", ENDED_HOLDER], capture_output=True, check=True, text=True)
    return done.stdout.strip()


def test_a_process_that_ended_here_holds_nothing(lab: Lab, probe: Probe) -> None:
    gone = ended_holder()
    take(lab, gone)
    with Lease.take(probe, holder_of(Path("/data")), Told(), wait=False) as held:
        assert (held.told()["stolen_from"], held.told()["reason"]) == (gone, ENDED)


def test_the_job_of_a_process_that_ended_is_not_stopped(
    lab: Lab, probe: Probe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "_LOOK_S", 0.05)
    token = take(lab, ended_holder())
    probe.start(a_job(lab, 1.0), token=token)
    with pytest.raises(TargetBusy, match=f"its process has ended, its run {lab.run_id} goes on"):
        Lease.take(probe, "b", Told(), wait=False)
    told = Told()
    with Lease.take(probe, "b", told, wait=True) as held:
        assert held.told()["reason"] == ENDED
    assert result(lab.journal()) == ("done", "")
    assert len(told.lines) == 1


def test_a_wait_answers_when_the_job_has_ended(lab: Lab, probe: Probe) -> None:
    folder = probe.start(a_job(lab, 0.3))
    status = probe.wait(folder, Deadline.after(20))
    assert (status["state"], status["result"], status["alive"]) == ("ended", "done", False)
    assert probe.wait(folder, Deadline.after(20)) == status
    with pytest.raises(DeviceError):
        probe.wait(folder + "-none", Deadline.after(20))
