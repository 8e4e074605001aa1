"""``meltbench devices`` and ``meltbench read`` as a person uses them; made trees and programs stand in for devices."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from cli import Bench
from jsoncheck import NAMED, problems

from meltbench import site
from meltbench.cli.watching import Terminal
from meltbench.errors import UserError
from meltbench.targets import Place

INA = "bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon3"
RAILS = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")


def tree(bench: Bench, sys: dict[str, str], proc: dict[str, str]) -> Path:
    """A made /sys and /proc, and the profile ``made`` that looks there."""
    for root, texts in (("sys", sys), ("proc", proc)):
        for name, text in texts.items():
            path = bench.home / root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    (bench.home / "devices").mkdir(exist_ok=True)
    roots = f'[roots]\nsys = "{bench.home / "sys"}"\nproc = "{bench.home / "proc"}"\n'
    (bench.home / "devices" / "made.toml").write_text(f'inherits = "local"\n{roots}')
    return bench.home / "sys"


def orin_nano(bench: Bench) -> Path:
    files = {f"{INA}/in{n}_label": f"{rail}\n" for n, rail in enumerate(RAILS, 1)}
    files |= {f"{INA}/in{n}_input": "5000\n" for n in (1, 2, 3)}
    files |= {f"{INA}/curr{n}_input": f"{1000 // n}\n" for n in (1, 2, 3)}
    files |= {"class/thermal/thermal_zone0/type": "cpu-thermal\n", "class/thermal/thermal_zone0/temp": "41000\n"}
    names = ("nvidia,p3768-0000+p3767-0004", "nvidia,p3767-0004", "nvidia,tegra234")
    model = {"device-tree/model": "NVIDIA Jetson Orin Nano Developer Kit\0", "device-tree/compatible": "\0".join(names)}
    return tree(bench, files, model)


@pytest.fixture
def drawing(bench: Bench) -> Iterator[Path]:
    """An Orin Nano whose module draws 5 W with a ripple, the sensor's step of 8 mA up and down."""
    sys = orin_nano(bench)
    stop = threading.Event()

    def ripple() -> None:
        step = 0
        with (sys / INA / "curr1_input").open("r+b", buffering=0) as current:  # the probe holds the file open
            while not stop.wait(0.01):
                step += 1
                os.pwrite(current.fileno(), b"%-5d\n" % (1000 + 8 * (step % 3 - 1)), 0)

    thread = threading.Thread(target=ripple)
    thread.start()
    yield sys
    stop.set()
    thread.join()


def test_the_list_and_every_profile_are_as_the_page_of_json_says(bench: Bench) -> None:
    listed = bench.json("devices")
    assert problems(NAMED["devices"], listed) == []
    assert {"local", "pixel6", "jetson-orin-nano", "rpi5", "macbook"} <= {row["name"] for row in listed}
    assert {row["target"] for row in listed} == {"local", "ssh", "adb", "log"}
    for name in ("local", "oneplus-12", "jetson-thor"):
        done = bench.run("devices", "show", name, "--json")
        assert done.returncode == 0, done.stderr
        assert problems(NAMED["device"], json.loads(done.stdout)) == []
    plain = bench.run("devices", "show", "jetson-agx-orin").stdout
    assert "leaves out losses ahead of the three rails" in plain
    assert "ina3221.VIN_SYS_5V0.power contains ina3221.VDDQ_VDD2_1V8AO.power" in plain


def test_a_board_is_recognised_drafted_and_run_with_its_own_total(bench: Bench, drawing: Path) -> None:
    done = bench.run("devices", "profile", "--device", "made", "--name", "desk", "--write")
    assert done.returncode == 0, done.stderr
    text = (bench.home / "devices" / "desk.toml").read_text()
    assert 'inherits = "jetson-orin-nano"' in text
    assert "compatible 'nvidia,p3768-0000+p3767-0004'" in text
    assert "Its total is inherited: ina3221 (ina3221.VDD_IN.power)." in text
    idle = ("--workload", "idle", "--set", "window_s=2", "--set", "idle_s=0.5")
    (run,) = bench.json("run", *idle, "--device", "desk")
    (total,) = [m for m in run["measures"] if (m["name"], m["source"], m["phase"]) == ("energy_j", "total", "run")]
    assert total["reason"] is None
    assert total["value"] == pytest.approx(10, rel=0.05)
    assert (total["scope"], total["klass"]) == ("module", "C")


def test_a_machine_that_fits_a_profile_is_told_so_when_it_is_measured_as_any(bench: Bench) -> None:
    orin_nano(bench)
    (bench.home / "devices" / "made.toml").rename(bench.home / "devices" / "local.toml")
    done = bench.run("exec", "--set", "idle_s=0", "--", "true")
    assert "profile jetson-orin-nano knows this device" in done.stderr


def test_a_pc_with_a_counter_and_a_battery_has_the_counter_as_its_total(bench: Bench) -> None:
    zone, battery = "class/powercap/intel-rapl:0", "class/power_supply/BAT0"
    files = {f"{zone}/name": "package-0\n", f"{zone}/energy_uj": "5\n", f"{zone}/max_energy_range_uj": "262143328850\n"}
    supply = {"type": "Battery", "current_now": "-512000", "voltage_now": "11800000", "capacity": "80"}
    supply |= {"status": "Discharging"}
    files |= {f"{battery}/{name}": f"{text}\n" for name, text in supply.items()}
    names = {"class/dmi/id/sys_vendor": "LENOVO\n", "class/dmi/id/product_name": "21CB\n"}
    tree(bench, files | names, {"cpuinfo": "model name\t: Some CPU\n"})
    text = bench.run("devices", "profile", "--device", "made").stdout
    assert 'inherits = "linux-desktop"' in text
    assert 'board = ["LENOVO 21CB"]' in text
    assert "Its total is inherited: rapl." in text
    gauge = text[text.index("# A battery's gauge") :]
    assert "meltbench devices calibrate" in gauge
    assert 'supply = "BAT0"' in gauge
    assert "unit" not in gauge.split("[source.options]")[1]
    assert "sign" not in gauge.split("[source.options]")[1]


def test_a_phone_is_told_by_getprop(bench: Bench) -> None:
    tree(bench, {"class/thermal/thermal_zone0/type": "BIG\n"}, {})
    tools = bench.home / "bin"
    tools.mkdir()
    told = {"ro.product.device": "oriole", "ro.product.model": "Pixel 6", "ro.serialno": "SECRET"}
    lines = "".join(f"[{key}]: [{value}]\n" for key, value in told.items())
    (tools / "getprop").write_text(f"#!/bin/sh\ncat <<'END'\n{lines}END\n")
    (tools / "getprop").chmod(0o755)
    bench.env["PATH"] = f"{tools}:{bench.environment()['PATH']}"
    text = bench.run("devices", "profile", "--device", "made").stdout
    assert 'inherits = "pixel6"' in text
    assert "SECRET" not in text
    (run,) = bench.json("exec", "--set", "idle_s=0", "--device", "made", "--", "true")
    assert run["conditions"]["properties"] == {"ro.product.device": "oriole", "ro.product.model": "Pixel 6"}
    assert run["conditions"]["identity_from"] == "ro.serialno"
    assert "SECRET" not in json.dumps(run)


def test_a_draft_replaces_no_file_unless_told_to(bench: Bench) -> None:
    orin_nano(bench)
    write = ("devices", "profile", "--device", "made", "--name", "desk", "--write")
    assert bench.run(*write).returncode == 0
    again = bench.run(*write)
    assert again.returncode == 2
    assert again.stderr.splitlines() == [
        "meltbench: devices/desk.toml is there already; give another --name, or --force"
    ]
    assert bench.run(*write, "--force").returncode == 0
    # The file that is replaced fits its own device best of all; a draft that inherited it would inherit itself.
    assert 'inherits = "jetson-orin-nano"' in (bench.home / "devices" / "desk.toml").read_text()
    assert bench.run("devices", "show", "desk").returncode == 0
    other = bench.run("devices", "profile", "--device", "made", "--name", "shelf", "--write")
    assert 'inherits = "desk"' in (bench.home / "devices" / "shelf.toml").read_text(), other.stderr
    assert bench.run(*write, "--force").returncode == 0  # nor one that inherits from the file that is replaced
    assert bench.run("devices", "show", "shelf").returncode == 0
    over = ("devices", "profile", "--device", "made", "--name", "jetson-orin-nano", "--write")
    assert bench.run(*over).returncode == 0
    assert bench.run(*over, "--force").returncode == 0
    assert bench.run("devices", "show", "jetson-orin-nano").returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--device", "macbook"), "meltbench read LOG --device macbook"),
        (("run", "--dry-run", "--device", "macbook"), "the probe is for Linux and Android"),
        (("devices", "profile", "--device", "macbook"), "recorded log"),
        (("devices", "profile", "--device", "rpi5"), "meltbench devices add rpi5 --ssh USER@HOST"),
        (("devices", "profile", "--name", "../x"), "is no name for a profile"),
        (("devices", "profile", "--force"), "add --write"),
        (("devices", "show", "pixel7"), "did you mean pixel"),
        (("devices", "--json", "show", "local"), "meltbench devices show --json"),
        (("read", "nosuch", "--reader", "meminfo"), "cannot read nosuch"),
        (("read", "/dev/null", "--reader", "tegrastats"), "/dev/null is empty"),
        (("devices", "doctor", "macbook"), "is not reached, its readings come from a recorded log"),
        (("runners", "build", "llamacpp", "--on-device", "macbook"), "is not reached, its readings come from a"),
        (("devices", "calibrate", "macbook"), "is not reached, its readings come from a recorded log"),
        (("devices", "selftest", "macbook"), "is not reached, its readings come from a recorded log"),
        (("devices", "selftest", "--idle-s", "0"), "idle_s = 0 is out of range"),
        (("read", "made", "--reader", "qqqq"), "more"),
        (("read", "-"), "give --reader NAME or --device PROFILE"),
        (("read", "made", "--reader", "rappl"), "did you mean rapl"),
        (("read", "made", "--reader", "thermal", "--option", "celsius_per_count=7"), "celsius_per_count"),
        (("read", "made", "--reader", "thermal", "--option", "celsius"), "--option discharge_sign=-1"),
        (("read", "made", "--reader", "thermal", "--period-ms", "0"), "out of range"),
        (("read", "made", "--device", "rpi4"), "no source of rpi4 finds anything in made"),
        (("read", "made", "--device", "rpi4", "--reader", "odpm"), "its readers: cpufreq"),
    ],
)
def test_what_cannot_be_done_is_one_line(bench: Bench, words: tuple[str, ...], said: str) -> None:
    (bench.home / "made").write_text("nothing that a reader knows\n")
    done = bench.run(*words)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert done.stderr.splitlines()[-1].startswith("meltbench: ")
    assert words[0] == "exec" or not bench.data.exists()


def test_a_text_that_its_reader_cannot_read_says_so_and_is_no_success(bench: Bench) -> None:
    (bench.home / "made").write_text("nothing that a reader knows\n")
    done = bench.run("read", "made", "--reader", "pmic", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["sources"][0]["status"] == "unparsed"
    assert done.stderr == "made holds no value that pmic can read\n"


def test_a_recorded_log_gives_its_energy_and_that_of_the_device(bench: Bench) -> None:
    lines = []
    for n in range(40):
        watts = 6000 + round(2000 * math.sin(n / 3))
        lines.append(
            f"01-02-2026 03:04:{n % 60:02d} RAM 900/7620MB CPU [5%@729] cpu@40.5C "
            f"VDD_IN {watts}mW/{watts}mW VDD_CPU_GPU_CV {watts // 3}mW/9mW VDD_SOC 700mW/700mW"
        )
    log = bench.home / "tegra.log"
    log.write_text("\r\n".join(lines) + "\r\n")
    done = bench.run("read", str(log), "--device", "jetson-orin-nano", "--period-ms", "500", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert problems(NAMED["read"], found) == []
    assert [one["source"] for one in found["sources"]] == ["tegrastats"]
    assert (found["total"]["scope"], found["total"]["klass"], found["total"]["partial"]) == ("module", "C", "")
    assert found["total"]["energy_j"] == pytest.approx(6 * 39 * 0.5, rel=0.05)
    series = {row["name"]: row for row in found["series"]}
    assert series["tegrastats.VDD_IN.power"]["energy_j"] == found["total"]["energy_j"]
    assert series["thermal.tegrastats.cpu"]["mean"] == 40.5
    assert series["thermal.tegrastats.cpu"]["energy_j"] is None
    assert series["thermal.tegrastats.cpu"]["reason"] is None
    table = bench.run("read", str(log), "--reader", "tegrastats").stdout
    assert "tegrastats.VDD_SOC.power" in table
    assert "total:" not in table


def test_a_dump_of_a_devices_files_is_read_with_options(bench: Bench) -> None:
    zone = "/sys/class/thermal/thermal_zone3"
    (bench.home / "zone").write_text(f"{zone}/type: mtktscpu\n{zone}/temp: 412\n")
    asked = ("--reader", "thermal", "--option", "celsius_per_count=0.1", "--json")
    (row,) = json.loads(bench.run("read", "zone", *asked).stdout)["series"]
    assert (row["name"], row["last"], row["n"]) == ("thermal.mtktscpu", pytest.approx(41.2), 1)


def test_a_mac_is_told_in_one_line_how_it_is_measured(bench: Bench) -> None:
    """A made uname stands in for macOS."""
    (bench.home / "bin").mkdir()
    (bench.home / "bin" / "uname").write_text("#!/bin/sh\necho Darwin arm64\n")
    (bench.home / "bin" / "uname").chmod(0o755)
    bench.env["PATH"] = f"{bench.home / 'bin'}:{bench.environment()['PATH']}"
    done = bench.run("exec", "--", "true")
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "Darwin on arm64 cannot be measured" in done.stderr
    assert "meltbench read LOG --device macbook" in done.stderr


def test_windows_is_refused_before_anything_is_asked_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Windows")
    with pytest.raises(UserError, match="Windows cannot be measured; the probe is for Linux and Android"):
        site.reach(Place("local"), None, Terminal())
