"""A signal taken block by block tells the same as one that is held whole, and keeps only what its windows need."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from evidence_kit import phase, request, series
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.errors import InternalError
from meltbench.measure.beats import beats
from meltbench.measure.counters import difference
from meltbench.measure.digest import Digester, Edges, digest
from meltbench.measure.energy import energy, rail_of
from meltbench.measure.rows import BESIDE

RANGE_J = 300.0


def in_blocks(one, edges, cuts):
    """The digest of a series that comes cut at these places."""
    digester = Digester(one, edges)
    places = [0, *sorted(cut % (len(one) + 1) for cut in cuts), len(one)]
    for start, end in pairwise(places):
        arrays = {name: getattr(one, name)[start:end] for name in ("t0_ns", "t1_ns", "value", "status")}
        digester.add(replace(one, **arrays))
    return digester.done()


def counter(n, dice, resets=True):
    t = np.cumsum(dice.uniform(0.005, 0.02, n))
    joules = np.cumsum(dice.uniform(0, 0.3, n) * (dice.random(n) > 0.3))
    if resets and n > 50:
        joules[dice.integers(30, n) :] = 0.001 * np.arange(n)[: n - int(dice.integers(30, n))].sum() % 7
    value = joules % RANGE_J
    value[dice.random(n) > 0.97] = np.nan
    return series("rapl.package-0", t, value, wrap=RANGE_J)


def gauge(n, dice):
    t = np.cumsum(dice.uniform(0.005, 0.02, n) + (dice.random(n) > 0.995) * 0.1)
    value = np.round(5 + 4 * np.sin(t * 3) + dice.normal(0, 0.3, n), 1)
    value[dice.random(n) > 0.98] = np.nan
    return series("hwmon.board", t, value, kind="gauge", unit="W", klass="C")


def trailing(n, dice):
    return replace(gauge(n, dice), window_s=0.05)


def external(n, dice):
    return replace(gauge(n, dice), clock_bound_s=0.03, update_s=0.01, window_s=0.02)


def repeating(n, dice):
    """A gauge that is renewed once in about ten readings."""
    one = gauge(n, dice)
    return replace(one, value=np.repeat(np.round(5 + dice.normal(0, 1, n // 10 + 1), 1), 10)[:n])


def other_clock(n, dice):
    return replace(counter(n, dice), clock_bound_s=0.03)


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from([counter, gauge, trailing, external, repeating, other_clock]),
    st.integers(1, 800),
    st.integers(0, 10**6),
    st.lists(st.integers(0, 10**6), max_size=8),
    st.lists(st.tuples(st.floats(-1, 12), st.floats(0, 5)), min_size=1, max_size=6),
)
def test_every_window_has_the_same_energy_however_the_samples_came(make, n, seed, cuts, spans):
    one = make(n, np.random.default_rng(seed))
    windows = [phase(f"w{i}", t0, t0 + length) for i, (t0, length) in enumerate(spans)]
    token = windows[0].t0_ns + np.arange(60) * 31_000_000
    asked = [replace(request(0, 0, 20), token_t_ns=tuple(token.tolist()))]
    edges = Edges.of([(w.t0_ns, w.t1_ns) for w in windows], windows[0], (), beats(asked))
    everything = Edges(beats=edges.beats, within=edges.within)
    whole, kept = rail_of(digest(one, everything)), rail_of(in_blocks(one, edges, cuts))
    for span in windows:
        ours, theirs = energy(kept, span), energy(whole, span)
        assert (ours.reason, ours.n) == (theirs.reason, theirs.n)
        for name in ("value", "u_k2", "coverage"):
            expected = getattr(theirs, name)
            assert getattr(ours, name) == (expected and pytest.approx(expected, rel=1e-9, abs=1e-9))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 400), st.integers(0, 10**6), st.lists(st.integers(0, 10**6), max_size=6), st.floats(0, 3))
def test_extremes_lines_and_differences_do_not_depend_on_the_blocks(n, seed, cuts, t0):
    dice = np.random.default_rng(seed)
    t = np.cumsum(dice.uniform(0.005, 0.02, n))
    run = phase("run", t0, t0 + 1.5)
    edges = Edges.of([], run)
    warm = series("thermal.soc", t, 40 + t + dice.normal(0, 0.1, n), kind="gauge", unit="degC")
    ours, theirs = in_blocks(warm, edges, cuts), digest(warm, edges)
    assert (ours.whole, ours.run, ours.before) == (theirs.whole, theirs.run, theirs.before)
    expected = theirs.line.slope
    assert ours.line.n == theirs.line.n
    assert ours.line.slope == (expected and pytest.approx(expected, rel=1e-4, abs=1e-6))
    busy = series("cpu.busy_s", t, np.floor(t * 30) / 100, unit="s")
    found = [difference(one, run.t0_ns, run.t1_ns) for one in (in_blocks(busy, edges, cuts), digest(busy))]
    assert found[0] == (found[1] if isinstance(found[1], str) else pytest.approx(found[1], abs=1e-12))


def test_what_is_kept_grows_with_the_windows_and_not_with_the_samples():
    sizes = []
    for n in (5_000, 50_000):
        one = counter(n, np.random.default_rng(1), resets=False)
        end = one.t0_ns[-1] / 1e9
        edges = Edges.of([(round(end * f * 1e9), round(end * (f + 0.01) * 1e9)) for f in (0.2, 0.5)], None)
        sizes.append(len(in_blocks(one, edges, range(0, n, 1000)).kept["t"]))
    assert sizes[1] <= sizes[0] + BESIDE
    assert sizes[0] <= 6 * 2 * BESIDE


@pytest.mark.parametrize("make", [lambda n, dice: counter(n, dice, resets=False), gauge])
def test_a_window_that_was_not_told_beforehand_is_refused_and_not_guessed(make):
    one = make(2000, np.random.default_rng(3))
    told = phase("run", 2, 8)
    rail = rail_of(digest(one, Edges.of([], told)))
    assert energy(rail, told).value is not None
    with pytest.raises(InternalError, match="not known"):
        energy(rail, phase("run", 4, 6))
