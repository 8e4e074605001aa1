"""What a made board has beside its own sensors: a meter at its plug, read here, and helpers where it has a Python."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import made_meters
import pytest
from cli import Bench
from made_boards import Board, Python, Truth, made_board
from made_runs import WORK, codes, controller, is_the_truth, measure, metered, profile, series, span, status
from targets_kit import Keys, until

# Readings that come late on a busy machine are refused, as they should be.
pytestmark = pytest.mark.alone

WALL, OWN_W = 1.25, 0.4  # what a supply's losses make of a watt at the board, and what it takes itself
GPU_W = 60.0  # of made_nvml.c


class AtThePlug:
    """What a plug's meter sees of a board: its truth, and the losses of its supply."""

    def __init__(self, truth: Truth) -> None:
        until(lambda: truth.path.exists() and truth.rows(), "the truth to begin")
        self._truth, self._first_ns = truth, truth.rows()[0][0]

    @property
    def watts(self) -> float:
        return WALL * self._truth.rows()[-1][1] + OWN_W

    @property
    def joules(self) -> float:
        last_ns = self._truth.rows()[-1][0]
        return WALL * self._truth.joules(self._first_ns, last_ns) + OWN_W * (last_ns - self._first_ns) / 1e9


PLUGGED = """title = "a Pi at a plug"
inherits = "rpi5"
[[source]]
name = "plug"
reader = "shelly"
period_ms = 97
host = true
[source.options]
address = "{address}"
scope = "wall"
[[total]]
source = "plug"
"""


def test_a_meter_at_the_plug_of_a_remote_board_is_a_source_of_its_run(bench: Bench, pi5: Board) -> None:
    """The board has a clock since boot of its own: only the exchange before and after the run ties the two."""
    with made_meters.plug(made_meters.shelly_second(AtThePlug(pi5.truth))) as address:  # type: ignore[arg-type]
        controller(bench, pi5, "", "--profile", profile(bench, "plugged", PLUGGED.format(address=address)))
        run = metered(
            bench, work=f"{WORK}; sleep 4"
        )  # long enough for a counter of such steps, however fast the machine
    first, last = span(run, "run")
    true = WALL * pi5.truth.joules(first, last) + OWN_W * (last - first) / 1e9
    found = measure(run, "energy_j")
    assert found["value"] == pytest.approx(true, abs=found["u_k2"]), (found, true)
    # Its counter steps by a thousandth of a watt-hour, 3.6 J, at both ends of a run of some seconds.
    assert found["scope"] == "wall"
    assert 0 < found["u_k2"] < true, (found, true)
    assert status(run, "plug")[0] == "ok"
    assert "clock_unsynced" not in codes(run)
    # The board's own sensor was read at the same time, by the same clock.
    plugged, own = series(run, "meter.power"), series(run, "pmic.sum.power")
    assert own[0][0] < plugged[-1][0]
    assert plugged[0][0] < own[-1][0]


def test_no_python_no_helper_and_nothing_is_lost_by_it(bench: Bench, jetson: Board) -> None:
    controller(bench, jetson)
    run = metered(bench, work="sleep 4")
    assert status(run, "jtop")[0] == "absent"
    assert "no Python there that has jetson-stats" in status(run, "jtop")[1]
    energy = measure(run, "energy_j")
    assert energy["value"] is not None, energy["reason"]


# jtop's interface (jetson-stats 4), on the files of the made board.
JTOP = """
import time
CHIP = "/sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/"
class JtopException(Exception): pass
def _read(name):
    with open(CHIP + name) as file:
        return int(file.read())
class jtop:
    def __init__(self, interval): self._interval = interval
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def ok(self): time.sleep(self._interval); return True
    @property
    def power(self):
        milliwatts = _read("in1_input") * _read("curr1_input") / 1000
        return {"rail": {}, "tot": {"name": "VDD_IN", "power": milliwatts, "online": True, "type": "INA3221"}}
    temperature = {"cpu": {"temp": 41.5, "online": True}}
    stats = {"CPU1": 3}
"""


@pytest.fixture(scope="module")
def stocked_jetson(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[Board]:
    """A made Jetson with Python and jetson-stats."""
    modules = tmp_path_factory.mktemp("modules")
    (modules / "jtop.py").write_text(JTOP)
    with made_board("jetson", tmp_path_factory.mktemp("stocked"), lab_keys, python=Python(modules)) as board:
        yield board


def test_jetson_stats_are_read_where_they_are_installed(bench: Bench, stocked_jetson: Board) -> None:
    controller(bench, stocked_jetson)
    run = metered(bench, idle_s=1.2)
    assert status(run, "jtop")[0] == "ok"
    is_the_truth(run, stocked_jetson)
    assert {value for _, value in series(run, "thermal.jtop.cpu")} == {41.5}
    drawn = [row[1] for row in stocked_jetson.truth.rows()]
    watts = [value for _, value in series(run, "jtop.VDD_IN.power")]
    assert len(watts) >= 3
    assert min(drawn) - 0.1 <= min(watts) <= max(watts) <= max(drawn) + 0.1


@pytest.fixture(scope="module")
def workstation(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys, made_nvml: Path) -> Iterator[Board]:
    """A made desktop with Python and an NVIDIA GPU, whose RAPL may be read."""
    python = Python(tmp_path_factory.mktemp("modules"), made_nvml)
    with made_board("desktop", tmp_path_factory.mktemp("workstation"), lab_keys, python=python) as board:
        board.ssh("chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj", user="root")
        yield board


def test_a_gpu_of_a_remote_desktop_is_a_part_of_its_energy(bench: Bench, workstation: Board) -> None:
    controller(bench, workstation)
    found = json.loads(bench.run("devices", "doctor", "board", "--json").stdout)
    seen = {one["what"]: one for one in found["findings"]}
    assert "gpu0.power 60.0 W" in seen["source nvml"]["seen"]
    assert seen["accelerator"]["seen"] == "NVIDIA GeForce RTX 3060"
    assert "runners build llamacpp --on-device board --cuda" in seen["accelerator"]["mend"]
    run = metered(bench)
    first, last = span(run, "run")
    true = (1 + 1 / 9) * workstation.truth.joules(first, last) + GPU_W * (last - first) / 1e9
    energy = measure(run, "energy_j")
    assert energy["value"] == pytest.approx(true, abs=energy["u_k2"])
    assert energy["u_k2"] < 0.15 * true
    assert "partial_total" not in codes(run)
