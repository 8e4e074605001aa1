"""Android's sources along the whole road on a made phone: programs of its own are polled, a tree stands in for /sys.

The phone draws 2 W from its battery and 0.75 W on one rail. `dumpsys` and `cmd` are scripts that answer in the words
of a phone, and fakes in nothing else: the real probe runs them, the real readers read what it recorded.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cli import Bench

from meltbench.probe.journal import Journal, read_journal
from meltbench.readings import read
from meltbench.records import Series

CONTRACT = Path(__file__).parents[1] / "contract" / "android"
DUMPSYS = """#!/bin/sh
case "$1" in
battery) cat {contract}/battery_tablet_android14.txt ;;
thermalservice) cat {contract}/thermal_samsung.txt ;;
powerstats) echo "Can't find service: powerstats" ;;
meminfo) test -d /proc/"$2" && sed "s/pid 8123/pid $2/" {contract}/meminfo_android13.txt ;;
*) exit 1 ;;
esac
"""
CMD = """#!/bin/sh
test "$*" = "battery get -f current_now" && echo -516
"""
PROFILE = """title = "a made phone"
target = "local"
[roots]
sys = "{sys}"
[[source]]
name = "gauge"
reader = "power_supply"
period_ms = 41
[[source]]
name = "rails"
reader = "odpm"
period_ms = 53
[[source]]
name = "dump"
reader = "dumpsys_battery"
period_ms = 211
[[source]]
name = "get"
reader = "cmd_battery"
period_ms = 199
[source.options]
current_unit = "mA"
[[source]]
name = "heat"
reader = "thermalservice"
period_ms = 223
[[source]]
name = "app"
reader = "dumpsys_meminfo"
period_ms = 307
[[source]]
name = "meter"
reader = "powerstats"
period_ms = 997
[[source]]
name = "hal"
reader = "thermal_hal"
period_ms = 997
"""


@pytest.fixture
def phone(bench: Bench) -> Iterator[Bench]:
    """A device ``phone`` whose rail is counted by a clock that is 77 s ahead, with snapshots of every 20 ms."""
    sys, programs = bench.home / "sys", bench.home / "bin"
    battery, usb = sys / "class/power_supply/battery", sys / "class/power_supply/usb"
    rail = sys / "bus/iio/devices/iio:device0"
    for folder in (battery, usb, rail, programs, bench.home / "devices"):
        folder.mkdir(parents=True)
    texts = {battery / "type": "Battery", battery / "current_now": "-500000", battery / "voltage_now": "4000000"}
    texts |= {battery / "status": "Discharging", usb / "type": "USB", usb / "online": "0"}
    texts |= {rail / "enabled_rails": "CH0[S2S_VDD_G3D]:GPU", rail / "energy_value": "t=0"}
    for path, text in texts.items():
        path.write_text(text + "\n")
    for name, script in (("dumpsys", DUMPSYS.format(contract=CONTRACT)), ("cmd", CMD)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    (bench.home / "devices" / "phone.toml").write_text(PROFILE.format(sys=sys))
    bench.env["PATH"] = f"{programs}:{bench.environment()['PATH']}"
    stop = threading.Event()

    def count() -> None:
        with (rail / "energy_value").open("r+b", buffering=0) as file:
            while not stop.wait(0.02):
                ms = time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000
                file.seek(0)
                file.write(b"t=%012d\nCH0(T=%012d)[S2S_VDD_G3D], %018d\n" % (ms + 77_000, ms, 750 * ms))

    thread = threading.Thread(target=count)
    thread.start()
    yield bench
    stop.set()
    thread.join()


def series_of(journal: Journal, source: str, reader: str, options: dict[str, Any]) -> dict[str, Series]:
    streams = [journal.streams[number] for number in journal.numbers(source)]
    return {one.name: one for one in read(source, reader, streams, options)[0]}


def test_a_made_phone_is_read_whole(phone: Bench) -> None:
    (run,) = phone.json("exec", "--set", "idle_s=1.2", "--device", "phone", "--", "sleep", "2.5")
    rows = {row["source"]: row["status"] for row in run["sources"]}
    assert rows == {
        **dict.fromkeys(("gauge", "rails", "dump", "get", "heat", "app"), "ok"),
        "meter": "absent",  # no such service
        "hal": "error",  # a service that ends with 1
    }
    journal = read_journal(Path(run["stored"]) / "evidence" / "journal")
    gauge = series_of(journal, "gauge", "power_supply", {})
    assert np.unique(gauge["battery.power"].value).tolist() == [2.0]
    assert np.unique(gauge["battery.plugged"].value).tolist() == [0.0]
    get = series_of(journal, "get", "cmd_battery", {"current_unit": "mA"})
    assert np.nanmax(get["cmd_battery.power"].value) == pytest.approx(0.516 * 3.874)
    dump = series_of(journal, "dump", "dumpsys_battery", {})
    assert len(dump["dumpsys_battery.voltage_v"]) > 10  # all readings of one cached state
    assert np.unique(dump["dumpsys_battery.soc_percent"].value).tolist() == [71.0]
    heat = series_of(journal, "heat", "thermalservice", {})
    assert np.unique(heat["thermal.thermalservice.CPU.AP"].value).tolist() == [52.6]
    memory = series_of(journal, "app", "dumpsys_meminfo", {})
    assert set(memory["app_memory.rss_bytes"].value) == {1319744 * 1024.0}


def test_trap_12_a_rails_power_by_the_clock_of_its_own_device(phone: Bench) -> None:
    (run,) = phone.json("exec", "--set", "idle_s=0.6", "--device", "phone", "--", "sleep", "2")
    journal = read_journal(Path(run["stored"]) / "evidence" / "journal")
    one = series_of(journal, "rails", "odpm", {})["odpm.S2S_VDD_G3D.energy"]
    t = (one.t0_ns + one.t1_ns) // 2
    good = np.isfinite(one.value)
    begin, end = journal.first("begin"), journal.end
    assert begin is not None
    assert end is not None
    assert (t[good] > begin["boot_ns"] - 1e9).all()
    assert (t[good] < end["boot_ns"] + 1e9).all()  # in the target's clock, not 77 s ahead
    slope = np.polyfit((t[good] - t[good][0]) / 1e9, one.value[good] - one.value[good][0], 1)[0]
    assert slope == pytest.approx(0.75, rel=2e-3)


def test_a_process_that_is_named_is_not_looked_for_where_none_runs(phone: Bench) -> None:
    (run,) = phone.json(
        "run", "--workload", "idle", "--set", "window_s=1.5", "--set", "idle_s=0.3", "--device", "phone"
    )
    rows = {row["source"]: row for row in run["sources"]}
    assert rows["dump"]["status"] == "ok"
    assert rows["app"]["status"] == "absent"
