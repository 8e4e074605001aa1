"""Phones in the dialects of seven makers, each by the profile that its `devices add` finds: no joule before its gauge
was held to a load, the right ones after that, and none ever of a phone that tells no current.

What they draw is made and known (tests/phone_simulator.py); adbd, server, probe and command line are real.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from adb_kit import Server
from phone_makers import MAKERS
from phone_road_kit import TMP, PhoneRoad
from phones_kit import made_phone
from road_kit import reasons

BURN_S, LONGER_S = 25, 50  # longer for a gauge that is asked every 2 s: ten values are needed
# By maker the profile that knows it, and the source that its joules come from.
KNOWN = {
    "pixel6": ("pixel6", "battery"),
    "galaxy-s23": ("galaxy-s23", "battery"),
    "oneplus-12": ("oneplus-12", "cmd_battery"),
    "xiaomi-13t-pro": ("xiaomi-13t-pro", None),
    "oneplus-6": ("generic-android", "battery"),
    "honor-alt": ("generic-android", "battery"),
    "motorola": ("generic-android", "battery"),
}
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@dataclass
class Told:
    """What became of a phone: the entry that was added, what the doctor says of it, a run before and one after its
    calibration, and that record; what was drawn in the second run, J."""

    added: dict[str, Any]
    doctor: dict[str, str]
    before: dict[str, Any]
    record: dict[str, Any]
    after: dict[str, Any]
    joules: float


def whole(maker: str, folder: Path, adb: Server) -> Told:
    with made_phone(folder / "phone", adb, maker, f"SERIAL{maker}") as phone:
        phone.steady()
        road = PhoneRoad(folder / "controller", target=phone)
        (road.home / "config/meltbench/devices/knobbed.toml").unlink()  # it would fit any phone

        def call(*words: str) -> Any:
            done = road.run(*words, timeout=300)
            assert done.stdout, done.stderr
            return json.loads(done.stdout)

        added = call("devices", "add", "box", "--json", "--adb", phone.serial)
        doctor = {one["what"]: one["seen"] for one in call("devices", "doctor", "box", "--json")["findings"]}
        # What loads it in a run is a burn by name alone: seven phones share this machine's cores.
        road.path("burn").write_text("sleep $2\n")
        burn = ("--", "sh", f"{TMP}/burn", "0")
        (before,) = call("exec", "--device", "box", "--set", "idle_s=0.5", "--json", *burn, "3")[:1]
        record = call(
            "devices", "calibrate", "box", "--json", "--quick", "--idle-s", "8", "--load-s", "8", "--steps", "1"
        )
        (after,) = call(
            "exec",
            "--device",
            "box",
            "--set",
            "idle_s=4",
            "--json",
            *burn,
            str(LONGER_S if KNOWN[maker][1] == "cmd_battery" else BURN_S),
        )[:1]
        run = next(one for one in after["phases"] if one["name"] == "run")
        return Told(added, doctor, before, record, after, phone.truth.joules(run["t0_ns"], run["t1_ns"]))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, adb: Server, probe_binary: Path) -> Iterator[dict[str, Told]]:
    """All phones at once: what takes time is that they are left alone."""
    folders = {maker: tmp_path_factory.mktemp(maker) for maker in MAKERS}
    with ThreadPoolExecutor(len(MAKERS)) as pool:
        yield dict(zip(MAKERS, pool.map(lambda maker: whole(maker, folders[maker], adb), MAKERS), strict=True))


def energy(run: dict[str, Any]) -> dict[str, Any]:
    (found,) = (m for m in run["measures"] if (m["name"], m["phase"], m["source"]) == ("energy_j", "run", "total"))
    return dict(found)


@pytest.mark.parametrize("maker", MAKERS)
def test_trap_1_to_3_a_phone_gives_no_joule_before_its_gauge_was_held_to_a_load(
    told: dict[str, Told], maker: str
) -> None:
    profile, source = KNOWN[maker]
    assert told[maker].added["profile"] == profile
    before = energy(told[maker].before)
    assert before["value"] is None
    assert before["reason"].split(":")[0] in ("uncalibrated_sensor", "sensor_denied", "stale_sensor")
    if source is not None and maker != "oneplus-12":
        assert "uncalibrated_sensor" in reasons(told[maker].before)


@pytest.mark.parametrize("maker", [maker for maker, (_, source) in KNOWN.items() if source is not None])
def test_a_calibrated_phone_gives_the_joules_that_it_drew(told: dict[str, Told], maker: str) -> None:
    one, dialect = told[maker], MAKERS[maker].gauge
    gauge = next(gauge for gauge in one.record["gauges"] if gauge["source"] == KNOWN[maker][1])
    assert gauge["refused"] == ""
    assert (gauge["options"]["current_unit"], gauge["options"]["discharge_sign"]) == (dialect.unit, dialect.sign)
    found = energy(one.after)
    assert found["value"] == pytest.approx(one.joules, abs=found["u_k2"])
    assert found["value"] == pytest.approx(one.joules, rel=0.08)
    assert found["scope"] == "battery"


def test_a_phone_that_tells_no_current_is_refused_after_it_as_before(told: dict[str, Told]) -> None:
    one = told["xiaomi-13t-pro"]
    assert {gauge["source"] for gauge in one.record["gauges"] if not gauge["refused"]} == set()
    after = energy(one.after)
    assert (after["value"], after["reason"].split(":")[0]) == (None, "sensor_denied")


# What of a phone the doctor finds closed to the shell, beside what no phone of ours has.
DENIED = {
    "pixel6": {"source odpm"},
    "oneplus-12": {"source battery"},
    "xiaomi-13t-pro": {"source battery"},
    "honor-alt": {"source thermal"},
}


@pytest.mark.parametrize("maker", MAKERS)
def test_the_doctor_tells_what_a_phone_has_and_what_it_keeps_to_itself(told: dict[str, Told], maker: str) -> None:
    found = told[maker].doctor
    assert found["user"].startswith("shell, groups shell")
    assert found["probe"] == "runs"
    assert {what for what, seen in found.items() if seen.startswith("denied")} == DENIED.get(maker, set())
    assert "readable" in found["source dumpsys_battery"]
    assert "readable" in found["source thermal_service"]
    assert found["energy"].startswith("none: ")
