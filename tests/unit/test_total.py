"""The designated total: which RAPL domains add up, and what happens when one of them fails."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import digests, phase, series, stream

from meltbench.measure import RunInputs, measure_run
from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, rail_of
from meltbench.measure.total import Designation
from meltbench.measure.total import total as total_of
from meltbench.readings import read

T = np.arange(0, 30, 0.05)
RANGE_J = 1000.0


def total(parts, detail=""):
    return total_of([digest(part) for part in parts], Designation("rapl"), detail=detail)


def members(found):
    return {part.name for part in found.rail.parts}


def domain(name, watts, start=0.0, lag=0.0, **more):
    t = T + lag
    return series(f"rapl.{name}", t, (start + watts * t) % RANGE_J, wrap=RANGE_J, source="rapl", **more)


def joules(found, t0=5, t1=25):
    return energy(found.rail, phase("run", t0, t1)).value


def test_rule_8_psys_stands_alone():
    found = total([domain("psys", 30, scope="module"), domain("package-0", 20), domain("package-0.dram", 3)])
    assert members(found) == {"rapl.psys"}
    assert joules(found) == pytest.approx(600)
    assert found.rail.scope == "module"


def test_trap_25_packages_of_two_sockets_and_dram_add_up_and_their_parts_do_not():
    found = total(
        [
            domain("package-0", 20, lag=0.001),
            domain("package-1", 10, start=900, lag=0.002),
            domain("package-0.core", 15),
            domain("package-0.uncore", 2),
            domain("package-0.dram", 3, lag=0.003),
            domain("package-1.dram", 1),
        ]
    )
    assert joules(found) == pytest.approx(20 * 34)
    assert members(found) == {"rapl.package-0", "rapl.package-1", "rapl.package-0.dram", "rapl.package-1.dram"}
    assert (found.rail.scope, found.rail.klass, found.rail.name) == ("soc", "B", "total")


def test_trap_25_dies_count_as_packages():
    found = total([domain("package-0-die-0", 5), domain("package-0-die-1", 6)])
    assert joules(found) == pytest.approx(220)


def test_trap_25_a_reset_of_one_part_is_a_reset_of_the_sum():
    fallen = domain("package-1", 10)
    fallen.value[T >= 12] = 10 * (T[T >= 12] - 12)
    again = domain("package-0", 10)
    again.value[T >= 20] = 1.0 + T[T >= 20]
    found = total([domain("package-0", 500, start=0), fallen])
    assert energy(found.rail, phase("run", 5, 25)).reason.startswith("counter_reset")
    assert joules(found, 14, 25) == pytest.approx(11 * 510)
    assert joules(found, 2, 11) == pytest.approx(9 * 510)
    both = total([fallen, again])
    for span in ((5, 15), (15, 25), (5, 25)):
        assert energy(both.rail, phase("run", *span)).reason.startswith("counter_reset")


def test_trap_26_a_package_that_may_not_be_read_leaves_no_total():
    hidden = series("rapl.package-1", [], [], source="rapl")
    found = total([domain("package-0", 20), hidden], "1 denied")
    assert found.rail is None
    assert found.reason.startswith("sensor_denied: rapl.package-1")
    failing = series("rapl.package-1", T, np.full(len(T), np.nan), source="rapl")
    assert total([domain("package-0", 20), failing]).reason.startswith("low_coverage: rapl.package-1")


def test_a_psys_that_cannot_be_read_gives_way_to_the_packages():
    hidden = series("rapl.psys", [], [], source="rapl")
    assert joules(total([hidden, domain("package-0", 20)])) == pytest.approx(400)
    assert total([hidden], "1 denied").reason.startswith("sensor_denied: rapl.psys")


def test_rule_8_a_sum_without_its_dram_is_partial():
    hidden = series("rapl.package-0.dram", [], [], source="rapl")
    found = total([domain("package-0", 20), hidden])
    assert joules(found) == pytest.approx(400)
    assert found.partial == "without rapl.package-0.dram"


def test_no_domain_and_no_common_time():
    assert total([]).reason.startswith("no_energy_source")
    assert total([domain("core", 3)]).reason.startswith("no_energy_source")
    late = domain("package-1", 10, lag=100)
    assert energy(total([domain("package-0", 20), late]).rail, phase("run", 5, 25)).reason.startswith("low_coverage")


def read_for(one, seconds):
    return replace(one, t1_ns=one.t0_ns + round(seconds * 1e9))


def test_the_length_of_a_read_is_in_u_of_the_sum():
    parts = [domain("package-0", 20), domain("package-1", 10, lag=0.001)]
    quick, long = total(parts), total([read_for(one, 0.02) for one in parts])
    span = phase("run", 5, 5.5)
    assert energy(long.rail, span).u_k2 > energy(quick.rail, span).u_k2


def test_a_part_that_moves_seldom_is_as_sure_as_it_can_be():
    slow = domain("package-0", 0)
    slow.value[:] = 20 * np.floor(T / 0.2 + 1e-6) * 0.2
    found, quick = total([slow, domain("package-1", 10)]), total([domain("package-0", 20), domain("package-1", 10)])
    assert joules(found) == pytest.approx(600, abs=energy(found.rail, phase("run", 5, 25)).u_k2)
    assert energy(found.rail, phase("run", 5, 25)).n == 101
    assert energy(found.rail, phase("run", 5, 25)).u_k2 > energy(quick.rail, phase("run", 5, 25)).u_k2


def test_a_reset_of_one_part_loses_no_more_than_its_own_windows():
    slow = domain("package-0", 0)
    slow.value[:] = 20 * np.floor(T / 0.2 + 1e-6) * 0.2
    fallen = domain("package-1", 10)
    fallen.value[T >= 12.1] = 10 * (T[T >= 12.1] - 12.1)
    found = total([slow, fallen])
    assert energy(found.rail, phase("run", 5, 25)).reason.startswith("counter_reset")
    assert joules(found, 12.21, 25) == pytest.approx(30 * 12.79, rel=0.01)
    assert joules(found, 5, 11.9) == pytest.approx(30 * 6.9, rel=0.01)


def gpu(watts, **more):
    return series("nvml.gpu0.energy", T, watts * T, source="nvml", scope="module", **more)


def test_the_board_of_a_gpu_lies_outside_the_package_and_is_added():
    found = total([domain("package-0", 20), gpu(100)])
    assert members(found) == {"rapl.package-0", "nvml.gpu0.energy"}
    assert joules(found) == pytest.approx(2400)
    assert (found.partial, found.rail.scope) == ("", "module")


def test_whether_psys_holds_the_gpu_nobody_knows_and_that_is_said():
    found = total([domain("psys", 130, scope="module"), domain("package-0", 20), gpu(100)])
    assert members(found) == {"rapl.psys"}
    assert found.partial == "psys may leave out nvml.gpu0.energy"


def test_rule_8_a_gpu_that_nothing_read_makes_the_sum_partial_too():
    parts = [digest(domain("package-0", 20))]
    assert total_of(parts, Designation("rapl"), ["NVIDIA"]).partial == "without NVIDIA"
    assert (
        total_of([digest(domain("psys", 20))], Designation("rapl"), ["NVIDIA"]).partial == "psys may leave out NVIDIA"
    )
    two = total_of([*parts, digest(gpu(100))], Designation("rapl"), ["NVIDIA A", "NVIDIA B"])
    assert (two.partial, two.rail.scope) == ("without NVIDIA B", "module")


def test_a_gpu_that_two_sources_read_is_added_once():
    again = replace(gpu(100), source="nvml2")
    assert joules(total([domain("package-0", 20), gpu(100), again])) == pytest.approx(2400)


def test_rule_8_a_gpu_that_could_not_be_read_makes_the_sum_partial():
    dark = series("nvml.gpu0.energy", T, np.full(len(T), np.nan), source="nvml")
    found = total([domain("package-0", 20), dark])
    assert (joules(found), found.partial) == (pytest.approx(400), "without nvml.gpu0.energy")


def board(name, watts, **more):
    return series(name, T, np.full(len(T), watts) + 0.01 * (np.arange(len(T)) % 3), kind="gauge", unit="W", **more)


def test_rule_1_another_source_than_rapl_gives_its_one_rail_and_a_counter_goes_before_a_gauge():
    mean = board("hwmon.x.VIN.power_average", 3.0, source="board")
    gauges = [board("hwmon.ina238.VIN.power", 12.0, source="board"), replace(mean, window_s=1.0)]
    parts = [digest(one) for one in gauges]
    found = total_of(parts, Designation("board"))
    assert joules(found) == pytest.approx(240.2, rel=1e-3)
    assert found.rail.name == "total"
    assert joules(total_of(parts[1:], Designation("board"))) == pytest.approx(60.2, rel=1e-3)
    counter = series("hwmon.ina238.VIN.energy", T, 11 * T, source="board")
    assert joules(total_of([*parts, digest(counter)], Designation("board"))) == pytest.approx(220)


def test_of_several_rails_none_is_the_total_unless_the_profile_says_which():
    two = [digest(board(f"hwmon.ina3221.{name}.power", 2.0, source="board")) for name in ("VDD_CPU", "VDD_GPU")]
    assert total_of(two, Designation("board")).reason.startswith(
        "no_energy_source: board has 2 rails (hwmon.ina3221.VDD_CPU.power, "
    )
    assert total_of([], Designation("board")).reason == "no_energy_source: none was read"


def test_trap_36_a_trailing_mean_of_unknown_length_is_not_integrated():
    mean = digest(replace(board("hwmon.amdgpu.PPT.power_average", 50.0), window_s=None))
    assert energy(rail_of(mean), phase("run", 5, 25)).reason.startswith("trailing_average")


@pytest.mark.parametrize(
    ("status", "detail", "code"),
    [("denied", "1 denied", "sensor_denied"), ("absent", "1 absent", "low_coverage"), ("ok", "", "low_coverage")],
)
def test_a_package_that_was_never_read_is_no_part_of_a_total_and_the_run_says_why(status, detail, code):
    """One of two that may not be opened leaves the source as such readable: the run would have looked valid."""
    folder = "/sys/class/powercap/intel-rapl:"
    never = stream(f"{folder}1/energy_uj", [], status=status, number=3)
    texts = [b"%d\n" % (1_500_000 * n) for n in range(600)]
    streams = [stream(f"{folder}0/energy_uj", texts), stream(f"{folder}0/name", [b"package-0\n"], number=1), never]
    streams.append(stream(f"{folder}1/name", [b"package-1\n"], number=4))
    found, source = read("rapl", "rapl", streams, {})
    run = phase("run", 10, 50)
    inputs = RunInputs(kind="exec", signals=digests(found, run), sources=[source], phases=[run])
    measures, reasons, _ = measure_run(inputs)
    energy = next(m for m in measures if (m.name, m.source) == ("energy_j", "total"))
    assert energy.value is None
    assert energy.reason.startswith(f"{code}: rapl.package-1 could not be read")
    assert detail in energy.reason
    assert code in {one.code for one in reasons}
