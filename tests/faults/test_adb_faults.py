"""Whatever happens to the cable, the adb server or the phone in a run: it is stored whole, or as what it is.

The phone is made, its adbd and the server are real. Each test ends with what must be true whatever happened: no wrong
number stands as valid, nothing of ours runs or lies on the phone, and its settings are as they were.
"""

from __future__ import annotations

import json
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from adb_gate import unauthorized
from adb_kit import Server
from phone_road_kit import GATED, PhoneRoad
from phones_kit import Phone, made_phone
from road_kit import EXEC, reasons
from targets_kit import until

SLEEP = ("--", "sleep", "1")


@pytest.fixture
def road(tmp_path: Path, phone: Phone, first_phone: PhoneRoad) -> Iterator[PhoneRoad]:
    """A new controller that knows the phone."""
    made = PhoneRoad(tmp_path, target=phone)
    made.knows(first_phone)
    made.close_gate()
    yield made
    phone.wire.restore()
    if not phone.server.listens():
        phone.start_server()
    phone.connect()


# What may happen to the way to the phone, and how it comes back.
WAYS: dict[str, tuple[Callable[[Phone], None], Callable[[Phone], None]]] = {
    "the cable is pulled": (lambda phone: phone.wire.cut(), lambda phone: phone.wire.restore()),
    "the phone falls silent": (lambda phone: phone.wire.drop(), lambda phone: phone.wire.restore()),
    "adbd is stopped": (lambda phone: phone.stop_adbd(), lambda phone: phone.start_adbd()),
    "adbd is killed": (lambda phone: phone.kill_adbd(), lambda phone: None),
    "the server is killed": (lambda phone: phone.kill_server(), lambda phone: None),
}
# Where, and what the run comes to while the way is gone for longer than anybody waits.
STAGES = [
    ("connect", "refused"),
    ("before:lease", "refused"),
    ("before:unpack", "given up"),
    ("before:run", "given up"),
    ("lost:run", "collected"),
    ("pull", "collected"),
]


@pytest.mark.parametrize(("stage", "comes_to"), STAGES)
@pytest.mark.parametrize("way", ["the cable is pulled", "adbd is stopped"])
def test_the_phone_is_gone_for_longer_than_anybody_waits(road: PhoneRoad, way: str, stage: str, comes_to: str) -> None:
    gone, back = WAYS[way]
    controller = road.staged(stage, *EXEC, *SLEEP).reached()
    gone(road.target)
    controller.go()
    code, _, err = controller.end()
    back(road.target)
    assert code == 1, err
    runs = road.run_ids()
    if comes_to == "refused":
        assert runs == []
    else:
        (run,) = runs
        assert f"meltbench collect {run}" in err
        road.target.connect()
        done = road.run("collect")
        assert done.returncode == 0, done.stderr
        assert ("was never started: removed" in done.stderr) == (comes_to == "given up")
    assert len(road.honest()) == (comes_to == "collected")
    road.target.connect()
    road.nothing_left()


@pytest.mark.parametrize("way", WAYS)
def test_the_way_is_gone_while_it_measures(road: PhoneRoad, way: str) -> None:
    gone, back = WAYS[way]
    controller = road.staged("never", *EXEC, *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    gone(road.target)
    time.sleep(1)
    road.open_gate()
    road.until_ended()
    back(road.target)
    code, _, err = controller.end()
    assert code == 0, err
    (run,) = road.honest()
    assert run["outcome"] == "done"
    assert not reasons(run) & {"device_rebooted", "sampler_starved", "clock_stepped"}
    road.target.connect()
    road.nothing_left()


def test_a_server_of_another_version_takes_over_while_it_measures(road: PhoneRoad) -> None:
    controller = road.staged("never", *EXEC, *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    road.target.server.adb("kill-server")  # what a client of another version does before it starts its own
    road.target.start_server()
    road.open_gate()
    code, _, err = controller.end()
    assert code == 0, err
    (run,) = road.honest(0)
    assert run["outcome"] == "done"
    road.target.connect()
    road.nothing_left()


def test_a_cable_that_is_loose_all_the_time(road: PhoneRoad) -> None:
    over = threading.Event()

    def blink() -> None:
        while not over.wait(0.8):
            road.target.kill_adbd()

    thread = threading.Thread(target=blink)
    controller = road.staged("never", *EXEC, *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    thread.start()
    time.sleep(2)
    road.open_gate()
    road.until_ended()
    over.set()
    thread.join()
    code, _, err = controller.end()
    assert code == 0, err
    (run,) = road.honest()
    assert run["outcome"] == "done"
    road.target.connect()
    road.nothing_left()


def test_a_phone_that_reboots_while_it_measures_is_brought_in_as_that(road: PhoneRoad) -> None:
    controller = road.staged("never", *EXEC, *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    road.target.boot()
    code, _, err = controller.end()
    assert code == 1, err
    (run,) = road.honest()
    assert (run["validity"], "device_rebooted" in reasons(run)) == ("invalid", True)
    road.target.connect()
    road.nothing_left()


def test_the_controller_never_comes_back_and_the_phone_is_as_it_was(road: PhoneRoad) -> None:
    controller = road.staged("never", *EXEC, *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    assert road.path("knob").read_text().strip() == "fast"
    assert road.target.shell("settings get system screen_brightness_mode") == "0"
    controller.kill()
    road.target.stop_adbd()
    road.open_gate()
    road.until_ended()
    road.target.start_adbd()
    road.target.connect()
    road.as_before()
    assert [one["outcome"] for one in road.json("collect")] == ["done"]
    road.honest(0)
    road.nothing_left()


def test_a_phone_that_is_killed_with_its_probe_gets_its_settings_back(road: PhoneRoad) -> None:
    controller = road.staged("never", *EXEC, *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    controller.kill()
    road.target.boot()
    road.target.connect()
    done = road.run("collect")
    assert done.returncode == 1, done.stderr  # of what was brought in, one was not measured to its end
    (run,) = road.honest()
    assert "device_rebooted" in reasons(run)
    road.nothing_left()


@pytest.mark.parametrize("stage", ["probe", "before:unpack", "before:run"])
def test_a_phone_without_room(road: PhoneRoad, stage: str) -> None:
    if stage == "probe":
        for path in (road.there / "bin").iterdir():
            path.unlink()
    controller = road.staged(stage, *EXEC, *SLEEP).reached()
    road.fill_disk()
    controller.go()
    code, _, err = controller.end()
    road.drain_disk()
    assert code == 1
    assert "free" in err.splitlines()[-1], err
    assert road.run("collect").returncode == 0
    assert road.honest() == []
    road.nothing_left()


def test_a_phone_that_was_not_allowed_is_told_what_to_tap(tmp_path: Path, phone: Phone, adb: Server) -> None:
    with unauthorized(phone, adb) as gate:
        done = PhoneRoad(tmp_path, target=phone).run("devices", "add", "box", "--adb", gate.serial)
        assert done.returncode == 1
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("meltbench: "))
        assert "tap Allow under 'Allow USB debugging?'" in line
        done = PhoneRoad(tmp_path, target=phone).run("devices", "list")
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "words", [("exec", "--device", "galaxy-s23", "--", "true"), ("devices", "doctor", "galaxy-s23")]
)
def test_a_phone_that_is_not_there_is_one_line(road: PhoneRoad, words: tuple[str, ...]) -> None:
    done = road.run(*words)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1].startswith("meltbench: no galaxy-s23 is attached: the adb server has ")
    assert road.run_ids() == []


def test_a_log_that_floods_spoils_nothing(road: PhoneRoad) -> None:
    with road.target.flood():
        done = road.run(*EXEC, *SLEEP)
    assert done.returncode == 0, done.stderr
    (run,) = road.honest()
    assert run["outcome"] == "done"
    assert "background_load" in reasons(run)
    road.nothing_left()


def test_a_charger_that_is_connected_while_it_measures_is_seen(road: PhoneRoad) -> None:
    controller = road.staged("never", *EXEC, *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    road.target.plug()
    try:
        time.sleep(4)
        road.open_gate()
        code, _, err = controller.end()
    finally:
        road.target.plug(on=False)
    assert code == 0, err
    (run,) = road.stored()
    assert (run["validity"], "charging" in reasons(run)) == ("invalid", True)
    road.nothing_left()


def test_a_battery_below_its_window_is_told_and_its_run_says_so(road: PhoneRoad) -> None:
    capacity = "cat /sys/class/power_supply/battery/capacity"
    try:
        road.target.charge_to(12)
        until(lambda: road.target.shell(capacity) == "12", "its gauge to tell so")
        done = road.run(*EXEC, "--set", "charge_timeout_s=1", *SLEEP)
    finally:
        road.target.charge_to(71)
    assert done.returncode == 0, done.stderr
    (run,) = road.honest()
    assert "charge_out_of_window" in reasons(run)
    assert "low_battery" in reasons(run)
    road.nothing_left()


def test_a_locked_phone_measures(tmp_path: Path, adb: Server, probe_binary: Path) -> None:
    with made_phone(tmp_path / "phone", adb, serial="LOCKED") as locked:
        locked.set_pin()
        road = PhoneRoad(tmp_path / "a", target=locked).added()
        done = road.run(*EXEC, *SLEEP)
        assert done.returncode == 0, done.stderr
        (run,) = road.honest()
        assert run["outcome"] == "done"
        road.nothing_left()


def test_a_shell_that_prints_prose_before_everything(tmp_path: Path, adb: Server, probe_binary: Path) -> None:
    with made_phone(tmp_path / "phone", adb, "galaxy-s23", "PROSE", prose=True) as talker:
        assert talker.shell("echo x") != "x"
        road = PhoneRoad(tmp_path / "a", target=talker)
        done = road.run("devices", "add", "box", "--adb", talker.serial)
        assert done.returncode == 0, done.stderr
        done = road.run(*EXEC, *SLEEP)
        assert done.returncode == 0, done.stderr
        (run,) = road.honest()
        assert run["outcome"] == "done"
        assert run["conditions"]["properties"]["ro.product.device"] == "dm1q"
        rows = {row["source"]: row["status"] for row in run["sources"]}
        assert rows["dumpsys_battery"] == rows["thermal_service"] == "ok"
        listed = json.loads(road.run("devices", "list", "--json").stdout)
        assert [one["name"] for one in listed if one["reachable"]] == ["local", "box"]


# A hub at the edge of the world: its port carries the phone's power and its data.
_UHUBCTL = """#!/bin/sh
case "$*" in
*"-a off"*) ip link set {card} down; echo > {charger}; echo off > {state} ;;
*"-a on"*) ip link set {card} up; echo charging > {charger}; echo on > {state} ;;
esac
[ "$(cat {state})" = off ] && told="0000 off" || told="0503 power highspeed enable connect [18d1:4ee7 Google Pixel 6]"
echo "Current status for hub 1-1.4 [05e3:0610 USB2.0 Hub, USB 2.10, 4 ports, ppps]"
echo "  Port 2: $told"
"""


@pytest.fixture
def hung(road: PhoneRoad) -> Iterator[Path]:
    """The phone hangs at a port of a hub, which charges it; the file that says whether it is on."""
    programs, state = road.home / "bin", road.home / "port"
    programs.mkdir()
    state.write_text("on\n")
    told = {"card": road.target.wire.card, "charger": road.target.folder / "charger", "state": state}
    (programs / "uhubctl").write_text(_UHUBCTL.format(**told))
    (programs / "uhubctl").chmod(0o755)
    road.env["PATH"] = f"{programs}:{road.environment()['PATH']}:/usr/sbin:/sbin"
    road.inventory.write_text(road.inventory.read_text() + 'hub = "uhubctl:1-1.4:2"\n')
    road.target.plug()
    yield state
    road.target.plug(on=False)


def test_the_hub_cuts_the_power_while_it_measures_and_gives_it_back(road: PhoneRoad, hung: Path) -> None:
    process = road.start(*EXEC, "--unplug", "hub", "--set", "timeout_s=8", "--json", "--", "sleep", "4")
    road.until_run(lambda state: state.get("op") == "exec")
    assert hung.read_text() == "off\n"
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "unplugged: it goes on by itself" in err
    assert hung.read_text() == "on\n"
    (run,) = json.loads(out)
    assert run["outcome"] == "done"
    assert run["conditions"]["settings"]["usb_power"]["state"] == "set"
    assert not reasons(run) & {"charging", "link_traffic"}
    road.honest()
    road.target.connect()
    road.nothing_left()


def test_a_person_who_has_had_enough_gets_the_power_back_and_what_there_is(road: PhoneRoad, hung: Path) -> None:
    process = road.start(*EXEC, "--unplug", "hub", "--set", "timeout_s=300", *GATED)
    road.until_run(lambda state: state.get("op") == "exec")
    for _ in range(2):
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 130, err
    assert hung.read_text() == "on\n"
    (run,) = road.honest()
    assert run["outcome"] == "stopped"
    road.target.connect()
    road.nothing_left()


def test_a_hub_that_may_not_be_switched_is_told_before_anything_runs(road: PhoneRoad, hung: Path) -> None:
    program = road.home / "bin/uhubctl"
    program.write_text("#!/bin/sh\necho 'Permission problem: please run as root' >&2; exit 1\n")
    done = road.run(*EXEC, "--unplug", "hub", *SLEEP)
    assert done.returncode == 1
    assert "the power of its USB port cannot be cut" in done.stderr
    assert road.run_ids() == []
    assert hung.read_text() == "on\n"
    road.nothing_left()


def test_a_controller_that_dies_leaves_the_power_to_collect(road: PhoneRoad, hung: Path) -> None:
    controller = road.staged("never", *EXEC, "--unplug", "hub", "--set", "timeout_s=8", *SLEEP)
    road.until_run(lambda state: state.get("op") == "exec")
    controller.kill()
    road.until_ended()
    early = road.run("collect")
    assert early.returncode == 1
    assert hung.read_text() == "off\n"  # it may measure still, for all that is known here
    (ticket,) = road.data.glob("runs/*/ticket.json")
    ticket.write_text(re.sub(r'"started_at": ?"2[0-9]{3}', '"started_at": "2001', ticket.read_text()))
    done = road.run("collect")
    assert done.returncode == 0, done.stderr
    assert hung.read_text() == "on\n"
    assert [run["outcome"] for run in road.honest()] == ["done"]
    road.target.connect()
    road.nothing_left()


def test_a_phone_of_which_nobody_knows_the_port_is_told_how_to_say_it(road: PhoneRoad) -> None:
    done = road.run(*EXEC, "--unplug", "hub", *SLEEP)
    assert done.returncode == 2
    assert "nobody knows which port of a hub box is in; meltbench devices add box --adb" in done.stderr
    assert "is no way to cut USB power; give hub" in road.run(*EXEC, "--unplug", "relay", *SLEEP).stderr
