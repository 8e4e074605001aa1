"""Fronts, dominance and hypervolume against brute force, and probabilities against a known truth."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from meltbench.analysis.axes import AXES
from meltbench.analysis.constraints import parse
from meltbench.analysis.pareto import Front, dominated_share, front, on_front
from meltbench.analysis.resample import Known, Point
from meltbench.errors import InternalError

Array = npt.NDArray[np.float64]
TTFT, TPS = AXES["ttft_s"], AXES["decode_tps"]
SIDE = 4  # of the grid that costs are drawn from: few values, many ties


def costs(axes: st.SearchStrategy[int]) -> st.SearchStrategy[Array]:
    def of(k: int) -> st.SearchStrategy[Array]:
        shape = st.tuples(st.just(k), st.integers(1, 3), st.integers(1, 9))
        values = st.one_of(st.integers(0, SIDE).map(float), st.just(math.inf))
        return shape.flatmap(lambda one: hnp.arrays(float, one, elements=values))

    return axes.flatmap(of)


def beats(one: Array, other: Array) -> bool:
    return bool((one <= other).all() and (one < other).any())


@given(costs(st.integers(2, 4)))
def test_on_the_front_is_whom_none_dominates(drawn: Array) -> None:
    drawn = np.where(np.isinf(drawn).any(axis=0), np.inf, drawn)
    found = on_front(drawn)
    for draw, arm in np.ndindex(found.shape):
        mine, all_arms = drawn[:, draw, arm], drawn[:, draw, :].T
        assert found[draw, arm] == (np.isfinite(mine).all() and not any(beats(other, mine) for other in all_arms))


@given(costs(st.integers(2, 4)))
def test_the_volume_is_that_of_the_cells_that_are_dominated(drawn: Array) -> None:
    shares = np.where(np.isinf(drawn), 0.0, drawn)
    found = dominated_share(shares)
    for draw in range(shares.shape[1]):
        corners = shares[:, draw, :].T
        cells = itertools.product(range(SIDE), repeat=len(shares))
        assert found[draw] == sum(any((np.array(cell) < corner).all() for corner in corners) for cell in cells)


def points(values: Array, axes: int = 2) -> list[Point]:
    """Arms of (arms, runs, axes), all axes of the same runs."""
    return [
        Point(f"arm{at}", tuple(Known(mine[:, k]) for k in range(axes)), ("quick",) * axes)
        for at, mine in enumerate(values)
    ]


def made(truth: Array, n: int, noise: float, rng: np.random.Generator, *, rho: float = 0.0) -> list[Point]:
    """Arms whose logs are ``truth``, n runs each; ``rho``: how the errors of a run's two numbers correlate."""
    dice = rng.standard_normal((len(truth), n, 2))
    dice[..., 1] = rho * dice[..., 0] + math.sqrt(1 - rho**2) * dice[..., 1]
    return points(np.exp(truth[:, None] + noise * dice))


def surely(truth: Array) -> npt.NDArray[np.bool_]:
    return on_front(np.stack([truth[:, 0], -truth[:, 1]])[:, None, :])[0]


@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize(("spread", "rho"), [(0.1, 0.0), (0.03, 0.0), (0.1, -0.8)])
def test_the_probability_of_the_front_is_calibrated(n: int, spread: float, rho: float) -> None:
    rng = np.random.default_rng([n, round(spread * 100)])
    told, true = [], []
    for _ in range(160):
        truth = spread * rng.standard_normal((8, 2))
        found = front(made(truth, n, 0.05, rng, rho=rho), [TTFT, TPS], draws=300, seed=int(rng.integers(1 << 30)))
        told.append(found.p_front)
        true.append(surely(truth))
    p, on = np.concatenate(told), np.concatenate(true)
    assert abs(p.mean() - on.mean()) < 0.03
    places = np.digitize(p, [0.2, 0.4, 0.6, 0.8])
    for place in range(5):
        mine = places == place
        assert mine.sum() > 25
        band = 0.04 + 2.6 * math.sqrt(0.25 / mine.sum()) * (1 if 0 < place < 4 else 0.7)
        assert abs(p[mine].mean() - on[mine].mean()) < band
    brier = float(((p - on) ** 2).mean())
    assert brier < 0.75 * on.mean() * (1 - on.mean())  # of the share of all, told of each


@pytest.mark.parametrize("n", [5, 10, 20])
@pytest.mark.parametrize(("arms", "spread"), [(8, 0.1), (8, 0.03), (30, 0.03)])
def test_the_hypervolumes_interval_covers(n: int, arms: int, spread: float) -> None:
    rng = np.random.default_rng([n, arms, 7])
    worst, best = (math.exp(3 * spread), math.exp(-3 * spread)), (math.exp(-3 * spread), math.exp(3 * spread))
    inside = 0
    for _ in range(100):
        truth = spread * rng.standard_normal((arms, 2))
        found = front(
            made(truth, n, 0.05, rng), [TTFT, TPS], draws=300, reference=worst, ideal=best,
            seed=int(rng.integers(1 << 30)),
        ).hypervolume  # fmt: skip
        shares = np.stack([3 * spread - truth[:, 0], 3 * spread + truth[:, 1]])[:, None, :] / (6 * spread)
        true = float(dominated_share(np.maximum(shares, 0.0))[0])
        assert found.lo is not None
        assert found.hi is not None
        inside += found.lo <= true <= found.hi
    assert inside >= 86  # of 100: 95 expected, three standard deviations below are 88


def clear(*, noise: float = 0.001, n: int = 5) -> Front:
    truth = np.log([[1.0, 10.0], [2.0, 20.0], [2.2, 9.0]])
    return front(made(truth, n, noise, np.random.default_rng(1)), [TTFT, TPS])


def test_clear_arms_are_told_clearly() -> None:
    found = clear()
    assert found.on_front.tolist() == [True, True, False]
    assert found.p_front.tolist() == [1.0, 1.0, 0.0]
    assert found.dominates(0, 2) == 1.0
    assert found.dominates(2, 0) == found.dominates(0, 1) == 0.0
    assert found.dominators()[:2] == [None, None]
    by = found.dominators()[2]
    assert by is not None
    assert (by[0] in (0, 1), by[1]) == (True, 1.0)


def test_the_volume_is_a_share_on_the_log_scale() -> None:
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 5.0]])[:, None].repeat(5, axis=1)
    found = front(points(values), [TTFT, TPS]).hypervolume
    assert (found.reference, found.ideal) == ((4.0, 5.0), (1.0, 20.0))
    assert found.value == pytest.approx(0.75)
    assert (found.lo, found.hi) == (pytest.approx(0.75), pytest.approx(0.75))


def test_a_single_arm_has_no_volume_and_equals_have_no_range() -> None:
    values = np.array([[1.0, 10.0], [1.0, 20.0]])[:, None].repeat(5, axis=1)
    alone = front(points(values[:1]), [TTFT, TPS]).hypervolume
    assert (alone.value, alone.reason) == (None, "one_arm: a single one makes no box")
    assert front(points(values), [TTFT, TPS]).hypervolume.reason == "no_range: all arms have the same ttft_s"


def test_an_arm_that_misses_the_condition_is_not_on_the_front_and_beats_nobody() -> None:
    truth = np.log([[1.0, 10.0], [2.0, 20.0], [2.0, 9.0]])
    arms = made(truth, 5, 0.001, np.random.default_rng(1))
    found = front(arms, [TTFT, TPS], where=parse("decode_tps < 15 and ttft_s > 1.5"), asked=(1, 0))
    assert found.meets.tolist() == [0.0, 0.0, 1.0]
    assert found.p_meets.tolist() == [0.0, 0.0, 1.0]
    assert found.on_front.tolist() == [False, False, True]
    assert found.p_front.tolist() == [0.0, 0.0, 1.0]
    assert found.dominators() == [None, None, None]
    assert found.dominates(0, 2) == 0.0
    nobody = front(arms, [TTFT, TPS], where=parse("ttft_s > 9"), asked=(0,))
    assert not nobody.on_front.any()
    assert nobody.hypervolume.reason == "no_arm: none meets the condition"


def test_the_condition_is_as_sure_as_the_draws() -> None:
    rng = np.random.default_rng(2)
    truth = np.log([[1.0, 10.0], [1.05, 20.0]])
    found = front(made(truth, 5, 0.05, rng), [TTFT, TPS], where=parse("ttft_s<1.02"), asked=(0,))
    assert 0.05 < found.p_meets[0] < 0.98
    assert found.p_front[0] <= found.p_meets[0]
    beaten = front(
        made(np.log([[1.0, 10.0], [1.5, 5.0]]), 5, 0.05, rng), [TTFT, TPS], where=parse("ttft_s<1"), asked=(0,)
    )
    by = beaten.dominators()[1]
    assert by is not None
    assert by[1] == beaten.dominates(0, 1) == beaten.p_meets[0] < 0.95


def test_a_condition_on_what_an_arm_lacks_leaves_it_open() -> None:
    arms = [
        Point(one.name, (*one.known, Known(np.array([5.0, 5.1])) if at else None))
        for at, one in enumerate(made(np.log([[1.0, 10.0], [2.0, 20.0]]), 5, 0.01, np.random.default_rng(1)))
    ]
    axes = [TTFT, TPS, AXES["mean_power_w"]]
    found = front(arms, axes, objectives=2, where=parse("power_w<9"), asked=(2,))
    assert np.isnan([found.meets[0], found.p_meets[0]]).all()
    assert (found.meets[1], found.on_front.tolist()) == (1.0, [False, True])
    assert math.isnan(found.p_front[0])  # what nobody knows is no 0 %
    assert found.p_front[1] > 0.9


def test_an_arm_of_unknown_spread_has_no_probability() -> None:
    one = Point("one", (Known(np.array([1.0])), Known(np.array([10.0]))))
    found = front([one, *made(np.log([[2.0, 20.0]]), 5, 0.01, np.random.default_rng(1))], [TTFT, TPS])
    assert np.isnan(found.p_front).tolist() == [True, False]
    assert found.hypervolume.value is not None
    assert found.hypervolume.lo is None


@given(st.integers(0, 1000))
def test_the_same_input_gives_the_same_front(seed: int) -> None:
    rng = np.random.default_rng(seed)
    arms = made(0.05 * rng.standard_normal((4, 2)), 5, 0.05, rng)
    one, other = (front(arms, [TTFT, TPS], draws=50) for _ in range(2))
    assert (one.costs == other.costs).all()
    assert ((one.p_front >= 0) & (one.p_front <= 1)).all()
    assert one.on_front.any()
    assert one.p_front.sum() >= 1  # of every draw somebody is on the front


def test_three_and_four_axes_and_no_more() -> None:
    values = np.exp(0.1 * np.random.default_rng(3).standard_normal((6, 5, 5)))
    axes = [AXES[name] for name in ("ttft_s", "decode_tps", "load_s", "wall_s", "prefill_tps")]
    for k in (3, 4):
        found = front(points(values, k), axes[:k], draws=100)
        assert found.hypervolume.value is not None
        assert 0 < found.hypervolume.value <= 1
        assert found.on_front.any()
    with pytest.raises(InternalError):
        front(points(values, 5), axes)
    with pytest.raises(InternalError):
        front([Point("one", (None, None))], axes[:2])
