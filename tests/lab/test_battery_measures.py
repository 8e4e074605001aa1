"""What a run takes of a battery, by the real probe, engine and model on a made phone whose battery is known."""

from __future__ import annotations

from typing import Any

import pytest
from cli import QUICK, Bench
from made_battery import AMPS, CALIBRATED, PROFILE, VOLTS, Phone

BATTERY = '[battery]\nenergy_wh = 17.8\nlimit = 0.05\nsource = "made"\n'


def measured(bench: Bench, battery: str, **files: str) -> dict[str, Any]:
    """A run of the quick workload on the made phone."""
    phone = Phone(bench.home / "sys", {f"battery/{name}": text for name, text in files.items()})
    (bench.home / "devices").mkdir()
    # An engine on every core can hold up who writes the files: at the 19 ms of other tests that would be a gap.
    text = PROFILE.format(sys=bench.home / "sys", options=CALIBRATED, period_ms=97)
    (bench.home / "devices" / "made.toml").write_text(text.replace("[[source]]", f"{battery}\n[[source]]", 1))
    with phone.living():
        (run,) = bench.json("run", *QUICK, "--set", "idle_s=1", "--set", "repeat=3", "--device", "made")
    assert run["outcome"] == "done"
    return dict(run)


def of_run(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {m["name"]: m for m in run["measures"] if m["phase"] == "run" and m["source"] == "total"}


def test_a_battery_of_known_current_gives_prompts_mah_and_hours(bench: Bench) -> None:
    run = measured(bench, BATTERY)
    found = of_run(run)
    wall = next(m["value"] for m in run["measures"] if m["name"] == "wall_s")
    timed = [one for one in run["requests"] if one["role"] == "timed"]
    prompts, charge, life = (
        found[name] for name in ("prompts_per_charge", "discharge_mah_per_token", "battery_life_h")
    )
    assert prompts["value"] == pytest.approx(17.8 * 3600 / (AMPS * VOLTS * wall / len(timed)), rel=0.05)
    assert charge["value"] == pytest.approx(AMPS * wall / 3.6 / sum(one["n_out"] for one in timed), rel=0.05)
    assert life["value"] == pytest.approx(17.8 / (AMPS * VOLTS), rel=0.05)
    for one in (prompts, charge, life):
        assert 0 < one["u_k2"] < one["value"]
        assert (one["scope"], one["reason"]) == ("battery", None)
    # A person sees them, with what they are made of.
    shown = bench.run("show", run["run_id"]).stdout
    for name in ("prompts_per_charge", "discharge_mah_per_token", "battery_life_h"):
        assert name in shown
    assert "17.8 Wh when full (made)" in shown


def test_a_battery_that_tells_its_size_needs_no_more_than_a_voltage(bench: Bench) -> None:
    sizes = {"charge_full": "4100000", "charge_full_design": "4614000", "charge_counter": "12000000"}
    life = of_run(measured(bench, '[battery]\nnominal_v = 3.85\nsource = "made"\n', **sizes))["battery_life_h"]
    assert life["reason"] is None
    assert life["value"] == pytest.approx(4.1 * 3.85 / (AMPS * VOLTS), rel=0.05)
    assert "4100 mAh when full" in life["method"]
