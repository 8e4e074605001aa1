"""How long a prompt of I tokens and an answer of O take: EdgeReasoning's forms, fitted to requests.

From EdgeReasoning (arXiv 2511.01866; latency_model.py and analysis/fit_decode_latency.py of its repository,
edge-inference/edgereasoning):

    prefill  a I^2 + b I + c                  attention, everything a token, what is there anyway
    decode   O (n + m I + m (O - 1) / 2)      n a token, m for each token of the context that it attends to

The first token comes with the prefill, so here O counts the *steps* after it: n_out - 1 of a server, whose rate is
(n_out - 1) / (e2e - ttft); n_out of llama-bench. Theirs counts every token, which is one step more. They pad I to the
next multiple of 128 before they use the prefill's form; nothing is padded here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis import linear
from meltbench.analysis.stats import t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.linear import Linear

PREFILL_NAMES = ("a", "b", "c")
PREFILL_UNITS = ("s/token^2", "s/token", "s")
DECODE_NAMES = ("n", "m")
DECODE_UNITS = ("s/token", "s/token^2")
_SHOWN = 6
_ROUNDING = 1e-12


@dataclass(frozen=True)
class Observation:
    """One request. ``n_in``: tokens of the context that its answer began with; ``n_steps``: decode steps.

    ``prefill_s`` is None where not the whole context was evaluated; ``decode_s`` where there was no step. ``energy_j``
    is of both together, with the part of its u (k = 1) that is not the meter's gain; ``cached_first_s`` is the time to
    the first token of a prompt that was in the cache, which for the energy is one more step.
    """

    n_in: int
    n_steps: int
    prefill_s: float | None
    decode_s: float | None
    energy_j: float | None = None
    energy_u_j: float | None = None
    cached_first_s: float = 0.0
    run: str = ""


@dataclass(frozen=True)
class Prediction:
    """A number that was not measured, with its 95 % interval for one new request; None for ``reason``.

    ``beyond``: what of it lies outside of what the form was fitted to; empty where nothing does.
    """

    value: float | None
    lo: float | None = None
    hi: float | None = None
    beyond: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Form:
    """A fitted form and the lengths it was fitted to, lowest and highest; ``fit`` None for ``reason``."""

    fit: Linear | None
    n_in: tuple[int, int] = (0, 0)
    n_steps: tuple[int, int] = (0, 0)
    reason: str = ""


@dataclass(frozen=True)
class Latency:
    """Both forms, fitted to the same requests as far as each can use them."""

    prefill: Form
    decode: Form


def prefill_time_s(a: float, b: float, c: float, n_in: int) -> float:
    """EdgeReasoning's prefill time (s) of a prompt of ``n_in`` tokens."""
    return a * n_in**2 + b * n_in + c


def decode_time_s(n: float, m: float, n_in: int, n_steps: int) -> float:
    """EdgeReasoning's decode time (s) of ``n_steps`` tokens after a context of ``n_in``."""
    return n_steps * (n + m * n_in + m * (n_steps - 1) / 2)


def fit_latency(observations: Sequence[Observation]) -> Latency:
    """Both forms by least squares; a form that the requests cannot tell has its reason instead."""
    return Latency(_fit_prefill(observations), _fit_decode(observations))


def _fit_prefill(observations: Sequence[Observation]) -> Form:
    mine = [(one.n_in, one.prefill_s) for one in observations if one.prefill_s is not None and one.prefill_s > 0]
    lengths = sorted({n_in for n_in, _ in mine})
    if len(lengths) < 3:
        shown = f" ({', '.join(map(str, lengths))})" if lengths else ""
        return Form(None, reason=f"too_few_lengths: prompts of 3 lengths are needed, there are {len(lengths)}{shown}")
    if len(mine) < 4:
        return Form(None, reason=f"too_few_requests: 4 are needed for 3 parameters, there are {len(mine)}")
    n_in = np.array([float(i) for i, _ in mine])
    design = np.stack([n_in**2, n_in, np.ones_like(n_in)], axis=1)
    made = linear.fit(PREFILL_NAMES, design, np.array([s for _, s in mine]))
    if made is None:
        near = f"{lengths[0]} to {lengths[-1]} tokens"
        return Form(None, reason=f"degenerate: prompts of {near} are too alike for three parameters")
    return _possible(Form(made, (lengths[0], lengths[-1])), PREFILL_UNITS)


def _fit_decode(observations: Sequence[Observation]) -> Form:
    mine = [one for one in observations if one.decode_s is not None and one.decode_s > 0 and one.n_steps > 0]
    if len(mine) < 3:
        return Form(None, reason=f"too_few_requests: 3 are needed for 2 parameters, there are {len(mine)}")
    design = np.array([_decode_row(one.n_in, one.n_steps) for one in mine])
    made = linear.fit(DECODE_NAMES, design, np.array([one.decode_s for one in mine], dtype=float))
    if made is None:
        contexts = sorted({one.n_in + (one.n_steps - 1) / 2 for one in mine})
        said = ", ".join(f"{c:g}" for c in contexts[:_SHOWN])
        why = f"degenerate: the requests' mean contexts ({said} tokens) are too alike to tell what a longer one costs"
        return Form(None, reason=why)
    ins, steps = [one.n_in for one in mine], [one.n_steps for one in mine]
    return _possible(Form(made, (min(ins), max(ins)), (min(steps), max(steps))), DECODE_UNITS)


def _possible(form: Form, units: Sequence[str]) -> Form:
    """The form, unless a parameter is below zero for certain: nothing takes less time the more of it there is."""
    fit = form.fit
    assert fit is not None
    for name, value, error, unit in zip(fit.names, fit.values, fit.errors, units, strict=True):
        if value + t_quantile(fit.dof) * error < -_ROUNDING * max(abs(v) for v in fit.values):
            why = f"impossible: {name} = {value:.2g} ± {error:.2g} {unit}; measure prompts and answers that differ more"
            return Form(None, reason=why)
    return form


def _decode_row(n_in: int, n_steps: int) -> tuple[float, float]:
    return float(n_steps), n_steps * (n_in + (n_steps - 1) / 2)


def predict_prefill(form: Form, n_in: int) -> Prediction:
    """Time to the first token (s) of a prompt of ``n_in`` tokens."""
    if form.fit is None:
        return Prediction(None, reason=form.reason)
    value, half = form.fit.at((float(n_in) ** 2, float(n_in), 1.0))
    return _bounded(value, half, _outside("prompts", n_in, form.n_in))


def predict_decode(form: Form, n_in: int, n_steps: int) -> Prediction:
    """Time (s) of ``n_steps`` tokens after the first; of none it is 0."""
    if n_steps == 0:
        return Prediction(0.0, 0.0, 0.0)
    if form.fit is None:
        return Prediction(None, reason=form.reason)
    value, half = form.fit.at(_decode_row(n_in, n_steps))
    beyond = (_outside("contexts", n_in, form.n_in), _outside("answers", n_steps, form.n_steps))
    return _bounded(value, half, "; ".join(part for part in beyond if part))


def added(first: Prediction, second: Prediction) -> Prediction:
    """The sum of two predictions from forms that were fitted apart: half-widths add in quadrature."""
    if first.value is None or second.value is None:
        return Prediction(None, reason=first.reason or second.reason)
    assert first.hi is not None
    assert second.hi is not None
    half = math.hypot(first.hi - first.value, second.hi - second.value)
    beyond = "; ".join(dict.fromkeys(part for part in (first.beyond, second.beyond) if part))
    return _bounded(first.value + second.value, half, beyond)


def _bounded(value: float, half: float, beyond: str) -> Prediction:
    """A time with its interval: what cannot be told from zero is no prediction."""
    if value <= 0:
        return Prediction(None, reason=f"not_positive: the fitted form gives {value:.3g} s here")
    if half >= value:
        told = f"too_uncertain: {value:.3g} s ± {half:.2g} s" + (f"; {beyond}" if beyond else "")
        return Prediction(None, reason=told)
    return Prediction(value, value - half, value + half, beyond)


def _outside(what: str, asked: int, known: tuple[int, int]) -> str:
    lo, hi = known
    return "" if lo <= asked <= hi else f"{asked} tokens, fitted to {what} of {lo} to {hi}"
