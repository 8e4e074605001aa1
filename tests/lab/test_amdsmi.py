"""AMD's GPUs: the real helper and the real package over a made driver of known power, with what goes wrong there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meltbench import paths
from meltbench.catalog import builtin_root
from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, prepare
from meltbench.probe import build
from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.records import Phase

HELPER = builtin_root() / "runners" / "helpers" / "amdsmi.py"
Row = dict[str, Any]


@pytest.fixture(scope="session")
def made_amd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a libamd_smi.so that stands for the driver."""
    spec = find_spec("amdsmi")
    if spec is None or spec.origin is None:
        pytest.skip("amdsmi is not installed: pip install 'meltbench[amd]'")
    if not build.zig_there():
        pytest.skip("the pinned ziglang, which compiles the made driver, is not installed")
    folder = tmp_path_factory.mktemp("amd")
    made = Path(__file__).with_name("made_amdsmi.c").read_text()
    names = re.findall(
        r"_libraries\['libamd_smi.so'\]\.(\w+)", Path(spec.origin).with_name("amdsmi_wrapper.py").read_text()
    )
    rest = [f"int {name}(void) {{ return 2; }}" for name in dict.fromkeys(names) if f"int {name}(" not in made]
    source = folder / "made.c"
    source.write_text("\n".join([made, *rest, ""]))
    words = ["-shared", "-fPIC", "-O1", "-o", str(folder / "libamd_smi.so"), str(source)]
    build.zig_cc(words, paths.cache_dir() / "probe" / "zig")
    return folder


def some(folder: Path | None, n: int = 1, period_ms: int = 20, **made: object) -> list[Row]:
    """The first lines of the helper, which must end once nobody reads on."""
    library = {} if folder is None else {"LD_LIBRARY_PATH": str(folder)}
    settings = {f"MADE_AMD_{key.upper()}": str(value) for key, value in made.items()}
    words = [sys.executable, "-B", "-P", str(HELPER), str(period_ms)]
    process = subprocess.Popen(words, env={**os.environ, **library, **settings}, stdout=subprocess.PIPE)
    assert process.stdout is not None
    found = [json.loads(line) for _, line in zip(range(n), process.stdout, strict=False)]
    process.stdout.close()
    assert process.wait(20) in (1, -signal.SIGPIPE)
    return found


def heard(lines: list[Row]) -> tuple[dict[str, Any], Any]:
    raw = b"\n".join(json.dumps(line).encode() for line in lines)
    series, status = read("amd", "amdsmi", captured(READERS["amdsmi"], raw), {})
    return {one.name: one for one in series}, status


def window(lines: list[Row]) -> Phase:
    return Phase("run", lines[2]["t0_ns"], lines[-3]["t0_ns"])


def test_the_real_package_reads_every_value_of_a_made_gpu(made_amd: Path) -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    first, second = some(made_amd, 2)
    stamps = [before, *(first[key] for key in ("t0_ns", "t1_ns", "end_ns")), second["t0_ns"]]
    assert stamps == sorted(stamps)
    want = {"gpu": 0, "resolution_uj": 15.3, "power_w": 150, "average_w": 150, "vram_mib": 2048}
    want |= {"edge_c": 40, "hotspot_c": 50, "memory_c": 60}
    assert {key: first[key] for key in want} == want
    assert "nulls" not in first
    found, status = heard([first, second])
    assert status.status == "ok"
    assert found["amd.gpu0.energy"].value[0] == pytest.approx(50_000, rel=0.01)
    assert found["amd.gpu0.memory_bytes"].value[0] == 2048 * 2.0**20
    assert (found["amd.gpu0.energy"].scope, found["amd.gpu0.energy"].klass) == ("module", "B")


def test_the_joules_of_a_made_gpu_are_a_difference_of_its_counter(made_amd: Path) -> None:
    lines = some(made_amd, 60, w=300)
    found, _ = heard(lines)
    span = window(lines)
    joules = energy(prepare(found["amd.gpu0.energy"]), span)
    assert joules.value == pytest.approx(300 * span.duration_s, rel=0.02)
    assert energy(prepare(found["amd.gpu0.power_average"]), span).reason is not None


def test_trap_28_a_counter_that_stands_still_gives_no_energy_and_a_reason(made_amd: Path) -> None:
    lines = some(made_amd, 30, stuck=1)
    found, _ = heard(lines)
    assert found["amd.gpu0.energy"].value.min() == found["amd.gpu0.energy"].value.max() > 0
    joules = energy(prepare(found["amd.gpu0.energy"]), window(lines))
    assert joules.value is None
    assert str(joules.reason).startswith("stale_sensor: the counter never changed")


def test_trap_28_a_counter_that_goes_backwards_is_a_reset(made_amd: Path) -> None:
    lines = some(made_amd, 40, back_ms=400)
    found, _ = heard(lines)
    counter = found["amd.gpu0.energy"]
    assert (np.diff(counter.value) < 0).sum() == 1
    assert str(energy(prepare(counter), window(lines)).reason).startswith("counter_reset")
    assert len(digest(counter).resets) == 1


def test_trap_28_of_two_dies_the_one_that_counts_nothing_is_absent(made_amd: Path) -> None:
    lines = some(made_amd, 4, gpus=2, one_die=1)
    assert [line["gpu"] for line in lines] == [0, 1, 0, 1]
    assert lines[0]["nulls"] == {"power_w": "NOT_SUPPORTED"}
    found, status = heard(lines)
    assert found["amd.gpu0.energy"].words == ["ok", "ok"]
    assert found["amd.gpu1.energy"].words == ["absent", "absent"]
    assert found["amd.gpu1.power_average"].words == ["absent", "absent"]
    assert status.status == "ok"


def test_every_value_that_fails_is_a_named_null_in_a_line_that_is_there(made_amd: Path) -> None:
    (line,) = some(made_amd, fail="energy=2,power=10,temp=30,vram=4242")
    assert all(line[key] is None for key in ("energy_counts", "power_w", "average_w", "edge_c", "vram_mib"))
    nulls = line["nulls"]
    assert (nulls["energy_counts"], nulls["power_w"], nulls["edge_c"]) == ("NOT_SUPPORTED", "NO_PERM", "BUSY")
    found, _ = heard([line])
    words = {name: one.words[0] for name, one in found.items()}
    assert words["amd.gpu0.energy"] == "absent"
    assert words["amd.gpu0.power"] == "denied"
    assert words["thermal.amd.gpu0.edge"] == "again"
    assert words["amd.gpu0.memory_bytes"] == "error"


@pytest.mark.parametrize(("init", "word"), [(10, "denied"), (34, "absent"), (18, "error")])
def test_a_driver_that_refuses_is_told_once(made_amd: Path, init: int, word: str) -> None:
    (line,) = some(made_amd, 5, init=init)
    assert line["cannot"] == word
    assert line["detail"].startswith("AMD SMI: ")


def test_no_gpu_no_library_and_no_package_are_told_once(made_amd: Path) -> None:
    assert some(made_amd, 5, gpus=0) == [{"cannot": "absent", "detail": "AMD SMI has no GPU to read"}]
    (line,) = some(None, 5)
    assert line["cannot"] == "absent"
    assert "found no library of its release" in line["detail"]
    done = subprocess.run([sys.executable, "-S", "-B", "-P", str(HELPER), "50"], capture_output=True, timeout=60)
    assert done.returncode == 1
    assert json.loads(done.stdout)["detail"].startswith("amdsmi is not installed")
