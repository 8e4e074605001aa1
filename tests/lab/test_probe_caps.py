"""What a process may use: its processors and its memory, set, read back, and taken away again."""

from __future__ import annotations

import os
import resource
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from probe_kit import PYTHON, Lab, call, only, probe_path, py, result, sh

from meltbench.factors import in_words
from meltbench.probe.job import Job

if TYPE_CHECKING:
    from collections.abc import Iterator

    from meltbench.probe.journal import Event, Journal

MIB = 1 << 20
CPUS = sorted(os.sched_getaffinity(0))
HOG = "held = []\nwhile len(held) < 400: held.append(bytearray(1 << 20))\nprint('all of it')"


def groups() -> list[Path]:
    """Memory groups of this product that are left on the machine."""
    return [path for path in Path("/sys/fs/cgroup").rglob("meltbench-*") if path.is_dir()]


def own_memory_group() -> Path | None:
    """The folder of this process's memory group in version 1, where groups can be made."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, names, path = line.split(":", 2)
        folder = Path("/sys/fs/cgroup/memory" + path)
        if "memory" in names.split(",") and os.access(folder, os.W_OK):
            return folder
    return None


needs_group = pytest.mark.skipif(own_memory_group() is None, reason="no memory group can be made here")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    yield lab
    assert lab.left() == []
    assert [path for path in groups() if lab.run_id in path.name] == []


def spawned(journal: Journal) -> Event:
    (event,) = journal.named("spawn")
    return event


def test_without_caps_none_is_told(lab: Lab) -> None:
    event = spawned(lab.run("step exec c 9000 -- true"))
    assert (event["cpus"], event["memory_by"], event["memory_bytes"]) == (None, None, None)


@pytest.mark.parametrize("asked", [CPUS[:1], CPUS[-1:], CPUS])
def test_the_processors_are_those_that_were_asked_for(lab: Lab, asked: list[int]) -> None:
    words = ",".join(map(str, asked))
    journal = lab.run(
        f"step exec c 9000 cpus={words} env=A=b -- {py('import os; print(sorted(os.sched_getaffinity(0)))')}"
    )
    assert result(journal) == ("done", "")
    assert only(journal, "c", "out").readings.raw == [str(asked).encode()]
    assert spawned(journal)["cpus"] == in_words(asked)  # as they are asked for: neighbours are a range
    assert sorted(os.sched_getaffinity(0)) == CPUS


@pytest.mark.parametrize("asked", ["1023", "0-1023", "1000-1001"])
def test_processors_that_are_not_there_fail_the_step(lab: Lab, asked: str) -> None:
    journal = lab.run(f"step spawn p cpus={asked} -- sleep 100", "step mark never")
    online = Path("/sys/devices/system/cpu/online").read_text().strip()
    said, reason = result(journal)
    assert (said, reason.startswith(f"cannot start: cpus={asked} are not all there; online: {online}; allowed: ")) == (
        "failed",
        True,
    )
    assert journal.named("spawn") == journal.named("mark") == []


NONSENSE = [
    *(
        "cpus=",
        "cpus=a",
        "cpus=1-",
        "cpus=-1",
        "cpus=3-1",
        "cpus=0,",
        "cpus=1024",
        "cpus=0%2C1",
        "cpus=9999999999999999999",
    ),
    *("memory=", "memory=1M", "memory=1048575", "memory=-1", "memory=1048576 memory=1048576", "cpus=0 cpus=1"),
]


@pytest.mark.parametrize("word", NONSENSE)
def test_a_cap_that_makes_no_sense_is_refused_before_anything_runs(lab: Lab, word: str) -> None:
    lab.job(f"step spawn p {word} -- true")
    done = call("run", lab.dir)
    assert (done.returncode, b"cpus=0-3,6 | memory=BYTES" in done.stderr) == (64, True)


def test_an_undo_takes_no_caps(lab: Lab) -> None:
    lab.job("step undo cpus=0 -- true")
    assert call("run", lab.dir).returncode == 64


@needs_group
def test_a_hog_is_killed_by_its_cap_and_the_machine_is_not(lab: Lab) -> None:
    journal = lab.run(
        f"step try hog 30000 memory={64 * MIB + 5} -- {py(HOG)}", f"step exec small 9000 -- {py('print(1)')}"
    )
    assert result(journal) == ("done", "")
    start, other = journal.named("spawn")
    assert (start["memory_by"], start["memory_bytes"]) == ("cgroup", 64 * MIB)  # whole pages, as read back
    assert other["memory_by"] is None
    hog, small = journal.named("exit")
    assert (hog["signal"], hog["oom"], hog["by_us"]) == (9, True, False)
    assert (small["code"], small["oom"]) == (0, False)
    assert [e["result"] for e in journal.named("undo")] == ["ok"]


@needs_group
def test_under_its_cap_a_program_is_left_alone(lab: Lab) -> None:
    journal = lab.run(f"step exec p 9000 memory={100 * MIB} -- {py('bytearray(20 << 20)')}")
    assert result(journal) == ("done", "")
    assert journal.named("exit")[0]["oom"] is False


@needs_group
def test_one_that_is_killed_otherwise_was_not_killed_for_memory(lab: Lab) -> None:
    journal = lab.run(f"step try p 9000 memory={100 * MIB} -- {sh('kill -9 $$')}")
    (gone,) = journal.named("exit")
    assert (gone["signal"], gone["oom"]) == (9, False)


@needs_group
def test_the_children_count_too(lab: Lab) -> None:
    # The kernel kills the largest; what the shell that started it makes of that is its own affair.
    script = f"{shlex.quote(PYTHON)} -c {shlex.quote(HOG)}; echo child $?"
    journal = lab.run(f"step try p 30000 memory={64 * MIB} -- {sh(script)}")
    assert only(journal, "p", "out").readings.raw[-1] == b"child 137"


@needs_group
def test_a_group_goes_with_the_job_whatever_is_killed(lab: Lab) -> None:
    for victims in (("pid",), ("guard_pid",), ("guard_pid", "pid")):
        one = Lab(lab.root.parent / "-".join(victims))
        running = one.start(f"step spawn p memory={64 * MIB} -- sleep 300", "step idle long 60000")
        one.until(lambda one=one: one.state().get("name") == "long")
        assert len([path for path in groups() if one.run_id in path.name]) == 1
        for victim in victims:
            os.kill(one.state()[victim], signal.SIGKILL)
        running.wait(30)
        one.until(lambda one=one: call("recover", one.root).returncode == 0)
        one.until(lambda one=one: one.state()["state"] == "ended")
        assert [path for path in groups() if one.run_id in path.name] == []
        assert one.left() == []


def without_groups(lab: Lab, *lines: str, data_bytes: int = resource.RLIM_INFINITY) -> Journal:
    """The job in a mount namespace where no memory group can be seen."""
    if os.geteuid() != 0 or not shutil.which("unshare"):
        pytest.skip("needs root to hide the groups in a namespace of its own")
    lab.job(*lines)
    script = 'mount -t tmpfs none /sys/fs/cgroup && exec "$0" "$@"'
    words = ["unshare", "-m", "--propagation", "private", "sh", "-c", script, probe_path(), "run", str(lab.dir)]
    limit = (data_bytes, data_bytes)
    done = subprocess.run(
        words, capture_output=True, timeout=60, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_DATA, limit)
    )
    assert done.returncode == 0, done.stderr
    return lab.journal()


def test_where_no_group_can_be_made_the_process_is_limited(lab: Lab) -> None:
    look = "import resource; print(resource.getrlimit(resource.RLIMIT_DATA))"
    journal = without_groups(
        lab,
        f"step exec look 9000 memory={100 * MIB} -- {py(look)}",
        f"step try hog 30000 memory={100 * MIB} -- {py(HOG)}",
    )
    assert result(journal) == ("done", "")
    assert {(e["memory_by"], e["memory_bytes"]) for e in journal.named("spawn")} == {("rlimit", 100 * MIB)}
    assert only(journal, "look", "out").readings.raw == [f"({100 * MIB}, {100 * MIB})".encode()]
    assert b"MemoryError" in only(journal, "hog", "err").readings.raw[-1]
    _, hog = journal.named("exit")
    assert (hog["code"], hog["oom"]) == (1, False)
    assert journal.named("undo") == []


def test_a_limited_process_may_map_a_file_that_is_larger(lab: Lab, tmp_path: Path) -> None:
    # As engines map their models. A limit of the address space would refuse it.
    model = tmp_path / "model"
    with model.open("wb") as file:
        file.truncate(400 * MIB)
    see = f"import mmap; f = open({str(model)!r}, 'rb'); print(len(mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)))"
    journal = without_groups(lab, f"step exec p 9000 memory={100 * MIB} -- {py(see)}")
    assert result(journal) == ("done", "")
    assert only(journal, "p", "out").readings.raw == [str(400 * MIB).encode()]


def test_a_limit_above_what_the_machine_allows_is_told_as_it_is(lab: Lab) -> None:
    bound = 2000 * MIB
    event = spawned(without_groups(lab, f"step exec p 9000 memory={4000 * MIB} -- true", data_bytes=bound))
    assert (event["memory_by"], event["memory_bytes"]) == ("rlimit", bound)


def test_the_controller_writes_caps() -> None:
    job = Job("r")
    job.spawn("a", ["x"], {"K": "v"}, cpus="0-3,6", memory_bytes=1 << 30)
    job.execute("b", 1, ["x"], cpus="0")
    job.attempt("c", 1, ["x"], memory_bytes=1 << 20)
    job.spawn("d", ["x"])
    assert job.lines == [
        "step spawn a cpus=0-3,6 memory=1073741824 env=K=v -- x",
        "step exec b 1000 cpus=0 -- x",
        "step try c 1000 memory=1048576 -- x",
        "step spawn d -- x",
    ]
