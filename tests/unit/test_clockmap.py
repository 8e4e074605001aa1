"""Ties two clocks of known truth: whatever the ways took, the truth lies within the bound that is stated."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.probe.clockmap import MAX_DRIFT, SAME, Batch, Clock, ClockMap, Exchange, clock_map

SECOND = 1_000_000_000
HERE, THERE = Clock("a-boot", 1), Clock("b-boot", 1)
BEGIN_S, END_S = 10.0, 70.0  # of the run, on the controller's clock; exchanges lie around it


class Truth:
    """A target whose clock is off by ``offset_s`` and drifts, and whose ways take what they take."""

    def __init__(self, offset_s=0.7, ppm=50.0):
        self.offset_s, self.ppm = offset_s, ppm

    def target_ns(self, controller_ns):
        return controller_ns + round(self.offset_s * SECOND) + round(controller_ns * self.ppm / 1e6)

    def batch(self, at_s, ways_us, clocks=(HERE, THERE)):
        found, t = [], round(at_s * SECOND)
        for out, back in ways_us:
            told = self.target_ns(t + out * 1000)
            found.append(Exchange(t, told, t + (out + back) * 1000))
            t += (out + back) * 1000 + 50_000
        return Batch(tuple(found), *clocks)

    def map(self, batches, end_s=END_S):
        begin, end = (self.target_ns(round(s * SECOND)) for s in (BEGIN_S, end_s))
        return clock_map(batches, HERE, THERE, begin, end)

    def error_s(self, line, at_s):
        t = round(at_s * SECOND)
        return abs(int(line.target_ns(np.array([t]))[0]) - self.target_ns(t)) / 1e9

    def bound_s(self, line, at_s=None):
        a, b = (at_s, at_s) if at_s is not None else (BEGIN_S, END_S)
        return line.bound_s(self.target_ns(round(a * SECOND)), self.target_ns(round(b * SECOND)))


WAYS = st.lists(st.tuples(st.integers(20, 300_000), st.integers(20, 300_000)), min_size=20, max_size=30)


@given(
    before=WAYS, after=WAYS, at=st.floats(BEGIN_S, END_S), offset_s=st.floats(-1e5, 1e5), ppm=st.floats(-400.0, 400.0)
)
def test_the_truth_lies_within_the_bound_whatever_the_ways_take(before, after, at, offset_s, ppm):
    truth = Truth(offset_s, ppm)
    line = truth.map([truth.batch(1, before), truth.batch(80, after)])
    assert line.why == ""
    assert truth.error_s(line, at) <= truth.bound_s(line, at) + 1e-8
    assert truth.bound_s(line, at) <= truth.bound_s(line) + 1e-9
    least = max(min(out + back for out, back in ways) for ways in (before, after))
    assert truth.bound_s(line) <= least / 1e6 + 0.001  # half a trip, and at most as much again for what others exclude


def test_700_ms_and_50_ppm_are_recovered_over_a_usual_link():
    truth = Truth(0.7, 50)
    rng = np.random.default_rng(7)
    ways = [[(int(a), int(b)) for a, b in 150 + rng.exponential(400, (40, 2))] for _ in range(2)]
    line = truth.map([truth.batch(1, ways[0]), truth.batch(80, ways[1])])
    assert line.drift == pytest.approx(50e-6, abs=5e-6)
    assert max(truth.error_s(line, s) for s in np.linspace(BEGIN_S, END_S, 50)) <= truth.bound_s(line) < 0.002
    # Without the drift, 60 s would be off by 3 ms; without the exchange, all stamps by 700 ms.
    assert truth.error_s(SAME, BEGIN_S) > 0.7


def test_trap_39_a_way_that_is_always_longer_stays_inside_the_bound():
    """A fork on the way out adds the same to every trip: the least of them has it too, and half the trip covers it."""
    truth = Truth()
    line = truth.map([truth.batch(s, [(1500, 60)] * 20) for s in (1, 80)])
    assert 0.0005 < truth.error_s(line, 30) <= truth.bound_s(line, 30)


def test_trap_15_a_step_of_the_wall_clock_and_a_suspend_move_nothing(monkeypatch):
    """Of what the target's clock answers CLOCK_BOOTTIME alone is taken: it runs on in suspend, no NTP step moves it."""
    from meltbench.probe import sync

    truth, at = Truth(), [round(1 * SECOND)]

    class Link:
        def ask(self, line, deadline):
            at[0] += 100_000
            boot = truth.target_ns(at[0])
            asleep, stepped = (0, 0) if at[0] < 40 * SECOND else (30 * SECOND, 3600 * SECOND)
            at[0] += 100_000
            return b"%d %d %d\n" % (boot, boot - asleep, 1_700_000_000 * SECOND + boot + stepped)

    def batch(at_s):
        at[0] = round(at_s * SECOND)
        monkeypatch.setattr(sync.time, "clock_gettime_ns", lambda which: at[0])
        return Batch(tuple(sync._ask(Link(), None) for _ in range(20)), HERE, THERE)

    line = truth.map([batch(1), batch(80)])
    assert max(truth.error_s(line, s) for s in (10, 40, 70)) <= truth.bound_s(line) < 0.001


def test_no_exchange_inside_the_run_counts():
    truth = Truth()
    inside = truth.batch(30, [(50, 50)] * 20)
    assert truth.map([inside]).why == "no clock exchange with the target, before the run or after it"
    assert truth.bound_s(truth.map([inside])) == math.inf
    usual = [truth.batch(s, [(100, 100)] * 20) for s in (1, 80)]
    assert truth.map([usual[0], inside, usual[1]]) == truth.map(usual)


def test_with_an_exchange_on_one_side_the_bound_grows_with_the_unknown_rate():
    truth = Truth(0.7, 300)
    before, after = (truth.batch(s, [(100, 100)] * 20) for s in (1, 80))
    for one, side, far in ((before, "after", END_S), (after, "before", BEGIN_S)):
        line = truth.map([one])
        assert line.why == f"no clock exchange {side} the run"
        assert truth.error_s(line, far) <= truth.bound_s(line, far)
        assert truth.bound_s(line) > 0.02
    lost = truth.map([before, after], end_s=200.0)  # the second lies before the run's end after all
    assert lost.why == "no clock exchange after the run"
    assert clock_map([before, after], HERE, THERE, before.exchanges[-1].told_ns, None).why


def test_exchanges_with_another_boot_or_too_few_of_them_do_not_count():
    truth = Truth()
    other = truth.batch(80, [(100, 100)] * 20, (HERE, Clock("c-boot", 1)))
    few = truth.batch(80, [(100, 100)] * 19)
    first = truth.batch(1, [(100, 100)] * 20)
    for second in (other, few):
        assert truth.map([first, second]).why == "no clock exchange after the run"
    paused = Truth(5.0).batch(80, [(100, 100)] * 20)  # a guest that was stopped for a while, and its clock with it
    assert truth.map([first, paused]).why.startswith("the clocks ran apart by")
    assert truth.bound_s(truth.map([first, paused])) == math.inf


def test_what_a_line_misses_is_in_the_bound():
    """An exchange that the line cannot have been, of a clock that did not run evenly, widens the bound by as much."""
    truth = Truth(0.7, 0)
    ways = [(100, 100)] * 20
    first, last = truth.batch(1, ways), truth.batch(80, ways)
    odd = Truth(0.75, 0).batch(1.1, [(200, 200)])
    line = truth.map([Batch(first.exchanges + odd.exchanges, HERE, THERE), last])
    assert line.residual_ns == pytest.approx(50e6 - 200e3, rel=0.01)
    assert truth.bound_s(line) >= 0.0498


def test_one_clock_needs_no_exchange_and_two_look_alike_only_when_both_names_are_known():
    assert clock_map([], HERE, HERE, 0, 1) is SAME
    assert SAME.bound_s(0, 1) == 0
    t = np.array([5, 6])
    assert SAME.target_ns(t).tolist() == [5, 6]
    for here, there in (
        (Clock("a", 1), Clock("a", 2)),  # a container with a clock of its own has the boot id of its host
        (Clock("a", None), Clock("a", None)),
        (Clock("", 1), Clock("", 1)),
    ):
        assert clock_map([], here, there, 0, 1).why


@given(
    st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_any_stored_exchanges_give_a_batch_or_none(data):
    assert Batch.read(data) is None
    told = {"controller": {}, "target": {"boot_id": data, "time_namespace": data}, "exchanges": data}
    found = Batch.read(told)
    assert found is not None
    line = clock_map([found], HERE, found.target, 0, 10)
    assert isinstance(line, ClockMap)
    assert line.bound_s(0, 10) >= 0


def test_a_batch_survives_being_stored():
    one = Truth().batch(1, [(100, 300)] * 20)
    assert Batch.read(json.loads(json.dumps(one.told()))) == one
    assert one.best is not None
    assert one.best.trip_ns == 400_000
    assert MAX_DRIFT * 60 < 0.05  # what is lost when one exchange of a minute's run fails
