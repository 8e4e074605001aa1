"""Trap 42: whoever is killed, the device is left as it was found."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from cli import Bench
from settings_kit import GOVERNOR, HUB, LOW_POWER, MODE, Device

SETTINGS = (GOVERNOR, MODE, LOW_POWER, HUB)


def under_way(bench: Bench) -> tuple[Device, subprocess.Popen[str], dict[str, Any]]:
    """A run whose settings are all made, its controller, and the probe's state."""
    device = Device(bench, *SETTINGS)
    controller = bench.start(*device.start("2"))
    state = bench.wait_for(lambda s: s.get("op") == "exec")
    assert (device.governors, device.knob("mode"), device.knob("port")) == (["performance"] * 2, "0", "off")
    return device, controller, state


def kill(controller: subprocess.Popen[str]) -> None:
    controller.kill()
    controller.communicate()


def test_trap_42_the_controller_is_killed(bench: Bench) -> None:
    device, controller, _ = under_way(bench)
    kill(controller)
    (run,) = bench.json("collect")
    assert run["outcome"] == "done"
    assert device.untouched
    assert {one["state"] for one in run["conditions"]["settings"].values()} == {"set"}
    assert [r for r in run["reasons"] if r["code"] == "settings_not_applied"] == []


@pytest.mark.parametrize("victims", [("pid",), ("guard_pid",), ("pid", "guard_pid")])
def test_trap_42_the_probe_is_killed(bench: Bench, victims: tuple[str, ...]) -> None:
    device, controller, state = under_way(bench)
    for victim in victims:
        os.kill(int(state[victim]), signal.SIGKILL)
    controller.communicate(timeout=60)
    assert device.untouched
    assert bench.no_leftovers()


@pytest.mark.parametrize("victims", [("pid",), ("pid", "guard_pid")])
def test_trap_42_controller_and_probe_are_killed(bench: Bench, victims: tuple[str, ...]) -> None:
    device, controller, state = under_way(bench)
    kill(controller)
    for victim in victims:
        os.kill(int(state[victim]), signal.SIGKILL)
    assert device.knob("port") == "off"  # the controller's own is for whoever collects
    (run,) = bench.json("collect", code=1)
    assert run["outcome"] == "failed"
    assert device.untouched
    assert bench.no_leftovers()
    assert bench.json("verify") == []


def test_trap_42_the_next_run_finds_the_device_as_it_was(bench: Bench) -> None:
    device, controller, state = under_way(bench)
    kill(controller)
    for victim in ("pid", "guard_pid"):
        os.kill(int(state[victim]), signal.SIGKILL)
    device.profile(GOVERNOR, MODE)
    (run,) = bench.json(*device.start())
    # Not what the dead run had left behind.
    assert run["conditions"]["settings"]["governor"]["before"] == "powersave, schedutil"
    assert run["conditions"]["settings"]["mode"]["before"] == "2"
    device.profile(*SETTINGS)
    bench.run("collect")
    assert device.untouched


def ticket_of(bench: Bench) -> Path:
    (path,) = bench.data.glob("runs/*/ticket.json")
    return path


def test_trap_42_a_run_whose_target_has_nothing_of_it_still_switches_the_port_on(bench: Bench) -> None:
    device, controller, _ = under_way(bench)
    kill(controller)
    bench.wait_for(lambda s: s.get("state") == "ended")
    subprocess.run(["rm", "-rf", str(bench.jobs()[0].parent)], check=True)
    assert bench.run("collect").returncode == 1
    assert device.untouched


def test_trap_42_an_unreachable_target_is_switched_on_once_its_run_must_be_over(bench: Bench) -> None:
    device, controller, _ = under_way(bench)
    kill(controller)
    ticket = json.loads(ticket_of(bench).read_text())
    probe = bench.jobs()[0].parents[2] / "bin"
    probe.rename(probe.with_name("moved"))
    probe.write_text("no folder, so no probe can be put there and the target cannot be asked")
    assert bench.run("collect").returncode == 1
    assert device.knob("port") == "off"  # it may still be running on its battery
    ticket_of(bench).write_text(json.dumps(ticket | {"started_at": "2020-01-01T00:00:00+00:00"}))
    assert bench.run("collect").returncode == 1
    assert device.knob("port") == "on"
    probe.unlink()
    probe.with_name("moved").rename(probe)
    (run,) = bench.json("collect")
    assert run["outcome"] == "done"
    assert device.log.count("uhubctl on") == 1  # what is back is not put back again


def test_a_ticket_runs_nothing_that_the_profile_does_not_say(bench: Bench) -> None:
    _, controller, _ = under_way(bench)
    kill(controller)
    whole = json.loads(ticket_of(bench).read_text())
    evil = [row | {"undo": ["touch", str(bench.home / "evil")]} if row["on"] == "controller" else row
            for row in whole["settings"]]  # fmt: skip
    ticket_of(bench).write_text(json.dumps(whole | {"settings": evil}))
    done = bench.run("collect")
    assert not (bench.home / "evil").exists()
    assert "setting hub was not put back: the profile of the device does not say so here; by hand: touch" in done.stderr


def test_another_host_does_not_switch_its_own_hub(bench: Bench) -> None:
    device, controller, _ = under_way(bench)
    kill(controller)
    whole = json.loads(ticket_of(bench).read_text())
    whole["controller"]["host"] = "elsewhere"
    ticket_of(bench).write_text(json.dumps(whole))
    done = bench.run("collect")
    assert "setting hub was not put back: it was made on elsewhere; by hand: uhubctl -l 1-1.4 -p 2 -a on" in done.stderr
    assert "uhubctl on" not in device.log


def test_a_port_that_does_not_come_back_is_told_with_the_command(bench: Bench) -> None:
    _, controller, _ = under_way(bench)
    kill(controller)
    program = bench.home / "bin" / "uhubctl"
    program.write_text("#!/bin/sh\necho 'no compatible devices detected!' >&2\nexit 1\n")
    done = bench.run("collect")
    assert done.returncode == 0
    assert (
        "setting hub was not put back: it ended with status 1: no compatible devices detected!; "
        "by hand: uhubctl -l 1-1.4 -p 2 -a on" in done.stderr
    )
    (run,) = bench.json("runs")
    shown = bench.json("show", run["run_id"])
    assert "hub = off" in next(r["detail"] for r in shown["reasons"] if r["code"] == "settings_not_applied")
