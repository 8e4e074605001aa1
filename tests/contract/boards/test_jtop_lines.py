"""jtop: the lines of our helper, the flat rows of old releases, and the helper itself over a made library."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from boards_kit import HERE, SECOND, got, lines, of, values

from meltbench.catalog import builtin_root

HELPER = builtin_root() / "runners" / "helpers" / "jtop.py"


def test_trap_17_rails_are_of_now_and_their_weighted_means_are_never_read():
    found, status = of("jtop", "jtop_lines_orin_nx.txt")
    assert {name: (one.value.tolist(), one.scope) for name, one in found.items() if one.unit == "W"} == {
        "jtop.VDD_IN.power": ([9.12, 9.28], "module"),
        "jtop.VDD_CPU_GPU_CV.power": ([3.34, 3.42], "rail"),
        "jtop.VDD_SOC.power": ([2.01, 2.01], "rail"),
    }
    # avg is 0.7 W above each of them; the USB-C contract of 45 W is no measurement.
    assert {(one.klass, one.update_s) for one in found.values() if one.unit == "W"} == {("C", 0.5)}
    assert status.status == "ok"


def test_helpers_lines_of_a_log_stand_at_the_times_they_tell():
    one = of("jtop", "jtop_lines_orin_nx.txt")[0]["jtop.VDD_IN.power"]
    assert one.t0_ns.tolist() == [5000 * SECOND, 5000 * SECOND + SECOND // 2]
    live = lines((HERE / "jtop_lines_orin_nx.txt").read_bytes().splitlines(keepends=True), t0_ns=5001 * SECOND)
    assert got("jtop", [live])[0]["jtop.VDD_IN.power"].t0_ns.tolist() == one.t0_ns.tolist()


def test_a_total_that_is_a_sum_is_not_read():
    found, _ = of("jtop", "jtop_lines_agx_orin.txt")
    assert values(found) == {
        "jtop.VDD_GPU_SOC.power": 6.4,
        "jtop.VDD_CPU_CV.power": 1.6,
        "jtop.VIN_SYS_5V0.power": 4.1,
    }
    assert {one.scope for one in found.values()} == {"rail"}


def test_temperatures_loads_and_what_is_off():
    found, _ = of("jtop", "jtop_lines_orin_nx.txt")
    assert found["thermal.jtop.cpu"].value.tolist() == [51.5, 52.5]
    assert found["thermal.jtop.cv0"].words == ["gated", "gated"]
    assert found["jtop.cpu_busy.cpu0"].value.tolist() == [0.1, 0.11]
    assert found["jtop.cpu_busy.cpu1"].words == ["gated", "gated"]
    assert found["jtop.gpu.busy"].value.tolist() == [0.725, 0.725]
    assert "jtop.ram_used_bytes" not in found  # newer releases say a share of it


def test_flat_rows_of_old_releases_are_records_at_the_devices_uptime():
    found, status = of("jtop", "jtop_flat_tx2.txt")
    seen = {name: one.value.tolist() for name, one in found.items() if "gated" not in one.words}
    assert seen == {
        "jtop.cur.power": [6.104, 6.257],
        "jtop.cpu_busy.cpu0": [0.12, 0.14],
        "jtop.cpu_busy.cpu3": [0.2, 0.26],
        "jtop.gpu.busy": [0.33, 0.35],
        "jtop.ram_used_bytes": [3355340 * 1024, 3355400 * 1024],
        "jtop.swap_used_bytes": [2048 * 1024] * 2,
        "thermal.jtop.BCPU": [41.5, 42.0],  # PMIC says 100 on each of these boards
    }
    assert found["jtop.cpu_busy.cpu1"].words == ["gated", "gated"]
    uptime = 86_400 + 3 * 3600 + 15 * 60 + 42.25
    assert (found["jtop.cur.power"].t0_ns / SECOND).tolist() == [uptime, uptime + 1]
    assert (found["jtop.cur.power"].scope, status.status) == ("rail", "ok")


def test_flat_stats_of_new_releases_name_a_total_like_a_rail():
    stats = {"Power VDD_SOC": 1475, "Power TOT": 4824, "Temp tj": 50.25, "Temp cv1": -256, "RAM": 0.45, "CPU1": 101}
    found, _ = of("jtop", json.dumps({"stats": stats}).encode())
    assert values(found) == {
        "jtop.VDD_SOC.power": 1.475,
        "thermal.jtop.tj": 50.25,
        "thermal.jtop.cv1": pytest.approx(np.nan, nan_ok=True),
    }


def test_a_contract_of_usb_c_is_no_rail_however_a_release_tells_it():
    said = {
        "1-00081": {"power": 45_000, "online": True},
        "ucsi_ccg.1-0008": {"power": 45_000},
        "A": {"power": 1, "status": "Full"},
    }
    found, _ = got("jtop", [lines([json.dumps({"power": {"rail": said | {"VDD_SOC": {"power": 2}}}}).encode()])])
    assert list(found) == ["jtop.VDD_SOC.power"]


def test_a_rail_without_a_number_is_unparsed_one_offline_gated_and_an_empty_line_lost():
    rail = {"A": {"power": None}, "B": {"power": 900, "online": False}, "C": {"power": "x"}, "D": {"power": 10**40}}
    found, _ = got("jtop", [lines([json.dumps({"power": {"rail": rail}}).encode(), b"{}\n", b'{"power": 3}\n'])])
    assert {name: one.words for name, one in found.items()} == {
        "jtop.A.power": ["unparsed"],
        "jtop.B.power": ["gated"],
        "jtop.C.power": ["unparsed"],
        "jtop.D.power": ["unparsed"],
        "jtop.lost": ["unparsed", "unparsed"],
    }
    assert all(np.isnan(one.value).all() for one in found.values())


MADE = '''
class JtopException(Exception):
    """As the library's: one for all causes."""

class jtop:
    """A made stand-in for jetson-stats' client and its service: gives what an Orin NX gave, then stops or fails."""
    def __init__(self, interval=1.0):
        self.left = {updates}
    def __enter__(self):
        if {refusal!r}:
            raise JtopException({refusal!r})
        return self
    def __exit__(self, *_):
        return False
    def ok(self):
        self.left -= 1
        return self.left >= 0
    power = {{
        "rail": {{"VDD_SOC": {{"volt": 5000, "power": 2005, "avg": 1900, "online": True, "type": "INA3221"}}}},
        "tot": {{"power": 9120, "avg": 9000, "name": "VDD_IN", "type": "INA3221", "online": True}},
    }}
    temperature = {{"cpu": {{"temp": 51.5, "max": 99.0, "online": True}}}}
    stats = {{"time": object(), "CPU1": 12, "GPU": 40.0, "Power TOT": 9120, "Temp cpu": 51.5}}
'''


def helped(tmp_path, updates=2, refusal="", library=True):
    if library:
        (tmp_path / "jtop.py").write_text(MADE.format(updates=updates, refusal=refusal))
    argv = [sys.executable, "-B", "-P", "-S", str(HELPER), "97"]
    return subprocess.run(argv, env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, timeout=60)


def test_the_helper_prints_what_the_reader_takes(tmp_path):
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    done = helped(tmp_path)
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert said[-1] == {"cannot": "error", "detail": "jtop: its service gives no more updates"}
    assert before <= said[0]["t0_ns"] <= said[0]["end_ns"] <= said[1]["t0_ns"]
    assert said[0]["power"]["rail"] == {"VDD_SOC": {"power": 2005, "online": True, "type": "INA3221"}}
    assert said[0]["stats"] == {"CPU1": 12, "GPU": 40.0}
    found, status = of("jtop", done.stdout)
    assert values(found)["jtop.VDD_IN.power"] == [9.12, 9.12]
    assert values(found)["jtop.VDD_SOC.power"] == [2.005, 2.005]
    assert (found["jtop.lost"].words, status.status) == (["error"], "ok")


@pytest.mark.parametrize(
    ("refusal", "word"),
    [
        ("The jtop.service is not active. Please run:\nsudo systemctl restart jtop.service", "absent"),
        ("I can't access jtop.service.\nPlease logout or reboot this board.", "denied"),
        ("Mismatch of Python versions between library and service", "error"),
    ],
)
def test_a_service_that_refuses_is_told_once(tmp_path, refusal, word):
    done = helped(tmp_path, refusal=refusal)
    assert done.returncode == 1
    (line,) = [json.loads(line) for line in done.stdout.splitlines()]
    assert (line["cannot"], line["detail"].split(".")[0]) == (word, f"jtop: {refusal.split('.')[0]}")
    assert of("jtop", done.stdout)[1].status == word


def test_a_machine_without_the_library_is_told_once(tmp_path):
    (line,) = [json.loads(line) for line in helped(tmp_path, library=False).stdout.splitlines()]
    assert line["cannot"] == "absent"
    assert "jetson-stats is not installed" in line["detail"]


def test_the_helper_ends_on_sigterm_and_when_nobody_reads(tmp_path):
    (tmp_path / "jtop.py").write_text(MADE.format(updates=10**9, refusal=""))
    argv = [sys.executable, "-B", "-P", "-S", str(HELPER), "97"]
    for end in ("term", "close"):
        with subprocess.Popen(argv, env={**os.environ, "PYTHONPATH": str(tmp_path)}, stdout=subprocess.PIPE) as process:
            process.stdout.readline()
            process.terminate() if end == "term" else process.stdout.close()
            assert process.wait(20) == (-signal.SIGTERM if end == "term" else -signal.SIGPIPE)
