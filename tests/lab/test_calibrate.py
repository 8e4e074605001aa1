"""Calibration and self-test by the real command line and the real probe, against made phones of known truth."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import made_phone
import pytest
from cli import Bench
from jsoncheck import NAMED, problems
from made_gauge import IDLE_W, LOAD_W, Dialect

from meltbench.probe.journal import read_journal

pytestmark = pytest.mark.slow
# A counter finer than any phone's, so that seconds of load move it as far as minutes do a real one.
FINE = {"charge_quantum": 20}
PROFILE = """
title = "a made phone"
target = "local"
[roots]
sys = "{sys}"
[[source]]
name = "gauge"
reader = "power_supply"
period_ms = 97
[[source]]
name = "heat"
reader = "thermal"
period_ms = 197
[[total]]
source = "gauge"
rails = ["battery.power"]
"""


@dataclass
class Phone:
    """A made phone, and a place of its own to measure it from."""

    bench: Bench
    process: Popen[bytes]

    def call(self, *args: str, code: int = 0) -> Any:
        done = self.bench.run(*args, "--json", timeout=240)
        assert done.returncode == code, done.stderr + done.stdout
        return json.loads(done.stdout)

    def exec(self, burn_s: float) -> dict[str, Any]:
        """A run whose command is a burn, by the probe that the calibration put there."""
        (probe,) = (self.bench.home / "state" / "meltbench" / "target" / "bin").glob("meltprobe-*")
        words = (str(probe), "burn", "0", str(round(burn_s * 1000)))
        args = ("exec", "--device", "phone", "--set", "idle_s=4", "--json", "--", *words)
        done = self.bench.run(*args, timeout=120)
        assert done.returncode == 0, done.stderr
        (run,) = json.loads(done.stdout)
        return dict(run)


@pytest.fixture
def made(tmp_path: Path, probe_binary: Path) -> Iterator[Any]:
    phones: list[Phone] = []

    def one(name: str, dialect: Dialect, plugged: int | None = 0) -> Phone:
        home = tmp_path / name
        (home / "devices").mkdir(parents=True)
        (home / "devices" / "phone.toml").write_text(PROFILE.format(sys=home / "sys"))
        phones.append(Phone(Bench(home), made_phone.start(home / "sys", home, dialect, plugged)))
        return phones[-1]

    yield one
    for phone in phones:
        phone.process.kill()
        phone.process.communicate()
        assert phone.bench.leftovers() == []


def measure(run: dict[str, Any], name: str, phase: str = "run", source: str = "total") -> dict[str, Any]:
    (found,) = [m for m in run["measures"] if (m["name"], m["phase"], m["source"]) == (name, phase, source)]
    return dict(found)


DIALECTS = {
    "uA": Dialect(**FINE),
    "mA": Dialect("mA", -1, 0.5, 0.5, volts=1e3, noise_a=0.001, **FINE),
    "inverted": Dialect("uA", 1, 1.0, 1.0, gain=0.95, **FINE),
}


def test_trap_1_and_2_phones_of_three_dialects_give_the_same_watts_once_calibrated(made: Any) -> None:
    phones = {name: made(name, dialect) for name, dialect in DIALECTS.items()}

    def whole(name: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        before = phones[name].call("devices", "selftest", "phone", "--idle-s", "3", "--load-s", "3", "--steps", "1")
        quick = ("--quick", "--idle-s", "8", "--load-s", "8")
        return before, phones[name].call("devices", "calibrate", "phone", *quick), phones[name].exec(20)

    with ThreadPoolExecutor(3) as pool:
        found = dict(zip(phones, pool.map(whole, phones), strict=True))
    for name, (before, record, run) in found.items():
        assert problems(NAMED["calibration"], record) == []
        assert problems(NAMED["selftest"], before) == []
        dialect = DIALECTS[name]
        (gauge,) = record["gauges"]
        assert gauge["refused"] == ""
        assert gauge["options"]["current_unit"] == dialect.unit
        assert gauge["options"]["discharge_sign"] == dialect.sign
        assert gauge["options"]["voltage_unit"] == ("uV" if dialect.volts == 1e6 else "mV")
        assert gauge["charge_ratio"] == pytest.approx(1 / dialect.gain, abs=gauge["charge_u_k2"] + 0.01)
        by_name = {one["series"]: one for one in record["sensors"]}
        power = by_name["battery.power"]
        assert power["seen"] == "yes"
        assert power["load"] == pytest.approx(LOAD_W, rel=0.03)
        assert power["difference"] == pytest.approx(LOAD_W - IDLE_W, rel=0.05)
        assert power["update_s"] == pytest.approx(dialect.update_s, rel=0.3)
        assert by_name["thermal.battery"]["difference"] > 0
        # What nothing had calibrated was wrong by a factor of a thousand, a sign, or 5 %.
        (raw,) = [one for one in before["sensors"] if one["series"] == "battery.power"]
        assert (raw["difference"] == pytest.approx(LOAD_W - IDLE_W, rel=0.03)) == (name == "uA")
        # The run names the record, and so does its series.
        assert run["calibrations"] == {"gauge": record["calibration"]}
        assert run["outcome"] == "done"
        folder = phones[name].bench.data / "runs" / run["run_id"]
        ticket = json.loads((folder / "ticket.json").read_text())
        assert ticket["sources"][0]["options"]["calibration"] == record["calibration"]
        # A filter of 1 s that is told once a second takes 1.5 s of the load's 20 away, and gives it to what follows.
        assert measure(run, "mean_power_w")["value"] == pytest.approx(LOAD_W, rel=0.1)
    watts = {name: measure(run, "mean_power_w")["value"] for name, (_, _, run) in found.items()}
    assert max(watts.values()) / min(watts.values()) < 1.1, watts
    kept(phones["uA"], found["uA"][1])


def kept(phone: Phone, record: dict[str, Any]) -> None:
    """The record is in the store with its journal, can be shown, and an update of the system leaves it unused."""
    (folder,) = (phone.bench.data / "calibrations").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == [
        f"{record['calibration']}.{end}" for end in ("journal", "json")
    ]
    journal = read_journal(folder / f"{record['calibration']}.journal")
    assert journal.end is not None
    assert journal.end["result"] == "done"
    shown = phone.bench.run("devices", "calibrate", "phone", "--show")
    assert "current_unit uA, discharge_sign -1" in shown.stdout
    assert phone.call("devices", "calibrate", "phone", "--show") == [record]
    path = folder / f"{record['calibration']}.json"
    path.write_text(path.read_text().replace("current_unit", "current_unix"))
    damaged = phone.bench.run("devices", "calibrate", "phone", "--show")
    assert damaged.returncode == 1
    assert "is damaged: its seal does not match" in damaged.stderr


def test_a_gauge_that_is_dead_or_on_a_cable_is_refused_and_selftest_does_not_see_it(made: Any) -> None:
    phones = {"dead": made("dead", Dialect(stuck=0)), "plugged": made("plugged", Dialect(), 1)}
    quick = ("--quick", "--idle-s", "3", "--load-s", "3", "--steps", "1")

    def whole(name: str) -> tuple[Any, Any]:
        return (
            phones[name].call("devices", "calibrate", "phone", *quick, code=1),
            phones[name].call("devices", "selftest", "phone", "--idle-s", "3", "--load-s", "3", "--steps", "1"),
        )

    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(phones, pool.map(whole, phones), strict=True))
    assert problems(NAMED["calibration"], found["dead"][0]) == []
    (dead,), (plugged,) = (found[name][0]["gauges"] for name in ("dead", "plugged"))
    assert dead["refused"] == "step_not_seen: it read 0 A all the time"
    assert plugged["refused"].startswith("plugged: a supply is plugged in")
    assert (dead["options"], plugged["options"]) == (None, None)
    seen = {one["series"]: one for one in found["dead"][1]["sensors"]}
    assert (seen["battery.power"]["seen"], seen["battery.power"]["difference"]) == ("no", None)
    assert seen["battery.voltage_v"]["seen"] == "yes"
    told = phones["dead"].bench.run("devices", "calibrate", "phone", "--show").stdout
    assert "not trusted, step_not_seen" in told
    # A run of that phone has no calibration, and says nothing of one.
    run = phones["dead"].exec(2)
    assert run["calibrations"] == {}


def test_ctrl_c_ends_the_load_and_leaves_nothing(bench: Bench) -> None:
    controller = bench.start("devices", "calibrate", "local", "--idle-s", "1", "--load-s", "60")
    bench.wait_for(lambda state: state.get("name") == "load_0")
    os.killpg(controller.pid, signal.SIGINT)  # as a terminal does
    _, said = controller.communicate(timeout=60)
    assert controller.returncode == 130
    assert "the load was ended, and nothing was stored" in said
    assert bench.no_leftovers()
    assert not list(bench.data.glob("calibrations/*/*"))
    assert bench.jobs() == []


def test_a_calibration_of_another_build_of_the_system_is_not_used_and_that_is_said(made: Any) -> None:
    phone = made("phone", Dialect())
    record = phone.call("devices", "calibrate", "phone", "--quick", "--idle-s", "3", "--load-s", "3", "--steps", "1")
    assert record["gauges"][0]["refused"] == ""
    (phone.bench.home / "proc" / "sys" / "kernel").mkdir(parents=True)
    (phone.bench.home / "proc" / "sys" / "kernel" / "osrelease").write_text("9.9.9-updated\n")
    profile = phone.bench.home / "devices" / "phone.toml"
    profile.write_text(profile.read_text().replace("[roots]", f'[roots]\nproc = "{phone.bench.home / "proc"}"'))
    done = phone.bench.run("exec", "--device", "phone", "--set", "idle_s=0.5", "--json", "--", "true")
    assert f"calibration {record['calibration']} of gauge was made under" in done.stderr
    assert "not used" in done.stderr
    assert json.loads(done.stdout)[0]["calibrations"] == {}
