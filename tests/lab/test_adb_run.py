"""Runs over adb on a made phone with a real engine, a real model and real tokens: adbd and the server are real, and so
are the energies that the made rails count."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engines_kit import stock_folder
from phone_road_kit import PhoneRoad
from phones_kit import Phone
from road_kit import reasons

from meltbench.probe.journal import read_journal
from meltbench.readings import read

TOKENS = 24


@pytest.fixture
def road(tmp_path: Path, phone: Phone, first_phone: PhoneRoad) -> Iterator[PhoneRoad]:
    made = PhoneRoad(tmp_path, target=phone)
    made.knows(first_phone)
    yield made
    phone.connect()


def words(*more: str) -> tuple[str, ...]:
    few = ("--set", f"max_tokens={TOKENS}", "--set", "repeat=1", "--set", "warmup=0", "--set", "idle_s=1.5")
    return ("run", "--device", "box", "--engine", str(stock_folder()), *few, *more)


def has_real_tokens(run: dict[str, Any]) -> None:
    assert run["outcome"] == "done"
    assert [(one["status"], one["n_out"]) for one in run["requests"]] == [("ok", TOKENS)] * 5
    assert all(one["n_in"] > 0 and one["t_end_ns"] > one["t_send_ns"] for one in run["requests"])


@pytest.mark.engine
def test_from_nothing_to_real_tokens_with_adbd_killed_and_started_again(
    road: PhoneRoad, phone: Phone, default_model: Path
) -> None:
    del default_model  # fetched before
    process = road.start(*words("--json"))
    road.until_run(lambda state: state.get("op") == "http" and int(state.get("done", 0)) >= 1)
    phone.kill_adbd()
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "pushing" in err
    (run,) = json.loads(out)
    has_real_tokens(run)
    assert run["device"]["target"] == "adb"
    assert run["conditions"]["properties"]["ro.product.device"] == "oriole"
    found = reasons(run)
    assert not found & {"device_rebooted", "clock_stepped", "settings_not_applied"}
    # The engine takes every core: what else runs on this machine may starve the probe, a killed adbd does not.
    assert "sampler_starved" not in found or "background_load" in found
    again = road.run(*words("--json"))
    assert again.returncode == 0, again.stderr
    assert "pushing" not in again.stderr
    (second,) = json.loads(again.stdout)
    has_real_tokens(second)
    assert second["cell_key"] == run["cell_key"]
    assert road.json("verify") == []
    road.nothing_left()


def test_what_was_set_was_in_force_and_is_told(road: PhoneRoad) -> None:
    (run,) = road.json("exec", "--device", "box", "--set", "idle_s=0.3", "--", "sleep", "1")
    found = {name: one["state"] for name, one in run["conditions"]["settings"].items()}
    assert {found.pop(name) for name in ("screen_timeout", "screen_brightness_mode", "knob")} == {"set"}
    assert set(found.values()) <= {"set", "in_force"}, run["conditions"]["settings"]
    road.nothing_left()


def test_the_way_to_the_first_run_is_as_the_page_says(phone: Phone, tmp_path: Path, default_model: Path) -> None:
    """Each command of the page's first part, in its order, on a phone that nobody has seen before."""
    del default_model
    page = (Path(__file__).parents[2] / "docs/android.md").read_text(encoding="utf-8")
    section = page.partition("## From an unpacked phone")[2].partition("\n## ")[0]
    lines = re.findall(r"^\d+\. .*(?:\n(?!\d|\n).*)*", section, re.MULTILINE)
    assert len(lines) == 10
    commands = [shlex.split(found)[1:] for line in lines for found in re.findall(r"`(meltbench [^`]+)`", line)]
    road = PhoneRoad(tmp_path, target=phone)
    (road.home / "config/meltbench/devices/knobbed.toml").unlink()
    phone.steady()
    try:
        for command in commands:
            more = {"run": words("--set", "idle_s=0.5")[3:], "calibrate": ("--quick", "--idle-s", "3", "--load-s", "3")}
            args = [phone.serial if word == "SERIAL" else word for word in command]
            args += more.get(args[0], more.get(args[1] if len(args) > 1 else "", ()))
            done = road.run(*args, timeout=200)
            assert "Traceback" not in done.stderr
            assert done.returncode == 0 or args[1:2] in (["doctor"], ["calibrate"]), f"{args}: {done.stderr}"
        assert [command[0] for command in commands] == ["devices"] * 3 + ["run", "show", "devices"]
        assert not road.there.exists()
    finally:
        (phone.folder / "steady").unlink()


def test_perfetto_counts_the_rails_in_a_run_without_root(road: PhoneRoad, phone: Phone) -> None:
    profile = road.home / "config/meltbench/devices/railed.toml"
    profile.write_text('title = "a made Pixel"\ninherits = "pixel6"\n')
    added = road.run("devices", "add", "railed", "--adb", phone.serial, "--profile", "railed")
    assert added.returncode == 2
    assert "this board is box already" in added.stderr
    road.inventory.write_text(road.inventory.read_text().replace('"knobbed"', '"railed"'))
    (run,) = road.json("exec", "--device", "box", "--set", "idle_s=2", "--", "sleep", "4")
    rows = {row["source"]: row for row in run["sources"]}
    assert (rows["perfetto"]["status"], rows["odpm"]["status"]) == ("ok", "denied")
    journal = read_journal(Path(run["stored"]) / "evidence/journal")
    streams = [journal.streams[number] for number in journal.numbers("perfetto")]
    series = {one.name: one for one in read("perfetto", "perfetto", streams, {"current_unit": "uA"})[0]}
    rail = series["perfetto.rail.S2M_VDD_CPUCL2.energy"]
    begin, end = journal.first("begin"), journal.end
    assert begin is not None
    assert end is not None
    t = (rail.t0_ns + rail.t1_ns) // 2
    assert (t > begin["boot_ns"] - 2e9).all()  # by the phone's own clock
    assert t[-1] > end["boot_ns"] - 3e9  # it was written as it went on
    assert len(rail) > 15
    assert (rail.value[1:] >= rail.value[:-1]).all()
    assert 0 < rail.value[-1] - rail.value[0] < phone.truth.joules(int(t[0]) - 10**9, int(t[-1]) + 10**9)


def test_steady_clocks_are_asked_for_by_name_and_given_back(road: PhoneRoad, phone: Phone) -> None:
    words = ("exec", "--device", "box", "--set", "idle_s=0.3")
    (run,) = road.json(*words, "--set", "fixed_performance=true", "--", "sleep", "1")
    assert run["conditions"]["settings"]["fixed_performance"]["state"] == "set"
    assert not (phone.state / "run/fixed").exists()
    road.nothing_left()
    refused = road.run(*words, "--set", "fixed_performance=true; reboot", "--", "sleep", "1")
    assert (refused.returncode, "is not a valid setting" in refused.stderr) == (2, True)


def test_a_screen_that_was_off_is_on_while_it_measures(road: PhoneRoad, phone: Phone) -> None:
    phone.shell("input keyevent KEYCODE_SLEEP")
    (run,) = road.json("exec", "--device", "box", "--set", "idle_s=0.3", "--", "sleep", "1")
    assert run["conditions"]["settings"]["screen"] | {"detail": ""} == {
        "value": "true", "state": "set", "before": "false", "used": "true", "detail": "",
    }  # fmt: skip
    assert phone.shell("dumpsys deviceidle get screen") == "false"
    road.nothing_left()
