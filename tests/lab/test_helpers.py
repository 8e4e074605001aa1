"""The helper programs themselves: the real one, the real library under it, and a made world below that."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probe_kit import Lab, only, probe_path, result

from meltbench.catalog import builtin_root
from meltbench.measure.crosscheck import cross_check
from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, prepare
from meltbench.probe.job import literal
from meltbench.readings import read
from meltbench.records import Phase

HELPERS = builtin_root() / "runners" / "helpers"
Row = dict[str, Any]


def argv(name: str, period_ms: float = 97) -> list[str]:
    return [sys.executable, "-B", "-P", str(HELPERS / f"{name}.py"), f"{period_ms:g}"]


def environment(folder: Path | None, **made: object) -> dict[str, str]:
    library = {} if folder is None else {"LD_LIBRARY_PATH": str(folder)}
    return {**os.environ, **library, **{f"MADE_NVML_{key.upper()}": str(value) for key, value in made.items()}}


def some_lines(folder: Path | None, n: int = 1, **made: object) -> list[Row]:
    """The first lines of the helper, which must end once nobody reads on."""
    process = subprocess.Popen(argv("nvml", 20), env=environment(folder, **made), stdout=subprocess.PIPE)
    assert process.stdout is not None
    found = [json.loads(raw) for _, raw in zip(range(n), process.stdout, strict=False)]
    process.stdout.close()
    assert process.wait(20) in (1, -signal.SIGPIPE)
    return found


def test_the_real_library_reads_every_field_of_a_made_gpu(made_nvml: Path) -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    first, second = some_lines(made_nvml, 2)
    stamps = [before, *(first[key] for key in ("t0_ns", "t1_ns", "end_ns")), second["t0_ns"]]
    assert stamps == sorted(stamps)
    assert first["uuid"] == "GPU-00000000-0000-0000-0000-000000000000"
    assert first["energy_mj"] == pytest.approx(60 * first["t0_ns"] / 1e6, rel=0.01)
    want = {
        "gpu": 0,
        "power_mw": 60000,
        "power_average_mw": 60000,
        "temp_c": 54,
        "memory_bytes": 1 << 30,
        "sm_mhz": 1410,
        "throttle": 4,
        "processes": 0,
    }
    assert {key: first[key] for key in want} == want
    assert "usage_mw" not in first
    assert "nulls" not in first


@pytest.mark.parametrize("value_type", [0, 1, 3])
def test_power_is_read_whatever_type_the_driver_gives_it(made_nvml: Path, value_type: int) -> None:
    (line,) = some_lines(made_nvml, type=value_type)
    assert line["power_mw"] == 60000


def test_every_field_that_fails_is_a_named_null_in_a_line_that_is_there(made_nvml: Path) -> None:
    fail = "energy=3,instant=3,average=4,usage=15,temp=10,memory=999,clock=16,throttle=3,processes=4242"
    (line,) = some_lines(made_nvml, fail=fail)
    assert line["nulls"] == {
        "energy_mj": "NOT_SUPPORTED",
        "power_mw": "NOT_SUPPORTED",
        "power_average_mw": "NO_PERMISSION",
        "usage_mw": "GPU_IS_LOST",
        "temp_c": "TIMEOUT",
        "memory_bytes": "UNKNOWN",
        "sm_mhz": "RESET_REQUIRED",
        "throttle": "NOT_SUPPORTED",
        "processes": "4242",
    }
    assert all(line[key] is None for key in line["nulls"])


def test_a_driver_without_power_of_now_falls_back_and_says_so(made_nvml: Path) -> None:
    for fail in ("instant=3,average=3", "fields=13"):
        (line,) = some_lines(made_nvml, fail=fail)
        assert (line["power_mw"], line["power_average_mw"], line["usage_mw"]) == (None, None, 60000)
        assert line["compute"] == 86


def test_one_gpu_of_two_may_be_closed_to_us(made_nvml: Path) -> None:
    assert [line["gpu"] for line in some_lines(made_nvml, 4, gpus=2)] == [0, 1, 0, 1]
    told, line = some_lines(made_nvml, 2, gpus=2, fail="second=4")
    assert told == {"gpu": 1, "cannot": "denied", "detail": "NVML: Insufficient Permissions"}
    assert line["gpu"] == 0


@pytest.mark.parametrize(("init", "word"), [(4, "denied"), (9, "absent"), (18, "error")])
def test_a_driver_that_refuses_is_told_once(made_nvml: Path, init: int, word: str) -> None:
    (line,) = some_lines(made_nvml, 5, init=init)
    assert line["cannot"] == word
    assert line["detail"].startswith("NVML: ")


def test_no_gpu_and_no_library_are_told_once(made_nvml: Path) -> None:
    assert some_lines(made_nvml, 5, gpus=0) == [{"cannot": "absent", "detail": "NVML has no GPU to read"}]
    (line,) = some_lines(None, 5)
    assert line["cannot"] == "absent"
    assert "not found" in line["detail"].lower()


def test_the_helper_ends_on_sigterm(made_nvml: Path) -> None:
    process = subprocess.Popen(argv("nvml"), env=environment(made_nvml), stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


def run_with(
    lab: Lab, name: str, env: dict[str, str], *, wrapper: tuple[str, ...] = (), channels: tuple[str, ...] = ()
):
    """The real probe runs a helper as a channel, with a second and a half between two marks."""
    lines = " ".join(literal(word) for word in argv(name, 47))
    lab.job(
        f"channel {name} lines -- {lines}",
        *channels,
        *("step idle before 1000", "step mark first", "step idle window 1500", "step mark last", "step idle after 500"),
    )
    done = subprocess.run([*wrapper, probe_path(), "run", str(lab.dir)], env=env, capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    journal = lab.journal()
    assert result(journal) == ("done", "")
    assert lab.left() == []
    return journal


def between_marks(journal: Any) -> Phase:
    first, last = (event["boot_ns"] for event in journal.named("mark"))
    return Phase("run", first, last)


def test_the_joules_of_a_made_gpu_between_two_marks(made_nvml: Path, tmp_path: Path) -> None:
    journal = run_with(Lab(tmp_path), "nvml", environment(made_nvml, mw=250_000))
    series, status = read("nvml", "nvml", journal.channel("nvml"), {})
    found = {one.name: one for one in series}
    assert status.status == "ok"
    assert only(journal, "nvml", "lines").readings.t0_ns[0] > found["nvml.gpu0.energy"].t1_ns[0]
    span = between_marks(journal)
    joules = energy(prepare(found["nvml.gpu0.energy"]), span)
    assert joules.reason is None
    assert (joules.scope, joules.klass) == ("module", "B")
    assert joules.value == pytest.approx(250 * span.duration_s, rel=0.05)
    assert joules.value is not None
    assert joules.u_k2 is not None
    assert abs(joules.value - 250 * span.duration_s) < joules.u_k2
    assert set(found["nvml.gpu0.power"].value.tolist()) == {250.0}


def test_a_driver_that_is_loaded_anew_is_a_reset_and_a_gpu_that_is_lost_a_status(
    made_nvml: Path, tmp_path: Path
) -> None:
    journal = run_with(Lab(tmp_path), "nvml", environment(made_nvml, reset_ms=1500))
    series, _ = read("nvml", "nvml", journal.channel("nvml"), {})
    counter = next(one for one in series if one.name == "nvml.gpu0.energy")
    fell = int(np.argmin(np.diff(counter.value)))
    assert counter.value[fell + 1] < counter.value[fell]
    around = Phase("run", int(counter.t0_ns[fell - 5]), int(counter.t1_ns[fell + 5]))
    assert str(energy(prepare(counter), around).reason).startswith("counter_reset")
    journal = run_with(Lab(tmp_path / "lost"), "nvml", environment(made_nvml, lost_ms=1000))
    series, status = read("nvml", "nvml", journal.channel("nvml"), {})
    counter = next(one for one in series if one.name == "nvml.gpu0.energy")
    assert list(dict.fromkeys(counter.words)) == ["ok", "error"]
    assert (status.status, "error" in status.detail) == ("ok", True)


def test_a_helper_without_its_library_is_a_source_that_is_absent(tmp_path: Path) -> None:
    journal = run_with(Lab(tmp_path), "nvml", environment(None))
    _, status = read("nvml", "nvml", journal.channel("nvml"), {})
    assert status.status == "absent"
    assert "1 absent; NVML: " in status.detail


WATTS = {  # both sockets have dram: pyRAPL sees either all of it or none
    "intel-rapl:0": ("package-0", 20.0),
    "intel-rapl:0/intel-rapl:0:0": ("dram", 3.0),
    "intel-rapl:1": ("package-1", 10.0),
    "intel-rapl:1/intel-rapl:1:0": ("dram", 2.0),
}


class Tree:
    """A /sys of two sockets with dram whose counters count in real time; laid out as sysfs is, links included."""

    def __init__(self, root: Path, cpus: int = 2) -> None:
        self.root, self.stop = root, threading.Event()
        zones = root / "class" / "powercap" / "intel-rapl"
        for zone, (name, _) in WATTS.items():
            (zones / zone).mkdir(parents=True)
            (zones / zone / "name").write_text(f"{name}\n")
            (zones / zone / "max_energy_range_uj").write_text("262143328850\n")
            (zones / zone / "energy_uj").write_text("0\n")
            (zones.parent / Path(zone).name).symlink_to(f"intel-rapl/{zone}")
        for cpu in range(cpus):
            topology = root / "devices" / "system" / "cpu" / f"cpu{cpu}" / "topology"
            topology.mkdir(parents=True)
            (topology / "physical_package_id").write_text(f"{cpu}\n")
        (root / "devices" / "system" / "cpu" / "present").write_text(f"0-{cpus - 1}\n")
        self.zones = zones
        self.thread = threading.Thread(target=self.count)

    def count(self) -> None:
        files = {zone: os.open(self.zones / zone / "energy_uj", os.O_WRONLY) for zone in WATTS}
        while not self.stop.wait(0.001):
            now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            for zone, (_, watts) in WATTS.items():
                os.pwrite(files[zone], b"%-15d\n" % int(watts * now / 1000), 0)
        for fd in files.values():
            os.close(fd)


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    made = Tree(tmp_path / "sys")
    made.thread.start()
    yield made
    made.stop.set()
    made.thread.join()


def as_sys(root: Path) -> tuple[str, ...]:
    """Runs what follows with a made tree for /sys, in a mount namespace of its own. pyRAPL knows no other place."""
    if os.geteuid() != 0:
        pytest.skip("needs root: a made /sys is bound over the real one in a mount namespace")
    tried = subprocess.run(["unshare", "-m", "mount", "--bind", str(root), "/sys"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"no mount namespace here: {tried.stderr.strip()}")
    return ("unshare", "-m", "sh", "-c", 'mount --bind "$0" /sys && exec "$@"', str(root))


def need_pyrapl() -> None:
    if find_spec("pyRAPL") is None:
        pytest.skip("pyRAPL is not installed: pip install 'meltbench[rapl]'")


def pyrapl_lines(tree: Path, *before: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*as_sys(tree), *before, *argv("pyrapl", 20)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )


def test_the_real_pyrapl_agrees_with_powercap_on_two_sockets(tree: Tree, tmp_path: Path) -> None:
    need_pyrapl()
    wrapper = as_sys(tree.root)
    powercap = tuple(
        f"channel rapl file /sys/class/powercap/intel-rapl:*/{file} {period} 0"
        for file, period in (("energy_uj", 19_000_000), ("name", 0), ("max_energy_range_uj", 0))
    )
    journal = run_with(Lab(tmp_path), "pyrapl", dict(os.environ), wrapper=wrapper, channels=powercap)
    own, _ = read("rapl", "rapl", journal.channel("rapl"), {})
    theirs, status = read("pyrapl", "pyrapl", journal.channel("pyrapl"), {})
    assert status.status == "ok", status.detail
    want = {f"pyrapl.package-{n}{what}" for n in (0, 1) for what in ("", ".dram")}
    assert {one.name for one in theirs} == want
    span = between_marks(journal)
    measures, reasons = cross_check([digest(one) for one in (*own, *theirs)], span)
    assert len(measures) == 4
    for one in measures:
        assert one.value == pytest.approx(1, abs=0.05)
    assert reasons == []
    joules = next(one for one in theirs if one.name == "pyrapl.package-0")
    assert energy(prepare(joules), span).value == pytest.approx(20 * span.duration_s, rel=0.05)


def test_pyrapl_reads_on_after_a_reading_that_failed(tmp_path: Path) -> None:
    need_pyrapl()
    made = Tree(tmp_path / "sys")
    file = made.zones / "intel-rapl:1" / "energy_uj"
    with pyrapl_lines(made.root) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["pkg_uj"] == [0, 0]
        file.write_text("junk\n")
        told = next(line for raw in process.stdout if "cannot" in (line := json.loads(raw)))
        assert told["cannot"] == "error"
        file.write_text("7\n")
        again = next(line for raw in process.stdout if (line := json.loads(raw)).get("pkg_uj") == [0, 7])
        assert again["dram_uj"] == [0, 0]
        process.terminate()
        # Nothing of the libraries it does without, which pyRAPL warns of.
        assert b"pymongo" not in process.stderr.read()


def test_a_machine_without_rapl_or_pyrapl_is_told_in_words(tmp_path: Path) -> None:
    need_pyrapl()
    made = Tree(tmp_path / "sys")
    (made.zones / "intel-rapl:1" / "name").write_text("psys\n")
    with pyrapl_lines(made.root) as process:
        assert process.stdout is not None
        (line,) = [json.loads(raw) for raw in process.stdout]
    assert line["cannot"] == "absent"
    assert "found no package zone a socket" in line["detail"]
    bare = [sys.executable, "-S", *argv("pyrapl")[1:]]  # without the packages that were installed
    done = subprocess.run(bare, capture_output=True, check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["detail"].startswith("pyRAPL is not installed")


def test_a_counter_that_may_not_be_read_is_denied_and_not_absent(tmp_path: Path) -> None:
    need_pyrapl()
    made = Tree(tmp_path / "sys")
    for file in made.zones.rglob("energy_uj"):
        file.chmod(0)
    drop = "-dac_override,-dac_read_search"
    with pyrapl_lines(made.root, "setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}") as process:
        assert process.stdout is not None
        (line,) = [json.loads(raw) for raw in process.stdout]
    assert line["cannot"] == "denied"
