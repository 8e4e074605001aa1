"""The thermal gate on the road, with the real probe, on made zones whose temperature falls in real time."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from cli import Bench

from meltbench import gating, plan, road
from meltbench.errors import TargetBusy
from meltbench.gate import Gate, wait
from meltbench.report.progress import Lines
from meltbench.spec import Spec, parse_sets
from meltbench.store import open_store


@pytest.fixture
def cooling(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A device of 70 degC that cools to 40 within a few seconds, with a GPU that is off, and a gate of one second."""
    zones = bench.home / "sys/class/thermal"
    for number, (kind, temp) in enumerate((("cpu-thermal", "70000"), ("gpu-thermal", "-256000"))):
        (zones / f"thermal_zone{number}").mkdir(parents=True)
        (zones / f"thermal_zone{number}/type").write_text(f"{kind}\n")
        (zones / f"thermal_zone{number}/temp").write_text(f"{temp}\n")
    (bench.home / "devices").mkdir()
    text = f'inherits = "local"\n[roots]\nsys = "{bench.home}/sys"\n'
    (bench.home / "devices/made.toml").write_text(text)
    (bench.home / "devices/aimed.toml").write_text(text + "[gate]\ntarget_c = 20\n")
    stop, start = threading.Event(), time.monotonic()

    def cool() -> None:
        while not stop.wait(0.01):
            celsius = 40 + 30 * math.exp(-(time.monotonic() - start) / 0.5)
            temp.seek(0)
            temp.write(b"%05d\n" % round(celsius * 1000))

    monkeypatch.chdir(bench.home)
    monkeypatch.setenv("XDG_STATE_HOME", str(bench.home / "state"))
    monkeypatch.setattr(gating.thermal, "Gate", partial(Gate, hold_s=1.0))
    monkeypatch.setattr(gating.thermal, "wait", partial(wait, period_s=0.05))
    with (zones / "thermal_zone0/temp").open("r+b", buffering=0) as temp:  # also where a test takes it away at once
        thread = threading.Thread(target=cool)
        thread.start()
        yield "made"
        stop.set()
        thread.join()


def ran(bench: Bench, device: str, *sets: str, reps: int = 1) -> tuple[Any, Any]:
    """The records of metering a command, and what was said meanwhile."""
    knobs = parse_sets(["idle_s=0.1", *sets])
    spec = Spec(device=device, workload="exec", command=("sleep", "0.5"), reps=reps, knobs=knobs)
    said: list[str] = []
    return list(road.run(plan.make(spec), open_store(bench.data), Lines(said.append))), said


def codes(record: Any) -> set[str]:
    return {reason.code for reason in record.reasons}


def test_a_cooling_device_is_waited_for_and_every_repetition_is_gated_anew(bench: Bench, cooling: str) -> None:
    records, said = ran(bench, cooling, reps=2)
    first, second = (record.manifest["conditions"]["gate"] for record in records)
    assert (first["state"], second["state"]) == ("passed", "passed")
    # 0.1 degC a minute is reached when 30 degC * exp(-t / 0.5 s) * 120 / min has come down to it.
    assert first["waited_s"] > 2
    assert first["temp_c"] == pytest.approx(40, abs=0.01)
    assert 1 <= second["waited_s"] < first["waited_s"]
    assert first["quantum_c"] == pytest.approx(0.001)
    assert said.count("waiting for a steady temperature") == 2
    for record in records:
        assert not codes(record) & {"not_gated", "warm_start", "no_thermal_sensor"}


def test_trap_41_a_run_that_started_warm_says_so(bench: Bench, cooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gating.thermal, "Gate", lambda limit_s, target_c: Gate(limit_s / 100, target_c, 0.2))
    (record,), said = ran(bench, "aimed", "gate_timeout_s=60")
    gate = record.manifest["conditions"]["gate"]
    assert (gate["state"], gate["target_c"], gate["timeout_s"]) == ("timed_out", 20, 60)
    (reason,) = [reason for reason in record.reasons if reason.code == "warm_start"]
    assert (reason.state, "target 20.0 degC" in reason.detail) == ("degraded", True)
    assert record.manifest["validity"] == "degraded"
    assert any("the run starts warm" in line for line in said)


def test_without_a_gate_there_is_no_wait_and_a_mark(bench: Bench, cooling: str) -> None:
    (record,), said = ran(bench, cooling, "gate_timeout_s=0")
    assert record.manifest["conditions"]["gate"]["state"] == "off"
    assert "not_gated" in codes(record)
    assert "waiting for a steady temperature" not in said


def test_a_device_without_a_sensor_is_not_waited_for(bench: Bench, cooling: str) -> None:
    for path in (bench.home / "sys/class/thermal").glob("*/temp"):
        path.unlink()
    (record,), _ = ran(bench, cooling)
    assert record.manifest["conditions"]["gate"]["state"] == "no_sensor"
    assert "no_thermal_sensor" in codes(record)
    assert "not_gated" not in codes(record)


def test_a_busy_device_is_told_before_it_is_waited_for(bench: Bench, cooling: str) -> None:
    bench.start_detached(6)
    with pytest.raises(TargetBusy, match="busy"):
        ran(bench, cooling)
    assert len(list((bench.data / "runs").iterdir())) == 1
    assert bench.json("collect")[0]["outcome"] == "done"


def test_an_interrupt_at_the_gate_starts_and_stores_nothing(bench: Bench, cooling: str) -> None:
    bench.gated = True
    controller = bench.start("exec", "--device", cooling, "--set", "idle_s=0.1", "--", "true")
    assert controller.stderr is not None
    line = ""
    while "steady temperature" not in line:
        line = controller.stderr.readline()
        assert line, "ended without a gate"
    controller.send_signal(2)
    _, err = controller.communicate(timeout=20)
    assert controller.returncode == 130
    assert "stopping: no run is under way" in err
    assert not list((bench.data / "runs").iterdir())
    assert not bench.jobs()


@pytest.mark.slow
def test_the_command_line_gates_by_default(bench: Bench, cooling: str) -> None:
    bench.gated = True
    begun = time.monotonic()
    (run,) = bench.json("exec", "--device", cooling, "--set", "idle_s=0.1", "--", "true")
    assert time.monotonic() - begun > 60
    assert run["conditions"]["gate"]["state"] == "passed"
    assert run["conditions"]["gate"]["hold_s"] == 60
    assert "not_gated" not in {reason["code"] for reason in run["reasons"]}
