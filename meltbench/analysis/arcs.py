"""What the search for change points reckons, for many series at once: arcs, their errors, and who need not be searched.

Series lie one after another in one array, ``starts`` holding where each begins and, last, where all end.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from meltbench.analysis.stats import Array

    Places = npt.NDArray[np.intp]
    Mask = npt.NDArray[np.bool_]
    Numbers = Array | np.float64

SHORTEST = 4  # nights on either side of a change
_WINDOW = 7  # nights of the running median: outlasted by a change of SHORTEST nights, not by fewer
_CLIP = 3.75  # robust sigmas of what nights are off the running median, which are less than those of nights
_LEAST = 1e-9  # relative: what is less than this is rounding
_STIFFEST = 0.95  # AR(1) coefficient beyond which a series is nothing but drift
_AT_ONCE = 1 << 19  # differences of arcs held at a time
_ROUNDING = 1 + 1e-6  # sums in another order may come to as much else; who is so near is searched


def drawn_in(x: Array, starts: Places) -> Array:
    """Nights far off the running median drawn in towards it. Series are of 2 * SHORTEST nights or more."""
    half, n = _WINDOW // 2, np.diff(starts)
    windows = np.lib.stride_tricks.sliding_window_view(x, _WINDOW)
    centres = np.clip(np.arange(len(x)), np.repeat(starts[:-1] + half, n), np.repeat(starts[1:] - half - 1, n))
    middle = np.partition(windows, half, axis=1)[:, half][centres - half]
    off = x - middle
    of = np.repeat(np.arange(len(n)), n)
    sizes = np.abs(off)
    sizes = sizes[np.lexsort((sizes, of))]
    first, last = starts[:-1] + (n - 1) // 2, starts[:-1] + n // 2
    sigma = 1.4826 * ((sizes[first] + sizes[last]) / 2)
    # Of a coarse number over half of the nights may lie on the median: then nine tenths tell how they scatter.
    sigma = np.where(sigma > 0, sigma, sizes[starts[:-1] + (0.9 * n).astype(np.intp)] / 1.645)
    bound = np.repeat(_CLIP * sigma, n)
    return np.asarray(middle + np.clip(off, -bound, bound))


@lru_cache(maxsize=64)  # at most half a megabyte each
def _arcs(n: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Array]:
    """First night and end of every arc of n nights that leaves no part too short, and the weight of its difference."""
    first, end = np.triu_indices(n + 1, SHORTEST)
    keep = ((first == 0) | (first >= SHORTEST)) & ((end == n) | (n - end >= SHORTEST)) & (end - first < n)
    first, end = first[keep], end[keep]
    length = (end - first).astype(float)
    return first, end, np.sqrt(n / (length * (n - length)))


def best(x: Array) -> tuple[Places, Places, int]:
    """By row of x the first night and the end of the arc that differs most from the others; of how many it is best."""
    n = x.shape[1]
    first, end, weight = _arcs(n)
    found = np.empty(len(x), dtype=np.intp)
    step = max(_AT_ONCE // len(first), 1)
    for start in range(0, len(x), step):
        part = x[start : start + step]
        sums = np.zeros((len(part), n + 1))
        np.cumsum(part - np.add.reduce(part, axis=1, keepdims=True) / n, axis=1, out=sums[:, 1:])
        found[start : start + step] = np.argmax(np.abs(sums[:, end] - sums[:, first]) * weight, axis=1)
    return first[found], end[found], len(first)


def errors(squares: Array, lagged: Array, n: Array, k: Array, weight: Array) -> tuple[Array, Array]:
    """Standard error and degrees of freedom of a difference of two means of n nights, under AR(1).

    ``squares``: the sum of squares of the nights within their k parts; ``lagged``: that of products of neighbours;
    ``weight``: 1 / n + 1 / m for means of n and m nights. The coefficient comes out too small by (k + 3 phi) / n or so,
    and with a standard error of sqrt((1 - phi^2) / n), of which one is added: rather too wide than too narrow.
    """
    phi = np.divide(lagged, squares, out=np.zeros_like(squares), where=squares > 0)
    phi = phi + (k + 3 * np.maximum(phi, 0.0)) / n
    phi = phi + np.sqrt(np.maximum(1 - phi * phi, 0.0) / n)
    phi = np.minimum(np.maximum(phi, 0.0), _STIFFEST)
    longer = (1 + phi) / (1 - phi)  # the variance of a mean, against that of nights that know nothing of each other
    each = np.maximum(squares / (n - k), _LEAST**2) * longer
    return np.sqrt(each * weight), np.maximum((n - k) / np.sqrt(longer), 2.0)


def chance(difference: Numbers, se: Numbers, dof: Numbers, choices: Places | int) -> Numbers:
    """That chance alone makes a difference as large, being the best of so many choices (Bonferroni)."""
    from scipy.special import stdtr

    made: Numbers = np.minimum(1.0, choices * 2 * stdtr(dof, -np.abs(difference) / se))
    return made


def may_fall_apart(x: Array, starts: Places, level: float) -> Mask:
    """Which series the search would divide: all that it does, and hardly another.

    It is the search's own first step (``changes``): the best arc against the scatter within its parts, and where that
    does not hold against the scatter within their parts, at a thousandth of the level.
    """
    n = np.diff(starts)
    begins = np.zeros(len(x), dtype=bool)  # of a part
    begins[starts[:-1]] = True
    first, end, choices = _best_of(x, starts)
    begins[starts[:-1] + first] = True
    begins[(starts[:-1] + end)[end < n]] = True
    sums = np.append(0.0, np.cumsum(x - np.repeat(np.add.reduceat(x, starts[:-1]) / n, n)))
    inside = end - first
    weight = 1 / (n - inside) + 1 / inside
    difference = (sums[starts[:-1] + end] - sums[starts[:-1] + first]) * weight  # what is in an arc lacks in the rest
    near = chance(difference, *_errors_of(x, starts, begins, weight), choices) <= level * _ROUNDING
    parts = np.append(np.flatnonzero(begins), len(x))
    long = np.flatnonzero(np.diff(parts) >= 2 * SHORTEST)
    if len(long):
        lengths = np.diff(parts)[long]
        held = np.concatenate([x[a : a + n] for a, n in zip(parts[long], lengths, strict=True)])
        first, end, _ = _best_of(held, np.append(0, np.cumsum(lengths)))
        begins[parts[long] + first] = True
        begins[(parts[long] + end)[end < lengths]] = True
    deep = chance(difference, *_errors_of(x, starts, begins, weight), choices) <= level / 1000 * _ROUNDING
    return np.asarray(near | deep)


def _best_of(x: Array, starts: Places) -> tuple[Places, Places, Places]:
    """``best`` of series of any length, those of one length at once."""
    n = np.diff(starts)
    first, end, choices = np.empty_like(n), np.empty_like(n), np.empty_like(n)
    for length in np.unique(n):
        mine = np.flatnonzero(n == length)
        first[mine], end[mine], choices[mine] = best(x[starts[mine][:, None] + np.arange(length)])
    return first, end, choices


def _errors_of(x: Array, starts: Places, begins: Mask, weight: Array) -> tuple[Array, Array]:
    """``errors`` of each series, whose parts begin where it is said."""
    parts = np.flatnonzero(begins)
    lengths = np.diff(np.append(parts, len(x)))
    rest = x - np.repeat(np.add.reduceat(x, parts) / lengths, lengths)
    lagged = np.zeros(len(x))
    lagged[1:] = np.where(begins[1:], 0.0, rest[1:] * rest[:-1])
    squares, lagged, k = (np.add.reduceat(one, starts[:-1]) for one in (rest * rest, lagged, begins.astype(float)))
    return errors(squares, lagged, np.diff(starts), k, weight)


def together(series: Sequence[Array]) -> tuple[Array, Places]:
    """Series one after another, and where each begins."""
    return np.concatenate([np.empty(0), *series]), np.cumsum([0, *map(len, series)])
