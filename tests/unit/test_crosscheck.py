"""pyRAPL against powercap."""

import numpy as np
import pytest
from evidence_kit import digests, phase, series

from meltbench.measure import crosscheck


def cross_check(parts, run):
    return crosscheck.cross_check(digests(parts, run), run)


RUN = phase("run", 5, 25)
RANGE_J = 1000.0


def powercap(watts=20.0, start=0.0, name="rapl.package-0"):
    t = np.arange(0, 30, 0.019)
    return series(name, t, (start + watts * t) % RANGE_J, wrap=RANGE_J)


def pyrapl(watts=20.0, start=0.0, name="pyrapl.package-0"):
    t = np.arange(0.003, 30, 0.211)
    return series(name, t, (start + watts * t) % RANGE_J)


def test_two_readers_of_one_register_agree():
    (found,), reasons = cross_check([powercap(), pyrapl()], RUN)
    assert found.value == pytest.approx(1)
    assert found.u_k2 < 0.01
    assert (found.name, found.unit, found.source, found.scope) == ("cross_check_ratio", "1", "pyrapl.package-0", "soc")
    assert reasons == []


def test_a_reader_that_is_two_per_cent_off_is_named():
    (found,), (why,) = cross_check([powercap(), pyrapl(20.4)], RUN)
    assert found.value == pytest.approx(1.02)
    assert (why.code, why.state) == ("cross_check_failed", "degraded")
    assert "pyrapl.package-0: 1.0200" in why.detail


def test_a_difference_that_the_moments_of_reading_explain_is_none():
    """Both see 400 W from 4.87 to 4.99 s, right before a short run, and the slower one cannot say on which side."""

    def seen(name, period):
        t = np.arange(0.003, 30, period)
        return series(name, t, 20 * t + 380 * np.clip(t - 4.87, 0, 0.12))

    (found,), reasons = cross_check(
        [seen("rapl.package-0", 0.019), seen("pyrapl.package-0", 0.211)], phase("run", 5, 5.7)
    )
    assert found.value > 1.5
    assert found.u_k2 > 0.5
    assert reasons == []


def test_trap_25_pyrapl_knows_no_wrap_and_is_compared_no_more():
    (found,), reasons = cross_check([powercap(start=800), pyrapl(start=800)], RUN)
    assert found.value is None
    assert found.reason.startswith("counter_reset")
    assert "pyRAPL knows no wrap" in found.reason
    assert reasons == []


def test_what_powercap_could_not_tell_is_not_compared():
    stuck = series("rapl.package-0", np.arange(0, 30, 0.1), np.full(300, 7.0))
    (found,), reasons = cross_check([stuck, pyrapl()], RUN)
    assert found.reason.startswith("stale_sensor")
    assert reasons == []


def test_domains_are_compared_with_their_like_and_nothing_without_pyrapl():
    both = [powercap(), powercap(3, name="rapl.package-0.dram"), pyrapl(), pyrapl(6, name="pyrapl.package-0.dram")]
    found, (why,) = cross_check(both, RUN)
    assert [round(one.value, 3) for one in found] == [1.0, 2.0]
    assert why.detail.startswith("pyrapl.package-0.dram: 2.0")
    assert cross_check([powercap()], RUN) == ([], [])
    assert cross_check([pyrapl()], RUN) == ([], [])
    assert cross_check(both, None) == ([], [])
