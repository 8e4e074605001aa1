"""What is drawn for an arm: as wide as what is known of it, and together what belongs together."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import beta, spearmanr

from meltbench.analysis.axes import AXES
from meltbench.analysis.resample import Draws, Known, Point, draw

TTFT, TPS, ACC, PPL = (AXES[name] for name in ("ttft_s", "decode_tps", "accuracy", "perplexity"))
J = AXES["j_per_output_token"]


def drawn(*known: Known, axis: str = "ttft_s", draws: int = 4000) -> Draws:
    return draw([Point(str(at), (one,)) for at, one in enumerate(known)], [AXES[axis]], draws, 1)


@pytest.mark.parametrize("n", [2, 3, 5, 9, 10, 20])
def test_draws_cover_the_true_median(n: int) -> None:
    rng = np.random.default_rng(n)
    runs = np.exp(0.1 * rng.standard_normal((1000, n)))
    found = drawn(*(Known(one) for one in runs), draws=400)
    lo, hi = np.quantile(found.drawn[0], [0.025, 0.975], axis=1)
    assert found.value[0] == pytest.approx(np.median(runs, axis=1))
    assert 0.925 < float(((lo <= 1) & (hi >= 1)).mean()) < 0.985


@pytest.mark.parametrize("n", [4, 25])
def test_numbers_of_a_run_stay_together(n: int) -> None:
    rng = np.random.default_rng(1)
    first = np.exp(0.1 * rng.standard_normal(n))
    arms = [Point("a", (Known(first), Known(1 / first)), ("quick", "quick"))]
    together = draw(arms, [TTFT, TPS], 2000, 1).drawn
    assert spearmanr(together[0, 0], together[1, 0]).statistic < -0.99
    apart = draw([Point("a", arms[0].known, ("quick", "grid"))], [TTFT, TPS], 2000, 1).drawn
    assert abs(spearmanr(apart[0, 0], apart[1, 0]).statistic) < 0.1


def test_runs_that_are_all_alike_do_not_scatter() -> None:
    found = drawn(Known(np.full(3, 2.0)), Known(np.full(12, 2.0)), Known(np.full(200, 2.0)))
    assert found.drawn == pytest.approx(2.0)
    assert found.spread.all()


def test_a_median_of_many_runs_is_one_of_them_or_between_two() -> None:
    for n in (11, 200, 300):
        values = np.arange(1.0, n + 1)
        found = drawn(Known(values), draws=300)
        assert set((2 * found.drawn[0, 0]) % 1) == {0.0}
        assert found.drawn[0, 0].std() == pytest.approx(math.sqrt(n) / 2, rel=0.25)


def test_zero_and_below_are_drawn_on_their_own_scale() -> None:
    found = drawn(Known(np.array([-1.0, 0.0, 1.0, 2.0])), axis="net_energy_j")
    assert found.value[0, 0] == 0.5
    assert found.drawn.min() < 0


def test_one_run_is_as_unsure_as_it_says_or_nobody_knows() -> None:
    found = drawn(Known(np.array([10.0]), u=0.5), Known(np.array([10.0])), axis="j_per_request")
    assert found.spread.tolist() == [[True, False]]
    assert np.log(found.drawn[0, 0]).std() == pytest.approx(0.05, rel=0.1)
    assert (found.drawn[0, 1] == 10).all()


def test_what_every_run_is_off_by_alike_stays_however_often_it_was_repeated() -> None:
    runs = np.full(20, 3.0)
    found = drawn(Known(runs, u=0.3), axis="ipj_per_j")
    assert np.log(found.drawn[0, 0]).std() == pytest.approx(0.1, rel=0.1)
    assert drawn(Known(runs, u=0.3), axis="j_per_request").drawn == pytest.approx(3.0)
    alone = drawn(Known(runs[:1], u=0.3), axis="ipj_per_j")
    assert np.log(alone.drawn[0, 0]).std() == pytest.approx(0.1, rel=0.1)


def test_a_meters_gain_is_one_for_all_that_it_measured() -> None:
    known = [Known(np.full(5, 2.0), meter=meter, limit=0.1) for meter in ("desk", "desk", "pi")]
    points = [Point(str(at), (one, one), ("q", "q")) for at, one in enumerate(known)]
    found = draw(points, [J, AXES["ipj_per_j"]], 3000, 1).drawn
    assert found[0, 0] == pytest.approx(found[0, 1])
    assert found[0, 0] * found[1, 0] == pytest.approx(4.0)  # what is divided by an energy goes the other way
    assert abs(np.corrcoef(found[0, 0], found[0, 2])[0, 1]) < 0.1
    assert found[0, 0].std() / 2 == pytest.approx(0.1 / math.sqrt(3), rel=0.05)
    assert (found[0, 0].min() >= 1.8, found[0, 0].max() <= 2.2) == (True, True)


def marks(right: int, of: int) -> Known:
    scored = (np.arange(of) < right).astype(float)
    return Known(np.array([right / of]), items=np.stack([scored, np.ones(of)]))


@pytest.mark.parametrize("right", [0, 7, 40])
def test_an_accuracy_is_drawn_as_jeffreys_beta(right: int) -> None:
    for known in (marks(right, 40), Known(np.array([right / 40]), n_items=40)):
        found = drawn(known, axis="accuracy", draws=20000)
        wanted = beta.ppf([0.025, 0.5, 0.975], right + 0.5, 40 - right + 0.5)
        assert np.quantile(found.drawn[0, 0], [0.025, 0.5, 0.975]) == pytest.approx(wanted, abs=0.01)
        assert found.value[0, 0] == right / 40


def test_models_that_fail_on_the_same_items_are_told_apart_by_the_others() -> None:
    one, other = marks(60, 200), marks(66, 200)  # the second knows six more, and all that the first knows
    paired = drawn(one, other, axis="accuracy").drawn[0]
    numbers = [Known(np.array([value]), n_items=200) for value in (0.3, 0.33)]
    apart = drawn(*numbers, axis="accuracy").drawn[0]
    assert (paired[1] > paired[0]).mean() > 0.98
    assert 0.6 < (apart[1] > apart[0]).mean() < 0.85


def test_the_same_answers_are_drawn_as_one() -> None:
    same = marks(7, 40)
    found = drawn(same, same, marks(7, 40), axis="accuracy").drawn[0]
    assert (found[0] == found[1]).all()
    assert (found[0] != found[2]).any()


def test_perplexities_of_the_same_chunks_are_paired() -> None:
    rng = np.random.default_rng(1)
    tokens = np.full(8, 255.0)
    nats = tokens * (2.5 + 0.4 * rng.standard_normal(8))
    one, other = (Known(np.array([0.0]), items=np.stack([nats * f, tokens])) for f in (1.0, 1.01))
    found = drawn(one, other, axis="perplexity")
    assert found.value[0, 0] == pytest.approx(math.exp(nats.sum() / tokens.sum()))
    assert (found.drawn[0, 1] > found.drawn[0, 0]).all()
    off = np.log(found.drawn[0, 0]) - math.log(found.value[0, 0])
    assert np.quantile(np.abs(off), 0.95) == pytest.approx(2.36 * (nats / tokens).std(ddof=1) / math.sqrt(8), rel=0.25)
    single = Known(np.array([9.0]), items=np.array([[5.0], [2.0]]))
    assert drawn(single, axis="perplexity").spread.tolist() == [[False]]
    told = drawn(Known(np.array([9.0]), u=0.9), Known(np.array([9.0])), axis="perplexity")
    assert told.spread.tolist() == [[True, False]]


def test_what_is_of_the_model_alone_is_exact() -> None:
    found = drawn(Known(np.array([5e8])), axis="model_bytes")
    assert (found.drawn == 5e8).all()
    assert found.spread.all()
