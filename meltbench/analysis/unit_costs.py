"""What a token, a query or a second took in energy, over the runs of one cell: a ratio of sums, runs drawn whole."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.stats import Estimate, missing, ratio_of_sums, widened

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Spent:
    """What one run took: ``energy_j`` for ``amount`` of something.

    ``u``: relative standard uncertainty (k = 1) of the energy, most of which is the meter's gain and so the same in all
    runs of a device; None where nobody knows it.
    """

    energy_j: float
    amount: float
    u: float | None


def per_unit(spent: Sequence[Spent], reason: str = "no_energy: no run has one") -> Estimate:
    """Joules a unit, with a 95 % interval: how runs differ, and the meter at k = 2, in quadrature on the log.

    Of one run the interval is the meter's alone. Without a run there is none, for the ``reason``.
    """
    if not spent:
        return missing(reason)
    found = ratio_of_sums(np.array([(one.energy_j, one.amount) for one in spent], dtype=float), len(spent))
    known = [one.u for one in spent if one.u is not None]
    if found.value is None or found.value <= 0:
        return found
    if len(known) < len(spent):
        return found if len(spent) > 1 else replace(found, method="one run of a meter nobody knows")
    if found.lo is None:
        found = replace(found, lo=found.value, hi=found.value, method="one run: the meter alone")
    return widened(found, 2 * max(known))
