"""Change points: steps are found at their night, drift and odd nights are not, and whose a change is is told."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.analysis import changes
from meltbench.analysis.arcs import drawn_in, may_fall_apart, together
from meltbench.analysis.changes import Series, change_points, device_changes
from meltbench.analysis.nightly import Nightly
from meltbench.errors import InternalError

NOISE = 0.015
NUMBERS = st.one_of(
    st.none(), st.floats(-1e300, 1e300), st.sampled_from([0.0, 1.0, 1.0, 2.0, math.nan, math.inf, 5e-324])
)


def nights(n):
    return tuple(f"{i:05d}" for i in range(n))


def series(values, arm="a", metric="decode_tps"):
    values = [None if value is None else float(value) for value in values]
    return Series(arm, metric, nights(len(values)), tuple(values), (5,) * len(values))


def drifting(rng, count, n, phi):
    """Series of a first-order autoregression with standard deviation 1."""
    new = rng.standard_normal((count, n))
    for night in range(1, n):
        new[:, night] = phi * new[:, night - 1] + math.sqrt(1 - phi**2) * new[:, night]
    return new


def rates(logs):
    return [series(40 * np.exp(one)) for one in logs]


def stepped(seed, at=(50,), step=0.05, n=100, noise=NOISE, sign=1):
    x = noise * np.random.default_rng(seed).standard_normal(n)
    for night in at:
        x[night:] += step
        step = -step
    return 40 * np.exp(sign * x)


@pytest.mark.parametrize(
    ("n", "phi", "share"), [(100, 0.0, 0.02), (100, 0.5, 0.04), (100, 0.9, 0.08), (20, 0.5, 0.08), (50, 0.5, 0.08)]
)
def test_series_without_a_change_have_none(n, phi, share):
    # 0.1, 0.7, 3.8, 3.0 and 2.5 % of a thousand; the shares are what 200 of these stay below in 99.9 % of draws.
    found = [change_points(one) for one in rates(NOISE * drifting(np.random.default_rng(1), 200, n, phi))]
    assert sum(map(bool, found)) <= share * 200


def test_a_step_of_5_percent_is_found_at_its_night():
    at, hits, covered, others = 60, 0, 0, 0
    for one in rates(np.log([stepped(seed, (at,)) / 40 for seed in range(150)])):
        found = change_points(one)
        mine = [c for c in found if abs(c.index - at) <= 1]
        others += len(found) - len(mine)
        hits += len(mine)
        covered += sum(c.ratio.lo < math.exp(0.05) < c.ratio.hi for c in mine)
    assert hits >= 0.95 * 150
    assert covered >= 0.92 * hits
    assert others <= 0.05 * 150


def test_a_step_says_what_moved():
    (found,) = change_points(series(stepped(0, (60,), noise=0.002)))
    assert (found.index, found.night, found.last) == (60, "00060", "00059")
    assert found.before == pytest.approx(40, rel=0.002)
    assert found.after == pytest.approx(40 * math.exp(0.05), rel=0.002)
    assert found.ratio.value == found.after / found.before
    assert found.ratio.lo < found.ratio.value < found.ratio.hi
    assert (found.ratio.n, found.ratio.clusters) == (500, 100)
    assert found.p < 1e-6
    assert (found.kind, found.moved, found.peers) == ("series", 0, 0)


def test_a_step_needs_four_nights():
    quiet = {"noise": 0.002}
    assert [c.index for c in change_points(series(stepped(3, (96,), **quiet)))] == [96]
    assert change_points(series(stepped(3, (98,), **quiet))) == []
    assert [c.index for c in change_points(series(stepped(3, (4,), **quiet)))] == [4]
    assert change_points(series(stepped(3, (4,), n=7, **quiet))) == []


def test_a_change_that_was_taken_back_is_two():
    assert [c.index for c in change_points(series(stepped(1, (40, 50))))] == [40, 50]
    first, second = change_points(series(stepped(1, (30, 70), noise=0.003)))
    assert (first.after, first.ratio.clusters) == (second.before, 70)


@pytest.mark.parametrize("levels", [(40, 42, 45, 41), (40, 42, 40, 42), (40, 42, 44, 46), (40, 43, 46, 40)])
def test_many_changes_do_not_hide_each_other(levels):
    noise = 0.01 * np.random.default_rng(0).standard_normal((40, 100))
    found = [[c.index for c in change_points(one)] for one in rates(noise + np.log(np.repeat(levels, 25) / 40))]
    assert sum(one == [25, 50, 75] for one in found) >= 0.8 * 40


def test_odd_nights_are_no_changes():
    rng = np.random.default_rng(2)
    x = NOISE * rng.standard_normal((200, 100))
    odd = np.where(rng.random(x.shape) < 0.05, rng.choice([-1, 1], x.shape) * rng.uniform(0.1, 0.4, x.shape), 0)
    assert sum(bool(change_points(one)) for one in rates(x + odd)) <= 0.06 * 200
    x[:, 50:] += 0.05
    near = [any(abs(c.index - 50) <= 1 for c in change_points(one)) for one in rates(x + odd)]
    assert sum(near) >= 0.85 * 200
    for worth in ([40.0] * 99, [40.0, 41.0] * 50):
        assert change_points(series([*worth[:30], 80.0, *worth[30:]])) == []
        assert change_points(series([*worth[:30], 80.0, 80.0, 1.0, *worth[30:]])) == []
        assert change_points(series([*worth, 80.0, 10.0])) == []


def test_coarse_numbers_are_no_changes():
    rng = np.random.default_rng(4)
    coarse = [40 + (rng.random(100) < share) for share in (0.02, 0.1, 0.2, 0.5) for _ in range(50)]
    assert sum(bool(change_points(series(one))) for one in coarse) <= 0.05 * 200


def test_gaps_are_nights_that_are_not_there():
    whole = stepped(5)
    gaps = [3, 4, 5, 20, 49, 50, 51, 99]
    (found,) = change_points(series([None if i in gaps else v for i, v in enumerate(whole)]))
    (nan,) = change_points(series([math.nan if i in gaps else v for i, v in enumerate(whole)]))
    assert (found.index, found.last) == (52, "00048")
    assert nan == found
    left = [i for i in range(100) if i not in gaps]
    dense = Series("a", "m", tuple(nights(100)[i] for i in left), tuple(whole[left]), (5,) * len(left))
    (again,) = change_points(dense)
    assert (again.night, again.ratio, again.p) == (found.night, found.ratio, found.p)
    assert change_points(series([None] * 50)) == change_points(series([])) == []


def test_numbers_below_zero_have_changes_but_no_ratio():
    rng = np.random.default_rng(0)
    (found,) = change_points(series(np.concatenate((rng.normal(0, 1, 50), rng.normal(10, 1, 50)))))
    assert found.index == 50
    assert (found.ratio.value, found.ratio.lo) == (None, None)
    assert found.ratio.reason.startswith("not_positive")
    assert found.after - found.before == pytest.approx(10, abs=1)


def test_only_the_latest_nights_are_searched():
    n = changes.LONGEST + 60
    assert [c.index for c in change_points(series(stepped(0, (n - 100,), n=n)))] == [n - 100]
    assert change_points(series(stepped(0, (30,), n=n))) == []


@given(st.integers(0, 50), st.floats(1e-100, 1e100))
@settings(max_examples=30)
def test_neither_the_unit_nor_the_inverse_matters(seed, factor):
    values = stepped(seed, (40, 55), step=0.04)
    found = change_points(series(values))
    other = change_points(series(values * factor))
    assert [c.index for c in other] == [c.index for c in found]
    assert [c.p for c in other] == pytest.approx([c.p for c in found], rel=1e-3)
    assert [c.ratio.hi for c in other] == pytest.approx([c.ratio.hi for c in found], rel=1e-6)
    assert [c.index for c in change_points(series(1 / values))] == [c.index for c in found]


RUNS = st.tuples(
    st.sampled_from(["pi", "desk"]), st.sampled_from("xyz"), st.sampled_from(["", *"abcdefghijkl"]),
    st.floats(1, 2) | st.none(),
)  # fmt: skip


def by_device(rows):
    return Nightly(*([row[k] for row in rows] for k in range(3))).of("m", [row[3] for row in rows])


@given(st.lists(RUNS, max_size=60), st.randoms())
def test_the_order_of_runs_does_not_matter(rows, random):
    found = by_device(rows)
    known = [row for row in rows if row[2] and row[3] is not None]
    assert [*found] == [*dict.fromkeys(row[0] for row in known)]
    for device, mine in found.items():
        assert [one.arm for one in mine] == [*dict.fromkeys(row[1] for row in known if row[0] == device)]
        for one in mine:
            of_night = {night: [r[3] for r in known if r[:3] == (device, one.arm, night)] for night in one.nights}
            assert list(one.nights) == sorted({row[2] for row in known if row[:2] == (device, one.arm)})
            assert one.runs == tuple(map(len, of_night.values()))
            assert one.values == tuple(map(statistics.median, of_night.values()))
    random.shuffle(rows)
    assert by_device(rows).keys() == found.keys()
    for device, mine in by_device(rows).items():
        assert sorted(mine, key=repr) == sorted(found[device], key=repr)


def test_a_run_without_a_number_is_none():
    rows = [("1", 3.0), ("0", math.nan), ("1", None), ("1", 5.0), ("0", None), ("1", math.inf)]
    assert by_device([("pi", "a", *row) for row in rows]) == {"pi": [Series("a", "m", ("1",), (4.0,), (2,), "a")]}
    assert by_device([]) == {}


@given(st.lists(st.lists(NUMBERS, max_size=60).map(lambda values: values * 2), max_size=4), st.integers(0, 2**32))
@settings(max_examples=60)
def test_who_is_not_searched_has_no_change(some, seed):
    rng = np.random.default_rng(seed)
    walks = [np.exp(step * drifting(rng, 1, n, phi)[0]) for step, n, phi in ((0.01, 100, 0.9), (2.0, 41, 0.0))]
    several = [series(one) for one in (*some, *walks, stepped(seed, noise=0.03))]
    found = device_changes(several)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(changes, "may_fall_apart", lambda x, starts, level: np.ones(len(starts) - 1, dtype=bool))
        assert device_changes(several) == found
    assert changes.changes_of([several[:2], several[2:]]) == [device_changes(several[:2]), device_changes(several[2:])]
    late = [[point for point in points if point.night >= "00050"] for points in found]
    assert changes.changes_of([several], "00050") == [late]


def test_hardly_any_series_without_a_change_is_searched():
    still = NOISE * drifting(np.random.default_rng(1), 200, 100, 0.5)
    x, starts = together([drawn_in(one, np.array([0, 100])) for one in still])
    assert may_fall_apart(x, starts, changes.LEVEL).sum() <= 20


@given(st.lists(NUMBERS, max_size=60), st.integers(0, 60))
def test_whatever_the_numbers_the_parts_are_whole(values, constant):
    found = change_points(series([*values, *[7.0] * constant]))
    real = [i for i, v in enumerate([*values, *[7.0] * constant]) if v is not None and math.isfinite(v)]
    edges = [0, *(real.index(c.index) for c in found), len(real)]
    assert all(b - a >= changes.SHORTEST for a, b in pairwise(edges)) or not found
    for c in found:
        assert 0 <= c.p <= changes.LEVEL
        assert c.last < c.night


def test_rounding_is_no_change():
    assert change_points(series([40.0] * 50 + [math.nextafter(40.0, 41)] * 50)) == []
    assert [c.index for c in change_points(series([40.0] * 50 + [40.001] * 50))] == [50]


def test_an_interval_beyond_all_numbers_is_no_error():
    (found,) = change_points(series([1e300 if sign == "+" else 1e-300 for sign in "----+++++++++++-++-"]))
    assert found.index == 4
    assert found.ratio.lo <= found.ratio.value <= found.ratio.hi


@given(st.floats(1e-300, 1e300), st.integers(0, 200))
@settings(max_examples=30)
def test_what_never_moves_never_moved(value, n):
    assert change_points(series([value] * n)) == []


def test_a_series_that_is_none_is_refused():
    with pytest.raises(InternalError, match="nights"):
        Series("a", "m", ("1", "2"), (1.0,), (1, 1))
    with pytest.raises(InternalError, match="order"):
        Series("a", "m", ("2", "1"), (1.0, 1.0), (1, 1))
    with pytest.raises(InternalError, match="twice"):
        Series("a", "m", ("1", "1"), (1.0, 1.0), (1, 1))


def arms(*values, metric="decode_tps"):
    return [series(one, arm=f"arm {i}", metric=metric) for i, one in enumerate(values)]


def test_when_all_arms_move_it_is_the_environment():
    found = device_changes(arms(stepped(1), stepped(2), stepped(3, (51,))))
    assert [[(c.kind, c.moved, c.peers) for c in one] for one in found] == [[("environment", 2, 2)]] * 3


def test_when_an_arm_stays_it_is_the_series():
    found = device_changes(arms(stepped(1), stepped(2), stepped(3, ())))
    assert [[(c.kind, c.moved, c.peers) for c in one] for one in found] == [[("series", 1, 2)]] * 2 + [[]]
    (alone,), _ = device_changes(arms(stepped(1), stepped(2, ())))
    assert (alone.kind, alone.moved) == ("series", 0)
    found = device_changes(arms(stepped(1), stepped(2, (70,))))
    assert [[c.kind for c in one] for one in found] == [["series"], ["series"]]


def test_what_a_series_did_before_is_not_taken_for_what_it_does_now():
    earlier = stepped(3, (44,), step=0.2)
    found = device_changes(arms(stepped(1), stepped(2), earlier))
    assert [(c.night, c.kind, c.moved, c.peers) for c in found[0]] == [("00050", "series", 1, 2)]


def test_only_who_could_have_moved_with_it_is_asked():
    one, other = arms(stepped(1), stepped(2))
    against = series(stepped(3, sign=-1), arm="b")
    assert [c.kind for c in device_changes([one, against])[0]] == ["series"], "the other way"
    workload = series(stepped(2), arm=one.arm)
    assert [c.kind for c in device_changes([one, workload])[0]] == ["series"], "the same arm"
    energy = series(stepped(2), arm="b", metric="j_per_output_token")
    assert [c.kind for c in device_changes([one, energy])[0]] == ["series"], "another metric"
    noisy = series(stepped(4, (), noise=0.1), arm="c")
    late = Series("d", "decode_tps", nights(100)[52:], tuple(stepped(5, ())[52:]), (5,) * 48)
    for silent in (noisy, late):
        (found,), *_ = device_changes([one, other, silent])
        assert (found.kind, found.moved, found.peers) == ("environment", 1, 1), "who cannot tell"


def test_who_moved_without_a_change_point_of_its_own_moved():
    faint = series(stepped(6, noise=0.04, n=64), arm="c")
    assert change_points(faint) == []
    (found,), *_ = device_changes([*arms(stepped(1), stepped(2)), faint])
    assert (found.kind, found.moved, found.peers) == ("environment", 2, 2)


def test_each_night_is_judged_alone():
    both, mine = stepped(1, (30,), noise=0.005), stepped(2, (30, 70), noise=0.005)
    other, this = device_changes(arms(both, mine, stepped(3, (30,), noise=0.005)))[:2]
    assert [c.kind for c in other] == ["environment"]
    assert [(c.index, c.kind) for c in this] == [(30, "environment"), (70, "series")]


def test_series_of_one_arm_do_not_speak_for_each_other():
    """A model that is asked two workloads moves in both when its file changes: nothing says that the device did."""
    nights = [f"2026-01-{day:02d}" for day in range(1, 31)]
    rows = [
        ("pi", f"m · {work}", night, (10.0 if at < 15 else 9.0) * (1 + 0.001 * (at % 3)))
        for work in ("quick", "long")
        for at, night in enumerate(nights)
    ]
    devices, names, dated, values = (list(column) for column in zip(*rows, strict=True))
    alone = Nightly(devices, names, dated, ["m"] * len(rows)).of("m", values)["pi"]
    assert [one.name for one in alone] == ["m · quick", "m · long"]
    assert [[point.kind for point in found] for found in device_changes(alone)] == [["series"], ["series"]]
    apart = Nightly(devices, names, dated).of("m", values)["pi"]
    assert [[point.kind for point in found] for found in device_changes(apart)] == [["environment"], ["environment"]]
