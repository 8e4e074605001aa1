"""Apple's and AMD's own powers and Intel's GPUs: own fixtures in their dialects, and captures beside the checkout."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared import shared

from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, prepare
from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.records import Phase

HERE = Path(__file__).with_name("desktop")
NAN = float("nan")
Found = dict[str, Any]


def logged(reader: str, raw: bytes) -> tuple[Found, Any]:
    series, status = read("s", reader, captured(READERS[reader], raw), {})
    return {one.name: one for one in series}, status


def fixture(reader: str, name: str) -> tuple[Found, Any]:
    return logged(reader, (HERE / name).read_bytes())


def values(found: Found, *names: str) -> list[list[float]]:
    return [found[name].value.tolist() for name in names]


def near(numbers: list[float]) -> Any:
    return pytest.approx(numbers, rel=1e-12, nan_ok=True)


def test_trap_30_the_printed_length_is_the_interval_and_samples_end_after_it() -> None:
    found, status = fixture("powermetrics", "powermetrics_m1_max.txt")
    assert found["powermetrics.cpu.power"].value.tolist() == near([9.12, 30.11, 0.15])
    assert found["powermetrics.gpu.power"].value.tolist() == near([0.431, 0.418, NAN])
    assert found["powermetrics.gpu.power"].words == ["ok", "ok", "unparsed"]
    assert found["powermetrics.ane.power"].value.tolist() == near([0.0, 0.002, 0.0])
    assert found["powermetrics.combined.power"].value.tolist() == near([9.551, 30.53, 0.15])
    assert found["powermetrics.combined.power"].scope == "soc"
    first = 1714291205 * 10**9  # 10:00:05 +0200
    # The second one by the length it printed, not a second later; the third by its date, for the tool had stopped.
    assert found["powermetrics.cpu.power"].t0_ns.tolist() == [first, first + 1_009_700_000, first + 35 * 10**9]
    assert found["powermetrics.cpu.power"].window_s == 1.00431  # the median of what was printed
    assert {found[name].klass for name in found if name.endswith(".power")} == {"E"}
    assert status.detail == "1 unparsed"


def test_trap_30_names_of_channels_match_whole_and_a_repeated_one_counts_once() -> None:
    found, _ = fixture("powermetrics", "powermetrics_m1_max.txt")
    assert values(found, "powermetrics.gpu_sram.power", "powermetrics.e-cluster.power") == [
        near([0.012]),
        near([0.064]),
    ]
    assert {name for name in found if name.endswith(".power")} == {
        f"powermetrics.{name}.power" for name in ("cpu", "gpu", "ane", "combined", "gpu_sram", "e-cluster")
    }


def test_clocks_residencies_and_thermal_pressure() -> None:
    found, _ = fixture("powermetrics", "powermetrics_m1_max.txt")
    assert values(found, "powermetrics.gpu.hz", "powermetrics.p0-cluster.hz") == [[702e6], [2914e6]]
    assert values(found, "powermetrics.gpu.busy", "powermetrics.e-cluster.busy") == [near([0.125]), near([0.214])]
    slowed = found["powermetrics.thermal_slowdown"]
    assert (slowed.value.tolist(), slowed.kind) == ([0.0, 1.0], "state")


def test_trap_30_a_zero_of_processors_at_work_belongs_to_the_batch_that_comes_after_it() -> None:
    found, status = fixture("powermetrics", "powermetrics_m5_batches.txt")
    # 0 W for 1 s and 20 W for 1.5 s are 30 J in 2.5 s.
    assert found["powermetrics.cpu.power"].value.tolist() == near([12.0, NAN, 12.0, NAN])
    assert found["powermetrics.cpu.power"].words == ["ok", "again", "ok", "again"]
    assert found["powermetrics.ane.power"].value.tolist() == near([0.0, NAN, 0.6, NAN])
    assert found["powermetrics.combined.power"].value.tolist() == near([14.0, NAN, (2.1 + 22.9 * 1.5) / 2.5, NAN])
    # The GPU's counter is its own: idle is 0.
    assert found["powermetrics.gpu.power"].value.tolist() == near([2.0, 2.1, 1.9, 0.0])
    assert (status.status, status.detail) == ("ok", "6 again")


def test_trap_44_a_batch_of_which_one_interval_said_no_number_has_no_mean() -> None:
    head = "*** Sampled system activity (Sat Feb 14 00:42:0{} 2026 -0500) (1000.0ms elapsed) ***\n"
    text = (
        head.format(1) + "CPU Power: 0 mW\nANE Power: - mW\n" + head.format(2) + "CPU Power: 800 mW\nANE Power: 40 mW\n"
    )
    found, _ = logged("powermetrics", text.encode())
    assert found["powermetrics.cpu.power"].value.tolist() == near([NAN, 0.4])
    assert found["powermetrics.ane.power"].words == ["again", "unparsed"]


def test_a_mac_with_intel_inside_prints_watts() -> None:
    found, _ = fixture("powermetrics", "powermetrics_intel.txt")
    assert found["powermetrics.package.power"].value.tolist() == [3.47]
    assert found["powermetrics.package.power"].window_s == 5.00312


def test_macmon_tells_the_machine_from_its_chip() -> None:
    found, status = fixture("macmon", "macmon.jsonl")
    assert values(found, "macmon.sys.power", "macmon.gpu.power", "macmon.ram.power") == [
        [21.5, 20.75],
        [0.75, 0.5],
        [0.9, 0.8],
    ]
    assert found["macmon.cpu.power"].value.tolist() == near([7.5, NAN])
    assert found["macmon.all.power"].words == ["ok", "again"]
    assert {
        name: (one.scope, one.klass) for name, one in found.items() if name in ("macmon.sys.power", "macmon.all.power")
    } == {
        "macmon.sys.power": ("module", "E"),
        "macmon.all.power": ("soc", "E"),
    }
    start = 1772359200_250000000
    assert found["macmon.sys.power"].t0_ns.tolist() == [start, start + 10**9]  # of two time zones
    assert found["macmon.sys.power"].window_s == 1.0
    assert values(found, "thermal.macmon.cpu", "thermal.macmon.gpu") == [[58.25, 58.5], near([49.5, NAN])]
    assert status.detail == "2 again, 1 unparsed"


def test_trap_28_the_second_die_of_a_board_that_counts_nothing_is_absent_and_not_0_j() -> None:
    found, status = fixture("amdsmi", "amdsmi_mi250.jsonl")
    assert found["amd.gpu0.energy"].value.tolist() == near([62730.0, 62745.3])
    assert found["amd.gpu0.energy"].t0_ns.tolist() == [5_000_000_000, 5_100_000_000]
    assert found["amd.gpu1.energy"].words == ["absent", "absent"]
    assert found["amd.gpu1.power_average"].words == ["absent", "absent"]
    assert found["amd.gpu0.power_average"].value.tolist() == [162.0, 158.0]
    assert found["amd.gpu0.power"].words == ["absent", "absent"]
    assert found["amd.gpu1.memory_bytes"].value.tolist() == [10 * 2.0**20] * 2
    assert values(found, "thermal.amd.gpu0.hotspot", "thermal.amd.gpu1.edge") == [[52.0, 52.0], [40.0, 40.0]]
    assert digest(found["amd.gpu1.energy"]).whole.n == 0
    assert status.status == "ok"


def test_trap_29_intels_gpus_carry_the_range_of_their_register() -> None:
    found, status = fixture("hwmon", "intel_arc_hwmon.txt")
    assert {name: (one.value.tolist(), one.wrap) for name, one in found.items()} == {
        "hwmon.i915.energy1": (near([3210.0, 3225.0, 3240.0]), 262144.0),
        "hwmon.xe.card.energy": (near([91.0, 92.0]), 262144.0),
        "hwmon.xe.pkg.energy": (near([71.0, 71.9]), 262144.0),
    }
    assert status.status == "ok"


def of_i915(joules: list[float], period_s: float) -> Any:
    """The energy of an Arc whose file said these values at that period, in the middle of what was read."""
    lines = ["/sys/class/hwmon/hwmon0/name: i915"]
    lines += [f"/sys/class/hwmon/hwmon0/energy1_input: {round(value * 1e6)}" for value in joules]
    streams = captured(READERS["hwmon"], "\n".join(lines).encode(), period_s * 1e3)
    (one,), _ = read("s", "hwmon", streams, {})
    inside = Phase("run", round(1.5 * period_s * 1e9), round((len(joules) - 1.5) * period_s * 1e9))
    return energy(prepare(one), inside)


def test_trap_29_a_counter_that_goes_on_beyond_32_bits_is_no_wrap() -> None:
    measured = of_i915([262_100 + 20 * n for n in range(11)], 0.1)
    assert measured.value == pytest.approx(160.0)


def test_trap_29_a_fall_at_the_end_of_the_register_is_a_wrap_and_any_other_a_reset() -> None:
    wrapped = of_i915([(262_100 + 20 * n) % 262_144 for n in range(11)], 0.1)
    assert wrapped.value == pytest.approx(160.0)
    reset = of_i915([100_000.0 + 20 * n if n < 6 else 20.0 * n for n in range(11)], 0.1)
    assert str(reset.reason).startswith("counter_reset")
    assert reset.value is None


def test_trap_29_a_pause_in_which_the_register_may_have_gone_round_says_nothing() -> None:
    slow = of_i915([1000.0 + 15_000 * n for n in range(11)], 100.0)
    assert str(slow.reason).startswith("counter_reset")
    assert of_i915([1000.0 + 5000 * n for n in range(11)], 30.0).value == pytest.approx(40_000.0)


def test_captures_of_real_macs() -> None:
    raw = shared("samples/powermetrics_gpu_m2pro.txt").read_bytes()
    found, _ = logged("powermetrics", raw)
    assert values(found, "powermetrics.gpu.power", "powermetrics.gpu.hz") == [[0.004], [444e6]]
    assert found["powermetrics.gpu.busy"].value.tolist() == near([0.0097])
    assert set(found) == {"powermetrics.gpu.power", "powermetrics.gpu.hz", "powermetrics.gpu.busy"}
    assert found["powermetrics.gpu.power"].window_s == 0.50305
    assert found["powermetrics.gpu.power"].t0_ns.tolist() == [1771047726 * 10**9]
    found, _ = logged("macmon", shared("samples/macmon_line.json").read_bytes())
    powers = {name: one.value[0] for name, one in found.items() if one.unit == "W"}
    assert powers == {
        "macmon.all.power": 0.6468324661254883,
        "macmon.ane.power": 0.0,
        "macmon.cpu.power": 0.6359732151031494,
        "macmon.gpu.power": 0.010859241709113121,
        "macmon.gpu_ram.power": 0.000965250947047025,
        "macmon.ram.power": 0.14885640144348145,
        "macmon.sys.power": 10.4955415725708,
    }
    assert found["macmon.sys.power"].t0_ns.tolist() == [1771356867_942556000]
    assert found["macmon.sys.power"].window_s is None  # one line does not say since when
    assert np.isfinite(found["thermal.macmon.cpu"].value).all()
