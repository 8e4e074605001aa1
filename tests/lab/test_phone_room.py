"""The made phones of the laboratory are what they say: what is real of them works, and what is made tells the truth."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from adb_gate import unauthorized
from adb_kit import Server, listens
from phone_makers import MAKERS
from phones_kit import Phone, made_phone
from targets_kit import until

from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.readings.dumpsys_battery import parse_dump
from meltbench.targets import facts

BURN = "i=0; while [ $i -lt 300000 ]; do i=$((i + 1)); done"


def power_w(phone: Phone, seconds: float) -> float:
    """What the phone drew of late, by its truth."""
    rows = phone.truth.rows()
    return phone.truth.joules(rows[-1][0] - round(seconds * 1e9), rows[-1][0]) / seconds


@pytest.fixture
def fresh(tmp_path: Path, adb: Server) -> Iterator[Phone]:
    with made_phone(tmp_path, adb) as phone:
        yield phone


def test_the_shell_is_androids_and_exit_codes_come_through(phone: Phone) -> None:
    assert phone.try_adb("shell", "exit 3").returncode == 3
    done = phone.try_adb("shell", "echo out; echo err >&2; false")
    assert (done.returncode, done.stdout, done.stderr) == (1, "out\n", "err\n")
    told = phone.shell("id -un; id -g; echo $HOME $TMPDIR; echo $PATH; umask; pwd")
    user, group, places, path, mask, folder = told.splitlines()
    assert (user, group, places, mask, folder) == ("shell", "2000", "/ /data/local/tmp", "000", "/")
    assert path.endswith(":/system/bin:/system/xbin:/odm/bin:/vendor/bin:/vendor/xbin")


def test_it_has_what_a_phone_has_and_no_more(phone: Phone) -> None:
    assert phone.shell("readlink /system/bin/sha256sum") == "toybox"
    for lacks in ("busybox", "python3", "perl", "bash", "gcc", "awk", "su"):
        assert phone.try_adb("shell", f"which {lacks}").returncode == 1, lacks
    assert phone.try_adb("shell", "ls -d /tmp").returncode == 1
    assert phone.try_adb("shell", "/lab/busybox true").returncode != 0
    phone.shell("echo x > /data/local/tmp/x && chmod 755 /data/local/tmp/x && rm /data/local/tmp/x")
    assert "Permission denied" in phone.try_adb("shell", "echo x > /data/x").stderr


def test_a_phone_that_was_not_allowed_is_unauthorized_until_it_is_tapped(phone: Phone, adb: Server) -> None:
    with unauthorized(phone, adb) as gate:

        def state() -> str:
            done = adb.adb("-s", gate.serial, "get-state")
            return done.stdout.strip() or done.stderr

        until(lambda: "unauthorized" in state(), "to be refused")
        assert "unauthorized" in adb.adb("-s", gate.serial, "shell", "true").stderr
        gate.tap()
        until(lambda: state() == "device", "to be let in")
        assert adb.adb("-s", gate.serial, "shell", "getprop ro.product.device").stdout == "oriole\n"
    assert phone.shell("echo still here") == "still here"


def test_what_is_pushed_is_there_and_comes_back(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "sent").write_bytes(bytes(range(256)) * 5000)
    phone.adb("push", str(tmp_path / "sent"), "/data/local/tmp/sent")
    phone.adb("pull", "/data/local/tmp/sent", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == (tmp_path / "sent").read_bytes()


def test_a_killed_adbd_and_a_killed_server_come_back(phone: Phone) -> None:
    boot = phone.boot_id()
    phone.shell("setsid sleep 1000 < /dev/null > /dev/null 2>&1 &")
    phone.kill_adbd()
    phone.connect()
    assert phone.shell("pgrep -f 'sleep 1000'"), "what was detached goes on"
    phone.kill_server()
    phone.start_server()
    assert phone.serial not in phone.server.adb("devices").stdout
    phone.connect()
    assert phone.shell("cat /proc/sys/kernel/random/boot_id") == boot


def test_a_stopped_adbd_is_gone_until_it_is_started(phone: Phone) -> None:
    phone.stop_adbd()
    assert phone.try_adb("shell", "true", seconds=30).returncode != 0
    phone.start_adbd()
    phone.connect()
    assert phone.shell("echo back") == "back"


def test_a_reboot_gives_a_new_boot_and_keeps_the_disk(fresh: Phone) -> None:
    first = fresh.boot_id()
    fresh.shell("echo kept > /data/local/tmp/kept; settings put global low_power 1; dumpsys deviceidle disable")
    assert fresh.shell("dumpsys deviceidle enabled") == "0"
    fresh.reboot()
    second = fresh.boot_id()
    assert second != first
    assert fresh.shell("cat /data/local/tmp/kept; settings get global low_power") == "kept\n1"
    assert fresh.shell("dumpsys deviceidle enabled") == "1"
    fresh.try_adb("shell", "reboot")
    until(lambda: fresh.boot_id() not in (second, ""), "the phone's own reboot")
    fresh.connect()
    assert fresh.truth.rows(), "and its battery goes on"


def test_a_full_disk_is_full(phone: Phone, tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(bytes(8 << 20))
    phone.fill_disk(1 << 20)
    done = phone.try_adb("push", str(tmp_path / "big"), "/data/local/tmp/big")
    phone.free_disk()
    assert done.returncode != 0
    assert "No space left" in done.stderr + done.stdout
    phone.shell("rm -f /data/local/tmp/big")


def test_a_wire_that_is_cut_hangs_and_goes_on_when_mended(phone: Phone) -> None:
    phone.wire.cut()
    with pytest.raises(subprocess.TimeoutExpired):
        phone.try_adb("shell", "echo hi", seconds=1)
    phone.wire.restore()
    phone.connect()
    assert phone.shell("echo hi") == "hi"


def test_wifi_that_is_switched_off_takes_the_phone_away(fresh: Phone) -> None:
    away = "setsid sh -c 'svc wifi disable; sleep 5; svc wifi enable' < /dev/null > /dev/null 2>&1 &"
    with suppress(subprocess.TimeoutExpired):  # its own answer may be lost
        fresh.try_adb("shell", away, seconds=2)
    until(lambda: not listens(fresh.wire.address, fresh.port), "Wi-Fi to be off")
    until(lambda: listens(fresh.wire.address, fresh.port), "Wi-Fi to be on again")
    fresh.connect()
    fresh.shell("cmd connectivity airplane-mode enable && svc wifi enable")
    fresh.connect()
    assert fresh.shell("cmd connectivity airplane-mode") == "enabled"
    assert fresh.shell("settings get global airplane_mode_on") == "1"


def test_settings_keep_what_was_put_and_say_null_of_what_was_not(phone: Phone) -> None:
    assert phone.shell("settings get global heads_up_notifications_enabled") == "null"
    phone.shell("settings put global heads_up_notifications_enabled 0")
    assert phone.shell("settings get global heads_up_notifications_enabled") == "0"
    assert phone.shell("settings delete global heads_up_notifications_enabled") == "Deleted 1 rows"
    assert phone.try_adb("shell", "settings get nowhere x").returncode == 255
    phone.shell("svc power stayon usb")
    assert phone.shell("settings get global stay_on_while_plugged_in") == "2"
    phone.shell("svc power stayon false")


def test_the_screen_draws_what_its_settings_say(fresh: Phone) -> None:
    assert "mWakefulness=Asleep" in fresh.shell("dumpsys power")
    until(lambda: power_w(fresh, 0.5) < 0.75, "a phone at rest")
    fresh.shell("settings put system screen_brightness_mode 0; settings put system screen_brightness 255")
    fresh.shell("input keyevent KEYCODE_WAKEUP; wm dismiss-keyguard")
    assert fresh.shell("dumpsys deviceidle get screen") == "true"
    assert "mScreenLocked=false" in fresh.shell("dumpsys deviceidle")
    until(lambda: power_w(fresh, 0.5) > 1.65, "the screen to draw its power")
    fresh.set_pin()
    fresh.shell("input keyevent 223; input keyevent 224; wm dismiss-keyguard")
    assert "mScreenLocked=true" in fresh.shell("dumpsys deviceidle")


@pytest.mark.parametrize("name", MAKERS)
def test_each_maker_answers_in_its_own_dialect(tmp_path: Path, adb: Server, name: str) -> None:
    maker = MAKERS[name]
    with made_phone(tmp_path, adb, name, serial=f"LAB{name}") as phone:
        said = facts.properties(phone.shell("getprop").encode())
        assert said["ro.product.device"] == maker.properties["ro.product.device"]
        assert said["ro.serialno"] == f"LAB{name}"
        dump = parse_dump(phone.shell("dumpsys battery").encode())
        assert isinstance(dump, dict)
        assert (dump["level"], dump["status"], dump["plugged"]) == (71, 3, 0)
        assert 3.0e6 < dump["charge"] < 3.3e6
        asked = phone.try_adb("shell", "cmd battery get -f current_now")
        milliamperes = {"uA": 1e3, "mA": 1.0}
        if maker.current:
            assert 100 < int(asked.stdout) / milliamperes[maker.current] * maker.gauge.sign < 500
        else:
            assert asked.stdout == ("" if maker.current == "" else "Unknown get option: current_now\n")
        assert asked.returncode == 0
        read = phone.try_adb("shell", "cat /sys/class/power_supply/battery/current_now")
        if maker.supply.value:
            assert "Permission denied" in read.stderr
        else:
            assert 100 < int(read.stdout) / milliamperes[maker.gauge.unit] * maker.gauge.sign < 500
        zone = phone.try_adb("shell", "cat /sys/class/thermal/thermal_zone0/temp")
        assert ("Permission denied" in zone.stderr) == bool(maker.thermal.value)
        heat = phone.shell("dumpsys thermalservice")
        assert f"mName={maker.sensors[0][0]}" in heat.partition("Current temperatures from HAL:")[2]
        rails = phone.try_adb("shell", "cat /sys/bus/iio/devices/iio:device0/energy_value").stderr
        assert ("Permission denied" if maker.power_monitors else "No such file") in rails
        assert ("VSYS_PWR_MODEM" in phone.shell("dumpsys powerstats")) == maker.power_monitors


def test_two_phones_at_one_server_are_two_and_leave_nothing_behind(tmp_path: Path, adb: Server, phone: Phone) -> None:
    with made_phone(tmp_path, adb, "galaxy-s23", serial="OTHER") as other:
        listed = adb.adb("devices").stdout
        assert phone.serial in listed
        assert other.serial in listed
        assert phone.shell("getprop ro.serialno") != other.shell("getprop ro.serialno") == "OTHER"
        other.shell("setsid sleep 1000 < /dev/null > /dev/null 2>&1 &")
        card, pids = other.wire.card, list(other.room.processes())
    assert other.serial not in adb.adb("devices").stdout
    assert not Path(f"/sys/class/net/{card}").exists()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def test_a_rooted_phone_denies_nothing(tmp_path: Path, adb: Server) -> None:
    with made_phone(tmp_path, adb, "pixel6", root=True) as phone:
        assert "[S2M_VDD_CPUCL2]" in phone.shell("cat /sys/bus/iio/devices/iio:device1/energy_value")


def test_perfetto_of_a_pixel_records_its_rails_without_root(fresh: Phone, tmp_path: Path) -> None:
    config = 'duration_ms: 2500 data_sources{config{name:"android.power" android_power_config{battery_poll_ms: 250 '
    config += "battery_counters:BATTERY_COUNTER_CURRENT collect_power_rails:true}}}"
    trace = "/data/misc/perfetto-traces/t.perfetto-trace"
    refused = fresh.try_adb("shell", f"echo '{config}' | perfetto --txt -c - -o /data/local/tmp/t")
    assert (refused.returncode, "Permission denied" in refused.stderr) == (1, True)
    pid = fresh.shell(f"echo '{config}' | perfetto --txt -d -c - -o {trace}")
    fresh.shell(BURN)
    until(lambda: fresh.try_adb("shell", f"kill -0 {pid}").returncode != 0, "the trace to end")
    fresh.adb("pull", trace, str(tmp_path / "trace"))
    streams = captured(READERS["perfetto"], (tmp_path / "trace").read_bytes())
    series = {one.name: one for one in read("perfetto", "perfetto", streams, {"current_unit": "uA"})[0]}
    power, cpu = series["perfetto.battery.power"], series["perfetto.rail.S2M_VDD_CPUCL2.energy"]
    assert (power.value > 0.4).all()
    assert (cpu.value[1:] >= cpu.value[:-1]).all()
    assert cpu.value[-1] > cpu.value[0]
    first, last = int(power.t0_ns[0]), int(power.t1_ns[-1])
    assert 0 < cpu.value[-1] - cpu.value[0] < fresh.truth.joules(first - 500_000_000, last + 500_000_000)


def test_the_truth_the_gauge_and_the_charge_agree(fresh: Phone) -> None:
    until(lambda: power_w(fresh, 0.5) < 0.75, "a phone at rest")
    at_rest = power_w(fresh, 0.5)
    counter = "cat /sys/class/power_supply/battery/charge_counter"
    before, first = int(fresh.shell(counter)), fresh.truth.rows()[-1][0]
    until(lambda: int(fresh.shell(f"{BURN}; {counter}")) <= before - 1500, "three steps of the counter", 250)
    after, last = int(fresh.shell(counter)), fresh.truth.rows()[-1][0]
    drawn = fresh.truth.joules(first, last)
    assert drawn / (last - first) * 1e9 > at_rest + 0.1, "work costs"
    # A step of the counter is 500 uAh, 7 J: it lags by less than one at either end.
    counted = (before - after) * 3.6e-3 * 3.95
    assert abs(counted - drawn) < 2 * 7.2 + 0.03 * drawn
    until(lambda: power_w(fresh, 0.5) < 0.75, "rest again")
    time.sleep(1)
    gauge = fresh.folder / "made/sys/class/power_supply/battery"  # no shell is started for it
    current, volts = (int((gauge / name).read_text()) / 1e6 for name in ("current_now", "voltage_now"))
    assert abs(-current * volts - power_w(fresh, 0.5)) < 0.15


def test_a_charger_hides_the_load_and_may_say_what_is_not_so(fresh: Phone) -> None:
    def supply(name: str) -> str:
        return fresh.shell(f"cat /sys/class/power_supply/{name}")

    fresh.plug()
    until(lambda: supply("battery/status") == "Charging", "to be charged")
    until(lambda: int(supply("battery/current_now")) > 500_000, "current to flow in")
    assert supply("usb/online") == "1"
    assert "USB powered: true" in fresh.shell("dumpsys battery")
    fresh.plug(kind="held")
    until(lambda: supply("battery/capacity") == "80", "the limit of 80 %")
    until(lambda: abs(int(supply("battery/current_now"))) < 20_000, "the charge to be held")
    assert supply("battery/status") == "Charging"
    fresh.shell(BURN)
    assert abs(int(supply("battery/current_now"))) < 20_000, "the charger carries the load"
    fresh.plug(kind="full")
    signs = set()
    until(lambda: signs.add(int(supply("battery/current_now")) > 0) or len(signs) == 2, "a current of either sign")
    assert supply("battery/status") == "Full"
    fresh.plug(kind="weak")
    until(lambda: int(supply("battery/current_now")) < -20_000, "the battery to be drained at a charger")
    assert supply("battery/status") == "Charging"
    fresh.plug(on=False)
    until(lambda: supply("battery/status") == "Discharging", "to be unplugged")
    assert supply("usb/online") == "0"
    fresh.charge_to(12)
    until(lambda: supply("battery/capacity") == "12", "an emptier battery")
    until(lambda: "level: 12" in fresh.shell("dumpsys battery"), "Android to be told")


def test_a_dump_is_of_some_time_ago_and_can_be_stopped(fresh: Phone) -> None:
    def counted() -> str:
        found = re.search(r"Charge counter: (\d+)", fresh.shell("dumpsys battery"))
        assert found is not None
        return found[1]

    old = counted()
    sysfs = "cat /sys/class/power_supply/battery/charge_counter"
    until(lambda: fresh.shell(f"{BURN}; {sysfs}") != old, "the gauge to go on", 200)
    assert counted() == old, "Android asks once a minute"
    fresh.shell("cmd battery get -f level")
    until(lambda: counted() != old, "it to have asked")
    fresh.shell("dumpsys battery unplug; dumpsys battery set level 15")
    lines = fresh.shell("dumpsys battery").splitlines()
    assert lines[1] == "  (UPDATES STOPPED -- use 'reset' to restart)"
    assert "  level: 15" in lines
    fresh.shell("dumpsys battery reset")
    assert "UPDATES STOPPED" not in fresh.shell("dumpsys battery")
    assert "  level: 15" not in fresh.shell("dumpsys battery")


def test_the_thermal_status_can_be_set_by_hand(phone: Phone) -> None:
    phone.shell("cmd thermalservice override-status 3")
    assert "IsStatusOverride: true" in phone.shell("dumpsys thermalservice")
    phone.shell("cmd thermalservice reset")
    assert "Thermal Status: 0" in phone.shell("dumpsys thermalservice")


def test_an_unknown_service_is_said_so_as_android_says_it(phone: Phone) -> None:
    assert phone.shell("dumpsys nothing") == "Can't find service: nothing"
    done = phone.try_adb("shell", "cmd nothing")
    assert (done.returncode, done.stderr) == (20, "cmd: Can't find service: nothing\n")


def test_a_shell_can_speak_before_it_answers(tmp_path: Path, adb: Server) -> None:
    with made_phone(tmp_path, adb, prose=True) as phone:
        first, second = phone.shell("getprop ro.product.device").splitlines()
        assert first.startswith("WARNING: linker:")
        assert second == "oriole"


def test_a_flooded_log_has_no_end_and_costs_power(fresh: Phone) -> None:
    assert "pixel-thermal: Sending notification:" in fresh.shell("logcat -d -s pixel-thermal")
    with fresh.flood():
        with pytest.raises(subprocess.TimeoutExpired):
            fresh.try_adb("shell", "logcat -d > /dev/null", seconds=2)
        until(lambda: power_w(fresh, 0.5) > 1.0, "the flood to be felt")
    until(lambda: power_w(fresh, 0.5) < 0.75, "rest again")
