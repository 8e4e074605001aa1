"""MELT's log of a Jetson: what its own report turns into 0 J is 10 W times the length of each stage here."""

import io

import numpy as np
import pytest
from boards_kit import SECOND, of, values

from meltbench.measure.digest import Edges, digest
from meltbench.measure.energy import energy, rail_of
from meltbench.measure.total import Designation, total
from meltbench.records import Phase

EPOCH_NS = 1_721_048_400_123_456_789
# MELT's engines mark "stage.start" and "stage.end" in nanoseconds of the wall clock; these are seconds of the log.
STAGES = {
    "load_model": (2.031, 6.377),
    "prefill": (7.004, 7.419),
    "decode": (7.419, 19.871),
    "prefill_2": (21.2, 21.75),
}


def test_a_log_of_an_agx_orin():
    found, status = of("melt_jetson", "jetson_monitor_agx_orin.log")
    watts = {name: one for name, one in found.items() if one.unit == "W"}
    assert {name: one.value.tolist() for name, one in watts.items()} == {
        "melt_jetson.VDD_GPU_SOC.power": pytest.approx([12.78976, 13.58912]),
        "melt_jetson.VIN_SYS_5V0.power": pytest.approx([4.537344, 4.577856]),
    }
    assert {one.scope for one in watts.values()} == {"rail"}
    assert found["melt_jetson.VIN_SYS_5V0.power"].t0_ns.tolist() == [
        1_721_048_400_123_981_000,
        1_721_048_400_133_981_000,
    ]
    heat = found["thermal.melt_jetson.GPU-therm"]
    assert (heat.value[0], heat.words) == (44.218, ["ok", "gated"])
    assert found["thermal.melt_jetson.tj-therm"].value.tolist() == [47.562, 47.593]
    assert status.status == "ok"
    assert status.detail == "1 gated; NC is one of two rails that the logger did not tell apart"


def test_voltage_and_current_alone_make_the_power_in_whatever_order_they_stand():
    """Metrics are chosen at the logger's start, and Python orders a set anew each time."""
    rows = [b"%d voltage_VDD_IN: 5000 mV\n", b"%d current_VDD_IN: %d mA\n"]
    for flip in (1, -1):
        log = b"".join(
            row % ((EPOCH_NS + at * 10**7, 2000 + at) if b"current" in row else EPOCH_NS + at * 10**7 + 20_000)
            for at in range(3)
            for row in rows[::flip]
        )
        found, _ = of("melt_jetson", log)
        assert values(found) == {"melt_jetson.VDD_IN.power": pytest.approx([10.0, 10.005, 10.01])}
        assert found["melt_jetson.VDD_IN.power"].scope == "module"


def log_of(milliamperes, period_ns=10_000_000, millivolts=5000):
    """What the logger writes of one rail at 100 Hz: metrics in a random order, stamps a little late."""
    rng = np.random.default_rng(7)
    out = io.BytesIO()
    for at, ma in enumerate(milliamperes):
        t = EPOCH_NS + at * period_ns + int(rng.integers(0, 400_000))
        out.write(b"%d\n%d CPU-therm: 47%03d mC\n" % (at + 1, t, rng.integers(0, 999)))
        rows = [(b"voltage", b"%d mV" % millivolts), (b"current", b"%d mA" % ma)]
        rows.append((b"power", str(millivolts * ma / 1000).encode() + b" mW"))
        for n, order in enumerate(rng.permutation(3)):
            out.write(b"%d %s_VDD_IN: %s\n" % (t + 20_000 * (n + 1), *rows[order]))
    return out.getvalue()


def stages():
    return [Phase(name, EPOCH_NS + round(a * SECOND), EPOCH_NS + round(b * SECOND)) for name, (a, b) in STAGES.items()]


def test_ten_watts_in_melts_log_are_ten_watts_times_the_length_of_every_stage():
    """A rail of 10 W as this chip shows it: 2 A at 5 V, give or take the 8 mA of its last bit.

    MELT's report keeps of each stage the lines of the current alone, in which the column of the voltage is empty, drops
    what is empty, and sums the nothing that is left: 0 mWh for each.
    """
    found, _ = of("melt_jetson", log_of(2000 + 8 * (np.arange(2300) % 3 - 1)))
    power = found["melt_jetson.VDD_IN.power"]
    assert set(power.value) == {9.96, 10.0, 10.04}
    spans = stages()
    rail = rail_of(digest(power, Edges.of([(s.t0_ns, s.t1_ns) for s in spans], None)))
    for span in spans:
        measure = energy(rail, span)
        assert measure.reason is None
        assert measure.value == pytest.approx(10.0 * span.duration_s, rel=0.001)
        assert measure.u_k2 >= 2 * 0.1 / np.sqrt(3) * measure.value
        assert measure.coverage == 1.0
    whole = energy(rail, Phase("run", spans[0].t0_ns, spans[-1].t1_ns))
    assert whole.value == pytest.approx(10 * (21.75 - 2.031), rel=0.001)


def test_the_total_of_melts_log_is_the_input_rail_and_not_it_with_its_parts():
    log = log_of(2000 + 8 * (np.arange(2300) % 3 - 1))
    parts = log.replace(b"VDD_IN", b"VDD_CPU_GPU_CV")
    found, _ = of("melt_jetson", log + parts)
    one = total([digest(s) for s in found.values()], Designation("melt_jetson", ("melt_jetson.VDD_IN.power",)))
    span = stages()[2]
    assert energy(one.rail, span).value == pytest.approx(10 * span.duration_s, rel=0.001)
    assert energy(one.rail, span).scope == "module"


def test_trap_21_a_rail_that_never_moves_by_one_step_is_ten_watts_and_never_zero():
    found, _ = of("melt_jetson", log_of([2000] * 2300))
    power = found["melt_jetson.VDD_IN.power"]
    assert len(power) == 2300
    assert set(power.value) == {10.0}
    for span in stages():
        measure = energy(rail_of(digest(power)), span)
        assert measure.value == pytest.approx(10 * span.duration_s, rel=1e-6)


def test_a_prefill_of_a_tenth_of_a_second_is_refused_at_one_hertz_and_measured_at_100():
    rng = np.random.default_rng(3)
    slow = of("melt_jetson", log_of(2000 + 8 * rng.integers(-1, 2, 40), period_ns=SECOND))[0][
        "melt_jetson.VDD_IN.power"
    ]
    fast = of("melt_jetson", log_of(2000 + 8 * rng.integers(-1, 2, 4000)))[0]["melt_jetson.VDD_IN.power"]
    prefill = Phase("prefill", EPOCH_NS + round(12.3 * SECOND), EPOCH_NS + round(12.7 * SECOND))
    assert energy(rail_of(digest(slow)), prefill).reason.startswith("stale_sensor")
    assert energy(rail_of(digest(fast)), prefill).value == pytest.approx(4.0, rel=0.02)


@pytest.mark.parametrize(
    "line",
    [
        b"1721048400123456789 power_VDD_IN: 5 mV",  # a unit that is not its key's
        b"1721048400123456789 power_: 5 mW",
        b"17210484 power_VDD_IN: 5 mW",  # no time
        b"9999999999999999999 power_VDD_IN: 5 mW",
        b"1721048400123456789 power_VDD_IN: nan mW",
        b"1721048400123456789 current_VDD_IN: 5 mA",  # no voltage
    ],
)
def test_lines_that_say_no_power_give_none(line):
    found, status = of("melt_jetson", line)
    assert (found, status.status) == ({}, "unparsed")
