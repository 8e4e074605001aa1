"""What a run takes of a battery, against made batteries whose charge, voltage and power are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import phase, request, series
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure import RunInputs, Stated, measure_run
from meltbench.measure.charge import LEARNED_LIMIT, NEW_LIMIT, charge_measures
from meltbench.measure.digest import Edges, digest
from meltbench.measure.edges import SQRT3
from meltbench.measure.total import Designation, designated
from meltbench.records import SourceStatus

T = np.arange(0, 40, 0.397)
RUN = phase("run", 10, 30)
IDLE = [phase("idle_before", 0, 9), phase("idle_after", 31, 39.5)]
NAMES = {"prompts_per_charge", "discharge_mah_per_token", "battery_life_h"}
PIXEL = Stated(energy_wh=17.8, source="made")


def gauge(prefix="battery", amps=0.5, volts=4.0, source="battery", calibration="made", **more):
    """A battery that gives so many amperes, flowing out, in the run; a fifth of that when idle. Its gauge is never
    quite the same twice, as none is."""
    wiggle = 1 + 1e-3 * np.sin(np.arange(len(T)) * 2.4)
    out = np.where((T >= 10) & (T <= 30), amps, amps / 5) * wiggle
    sign = more.pop("sign", -1)
    kinds = {"power": ("W", out * volts), "current_a": ("A", sign * out)}
    what = {"kind": "gauge", "scope": "battery", "source": source}
    made = [
        replace(series(f"{prefix}.{name}", T, values, unit=unit, klass="D", **what), calibration=calibration)
        for name, (unit, values) in kinds.items()
    ]
    sizes = [
        series(f"{prefix}.{name}", [0, 39], [value] * 2, unit="C", klass=None, **what) for name, value in more.items()
    ]
    return made + sizes


def digests(signals, requests=()):
    windows = [(one.t0_ns, one.t1_ns) for one in (*IDLE, RUN)] + [(r.t_send_ns, r.t_end_ns) for r in requests]
    return [digest(one, Edges.of(windows, RUN)) for one in signals]


def measured(signals, stated=PIXEL, requests=None, kind="generate", named=None, **more):
    made = [request(i, 10 + 4 * i, 14 + 4 * i, n_out=25) for i in range(5)] if requests is None else requests
    inputs = RunInputs(
        kind=kind,
        signals=digests(signals, made),
        sources=[SourceStatus("battery", "ok", 1, len(T))],
        phases=[*IDLE, RUN],
        requests=made,
        totals=named or [Designation("battery", ("battery.power",))],
        battery=stated,
        **more,
    )
    found = measure_run(inputs)[0]
    return {one.name: one for one in found if one.name.removeprefix("bench_") in NAMES}


def test_a_known_battery_gives_its_prompts_its_charge_by_token_and_its_hours():
    got = measured(gauge())
    joules = 0.5 * 4.0 * 20  # less what the step at the edges smears, which u holds
    assert got["prompts_per_charge"].value == pytest.approx(17.8 * 3600 / (joules / 5), rel=0.01)
    assert got["discharge_mah_per_token"].value == pytest.approx(0.5 * 20 / 3.6 / 125, rel=0.01)
    assert got["battery_life_h"].value == pytest.approx(17.8 / 2.0, rel=0.01)
    assert [got[name].unit for name in sorted(got)] == ["h", "mAh/token", "1"]
    assert "17.8 Wh when full (made)" in got["prompts_per_charge"].method
    assert {one.scope for one in got.values()} == {"battery"}
    # A ratio of sums: one long answer and one short one count by their tokens.
    uneven = [request(0, 10, 28, n_out=90), request(1, 28, 30, n_out=10)]
    other = measured(gauge(), requests=uneven)
    assert other["discharge_mah_per_token"].value == pytest.approx(0.5 * 20 / 3.6 / 100, rel=0.01)
    assert other["prompts_per_charge"].value == pytest.approx(17.8 * 3600 / (joules / 2), rel=0.01)


@given(
    amps=st.floats(0.05, 6),
    volts=st.floats(3.0, 4.4),
    wh=st.floats(1, 90),
    n=st.integers(1, 20),
    tokens=st.integers(1, 500),
    limit=st.floats(0.01, 0.5),
)
@settings(max_examples=60, deadline=None)
def test_any_battery_is_told_within_its_u_and_its_figures_agree_with_each_other(amps, volts, wh, n, tokens, limit):
    length = 20 / n
    made = [request(i, 10 + length * i, 10 + length * (i + 1), n_out=tokens) for i in range(n)]
    got = measured(gauge(amps=amps, volts=volts), Stated(wh, None, limit, "made"), made)
    prompts, charge, life = (got[name] for name in ("prompts_per_charge", "discharge_mah_per_token", "battery_life_h"))
    for one, truth in (
        (prompts, wh * 3600 * n / (amps * volts * 20)),
        (charge, amps * 20 / 3.6 / (n * tokens)),
        (life, wh / (amps * volts)),
    ):
        assert one.value == pytest.approx(truth, rel=0.02)
        assert abs(one.value - truth) <= one.u_k2
    # Of one energy: as many prompts as fit into the hours that the battery lasts.
    assert prompts.value == pytest.approx(life.value * 3600 / length, rel=1e-9)
    for one in (prompts, life):
        assert one.u_k2 / one.value >= 2 * limit / SQRT3


def test_u_grows_with_the_limit_of_the_battery_and_the_charge_knows_nothing_of_it():
    sharp, vague = (measured(gauge(), Stated(17.8, None, limit, "made")) for limit in (0.02, 0.4))
    assert sharp["prompts_per_charge"].u_k2 < vague["prompts_per_charge"].u_k2
    assert sharp["discharge_mah_per_token"] == vague["discharge_mah_per_token"]
    unstated = measured(gauge())["battery_life_h"]
    assert unstated.u_k2 == measured(gauge(), Stated(17.8, None, NEW_LIMIT, "made"))["battery_life_h"].u_k2


MADE_C, LEARNED_C = 4600 * 3.6, 4100 * 3.6
NOMINAL = Stated(nominal_v=3.85, source="made")


@pytest.mark.parametrize(
    ("told", "mah", "limit", "words"),
    [
        ({"full_c": LEARNED_C, "full_design_c": MADE_C}, 4100, LEARNED_LIMIT, "as the gauge of battery learned it"),
        ({"full_c": LEARNED_C}, 4100, LEARNED_LIMIT, "as the gauge of battery learned it"),
        ({"full_design_c": MADE_C}, 4600, NEW_LIMIT, "by its design, as battery tells"),
        # A gauge that learned nonsense, or was never reset: what it was made for stands.
        ({"full_c": 2.6 * MADE_C, "full_design_c": MADE_C}, 4600, NEW_LIMIT, "by its design"),
        ({"full_c": 0.1 * MADE_C, "full_design_c": MADE_C}, 4600, NEW_LIMIT, "by its design"),
    ],
)
def test_what_the_device_says_of_a_full_battery_counts_where_its_profile_states_no_energy(told, mah, limit, words):
    life = measured(gauge(**told), NOMINAL)["battery_life_h"]
    assert life.value == pytest.approx(mah / 1000 * 3.85 / 2.0, rel=0.01)
    assert life.u_k2 / life.value > 2 * limit / SQRT3
    assert words in life.method
    assert f"{mah} mAh" in life.method
    assert "3.85 V (made)" in life.method


def test_another_way_to_ask_for_the_same_battery_may_tell_what_a_full_one_holds():
    dump = gauge("cmd_battery", source="battery")
    sizes = [
        series("dumpsys_battery.full_c", [0, 30], [LEARNED_C] * 2, kind="gauge", unit="C", klass=None, scope="battery")
    ]
    got = measured([*dump, *sizes], NOMINAL, named=[Designation("battery", ("cmd_battery.power",))])
    assert got["battery_life_h"].value == pytest.approx(4.1 * 3.85 / 2.0, rel=0.01)


def test_trap_9_the_charge_counter_enters_nothing():
    broken = series("battery.charge_c", T, 2.6 * MADE_C + 0 * T, kind="gauge", unit="C", klass=None, scope="battery")
    assert measured([*gauge(), broken]) == measured(gauge())
    only = measured([*gauge(), broken], NOMINAL)["battery_life_h"]
    assert (only.value, only.reason) == (
        None,
        "no_battery_capacity: the profile states no energy, and the device tells no charge of a full one",
    )


def reasons(got):
    assert all(one.value is None and one.u_k2 is None for one in got.values())
    return {name: one.reason.partition(":")[0] for name, one in got.items()}


def test_trap_44_what_is_not_known_is_none_with_the_reason():
    uncalibrated = measured(gauge(calibration=""))
    assert reasons(uncalibrated) == dict.fromkeys(NAMES, "uncalibrated_sensor")
    assert "was not calibrated on this device" in uncalibrated["discharge_mah_per_token"].reason
    unknown = measured(gauge(), None)
    assert unknown.pop("discharge_mah_per_token").value is not None
    assert reasons(unknown) == dict.fromkeys(NAMES - {"discharge_mah_per_token"}, "no_battery_capacity")
    # No energy at all: the reason that the energy has.
    assert reasons(measured([])) == dict.fromkeys(NAMES, "low_coverage")
    # No current beside the power.
    powers = [one for one in gauge() if one.unit == "W"]
    got = measured(powers)
    assert got["prompts_per_charge"].value is not None
    assert (
        got["discharge_mah_per_token"].reason
        == "no_reading: battery.current_a of battery, beside the power, was not read"
    )


def test_a_rail_says_nothing_of_the_charge_and_a_device_without_a_battery_has_no_such_measure():
    rail = replace(gauge()[0], scope="rail")
    got = measured([rail, gauge()[1]])
    assert reasons(got) == dict.fromkeys(NAMES, "no_battery_total")
    assert "scope rail, which says nothing of the charge" in got["battery_life_h"].reason
    assert measured([rail], None) == {}


@pytest.mark.parametrize(
    ("requests", "kind", "code"),
    [
        ([request(0, 10, 30, point="pp64")], "grid", "mixed_points"),
        ([request(0, 10, 20), request(1, 20, 30, status="http_500")], "generate", "request_failed"),
        ([request(0, 10, 20, point="c1"), request(1, 20, 30, point="c2")], "generate", "mixed_points"),
    ],
)
def test_trap_43_requests_that_cannot_be_divided_by_give_hours_alone(requests, kind, code):
    got = measured(gauge(), requests=requests, kind=kind)
    assert got.pop("battery_life_h").value == pytest.approx(17.8 / 2.0, rel=0.01)
    assert reasons(got) == dict.fromkeys(NAMES - {"battery_life_h"}, code)


def test_no_output_is_no_token_and_a_command_has_hours_alone():
    none = measured(gauge(), requests=[request(0, 10, 30, n_out=0)])
    assert none["prompts_per_charge"].value is not None
    assert none["discharge_mah_per_token"].reason.startswith("no_output_tokens")
    assert set(measured(gauge(), kind="exec")) == {"battery_life_h"}


def test_figures_of_another_mode_stand_under_its_name():
    assert set(measured(gauge(), mode="bench")) == {
        "bench_prompts_per_charge", "bench_discharge_mah_per_token", "battery_life_h",
    }  # fmt: skip


def test_trap_2_a_current_that_is_no_part_of_the_energy_is_refused():
    """One unit was laid over the power and another over the current: no battery has 4 mV."""
    power, current = gauge()
    for odd in (replace(current, value=current.value * 1000), replace(current, value=current.value / 1000)):
        found = measured([power, odd])["discharge_mah_per_token"]
        assert found.value is None
        assert found.reason.startswith("implausible_power: ")
    charged = measured([power, replace(current, value=-current.value)])["discharge_mah_per_token"]
    assert charged.reason.startswith("implausible_power: ")


def test_a_meter_in_place_of_the_battery_counts_what_is_drawn():
    meter = [replace(one, klass="A") for one in gauge("meter", sign=1, source="battery")]
    got = measured(meter, named=[Designation("battery", ("meter.power",), "battery")])
    assert got["discharge_mah_per_token"].value == pytest.approx(0.5 * 20 / 3.6 / 125, rel=0.01)
    assert got["discharge_mah_per_token"].u_k2 < got["discharge_mah_per_token"].value * 0.05


def test_two_batteries_give_together():
    both = [*gauge(amps=0.3), *gauge("battery.BAT1", amps=0.2)]
    got = measured(both, named=[Designation("battery", ("battery*.power",), "battery")])
    assert got["discharge_mah_per_token"].value == pytest.approx(0.5 * 20 / 3.6 / 125, rel=0.01)
    assert "battery.current_a, battery.BAT1.current_a" in got["discharge_mah_per_token"].method


def test_without_a_run_there_is_nothing_to_divide():
    signals = digests(gauge())
    total = designated([Designation("battery", ("battery.power",))], [SourceStatus("battery", "ok", 1, 80)], signals)
    costs = measure_run(RunInputs("exec", signals, [SourceStatus("battery", "ok", 1, 80)], [], totals=[]))[0]
    (life,) = charge_measures(total, PIXEL, signals, None, [], costs, "exec")
    assert (life.value, life.name) == (None, "battery_life_h")
