"""Where the level of a row of numbers changes, with a known rate of false alarms.

For every place k the ranks before it are held against those after it: |sum of centred ranks| / sqrt(k (n - k)), which
has one spread for all k when the numbers have no order. The largest over k is held against the same of permuted
numbers (Monte-Carlo permutation test, Dwass 1957), so the test is exact for any distribution of numbers whose order
means nothing: of rows without a break a share of ``FALSE_ALARMS`` is said to have one. Numbers that remember those
before them give more. Ranks make single odd numbers harmless. Further breaks are looked for on both sides of one found
(binary segmentation, Scott and Knott 1974).
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

FALSE_ALARMS = 0.01
LEAST = 5  # numbers on either side of a break: of fewer no level is known
_PERMUTATIONS = 999
_LONGEST = 512  # a longer row is condensed: neighbours are taken together
_MAX_BREAKS = 64


def breaks(values: Floats) -> list[int]:
    """The places at which a new level begins, in order; empty for a row of one level, or too short for a test."""
    width = -(-len(values) // _LONGEST) if len(values) else 1
    if width > 1:
        whole = values[: len(values) // width * width].reshape(-1, width).mean(axis=1)
        return [place * width for place in breaks(whole)]
    found: list[int] = []
    waiting = [(0, len(values))]
    while waiting and len(found) < _MAX_BREAKS:
        start, end = waiting.pop()
        place = _break(values[start:end])
        if place is not None:
            found.append(start + place)
            waiting += [(start, start + place), (start + place, end)]
    return sorted(found)


def levels(values: Floats) -> list[tuple[int, int, float]]:
    """The row cut at its breaks: first and behind the last place of each part, and its median."""
    edges = [0, *breaks(values), len(values)]
    return [(a, b, float(np.median(values[a:b]))) for a, b in pairwise(edges) if b > a]


def _break(values: Floats) -> int | None:
    n = len(values)
    if n < 2 * LEAST:
        return None
    order = np.sort(values)
    ranks = (np.searchsorted(order, values, "left") + np.searchsorted(order, values, "right")) / 2.0
    ranks -= ranks.mean()
    before = np.arange(LEAST, n - LEAST + 1)
    spread = np.sqrt(before * (n - before))

    def largest(rows: Floats) -> Floats:
        statistic: Floats = np.abs(np.cumsum(rows, axis=-1)[..., before - 1]) / spread
        return statistic

    own = largest(ranks)
    # A fixed seed: a run that is measured again gives the same numbers.
    others = np.random.default_rng(n).permuted(np.tile(ranks, (_PERMUTATIONS, 1)), axis=1)
    # Rounding differs with the order of a sum, and rows of many ties reach the same value often.
    beaten = int((largest(others).max(axis=1) >= own.max() - 1e-9).sum())
    if (1 + beaten) / (1 + _PERMUTATIONS) > FALSE_ALARMS:
        return None
    return int(before[int(own.argmax())])
