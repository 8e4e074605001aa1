"""Regimes along the whole road: the real probe samples a made /sys whose cap falls and rises while a command runs."""

from __future__ import annotations

import threading
import time

import duckdb
import pytest
from cli import Bench

import meltbench


@pytest.fixture
def capped(bench: Bench) -> str:
    """A device with one policy of 2.4 GHz and one thermal zone."""
    policy, zone = bench.home / "sys/devices/system/cpu/cpufreq/policy0", bench.home / "sys/class/thermal/thermal_zone0"
    for folder in (policy, zone, bench.home / "devices"):
        folder.mkdir(parents=True)
    texts = {policy / f"{name}_freq": "2400000" for name in ("scaling_cur", "scaling_max", "cpuinfo_max")}
    for path, text in {**texts, zone / "type": "soc-thermal", zone / "temp": "61000"}.items():
        path.write_text(f"{text}\n")
    (bench.home / "devices/made.toml").write_text(f'inherits = "local"\n[roots]\nsys = "{bench.home}/sys"\n')
    return f"{policy}/scaling_max_freq"


def test_a_cap_that_falls_is_a_regime_of_the_run_of_its_samples_and_a_reason(bench: Bench, capped: str) -> None:
    script = f"sleep 3; echo 1200000 > {capped}; sleep 3; echo 2400000 > {capped}; sleep 3"
    (run,) = bench.json("exec", "--device", "made", "--set", "idle_s=1", "--", "sh", "-c", script)
    (reason,) = [one for one in run["reasons"] if one["code"] == "throttled"]
    assert reason["detail"].startswith(("2-", "3-"))
    assert "policy0 capped at 1.20 of 2.40 GHz; soc-thermal at 61.0 degC, +0.0 since the start" in reason["detail"]
    assert "frequency_capped" in {one["code"] for one in run["reasons"]}
    assert [one["name"] for one in run["regimes"]] == ["idle", "load", "burst", "throttled", "burst", "unload", "idle"]
    (recovery,) = [one for one in run["measures"] if one["name"] == "recovery_s"]
    assert recovery["reason"].startswith("no_reading")  # a command has no token rate that could come back

    stored = meltbench.Store(bench.data).run()
    caps = stored.samples("cpufreq.policy0.max_hz")
    low = caps[caps["value"] < 2e9]
    assert len(low) > 10
    assert (low["regime"] == "throttled").all()
    assert (caps[caps["t_s"] < 3]["regime"] != "throttled").all()
    assert set(caps["regime"].dropna()) == {"idle", "load", "burst", "throttled", "unload"}
    with duckdb.connect(str(bench.data / "meltbench.duckdb"), read_only=True) as index:
        rows = index.sql("SELECT cause FROM regimes WHERE name = 'throttled'").fetchall()
    assert [cause.partition(";")[0] for (cause,) in rows] == ["policy0 capped at 1.20 of 2.40 GHz"]
    shown = bench.run("show", "last").stdout
    assert "regimes    burst 0-" in shown
    assert "throttled " in bench.run("show", "last", "--markdown").stdout


@pytest.mark.engine
@pytest.mark.usefixtures("default_model", "capped")
def test_the_power_of_a_sustained_run_has_a_drift(bench: Bench) -> None:
    zone = bench.home / "sys/class/powercap/intel-rapl:0"
    zone.mkdir(parents=True)
    range_uj = 262_143_328_850
    texts = {"name": "package-0", "max_energy_range_uj": range_uj, "energy_uj": 0}
    for name, text in texts.items():
        (zone / name).write_text(f"{text}\n")
    stop = threading.Event()

    def count() -> None:
        with (zone / "energy_uj").open("r+b", buffering=0) as counter:
            while not stop.wait(0.001):
                counter.seek(0)
                counter.write(b"%-14d\n" % (int(time.clock_gettime(time.CLOCK_BOOTTIME) * 6e6) % range_uj))

    thread = threading.Thread(target=count)
    thread.start()
    sets = ("--set", "idle_s=1", "--set", "limit_s=8", "--set", "max_tokens=16")
    try:
        (run,) = bench.json("run", "--workload", "sustained", "--device", "made", *sets)
    finally:
        stop.set()
        thread.join()
    found = {one["name"]: one for one in run["measures"] if one["phase"] == "run"}
    drift = found["power_drift_per_min"]
    assert drift["reason"] is None
    assert drift["source"] == found["mean_power_w"]["source"]
    assert abs(drift["value"]) <= drift["u_k2"] + 0.01
