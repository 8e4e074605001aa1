"""What a question costs in energy, by EdgeReasoning's forms of power, fitted to the energies of whole requests.

From EdgeReasoning (power_model.py and config/analytic.yaml of edge-inference/edgereasoning):

    prefill  P = P_p up to a length, above it growing with ln I
    decode   P(t) = P_d - dP exp(-t / tau), so E = P_d T - dP tau (1 - exp(-T / tau))

Theirs are fitted to samples of power at 1 Hz, which show the idle device in every prefill under 0.8 s: below 65 tokens
they take a ln O + b for the decode's power, and a step at 800 tokens for the prefill's. An energy has no such gaps, so
here both forms are fitted at once to the energies of requests, E = P_p(I) T_prefill + E_decode(T_decode), the
prefill's being continuous: P_p + g ln(I / I0) above I0. The simplest form is taken that the requests do not
speak against; often that is one power, for requests that are all alike cannot tell more.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis import linear
from meltbench.analysis.edgereasoning import Prediction

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.edgereasoning import Observation
    from meltbench.analysis.linear import Linear
    from meltbench.analysis.stats import Array

_TAUS = 24
_THRESHOLDS = 12
_STRONG = 6.0  # Kass and Raftery (1995): from here on evidence is strong


@dataclass(frozen=True)
class PowerForm:
    """The form that was taken. ``threshold``: I0, tokens; ``tau_s``; each None where the form has no such part.

    ``shape``: one power, two powers, and with them growing prefill, rising decode. ``gain_u``: relative standard
    uncertainty of the meter's gain, None where nobody knows it. ``lacks``: prefill or decode where no request with an
    energy had one. ``fit`` None for ``reason``.
    """

    fit: Linear | None
    shape: str = ""
    threshold: float | None = None
    tau_s: float | None = None
    gain_u: float | None = None
    lacks: str = ""
    reason: str = ""


def rising_energy_j(p_end_w: float, delta_w: float, tau_s: float, seconds: float) -> float:
    """EdgeReasoning's decode energy: power that rises from ``p_end_w - delta_w`` to ``p_end_w``."""
    return p_end_w * seconds - delta_w * tau_s * (1 - math.exp(-seconds / tau_s))


def fit_energy(observations: Sequence[Observation], gain_u: float | None) -> PowerForm:
    """The simplest form that the requests do not speak against; a request without an energy is left out."""
    mine = [one for one in observations if one.energy_j is not None and _seconds(one) > 0]
    if len(mine) < 2:
        return PowerForm(None, reason=f"too_few_energies: 2 requests with an energy are needed, there are {len(mine)}")
    best = _chosen(mine)
    if best is None or best.fit is None:
        return PowerForm(None, reason="degenerate: the requests with an energy cannot tell a power")
    powers = [v for name, v in zip(best.fit.names, best.fit.values, strict=True) if name in ("p", "p_decode")]
    if min(powers) <= 0:
        return PowerForm(None, reason=f"not_positive: the fitted power is {min(powers):.3g} W")
    lacks = "" if any(one.prefill_s for one in mine) else "prefill"
    lacks = lacks if any(_decode_s(one) for one in mine) else "decode"
    return PowerForm(best.fit, best.shape, best.threshold, best.tau_s, gain_u, lacks)


def predict_energy(
    form: PowerForm, n_in: int, prefill: Prediction, decode: Prediction
) -> tuple[Prediction, Prediction]:
    """Energy (J) of a question and its mean power (W), from the times predicted for it.

    The energy's interval holds its own fit, the times' intervals and the gain (k = 2); the power's is without the
    times', on which it depends little.
    """
    if form.fit is None:
        return (Prediction(None, reason=form.reason),) * 2
    if prefill.value is None or decode.value is None or prefill.hi is None or decode.hi is None:
        return (Prediction(None, reason=prefill.reason or decode.reason),) * 2
    seconds = prefill.value + decode.value
    if (decode.value if form.lacks == "decode" else prefill.value if form.lacks == "prefill" else 0.0) > 0:
        return (Prediction(None, reason=f"no_{form.lacks}_energy: no request with an energy had a {form.lacks}"),) * 2
    value, half = form.fit.at(_row(form, n_in, prefill.value, decode.value))
    if value <= 0:
        return (Prediction(None, reason=f"not_positive: the fitted form gives {value:.3g} J here"),) * 2
    beyond = "; ".join(dict.fromkeys(part for part in (prefill.beyond, decode.beyond) if part))
    own = math.hypot(half, 2 * (form.gain_u or 0.0) * value)
    watts = value / seconds
    of_time = math.hypot((prefill.hi - prefill.value) * watts, (decode.hi - decode.value) * watts)
    whole = math.hypot(own, of_time)
    energy = Prediction(value, max(value - whole, 0.0), value + whole, beyond)
    return energy, Prediction(watts, max(watts - own / seconds, 0.0), watts + own / seconds, beyond)


def _seconds(one: Observation) -> float:
    return (one.prefill_s or 0.0) + _decode_s(one)


def _decode_s(one: Observation) -> float:
    return (one.decode_s or 0.0) + one.cached_first_s


def _chosen(mine: Sequence[Observation]) -> PowerForm | None:
    """The forms in order of their parameters: a later one is taken where its BIC is lower by more than ``_STRONG``."""
    lengths = sorted({one.n_in for one in mine if one.prefill_s})
    thresholds = [float(i) for i in lengths[:-1][:: len(lengths) // _THRESHOLDS + 1]]
    times = sorted({_decode_s(one) for one in mine} - {0.0})
    taus = np.geomspace(times[0] / 10, times[-1], _TAUS).tolist() if len(times) > 1 else []
    growing = _best(mine, "growing prefill", [(i, None) for i in thresholds])
    both = [] if growing is None else [(growing.threshold, tau) for tau in taus]
    chosen = _best(mine, "one power", [(None, None)])
    for form in (
        _best(mine, "two powers", [(None, None)]),
        growing,
        _best(mine, "rising decode", [(None, tau) for tau in taus]),
        _best(mine, "growing prefill, rising decode", both),
    ):
        if form is not None and (chosen is None or _bic(form) < _bic(chosen) - _STRONG):
            chosen = form
    return chosen


def _best(
    mine: Sequence[Observation], shape: str, places: Sequence[tuple[float | None, float | None]]
) -> PowerForm | None:
    """Of a shape the most likely with its threshold and time constant at one of these."""
    forms = [form for threshold, tau_s in places if (form := _fit(mine, shape, threshold, tau_s)) is not None]
    return min(forms, key=_bic, default=None)


def _fit(mine: Sequence[Observation], shape: str, threshold: float | None, tau_s: float | None) -> PowerForm | None:
    blank = PowerForm(None, shape, threshold, tau_s)
    rows = np.array([_row(blank, one.n_in, one.prefill_s or 0.0, _decode_s(one)) for one in mine])
    y = np.array([one.energy_j for one in mine], dtype=float)
    known = [one.energy_u_j for one in mine if one.energy_u_j]
    u: Array | None = np.array(known, dtype=float) if len(known) == len(mine) else None
    also = (threshold is not None) + (tau_s is not None)
    made = linear.fit(_names(blank), rows, y, u, also=also)
    return None if made is None else PowerForm(made, shape, threshold, tau_s)


def _names(form: PowerForm) -> tuple[str, ...]:
    if form.shape == "one power":
        return ("p",)
    grown = ("p_growth",) * (form.threshold is not None)
    return ("p_prefill", *grown, "p_decode", *("delta_p",) * (form.tau_s is not None))


def _row(form: PowerForm, n_in: int, prefill_s: float, decode_s: float) -> list[float]:
    """What each parameter of the form is multiplied with."""
    if form.shape == "one power":
        return [prefill_s + decode_s]
    row = [prefill_s]
    if form.threshold is not None:
        row.append(prefill_s * math.log(max(n_in, form.threshold) / form.threshold))
    row.append(decode_s)
    if form.tau_s is not None:
        row.append(-form.tau_s * (1 - math.exp(-decode_s / form.tau_s)))
    return row


def _bic(form: PowerForm) -> float:
    """Schwarz's criterion (1978); the scatter is a parameter too."""
    assert form.fit is not None
    return (form.fit.n - form.fit.dof + 1) * math.log(form.fit.n) - 2 * form.fit.log_likelihood
