"""An inherited accuracy is no more sure than what few items tell, and is refused where the questions were others."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom

from meltbench.analysis import stats
from meltbench.analysis.inherit import Mark, demand_alike, inherited, marks
from meltbench.errors import InternalError, UserError
from meltbench.questions.subset import drawn
from meltbench.records import Score

NAMES = [f"q{n}" for n in range(400)]
SOME = sorted(drawn(NAMES, 40))


def answered(names: list[str], right: set[str], answer: str = "a") -> dict[str, Mark]:
    return {name: Mark(float(name in right), (answer,)) for name in names}


def test_the_limit_is_clopper_and_pearsons() -> None:
    assert stats.at_most(0, 40) == pytest.approx(1 - 0.05 ** (1 / 40)) == pytest.approx(3 / 40, rel=0.05)
    # Their example: 4 of 20, two-sided 95 % is 5.7 to 43.7 %, and its upper end one-sided at 97.5 %.
    assert stats.at_most(4, 20, 0.975) == pytest.approx(0.4366, abs=5e-5)
    assert stats.at_most(20, 20) == 1.0
    for k, n in ((-1, 5), (6, 5), (0, 0)):
        with pytest.raises(InternalError):
            stats.at_most(k, n)


@given(st.integers(1, 300), st.data())
def test_the_limit_leaves_just_five_percent(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n - 1))
    most = stats.at_most(k, n)
    assert k / n < most < 1
    assert binom.cdf(k, n, most) == pytest.approx(0.05, rel=1e-6)  # so few would be seen so seldom
    assert most < stats.at_most(k + 1, n)


def test_no_flip_leaves_the_hosts_accuracy_and_the_rule_of_three() -> None:
    right = set(NAMES[:240])
    found = inherited(answered(NAMES, right), answered(SOME, right), "match")
    assert (found.accuracy.value, found.corrected.value) == (0.6, 0.6)
    assert found.bound == pytest.approx(1 - 0.05 ** (1 / 40))
    assert (found.n, found.changed, found.gained, found.lost, found.drawn) == (40, 0, 0, 0, True)
    assert found.accuracy.n == 400
    host = stats.proportion(240, 400, 0.975)
    assert found.accuracy.lo == pytest.approx(host.lo - stats.at_most(0, 40, 0.975))
    assert found.accuracy.hi == pytest.approx(host.hi + stats.at_most(0, 40, 0.975))
    assert found.accuracy.se is None


def test_flips_are_counted_both_ways_and_the_difference_is_added() -> None:
    right = set(NAMES[:240])
    was_right, was_wrong = ([n for n in SOME if (n in right) is which] for which in (True, False))
    here = (right - {was_right[0]}) | set(was_wrong[:3])
    found = inherited(answered(NAMES, right), answered(SOME, here), "match")
    assert (found.gained, found.lost) == (3, 1)
    assert found.bound == stats.at_most(4, 40)
    assert found.corrected.value == pytest.approx(0.6 + 2 / 40)
    assert found.corrected.lo < 0.6 < found.corrected.value < found.corrected.hi
    assert found.accuracy.value == 0.6


def test_another_answer_that_is_as_right_or_wrong_is_no_flip() -> None:
    host = {name: Mark(0.0, ("7",)) for name in NAMES}
    device = {name: Mark(0.0, ("7.0" if at else "8",)) for at, name in enumerate(SOME)}
    found = inherited(host, device, "number")
    assert (found.changed, found.gained + found.lost) == (1, 0)  # 7.0 is the number that 7 is
    assert found.changed_at_most == stats.at_most(1, 40)
    assert inherited(host, device, "exact").changed == 40
    untold = {name: Mark(0.0, (None,)) for name in SOME}
    found = inherited(host, untold, "loglik/tokens")
    assert (found.changed, found.changed_at_most) == (None, None)
    assert found.bound == stats.at_most(0, 40)
    unread = inherited({n: Mark(0.0, ("",)) for n in NAMES}, {n: Mark(0.0, ("",)) for n in SOME}, "number")
    assert unread.changed == 0, "nothing could be read out of either"


def test_marks_of_an_item_that_was_scored_twice_are_their_mean() -> None:
    def score(item: str, correct: float | None, extracted: str, *, parsed: bool = True) -> Score:
        return Score(item, "match", correct, parsed, extracted)

    found = marks([score("a", 1.0, "x"), score("a", 0.0, "y"), score("b", None, ""), score("c", 0.0, "", parsed=False)])
    assert found == {"a": Mark(0.5, ("x", "y")), "c": Mark(0.0, ("",))}
    assert marks([score("d", 1.0, "")]) == {"d": Mark(1.0, (None,))}  # llama-perplexity tells of right or wrong alone
    host = {"a": Mark(1.0, ("x",)), "z": Mark(1.0, ("x",))}
    both = inherited(host, found, "match")
    # To differ in part is to flip: so the bound holds all the more.
    assert (both.changed, both.gained, both.lost) == (1, 0, 1)


def test_items_that_were_not_drawn_are_told() -> None:
    first = answered(NAMES[:40], set())
    assert not inherited(answered(NAMES, set()), first, "match").drawn


def test_what_bounds_nothing_is_refused() -> None:
    host = answered(NAMES, set())
    with pytest.raises(UserError, match="share no item"):
        inherited(host, answered(["other"], set()), "match")
    with pytest.raises(UserError, match="share no item"):
        inherited({}, host, "match")
    with pytest.raises(UserError, match="all 400 items were answered here too"):
        inherited(host, host, "match")


@given(
    st.lists(st.tuples(st.sampled_from([0.0, 0.25, 1.0]), st.sampled_from([0.0, 0.25, 1.0])), min_size=2, max_size=40),
    st.integers(1, 39),
)
def test_the_difference_on_the_shared_items_is_never_beyond_the_bound(pairs: list[tuple[float, float]], n: int) -> None:
    host = {f"i{at}": Mark(h, ("x",)) for at, (h, _) in enumerate(pairs)}
    device = {f"i{at}": Mark(d, ("x",)) for at, (_, d) in enumerate(pairs)}
    shared = [name for name in host if name in drawn(host, min(n, len(pairs) - 1))]
    found = inherited(host, {name: device[name] for name in shared}, "match")
    apart = math.fsum(device[name].correct - host[name].correct for name in shared) / len(shared)
    assert abs(apart) <= found.bound <= 1
    assert found.accuracy.value is not None
    assert 0 <= found.corrected.value <= 1
    for one in (found.accuracy, found.corrected):
        if one.lo is not None:
            assert 0 <= one.lo <= one.value <= one.hi <= 1


@pytest.mark.parametrize(("gain", "loss"), [(0.0, 0.0), (0.02, 0.02), (0.0, 0.1), (0.05, 0.2), (0.3, 0.0)])
def test_bounds_and_intervals_cover(gain: float, loss: float) -> None:
    """A device that gets wrong what the host had right in so many of its items, and right in so many others."""
    rng, trials = np.random.default_rng(5), 300
    share = 0.6
    true = share * (1 - loss) + (1 - share) * gain
    flips = share * loss + (1 - share) * gain
    held = dict.fromkeys(("bound", "interval", "corrected"), 0)
    for _ in range(trials):
        right = rng.uniform(size=len(NAMES)) < share
        turned = rng.uniform(size=len(NAMES)) < np.where(right, loss, gain)
        host = {name: Mark(float(right[at]), ("x",)) for at, name in enumerate(NAMES)}
        device = {name: Mark(float(right[at] ^ turned[at]), ("x",)) for at, name in enumerate(NAMES) if name in SOME}
        found = inherited(host, device, "match")
        held["bound"] += flips <= found.bound and abs(true - share) <= found.bound
        held["interval"] += found.accuracy.lo <= true <= found.accuracy.hi
        held["corrected"] += found.corrected.lo <= true <= found.corrected.hi
    assert held["bound"] / trials >= 0.93  # 95 % promised; of 300 trials two standard errors are 2.5 %
    assert held["interval"] / trials >= 0.95
    assert held["corrected"] / trials >= 0.94


def about(**workload: Any) -> dict[str, Any]:
    settings = {"name": "gsm8k", "sha256": "w1", "max_tokens": 256, "shots": 5, "budget": [128], **workload}
    return {"model": {"name": "tiny", "sha256": "m1"}, "workload": settings}


def test_only_the_same_questions_in_the_same_way_are_taken_together() -> None:
    demand_alike(about(), about(subset=40, idle_s=1.0, data="elsewhere.jsonl", timeout_s=9, budget=(128,)))
    for other, said in (
        (about(sha256="w2"), r"another version of the workload, or of its items: gsm8k \(w2\) and gsm8k \(w1\)"),
        (about(shots=0), "shots is 0 here and 5 there: these are other questions"),
        (about(temperature=0.7), "temperature is 0.7 here and not set there"),
        (about(max_tokens=64), "max_tokens is 64 here and 256 there"),
        (
            about() | {"model": {"name": "tin\x1b[2Jy", "sha256": "m2"}},
            "another model: tin\ufffd.2Jy \\(m2\\) and tiny",
        ),
        ({}, r"another model: None \(None\) and tiny \(m1\)"),
    ):
        with pytest.raises(UserError, match=said):
            demand_alike(about(), other)
