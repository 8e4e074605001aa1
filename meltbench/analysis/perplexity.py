"""Perplexity of a text, and what it makes of power and energy, by the same paper as meltbench.analysis.intelligence:

    PPW = 1 / (E[ppl] E[P])      PPJ = 1 / (E[ppl] E[P tau])

so that more is better, as of IPW and IPJ. A query is a chunk of the text. Perplexity is exp of the mean negative
log-likelihood over all tokens, as llama-perplexity prints it. The paper takes the mean of the queries' perplexities
instead, which one bad query can rule; of chunks of equal length the difference is small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis import stats
from meltbench.analysis.intelligence import NOT_POSITIVE, Cost, Query, costs_of, flags_of
from meltbench.analysis.stats import Estimate, missing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.intelligence import Meter


@dataclass(frozen=True)
class Chunk:
    """A piece of text that was scored: the sum of its tokens' natural log-likelihoods, None where it has none, how many
    those were, and what it cost as a query."""

    query: Query
    loglik: float | None
    n_tokens: int


@dataclass(frozen=True)
class TextIntelligence:
    """Perplexity, and its inverse per watt and per joule, gross and net. ``flags`` as of Intelligence."""

    perplexity: Estimate
    gross: Cost
    net: Cost
    scope: str
    klass: str | None
    n_queries: int
    n_items: int
    flags: tuple[str, ...]


def text_intelligence(chunks: Sequence[Chunk], meter: Meter) -> TextIntelligence:
    """Perplexity, PPW and PPJ; a chunk without a score is left out, one without an energy leaves no PPW and PPJ."""
    known = [(one.query, -one.loglik, one.n_tokens) for one in chunks if one.loglik is not None and one.n_tokens > 0]
    queries, items = [query for query, _, _ in known], [query.item for query, _, _ in known]
    of_text = [[nll for _, nll, _ in known], [float(n) for _, _, n in known]]

    def ratio(values: Sequence[float], mean: Estimate) -> Estimate:
        if mean.value is None or mean.value <= 0 or (mean.lo is not None and mean.lo <= 0):
            return missing(NOT_POSITIVE, len(values))
        return _inverse(stats.cluster_sums([*of_text, values, [1.0] * len(values)], items))

    gross, net = costs_of(queries, meter, ratio)
    return TextIntelligence(
        _perplexity(stats.cluster_sums(of_text, items)),
        gross,
        net,
        meter.scope,
        meter.klass,
        len(queries),
        len(set(items)),
        tuple(flags_of([one.query for one in chunks], queries, meter)),
    )


def _perplexity(sums: stats.Array) -> Estimate:
    """exp of a mean over tokens, its interval from chunks."""
    if not len(sums):
        return missing("no_items: nothing was scored")
    if len(sums) >= stats.FEW:
        return stats.bootstrap(sums, lambda s: np.exp(s[..., 0] / s[..., 1]))
    nll, tokens = sums[:, 0], sums[:, 1]
    return _few(float(np.exp(nll.sum() / tokens.sum())), _shares(nll, tokens))


def _inverse(sums: stats.Array) -> Estimate:
    """1 / (perplexity x mean cost): columns are negative log-likelihood, tokens, cost, how many."""
    if len(sums) >= stats.FEW:
        return stats.bootstrap(sums, lambda s: np.exp(-s[..., 0] / s[..., 1]) * s[..., 3] / s[..., 2])
    nll, tokens, cost, n = sums.T
    value = float(np.exp(-nll.sum() / tokens.sum()) * n.sum() / cost.sum())
    return _few(value, _shares(nll, tokens) + cost / cost.sum() - n / n.sum())


def _shares(nll: stats.Array, tokens: stats.Array) -> stats.Array:
    """What each chunk adds to the log of the perplexity, beyond its share of the tokens."""
    made: stats.Array = (nll - tokens * (nll.sum() / tokens.sum())) / tokens.sum()
    return made


def _few(value: float, shares: stats.Array) -> Estimate:
    """t on the log, linearised, for fewer than ten chunks."""
    k = len(shares)
    if k == 1:
        return Estimate(value, n=1, clusters=1, method="one chunk")
    se = math.sqrt(k / (k - 1) * float(shares @ shares))
    factor = math.exp(min(stats.t_quantile(k - 1) * se, 300))  # of chunks that a broken model makes nothing of
    return Estimate(value, value / factor, value * factor, value * se, k, k, "t on the log")
