"""Two controllers at once, a holder that stops and goes on, and kills at every moment of the lease."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from probe_kit import Lab, call, probe_path, result

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return Lab(tmp_path)


def show(lab: Lab) -> dict[str, Any]:
    return dict(json.loads(call("lease", lab.root, "show").stdout))


def take(lab: Lab, holder: str, ttl_ms: int = 60_000) -> int:
    done = call("lease", lab.root, "take", holder, str(ttl_ms))
    assert done.returncode == 0, (done.stdout, done.stderr)
    return int(json.loads(done.stdout)["token"])


def test_of_controllers_that_take_it_at_once_exactly_one_has_it(lab: Lab) -> None:
    last = 0
    for _ in range(50):
        words = [probe_path(), "lease", str(lab.root), "take"]
        both = [subprocess.Popen([*words, name, "60000"], stdout=subprocess.PIPE) for name in ("a", "b")]
        told = [json.loads(one.communicate(timeout=30)[0]) for one in both]
        assert sorted(one.returncode for one in both) == [0, 75]
        assert told[0] | {"left_ms": 0, "held_ms": 0} == told[1] | {"left_ms": 0, "held_ms": 0}
        assert told[0]["token"] == (last + 1 if last else told[0]["token"])
        last = told[0]["token"]
        assert call("lease", lab.root, "drop", str(last)).returncode == 0


def test_of_jobs_that_start_at_once_exactly_one_runs(lab: Lab, tmp_path: Path) -> None:
    token = take(lab, "a")
    labs = [lab, *(Lab(tmp_path) for _ in range(3))]
    for one in labs:
        one.job("step idle a 1500")
    words = [[probe_path(), "run", str(one.dir), "--detach", "--token", str(token)] for one in labs]
    started = [subprocess.Popen(one, stderr=subprocess.DEVNULL) for one in words]
    assert sorted(one.wait(30) for one in started) == [0, 75, 75, 75]
    (ran,) = [one for one, process in zip(labs, started, strict=True) if process.returncode == 0]
    assert show(lab)["running"] == ran.run_id
    ran.until(lambda: ran.state()["state"] == "ended")
    assert result(ran.journal()) == ("done", "")
    assert show(lab)["running"] is None


# A controller: it takes the lease, says so, waits to be told to go on, and then tries what only a holder may do.
HOLDER = """
import sys, time
from pathlib import Path
from meltbench.errors import LeaseLost
from meltbench.probe.client import Probe
from meltbench.probe.job import Job
from meltbench.targets import lease as leases
from meltbench.targets.lease import Lease, holder_of
from meltbench.targets.local import LocalTransport
from meltbench.report.progress import Quiet
path, root, run_id, other = sys.argv[1:]
leases.TTL_S = 2.0
probe = Probe(LocalTransport(), path, root)
with Lease.take(probe, holder_of(Path(root)), Quiet(), wait=False) as held:
    token = held.token
    print(token, flush=True)
    sys.stdin.readline()
    job = Job(run_id)
    job.idle("a", 0.1)
    refused = []
    def tried(what):
        try:
            what()
        except LeaseLost as error:
            refused.append(error.message.split(":")[0])
    tried(lambda: probe.lease_renew(token, 1000))
    tried(lambda: probe.start(job, token=token))
    tried(lambda: probe.stop(other, token))
    held.resume()
    while held._lost is None:
        time.sleep(0.01)
    tried(lambda: held.token)
print(refused, flush=True)
"""


@pytest.fixture
def holder(lab: Lab) -> Iterator[subprocess.Popen[str]]:
    words = [sys.executable, "-c", HOLDER, probe_path(), str(lab.root), lab.run_id, str(lab.root / "other")]
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield process
    process.send_signal(signal.SIGCONT)
    process.kill()
    process.communicate()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_a_holder_that_was_stopped_past_its_lease_is_refused_when_it_goes_on(
    lab: Lab, holder: subprocess.Popen[str]
) -> None:
    token = int(said(holder))
    holder.send_signal(signal.SIGSTOP)
    lab.until(lambda: show(lab)["holder"] is None)
    following = take(lab, "b")
    assert following == token + 1
    other = Lab(lab.root.parent)
    other.dir = other.dir.rename(lab.root / "other")
    other.job("step idle long 60000")
    assert call("run", other.dir, "--detach", "--token", str(following)).returncode == 0
    holder.send_signal(signal.SIGCONT)
    assert holder.stdin is not None
    holder.stdin.write("\n")
    holder.stdin.flush()
    assert said(holder) == str(["the lease was taken over"] * 4)
    assert other.state()["state"] == "running"
    assert not (lab.dir / "journal").exists()
    assert show(lab)["token"] == following
    assert call("stop", other.dir, "--token", str(following)).returncode == 0


def test_a_killed_holder_loses_it_in_time_and_not_before(lab: Lab, holder: subprocess.Popen[str]) -> None:
    token = int(said(holder))
    time.sleep(3)  # it is renewed
    assert show(lab)["token"] == token
    assert call("lease", lab.root, "take", "b", "1000").returncode == 75
    holder.kill()
    holder.wait()
    lab.until(lambda: call("lease", lab.root, "take", "b", "1000").returncode == 0)
    assert show(lab)["token"] == token + 1


def test_the_job_of_a_silent_holder_goes_on_under_its_lease(lab: Lab) -> None:
    token = take(lab, "a", 1000)
    lab.job("step idle a 4000")
    assert call("run", lab.dir, "--detach", "--token", str(token)).returncode == 0
    time.sleep(1.5)  # past its time
    assert call("lease", lab.root, "take", "b", "1000").returncode == 75
    lab.until(lambda: call("lease", lab.root, "take", "b", "1000").returncode == 0)
    assert result(lab.journal()) == ("done", "")


@pytest.mark.parametrize("victims", [("pid",), ("guard_pid",), ("pid", "guard_pid")])
def test_whoever_mends_gives_the_lease_its_own_time_again(lab: Lab, victims: tuple[str, ...]) -> None:
    token = take(lab, "a", 5000)
    lab.job("step idle long 60000")
    assert call("run", lab.dir, "--detach", "--token", str(token)).returncode == 0
    state = lab.state()
    if len(victims) == 2:
        os.kill(state[victims[1]], signal.SIGSTOP)
    for victim in victims:
        os.kill(state[victim], signal.SIGKILL)
    if len(victims) == 2:
        lab.until(lambda: call("recover", lab.root).returncode == 0)
    lab.until(lambda: lab.state()["state"] == "ended")
    seen = show(lab)
    assert (seen["token"], seen["running"], seen["left_ms"] <= 5000) == (token, None, True)


def test_a_theft_from_a_job_whose_probe_is_dead_mends_it(lab: Lab) -> None:
    token = take(lab, "a")
    lab.job("step idle long 60000")
    assert call("run", lab.dir, "--detach", "--token", str(token)).returncode == 0
    state = lab.state()
    os.kill(state["guard_pid"], signal.SIGSTOP)
    for victim in ("pid", "guard_pid"):
        os.kill(state[victim], signal.SIGKILL)
    stolen = call("lease", lab.root, "take", "b", "5000", "steal", "it is dead")
    assert (stolen.returncode, json.loads(stolen.stdout)["running"]) == (0, None)
    assert result(lab.journal()) == ("failed", "probe_killed")


def test_a_probe_killed_while_it_takes_the_lease_takes_no_token_back(lab: Lab) -> None:
    highest = take(lab, "a")
    words = [probe_path(), "lease", str(lab.root), "take", "a", "60000"]
    answered = killed = 0
    for i in range(120):
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        time.sleep(i % 40 * 0.0001)
        process.kill()
        out = process.communicate(timeout=30)[0]
        killed += process.returncode == -signal.SIGKILL
        if out.endswith(b"\n"):
            answered += 1
            now = json.loads(out)["token"]
            assert now > highest
            highest = now
        seen = show(lab)
        assert seen["holder"] == "a"
        assert seen["token"] >= highest
    assert killed  # else nothing was tried
    now = take(lab, "b" if show(lab)["holder"] is None else "a")
    assert now > highest
    assert sorted(path.name for path in lab.root.glob("lease*"))[:3] == ["lease", "lease.copy", "lease.lock"]


def test_a_full_disk_gives_no_token_and_takes_none_back(lab: Lab) -> None:
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root to mount a small file system in a namespace of its own")
    place = lab.root.parent / "disk"
    place.mkdir()
    one = f"{probe_path()} lease {place}"
    script = f"""
mount -t tmpfs -o size=40k none {place} && {one} take a 60000 || exit 9
dd if=/dev/zero of={place}/junk bs=1k 2>/dev/null
{one} take a 60000; echo $?; {one} show
rm {place}/junk; {one} take a 60000
"""
    done = subprocess.run(["unshare", "-m", "--propagation", "private", "sh", "-c", script], capture_output=True)
    first, code, seen, last = done.stdout.splitlines()
    assert code == b"73"
    assert b"No space left" in done.stderr
    assert json.loads(seen)["token"] == json.loads(first)["token"]
    assert json.loads(last)["token"] == json.loads(first)["token"] + 1
