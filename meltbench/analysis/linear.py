"""Weighted linear least squares with what a prediction needs: covariance, residuals, scatter of a new observation."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.stats import t_quantile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.stats import Array

_RANK = 1e-9  # of a design whose columns have length 1: below it two columns say the same


@dataclass(frozen=True)
class Residuals:
    """How well a form fits what it was fitted to, in the unit of the observations, and relative to each."""

    rmse: float
    largest: float
    relative_rmse: float
    relative_largest: float
    r_squared: float | None


@dataclass(frozen=True)
class Linear:
    """A fit. ``covariance`` is of ``values``; ``scatter``: standard deviation of one more observation, in its unit, or
    where ``weights`` is ``relative`` a share of it. ``log_likelihood`` compares fits of the same observations."""

    names: tuple[str, ...]
    values: tuple[float, ...]
    covariance: tuple[tuple[float, ...], ...]
    weights: str
    scatter: float
    dof: int
    n: int
    residuals: Residuals
    log_likelihood: float

    @property
    def errors(self) -> tuple[float, ...]:
        """Standard errors of ``values``."""
        return tuple(math.sqrt(max(row[at], 0.0)) for at, row in enumerate(self.covariance))

    def at(self, row: Sequence[float]) -> tuple[float, float]:
        """The value at a row of the design, and half its 95 % prediction interval for one new observation."""
        x = np.asarray(row, dtype=float)
        value = float(x @ np.asarray(self.values))
        own = self.scatter * abs(value) if self.weights == "relative" else self.scatter
        spread = math.sqrt(max(float(x @ np.asarray(self.covariance) @ x), 0.0) + own**2)
        return value, t_quantile(self.dof) * spread


def fit(names: Sequence[str], design: Array, y: Array, u: Array | None = None, *, also: int = 0) -> Linear | None:
    """Least squares of ``y`` on the columns of ``design``; None where they cannot be told apart, or too few are there.

    ``u``: the standard uncertainty of each observation; then they are weighted by it, and the scatter is never taken
    for less than that. Without it the scatter is either the same for all or a share of each, whichever the residuals
    make more likely. ``also``: parameters beside the columns that were chosen by the same observations.
    """
    n, p = design.shape
    if n - p - also < 1 or not _full_rank(design):
        return None
    if u is not None:
        return _fitted(names, design, y, u, "stated", also)
    plain = _fitted(names, design, y, np.ones(n), "constant", also)
    if float(np.abs(y).min()) <= 0:
        return plain
    relative = _fitted(names, design, y, np.abs(y), "relative", also)
    return relative if relative.log_likelihood > plain.log_likelihood else plain


def _full_rank(design: Array) -> bool:
    lengths = np.linalg.norm(design, axis=0)
    if float(lengths.min()) == 0:
        return False
    return float(np.linalg.svd(design / lengths, compute_uv=False)[-1]) > _RANK


def _fitted(names: Sequence[str], design: Array, y: Array, sigma: Array, weights: str, also: int) -> Linear:
    n, p = design.shape
    lengths = np.linalg.norm(design / sigma[:, None], axis=0)
    scaled = design / sigma[:, None] / lengths
    values, *_ = np.linalg.lstsq(scaled, y / sigma, rcond=None)
    off = y / sigma - scaled @ values
    dof = n - p - also
    chi2 = float(off @ off)
    s2 = chi2 / dof if weights != "stated" else max(chi2 / dof, 1.0)
    covariance = s2 * np.linalg.pinv(scaled.T @ scaled) / np.outer(lengths, lengths)
    middle = float(np.median(sigma)) if weights == "stated" else 1.0
    # With the scale at its most likely value. Beyond nine digits no fit is better than another: that is rounding.
    floor = 1e-18 * float(((y / sigma) ** 2).mean()) + 1e-300
    likely = -n / 2 * math.log(max(chi2 / n, floor)) - float(np.log(sigma).sum())
    return Linear(
        tuple(names),
        tuple(float(v) for v in values / lengths),
        tuple(tuple(float(v) for v in row) for row in covariance),
        weights,
        math.sqrt(s2) * middle,
        dof,
        n,
        _residuals(y, y - design @ (values / lengths)),
        likely,
    )


def _residuals(y: Array, off: Array) -> Residuals:
    around = float(((y - y.mean()) ** 2).sum())
    share = off / np.where(y == 0, np.nan, np.abs(y))
    known = share[np.isfinite(share)]
    return Residuals(
        float(np.sqrt((off**2).mean())),
        float(np.abs(off).max()),
        float(np.sqrt((known**2).mean())) if known.size else 0.0,
        float(np.abs(known).max()) if known.size else 0.0,
        1 - float((off**2).sum()) / around if around > 0 else None,
    )
