"""The settings of a device profile on the real road: made, seen to hold, put back, and told as conditions."""

from __future__ import annotations

import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from cli import Bench
from settings_kit import GOVERNOR, HUB, LOW_POWER, MODE, Device

from meltbench.probe.journal import read_journal

OPTIONAL = "optional = true\n"


def only(runs: Any) -> dict[str, Any]:
    (run,) = runs
    assert isinstance(run, dict)
    return run


def against(run: dict[str, Any]) -> str | None:
    return next((r["detail"] for r in run["reasons"] if r["code"] == "settings_not_applied"), None)


def test_settings_are_made_hold_and_are_put_back_in_reverse(bench: Bench) -> None:
    device = Device(bench, GOVERNOR, MODE, LOW_POWER, HUB)
    look = f"cat {device.governor(0)} {device.governor(1)}; cd {device.knobs}; cat mode low_power port"
    run = only(bench.json("exec", "--device", "made", "--set", "idle_s=0.2", "--", "sh", "-c", look))
    said = [raw for s in read_journal(Path(run["stored"]) / "evidence" / "journal").channel("engine")
            for raw in s.readings.raw]  # fmt: skip
    assert b"".join(said).replace(b"\n", b"") == b"performanceperformance00off"
    assert device.untouched
    assert device.log == [
        "uhubctl off", "nvpmodel 0", "settings low_power 0", "settings low_power 1", "nvpmodel 2", "uhubctl on"
    ]  # fmt: skip
    assert against(run) is None
    assert run["conditions"]["settings"] == {
        "governor": {
            "value": "performance", "state": "set", "before": "powersave, schedutil",
            "used": "performance", "detail": "",
        },
        "mode": {"value": "0", "state": "set", "before": "2", "used": "0", "detail": ""},
        "low_power": {"value": "0", "state": "set", "before": "1", "used": "0", "detail": ""},
        "hub": {
            "value": "off", "state": "set", "before": "Port 2: 0103 power enable connect [18d1:4ee7 Made Phone 8A1X]",
            "used": "Port 2: 0000 off", "detail": "",
        },
    }  # fmt: skip
    assert bench.json("verify") == []


def test_what_is_in_force_is_neither_set_nor_undone(bench: Bench) -> None:
    device = Device(bench, GOVERNOR, MODE, HUB)
    for policy in (0, 1):
        device.governor(policy).write_text("performance\n")
    (device.knobs / "mode").write_text("0")
    (device.knobs / "port").write_text("off")
    run = only(bench.json(*device.start()))
    assert {one["state"] for one in run["conditions"]["settings"].values()} == {"in_force"}
    assert (device.log, against(run)) == ([], None)
    assert device.governor(0).read_text() == "performance\n"  # not even written
    assert read_journal(Path(run["stored"]) / "evidence" / "journal").named("undo") == []


def test_no_prepare_leaves_the_device_as_it_is(bench: Bench) -> None:
    device = Device(bench, GOVERNOR, MODE, HUB)
    run = only(bench.json(*device.start("0.3", "--no-prepare")))
    assert (device.log, device.untouched) == ([], True)
    assert (run["conditions"]["settings"], run["spec"]["prepare"], against(run)) == ({}, False, None)
    planned = bench.json(*device.start("0.3", "--dry-run"))
    assert [one["name"] for one in planned["settings"]] == ["governor", "mode", "hub"]
    bare = bench.json(*device.start("0.3", "--dry-run", "--no-prepare"))
    assert bare["settings"] == []
    assert bare["plan_hash"] == run["plan_hash"] != planned["plan_hash"]
    prepared = only(bench.json(*device.start()))
    assert prepared["cell_key"] != run["cell_key"]  # no repetition of a run that was prepared


def test_a_setting_that_does_not_take_is_named_and_the_run_is_invalid(bench: Bench) -> None:
    stubborn = MODE.replace('set = ["nvpmodel", "-m", "0"]', 'set = ["sh", "-c", "echo may not >&2; exit 3"]')
    absent = GOVERNOR.replace("scaling_governor", "scaling_setspeed").replace('"governor"', '"speed"')
    device = Device(bench, absent, stubborn)
    run = only(bench.json(*device.start()))
    assert run["outcome"] == "done"
    assert run["validity"] == "invalid"
    detail = against(run)
    assert detail is not None
    assert "speed = performance: policy*/scaling_setspeed: absent" in detail
    assert "mode = 0: 2 was in force; process set.mode ended with 3: may not" in detail
    assert device.untouched
    # The same of a device that need not have them: a note in the conditions, and nothing against the run.
    device.profile(absent + OPTIONAL, stubborn + OPTIONAL)
    run = only(bench.json(*device.start()))
    assert (against(run), run["validity"]) == (None, "degraded")
    assert {one["state"] for one in run["conditions"]["settings"].values()} == {"not_applied"}
    assert run["conditions"]["settings"]["speed"]["detail"] == "policy*/scaling_setspeed: absent"


def test_a_setting_that_is_set_back_meanwhile_is_found_out(bench: Bench) -> None:
    device = Device(bench, GOVERNOR, MODE)
    vendor = f"sleep 0.2; printf powersave > {device.governor(1)}; printf 2 > {device.knobs}/mode; sleep 0.2"
    run = only(bench.json("exec", "--device", "made", "--set", "idle_s=0.2", "--", "sh", "-c", vendor))
    detail = against(run)
    assert detail is not None
    assert "governor = performance: policy1/scaling_governor had powersave, something set it back in the run" in detail
    assert "mode = 0: 2 was in force at the end, something set it back" in detail
    assert run["conditions"]["settings"]["governor"]["used"] == "performance, powersave"
    assert device.untouched


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ("printf '2 && reboot\\n'", "'2 && reboot' was in force, and is no word that could be given back"),
        ("printf -- '--force\\n'", "'--force' was in force, and is no word that could be given back"),
        ("printf '\\033[2J\\n'", "was in force, and is no word that could be given back"),
        ("exit 4", "it ended with status 4"),
        ("true", "it told nothing"),
        ("yes no | head -c 400 | tr -d '\\n'", "it told a line of more than 200 characters"),
    ],
)
def test_what_a_device_says_is_never_run(bench: Bench, says: str, why: str) -> None:
    device = Device(bench, MODE)
    program = bench.home / "bin" / "nvpmodel"
    program.write_text(f'#!/bin/sh\necho "$@" >> $KNOBS/log\n{says}\n')
    run = only(bench.json(*device.start()))
    assert device.log == ["-q"]  # asked once; nothing was set, so nothing has to be put back
    detail = against(run)
    assert detail is not None
    assert why in detail
    assert "\x1b" not in json.dumps(run["conditions"])


def test_a_program_that_is_not_there_is_named(bench: Bench) -> None:
    device = Device(bench, MODE, HUB + OPTIONAL)
    for name in ("nvpmodel", "uhubctl"):
        (bench.home / "bin" / name).unlink()
    run = only(bench.json(*device.start()))
    assert against(run) == "mode = 0: nvpmodel is not on the target"
    assert run["conditions"]["settings"]["hub"]["state"] == "not_applied"
    device.profile(HUB)
    done = bench.run(*device.start())
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line == (
        "meltbench: setting 'hub' of device made needs uhubctl, which is not on this machine; "
        "install it, or leave the device as it is with --no-prepare"
    )
    assert len(bench.json("runs")) == 1
    assert bench.json(*device.start("0.1", "--no-prepare"))


def test_a_port_that_cannot_be_switched_is_named_with_what_its_program_said(bench: Bench) -> None:
    device = Device(bench, HUB)
    program = bench.home / "bin" / "uhubctl"
    whole = program.read_text()
    program.write_text(whole.replace("*-a*) ", "*-a*) echo 'USB permission denied' >&2; exit 5; "))
    run = only(bench.json(*device.start()))
    detail = against(run)
    assert detail is not None
    assert detail.startswith("hub = off: Port 2: 0103 power enable connect [18d1:4ee7 Made Phone 8A1X] was in force: ")
    assert detail.endswith("it ended with status 5: USB permission denied")
    assert run["validity"] == "invalid"


def test_every_repetition_is_prepared_and_put_back(bench: Bench) -> None:
    device = Device(bench, MODE, HUB)
    runs = bench.json(*device.start("0.1", "--reps", "2"))
    assert [run["conditions"]["settings"]["mode"]["state"] for run in runs] == ["set", "set"]
    assert device.log == ["uhubctl off", "nvpmodel 0", "nvpmodel 2", "uhubctl on"] * 2


def test_an_interrupted_run_puts_everything_back(bench: Bench) -> None:
    device = Device(bench, GOVERNOR, MODE, HUB)
    running = bench.start(*device.start("60"))
    bench.wait_for(lambda s: s.get("op") == "exec")
    assert not device.untouched
    running.terminate()
    said = running.communicate(timeout=60)
    assert device.untouched, said
    assert bench.no_leftovers()


def test_a_command_that_hangs_is_given_up_on(bench: Bench) -> None:
    device = Device(bench, MODE.replace("-q", "--hang") + OPTIONAL)
    (bench.home / "bin" / "nvpmodel").write_text("#!/bin/sh\nexec sleep 100\n")
    began = time.monotonic()
    run = only(bench.json(*device.start()))
    assert time.monotonic() - began < 60
    assert "did not answer in time" in run["conditions"]["settings"]["mode"]["detail"]
    assert bench.no_leftovers()


def test_trap_42_settings_are_put_back_when_the_command_fails(bench: Bench) -> None:
    device = Device(bench, GOVERNOR, MODE, HUB)
    (run,) = bench.json("exec", "--device", "made", "--set", "idle_s=0.1", "--", "false", code=1)
    assert run["outcome"] == "failed"
    assert device.untouched
    # The last look at the settings was not reached, and what was seen before it holds.
    assert against(run) is None


def test_a_governor_that_the_kernel_refuses_to_change(bench: Bench) -> None:
    device = Device(bench, GOVERNOR)
    stop = threading.Event()

    def refuse() -> None:  # as a driver does that accepts a write and goes on as before
        with device.governor(0).open("r+b", buffering=0) as governor:
            while not stop.wait(0.0005):
                if os.pread(governor.fileno(), 64, 0).strip() != b"powersave":
                    os.pwrite(governor.fileno(), b"powersave  \n", 0)  # at once, and over the longer word

    thread = threading.Thread(target=refuse)
    thread.start()
    try:
        run = only(bench.json(*device.start()))
    finally:
        stop.set()
        thread.join()
    detail = against(run)
    assert detail is not None
    assert detail.startswith("governor = performance: policy0/scaling_governor had powersave, ")
    assert device.untouched
