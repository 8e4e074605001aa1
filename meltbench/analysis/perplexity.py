"""Perplexity of a text, and what it makes of power and energy, by the same paper as meltbench.analysis.intelligence:

    PPW = 1 / (E[ppl] E[P])      PPJ = 1 / (E[ppl] E[P tau])

so that more is better, as of IPW and IPJ. A query is a chunk of the text.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis import stats
from meltbench.analysis.intelligence import widened
from meltbench.analysis.stats import Estimate, missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.intelligence import Meter


@dataclass(frozen=True)
class Chunk:
    """A piece of text that was scored: the sum of its tokens' log-likelihoods (natural), and what that cost."""

    loglik: float
    n_tokens: int
    energy_j: float | None
    latency_s: float | None


@dataclass(frozen=True)
class TextIntelligence:
    """Perplexity, and what it makes of power and energy: ``ppw_per_w`` and ``ppj_per_j``, the more the better."""

    perplexity: Estimate
    ppw_per_w: Estimate
    ppj_per_j: Estimate
    scope: str
    klass: str | None


def text_intelligence(chunks: Sequence[Chunk], meter: Meter) -> TextIntelligence:
    """PPW and PPJ with a chunk as the query. Perplexity is exp of the mean negative log-likelihood over all tokens.

    The paper takes the mean of the queries' perplexities instead, which one bad query can rule; of chunks of equal
    length the difference is small, and ours is the number that llama-perplexity prints.
    """
    known = [one for one in chunks if one.n_tokens > 0]
    if not known:
        nothing = missing("no_items: nothing was scored")
        return TextIntelligence(nothing, nothing, nothing, meter.scope, meter.klass)
    columns = [[-one.loglik for one in known], [float(one.n_tokens) for one in known]]
    level = _exp_mean(stats.cluster_sums(columns))
    metered = [
        (one.energy_j, one.latency_s)
        for one in known
        if one.energy_j is not None and one.latency_s is not None and one.latency_s > 0
    ]
    if len(metered) < len(known):
        why = missing(f"no_energy: {len(known) - len(metered)} of {len(known)} chunks have none", len(known))
        return TextIntelligence(level, why, why, meter.scope, meter.klass)
    made: list[Estimate] = []
    for values in ([energy / s for energy, s in metered], [energy for energy, _ in metered]):
        sums = stats.cluster_sums([*columns, values, [1.0] * len(known)])
        made.append(widened(_per_cost(sums), 2 * (meter.gain_u or 0.0)))
    ppw, ppj = made
    return TextIntelligence(level, ppw, ppj, meter.scope, meter.klass)


def _exp_mean(sums: stats.Array) -> Estimate:
    """exp of a mean over tokens, its interval from chunks."""
    if len(sums) >= stats.FEW:
        return stats.bootstrap(sums, lambda s: np.exp(s[..., 0] / s[..., 1]))
    return _exp_few(sums, float(np.exp(sums[:, 0].sum() / sums[:, 1].sum())), sums[:, 2:])


def _per_cost(sums: stats.Array) -> Estimate:
    """1 / (perplexity x mean cost): columns are negative log-likelihood, tokens, cost, ones."""
    if len(sums) >= stats.FEW:
        return stats.bootstrap(sums, lambda s: np.exp(-s[..., 0] / s[..., 1]) * s[..., 3] / s[..., 2])
    nll, tokens, cost, n = sums.sum(axis=0)
    return _exp_few(sums, float(np.exp(-nll / tokens) * n / cost), sums[:, 2:])


def _exp_few(sums: stats.Array, value: float, cost: stats.Array) -> Estimate:
    """t on the log, linearised, of fewer than ten chunks; ``cost``: its column and ones, or no columns."""
    k = len(sums)
    if k == 1:
        return Estimate(value, n=1, clusters=1, method="one chunk")
    nll, tokens = sums[:, 0], sums[:, 1]
    share = (nll - tokens * (nll.sum() / tokens.sum())) / tokens.sum()
    if cost.size:
        share = share + cost[:, 0] / cost[:, 0].sum() - 1 / k
    se = math.sqrt(k / (k - 1) * float(share @ share))
    factor = math.exp(stats.t_quantile(k - 1) * se)
    return Estimate(value, value / factor, value * factor, value * se, k, k, "t on the log")
