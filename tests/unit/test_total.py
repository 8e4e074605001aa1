"""The designated total: which RAPL domains add up, and what happens when one of them fails."""

from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import phase, series

from meltbench.measure.energy import energy, prepare
from meltbench.measure.total import total

T = np.arange(0, 30, 0.05)
RANGE_J = 1000.0


def domain(name, watts, start=0.0, lag=0.0, **more):
    t = T + lag
    return series(f"rapl.{name}", t, (start + watts * t) % RANGE_J, wrap=RANGE_J, source="rapl", **more)


def joules(found, t0=5, t1=25):
    return energy(found.series, phase("run", t0, t1)).value


def test_rule_8_psys_stands_alone():
    found = total([domain("psys", 30, scope="module"), domain("package-0", 20), domain("package-0.dram", 3)])
    assert found.members == ("rapl.psys",)
    assert joules(found) == pytest.approx(600)
    assert found.series.scope == "module"


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
    assert set(found.members) == {"rapl.package-0", "rapl.package-1", "rapl.package-0.dram", "rapl.package-1.dram"}
    assert (found.series.scope, found.series.klass, found.series.name) == ("soc", "B", "total")


def test_trap_25_dies_count_as_packages():
    found = total([domain("package-0-die-0", 5), domain("package-0-die-1", 6)])
    assert joules(found) == pytest.approx(220)


def test_trap_25_a_reset_of_one_part_is_a_reset_of_the_sum():
    fallen = domain("package-1", 10)
    fallen.value[T >= 12] = 10 * (T[T >= 12] - 12)
    again = domain("package-0", 10)
    again.value[T >= 20] = 1.0 + T[T >= 20]
    found = total([domain("package-0", 500, start=0), fallen])
    assert energy(found.series, phase("run", 5, 25)).reason.startswith("counter_reset")
    assert joules(found, 14, 25) == pytest.approx(11 * 510)
    assert joules(found, 2, 11) == pytest.approx(9 * 510)
    both = total([fallen, again])
    for span in ((5, 15), (15, 25), (5, 25)):
        assert energy(both.series, phase("run", *span)).reason.startswith("counter_reset")


def test_trap_26_a_package_that_may_not_be_read_leaves_no_total():
    hidden = series("rapl.package-1", [], [], source="rapl")
    found = total([domain("package-0", 20), hidden])
    assert found.series is None
    assert found.reason.startswith("sensor_denied: rapl.package-1")
    failing = series("rapl.package-1", T, np.full(len(T), np.nan), source="rapl")
    assert total([domain("package-0", 20), failing]).reason.startswith("low_coverage: rapl.package-1")


def test_a_psys_that_cannot_be_read_gives_way_to_the_packages():
    hidden = series("rapl.psys", [], [], source="rapl")
    assert joules(total([hidden, domain("package-0", 20)])) == pytest.approx(400)
    assert total([hidden]).reason.startswith("sensor_denied: rapl.psys")


def test_rule_8_a_sum_without_its_dram_is_partial():
    hidden = series("rapl.package-0.dram", [], [], source="rapl")
    found = total([domain("package-0", 20), hidden])
    assert joules(found) == pytest.approx(400)
    assert found.partial == "without rapl.package-0.dram"


def test_no_domain_and_no_common_time():
    assert total([]).reason.startswith("no_energy_source")
    assert total([domain("core", 3)]).reason.startswith("no_energy_source")
    late = domain("package-1", 10, lag=100)
    assert total([domain("package-0", 20), late]).reason.startswith("low_coverage")


def read_for(one, seconds):
    return replace(one, t1_ns=one.t0_ns + round(seconds * 1e9))


def test_the_length_of_a_read_is_in_u_of_the_sum():
    parts = [domain("package-0", 20), domain("package-1", 10, lag=0.001)]
    slow = [read_for(parts[0], 0.02), read_for(parts[1], 0.02)]
    quick, long = total(parts), total(slow)
    assert set((long.series.t1_ns - long.series.t0_ns).tolist()) == {20_000_000}
    span = phase("run", 5, 5.5)
    assert energy(long.series, span).u_k2 > energy(quick.series, span).u_k2


def test_the_sum_moves_only_where_its_slowest_part_did():
    slow = domain("package-0", 0)
    slow.value[:] = 20 * np.floor(T / 0.2 + 1e-6) * 0.2
    found = total([slow, domain("package-1", 10)])
    fresh = np.flatnonzero(np.diff(found.series.value) != 0) + 1
    assert np.allclose(np.diff(found.series.t0_ns[fresh]) / 1e9, 0.2)
    assert joules(found) == pytest.approx(600)
    # Three of four readings repeat, so an update may be as old as the reading before it.
    assert prepare(found.series).stamp_s.min() == pytest.approx(0.05)


def test_a_reset_between_two_updates_of_the_slowest_part_loses_no_more_and_makes_up_nothing():
    slow = domain("package-0", 0)
    slow.value[:] = 20 * np.floor(T / 0.2 + 1e-6) * 0.2
    fallen = domain("package-1", 10)
    fallen.value[T >= 12.1] = 10 * (T[T >= 12.1] - 12.1)
    found = total([slow, fallen])
    assert energy(found.series, phase("run", 5, 25)).reason.startswith("counter_reset")
    assert joules(found, 12.21, 25) == pytest.approx(30 * 12.79, rel=0.01)
    assert joules(found, 5, 11.9) == pytest.approx(30 * 6.9, rel=0.01)
