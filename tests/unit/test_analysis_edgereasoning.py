"""EdgeReasoning's forms give its own numbers; fitted, they find constants that were made, and cover what comes next."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.analysis import linear
from meltbench.analysis.edgereasoning import (
    Form,
    Observation,
    Prediction,
    added,
    decode_time_s,
    fit_latency,
    predict_decode,
    predict_prefill,
    prefill_time_s,
)
from meltbench.analysis.power import PowerForm, fit_energy, predict_energy, rising_energy_j

PUBLISHED = tomllib.loads((Path(__file__).parents[2] / "data" / "published.toml").read_text(encoding="utf-8"))
MODELS = {model["name"]: model for model in PUBLISHED["edgereasoning"]["model"]}
LLAMA = MODELS["DSR1-Llama-8B"]
LENGTHS = [(i, o) for i in (64, 128, 256, 512, 1024, 2048) for o in (16, 64, 256, 1024)]


def made(prefill, decode, lengths=LENGTHS, noise=0.0, seed=0, run="run"):
    """Requests as a machine with these constants would serve them."""
    rng = np.random.default_rng(seed)
    return [
        Observation(
            *(i, o),
            prefill_time_s(**prefill, n_in=i) * (1 + noise * rng.normal()),
            decode_time_s(**decode, n_in=i, n_steps=o) * (1 + noise * rng.normal()),
            run=run,
        )
        for i, o in lengths
    ]


def test_the_constants_of_the_8b_give_its_prefill_and_decode():
    assert prefill_time_s(**LLAMA["prefill"], n_in=512) == pytest.approx(0.427, abs=5e-4)
    assert decode_time_s(**LLAMA["decode"], n_in=512, n_steps=1024) == pytest.approx(103.5, abs=0.05)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_the_decode_rates_are_those_published(model):
    rate = 1 / model["decode"]["n"]
    assert rate == pytest.approx(model["decode_tps"], rel=2e-3)
    assert 1000 / decode_time_s(**model["decode"], n_in=128, n_steps=1000) == pytest.approx(rate, rel=0.01)


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_a_fit_to_published_constants_finds_them_and_predicts_the_same(model):
    latency = fit_latency(made(model["prefill"], model["decode"]))
    for form, constants in ((latency.prefill, model["prefill"]), (latency.decode, model["decode"])):
        assert dict(zip(form.fit.names, form.fit.values, strict=True)) == pytest.approx(constants, rel=1e-6)
        assert form.fit.residuals.r_squared == pytest.approx(1)
    found = predict_prefill(latency.prefill, 512)
    assert found.value == pytest.approx(prefill_time_s(**model["prefill"], n_in=512), rel=1e-9)
    assert found.beyond == ""
    total = added(found, predict_decode(latency.decode, 512, 1024))
    assert total.value == pytest.approx(found.value + decode_time_s(**model["decode"], n_in=512, n_steps=1024))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(1e-9, 1e-5),
    st.floats(1e-6, 1e-2),
    st.floats(1e-3, 1.0),
    st.floats(1e-3, 1.0),
    st.floats(1e-8, 1e-5),
    st.lists(st.tuples(st.integers(1, 4096), st.integers(1, 2048)), min_size=5, max_size=30, unique_by=lambda x: x[0]),
)
def test_made_constants_are_found(a, b, c, n, m, lengths):
    latency = fit_latency(made({"a": a, "b": b, "c": c}, {"n": n, "m": m}, lengths))
    for form, times in (
        (latency.prefill, [prefill_time_s(a, b, c, i) for i, _ in lengths]),
        (latency.decode, [decode_time_s(n, m, i, o) for i, o in lengths]),
    ):
        if form.fit is None:  # lengths that happen to lie too close together
            assert form.reason.startswith("degenerate")
            continue
        for (i, o), true in zip(lengths, times, strict=True):
            one = predict_prefill(form, i) if form is latency.prefill else predict_decode(form, i, o)
            assert one.value == pytest.approx(true, rel=1e-5)
            assert one.lo <= one.value <= one.hi


@pytest.mark.parametrize("kind", ["relative", "constant"])
def test_prediction_intervals_cover_the_next_request(kind):
    rng, hits, of_prefill, trials, named = np.random.default_rng(5), 0, 0, 300, 0
    prefill, decode = LLAMA["prefill"], LLAMA["decode"]

    def noisy(seconds):
        return seconds * (1 + 0.02 * rng.normal()) if kind == "relative" else seconds + 0.02 * rng.normal()

    for _ in range(trials):
        seen = made(prefill, decode)
        seen = [replace(x, prefill_s=noisy(x.prefill_s), decode_s=noisy(x.decode_s)) for x in seen]
        latency = fit_latency(seen)
        i, o = int(rng.integers(64, 2048)), int(rng.integers(16, 1024))
        one = predict_decode(latency.decode, i, o)
        hits += one.lo <= noisy(decode_time_s(**decode, n_in=i, n_steps=o)) <= one.hi
        first = predict_prefill(latency.prefill, i)
        of_prefill += first.lo <= noisy(prefill_time_s(**prefill, n_in=i)) <= first.hi
        named += latency.decode.fit.weights == kind
    assert 0.91 <= hits / trials <= 0.985
    assert 0.91 <= of_prefill / trials <= 0.985
    assert named / trials > 0.9


def test_beyond_what_was_seen_is_told_and_less_sure():
    latency = fit_latency(made(LLAMA["prefill"], LLAMA["decode"], noise=0.01))
    assert predict_prefill(latency.prefill, 4096).beyond == "4096 tokens, fitted to prompts of 64 to 2048"
    far = predict_decode(latency.decode, 4096, 4096)
    assert far.beyond == ("4096 tokens, fitted to contexts of 64 to 2048; 4096 tokens, fitted to answers of 16 to 1024")
    near = predict_decode(latency.decode, 512, 512)
    assert near.beyond == ""
    assert (far.hi - far.lo) / far.value > (near.hi - near.lo) / near.value
    assert added(predict_prefill(latency.prefill, 4096), far).beyond.count("4096") == 3


def test_too_little_says_what_is_lacking():
    alike = fit_latency(made(LLAMA["prefill"], LLAMA["decode"], [(512, 64)] * 8))
    assert alike.prefill.reason == "too_few_lengths: prompts of 3 lengths are needed, there are 1 (512)"
    assert alike.decode.reason.startswith("degenerate: the requests' mean contexts (543.5 tokens) are too alike")
    few = fit_latency(made(LLAMA["prefill"], LLAMA["decode"], [(1, 64), (2, 64), (3, 64)]))
    assert few.prefill.reason == "too_few_requests: 4 are needed for 3 parameters, there are 3"
    none = fit_latency([])
    assert none.prefill.reason == "too_few_lengths: prompts of 3 lengths are needed, there are 0"
    assert none.decode.reason == "too_few_requests: 3 are needed for 2 parameters, there are 0"
    assert predict_prefill(none.prefill, 5).value is None
    assert predict_decode(none.decode, 5, 5).reason == none.decode.reason
    assert predict_decode(none.decode, 5, 0).value == 0.0
    assert added(predict_prefill(none.prefill, 5), Prediction(1.0, 1.0, 1.0)).reason == none.prefill.reason


def test_a_time_below_zero_is_no_time():
    near = [Observation(i, 0, s, None) for i, s in ((1, 1.0), (2, 0.8), (3, 0.75), (1, 1.1), (2, 0.9), (3, 0.6))]
    latency = fit_latency(near)
    assert latency.prefill.fit is not None
    assert predict_prefill(latency.prefill, 2).value == pytest.approx(0.85, rel=0.05)
    assert "too_uncertain: " in predict_prefill(latency.prefill, 50).reason
    bent = replace(latency.prefill, fit=replace(latency.prefill.fit, values=(-1.0, 0.0, 1.0)))
    assert predict_prefill(bent, 3).reason == "not_positive: the fitted form gives -8 s here"


def test_a_fit_that_no_machine_could_be_is_none():
    falling = [Observation(i, 10, 2.0 - 0.5 * i, 5.0 - 0.4 * i) for i in (1, 2, 3)] * 2
    latency = fit_latency(falling)
    assert latency.prefill.reason.startswith("impossible: b = -0.5 ± ")
    assert latency.decode.reason.startswith("impossible: m = -0.04 ± ")
    assert "measure prompts and answers that differ more" in latency.decode.reason


def test_stated_uncertainties_weigh():
    design = np.array([[1.0, x] for x in range(10)])
    y = np.array([2.0 + 3.0 * x for x in range(10)])
    y[9] += 50
    u = np.ones(10) * 0.1
    u[9] = 1e3
    found = linear.fit(("b", "k"), design, y, u)
    assert found.values == pytest.approx((2.0, 3.0), abs=1e-3)
    assert found.weights == "stated"
    assert found.errors[1] >= 0.1 / math.sqrt(float(((np.arange(9) - 4) ** 2).sum())) * 0.9, "no surer than stated"
    assert linear.fit(("b", "k"), design[:2], y[:2]) is None
    assert linear.fit(("b", "k"), np.ones((9, 2)), y[:9]) is None
    zeros = linear.fit(("b",), np.ones((4, 1)), np.array([0.0, 1.0, 0.0, 1.0]))
    assert (zeros.weights, zeros.residuals.relative_largest) == ("constant", 0.5)
    assert linear.fit(("b",), np.ones((4, 1)), np.ones(4)).residuals.r_squared is None


def metered(power, noise=0.0, seed=0, lengths=LENGTHS):
    """Requests of the 8B with the energy of a made machine: ``power(I, prefill_s, decode_s)`` J."""
    rng = np.random.default_rng(seed)
    seen = made(LLAMA["prefill"], LLAMA["decode"], lengths)
    return [replace(x, energy_j=power(x.n_in, x.prefill_s, x.decode_s) * (1 + noise * rng.normal())) for x in seen]


def known(form):
    return dict(zip(form.fit.names, form.fit.values, strict=True))


def test_edgereasonings_decode_power_is_found():
    def joules(i, prefill_s, decode_s):
        return 20.0 * prefill_s + rising_energy_j(27.8, 12.0, 3.0, decode_s)

    form = fit_energy(metered(joules, 0.002, 1), None)
    assert form.shape == "rising decode"
    assert form.tau_s == pytest.approx(3.0, rel=0.3)
    assert known(form)["p_decode"] == pytest.approx(27.8, rel=0.01)
    latency = fit_latency(made(LLAMA["prefill"], LLAMA["decode"]))
    first, rest = predict_prefill(latency.prefill, 512), predict_decode(latency.decode, 512, 1024)
    energy, power = predict_energy(form, 512, first, rest)
    true = joules(512, first.value, rest.value)
    assert energy.lo < true < energy.hi
    assert energy.value == pytest.approx(true, rel=0.01)
    assert power.value == pytest.approx(true / (first.value + rest.value), rel=0.01)


def test_edgereasonings_prefill_power_is_found():
    def joules(i, prefill_s, decode_s):
        return (5.7 + 9.3 * math.log(max(i, 512) / 512)) * prefill_s + 27.8 * decode_s

    lengths = [(i, o) for i in (128, 256, 512, 1024, 2048, 4096) for o in (1, 4, 16)]
    form = fit_energy(metered(joules, 0.002, lengths=lengths), None)
    assert form.shape == "growing prefill"
    assert form.threshold == 512
    assert known(form) == pytest.approx({"p_prefill": 5.7, "p_growth": 9.3, "p_decode": 27.8}, rel=0.03)


def test_the_simplest_form_that_does_is_taken():
    one = fit_energy(metered(lambda i, p, d: 10 * (p + d), 0.01), None)
    assert one.shape == "one power"
    two = fit_energy(metered(lambda i, p, d: 30 * p + 10 * d, 0.001), None)
    assert two.shape == "two powers"
    assert known(two) == pytest.approx({"p_prefill": 30, "p_decode": 10}, rel=0.01)
    alike = fit_energy(metered(lambda i, p, d: 30 * p + 10 * d, 0.01, lengths=[(512, 64)] * 5), None)
    assert alike.shape == "one power", "requests that are all alike tell no more"


def test_energy_predictions_cover_and_hold_the_gain():
    hits, trials = 0, 60
    latency = fit_latency(made(LLAMA["prefill"], LLAMA["decode"]))
    rng = np.random.default_rng(4)
    for seed in range(trials):
        form = fit_energy(metered(lambda i, p, d: 22 * p + 28 * d, 0.02, seed), None)
        i, o = int(rng.integers(64, 2048)), int(rng.integers(16, 1024))
        first, rest = predict_prefill(latency.prefill, i), predict_decode(latency.decode, i, o)
        energy, _ = predict_energy(form, i, first, rest)
        hits += energy.lo <= (22 * first.value + 28 * rest.value) * (1 + 0.02 * rng.normal()) <= energy.hi
    assert hits / trials >= 0.88  # 94 % of 500
    gained, power = predict_energy(replace(form, gain_u=0.05), i, first, rest)
    assert gained.hi - gained.value > 2 * 0.05 * gained.value
    assert power.hi - power.value > 2 * 0.05 * power.value


def test_stated_uncertainties_of_energies_are_used():
    seen = [replace(x, energy_u_j=0.1) for x in metered(lambda i, p, d: 22 * p + 28 * d)]
    assert fit_energy(seen, None).fit.weights == "stated"


def test_without_energies_there_is_a_reason():
    none = fit_energy(made(LLAMA["prefill"], LLAMA["decode"]), 0.05)
    assert none.reason == "too_few_energies: 2 requests with an energy are needed, there are 0"
    latency = fit_latency(made(LLAMA["prefill"], LLAMA["decode"]))
    first, rest = predict_prefill(latency.prefill, 512), predict_decode(latency.decode, 512, 64)
    assert [one.reason for one in predict_energy(none, 512, first, rest)] == [none.reason] * 2
    good = fit_energy(metered(lambda i, p, d: 22 * p + 28 * d), None)
    unknown = Prediction(None, reason="too_few_lengths: ...")
    assert [one.reason for one in predict_energy(good, 512, unknown, rest)] == [unknown.reason] * 2
    below = fit_energy(metered(lambda i, p, d: -5 * (p + d), 0.01), None)
    assert below.reason.startswith("not_positive: the fitted power is -")
    assert good.shape == "two powers"
    falling = PowerForm(replace(good.fit, values=(-1e6, 28.0)), "two powers")
    assert predict_energy(falling, 512, first, rest)[0].reason.startswith("not_positive: ")


def test_a_form_without_a_fit_is_only_a_reason():
    assert predict_prefill(Form(None, reason="why"), 5) == Prediction(None, reason="why")
