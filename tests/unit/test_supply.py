"""Whether a battery lies in its window of charge before a run, and what a look shows that feeds its device."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evidence_kit import ran, series, stream
from hypothesis import given
from hypothesis import strategies as st

from meltbench.errors import DefinitionError, UserError
from meltbench.glance import commands, sources
from meltbench.glance import series as read_all
from meltbench.measure.feeding import at_a_look as fed
from meltbench.measure.findings import charge_conditions
from meltbench.measure.validity import TABLE
from meltbench.plan import make
from meltbench.readings import READERS
from meltbench.spec import Spec, parse_sets
from meltbench.supply import Charged, Level, Window, cut_off, level, on_battery
from meltbench.targets import profile

PHONE = profile.load("generic-android")[0]
BATTERY = "/sys/class/power_supply/"


def test_a_battery_inside_its_window_is_not_waited_for():
    for percent in (30, 55, 80):
        seen = Window(30, 80, 3600).feed(100.0, Level(percent))
        assert (seen.state, seen.waited_s, seen.soc_percent) == ("inside", 0, percent)


def test_a_low_battery_is_waited_for_until_it_is_charged():
    window = Window(30, 80, 3600)
    states = [window.feed(float(t), Level(18 + t // 60, "battery: plugged in")).state for t in range(0, 900, 10)]
    assert states.count("waiting") == 72
    assert set(states[72:]) == {"inside"}


def test_a_battery_that_nobody_charges_is_left_when_time_is_out():
    window = Window(30, 80, 60)
    first = window.feed(5.0, Level(18))
    assert window.words(first) == "battery at 18 %, waits for 30 %, nothing charges it: connect a charger"
    assert window.words(replace(first, fed="battery: plugged in")) == "battery at 18 %, waits for 30 %"
    assert window.feed(64.9, Level(18)).state == "waiting"
    assert window.feed(65.0, Level(18)) == Charged("below", 60.0, 18)
    assert Window(30, 80, 0).feed(0.0, Level(29)).state == "below"


def test_a_full_battery_is_not_waited_for_and_is_told():
    assert Window(30, 80, 3600).feed(0.0, Level(81)).state == "above"


def test_what_nobody_tells_is_unknown_and_a_look_that_failed_says_nothing_new():
    assert Window(30, 80, 3600).feed(0.0, None).state == "unknown"
    assert Window(30, 80, 3600).feed(0.0, Level(None)).state == "unknown"
    window = Window(30, 80, 3600)
    assert window.feed(0.0, Level(18)).state == "waiting"
    assert window.feed(10.0, None) == Charged("waiting", 10.0, 18)


@given(st.lists(st.tuples(st.floats(0, 100), st.none() | st.floats(0, 100)), min_size=1, max_size=50))
def test_any_looks_give_a_state_and_a_bounded_wait(looks):
    window, t = Window(30, 80, 300), 0.0
    for step, percent in looks:
        t += step
        seen = window.feed(t, Level(percent))
        assert seen.state != "waiting" or seen.waited_s < 300
        assert (seen.state == "inside") == (seen.soc_percent is not None and 30 <= seen.soc_percent <= 80)


def look(*streams):
    """What the sources of a phone make of a look."""
    return read_all(sources(PHONE, "charge"), list(streams))


def file(name, text):
    return stream(BATTERY + name, [text.encode()])


def dump(*lines, plugged="false"):
    text = "\n".join(("Current Battery Service state:", f"  USB powered: {plugged}", *lines, ""))
    return ran(READERS["dumpsys_battery"].commands[0], [text.encode()])


FILES = (file("battery/type", "Battery\n"), file("usb/type", "USB\n"))


def test_the_charge_is_that_of_the_gauge_and_else_the_frameworks():
    files = [*FILES, file("battery/capacity", "42\n")]
    assert level(look(*files, dump("  level: 61"))).soc_percent == 42
    assert level(look(dump("  level: 61"))).soc_percent == 61
    denied = [*FILES, stream(BATTERY + "battery/capacity", [13])]
    assert level(look(*denied, dump("  level: 61"))).soc_percent == 61
    assert level(look(*denied)).soc_percent is None
    # Set by hand, it tells of nothing.
    stopped = dump("  (UPDATES STOPPED -- use 'reset' to restart)", "  level: 61", plugged="true")
    assert level(look(stopped)) == Level(None, "")


def gauge(calibration="made", **values):
    units = {"current_a": "A", "status": "1", "plugged": "1"}
    return [
        replace(series(f"battery.{name}", [0], [value], kind="gauge", unit=units[name], klass="D", scope="battery"),
                calibration=calibration)
        for name, value in values.items()
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (gauge(current_a=-0.12, status=3, plugged=0), ""),
        (gauge(current_a=-0.12, status=2, plugged=0), ""),  # the status field alone proves nothing
        (gauge(current_a=-0.12, plugged=1), "battery: plugged in"),
        (gauge(current_a=0.85, status=3), "battery: 850 mA into the battery"),
        (gauge(current_a=-0.004, status=3, plugged=0), "battery: next to no current (-4.0 mA)"),
        (gauge(current_a=0.005, status=4), "battery: next to no current (+5.0 mA)"),
        # A current of unknown unit and sign shows nothing: then the status may.
        (gauge("", current_a=0.85, status=3), ""),
        (gauge("", current_a=0.0009, status=3), ""),
        (gauge("", current_a=0.0009, status=5), "battery: status full"),
        (gauge(status=2), "battery: status charging"),
        (gauge(current_a=np.nan, status=np.nan, plugged=np.nan), ""),
        ([], ""),
    ],
)
def test_trap_7_and_8_a_charger_is_told_by_evidence_and_not_by_the_status_alone(told, said):
    assert fed(told) == said


def test_a_charger_is_seen_by_any_way_to_ask():
    assert fed(look(*FILES, file("usb/online", "1\n"), file("battery/capacity", "42\n"))) == "battery: plugged in"
    assert "dumpsys_battery: plugged in" in fed(look(dump("  level: 61", "  status: 3", plugged="true")))
    assert fed(look(*FILES, file("usb/online", "0\n"), dump("  level: 61", "  status: 3"))) == ""


def test_what_a_phone_is_asked_before_a_run():
    every = sources(PHONE, "charge")
    assert [one.name for one in every] == ["battery", "dumpsys_battery", "cmd_battery"]
    words = [" ".join(command.argv) for command in commands(every, ("dumpsys", "cmd"))]
    assert words == ["dumpsys battery", "cmd battery get -f current_now"]
    assert commands(every, ("sh",)) == []
    assert on_battery(PHONE)
    assert not on_battery(profile.load("local")[0])
    assert not on_battery(profile.load("rpi4")[0])


HUB = {"name": "hub", "value": "off", "set": ("a",), "get": ("b",), "undo": ("c",)}


def test_a_supply_that_the_run_itself_cuts_is_no_matter():
    def having(*settings):
        return replace(PHONE, setting=settings)

    assert not cut_off(PHONE)
    assert cut_off(having(profile.Setting(**HUB, on="controller")))
    assert not cut_off(having(profile.Setting("charge_cut", "1", path="/sys/x", optional=True)))
    assert cut_off(having(profile.Setting("charge_cut", "1", path="/sys/x")))


@pytest.mark.parametrize(
    ("told", "detail"),
    [
        (None, None),
        ({"state": "inside", "window_percent": [30, 80], "soc_percent": 40.0}, None),
        ({"state": "unknown", "window_percent": None}, None),
        (
            {"state": "below", "window_percent": [30.0, 80.0], "soc_percent": 18.0, "waited_s": 3600.2},
            "18 % after 3600 s of waiting, the window is 30 to 80 %",
        ),
        (
            {"state": "above", "window_percent": [30.0, 80.0], "soc_percent": 97.0, "waited_s": 0.0},
            "97 %, the window is 30 to 80 %",
        ),
        (
            {"state": "unknown", "window_percent": [30.0, 80.0], "soc_percent": None, "waited_s": 0.0},
            "nobody told how full the battery was, the window is 30 to 80 %",
        ),
    ],
)
def test_a_run_outside_of_the_window_is_marked_and_never_silent(told, detail):
    assert charge_conditions(told) == ([] if detail is None else [("charge_out_of_window", detail)])
    assert TABLE["charge_out_of_window"].state == "degraded"


@pytest.mark.parametrize("bounds", ["[30]", "[80, 30]", "[30, 101]", "[-1, 50]", "[30, 30]", "[1, 2, 3]"])
def test_a_window_that_is_none_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bounds: str):
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.toml").write_text(f'inherits = "local"\n[gate]\nsoc_percent = {bounds}\n')
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DefinitionError, match=r"soc_percent needs the least and the most percent of charge"):
        profile.load("mine")


def test_a_limit_for_a_window_that_the_device_has_not_is_refused():
    with pytest.raises(UserError, match="charge_timeout_s: local has no window of charge") as caught:
        make(Spec(device="local", workload="exec", command=("true",), knobs=parse_sets(["charge_timeout_s=60"])))
    assert "soc_percent of its [gate]" in str(caught.value.hint)
