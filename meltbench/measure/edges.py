"""How unsure the edges of a window are, from the samples around each: standard uncertainties (k = 1) in joules.

Each is what a bound of a displacement does, taken as equally likely all over its range. Two kinds are told apart, for
they add up differently: what interpolation and trailing means do has one sign at both edges of a pulse, so it adds;
when exactly a register was read is by chance.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from meltbench.measure.digest import Digest

STEADY_SHARE = 0.99  # of readings that are new; polling at 97 ms a register of 100 ms repeats 3 % of its values
SQRT3 = math.sqrt(3)  # a bound over it is the standard deviation of what is equally likely within the bound


class Edge(NamedTuple):
    """Joules at one edge: ``smeared`` with the sign of the step there, ``scattered`` by chance."""

    smeared: float
    scattered: float


def both(one: Edge, other: Edge) -> float:
    """What the two edges of a window come to."""
    return math.hypot(one.smeared + other.smeared, one.scattered, other.scattered)


def between(signal: Digest, edge: int) -> int:
    """k so that the edge lies between kept rows k-1 and k, which were neighbours. There are two or more."""
    t = signal.kept["t"]
    k = min(max(int(t.searchsorted(edge, "right")), 1), len(t) - 1)
    signal.check_neighbours(k)
    return k


def at(signal: Digest, name: str, t_ns: int) -> float:
    """A sum of the rows at a moment between two of them, as if it rose evenly."""
    t, column = signal.kept["t"], signal.kept[name]
    k = between(signal, t_ns)
    low, high = float(column[k - 1]), float(column[k])
    return low + (high - low) * (int(t_ns - t[k - 1]) / int(t[k] - t[k - 1]))


def area(gauge: Digest, t_ns: int) -> float:
    """Energy (J) of the polyline through the samples from the first to a moment between two of them.

    Equal values in a row count as they stand, or constant power would be 0 J.
    """
    t, v = gauge.kept["t"], gauge.kept["v"]
    k = between(gauge, t_ns)
    step_s, power = float(t_ns - t[k - 1]) / 1e9, (float(v[k - 1]) + at(gauge, "v", t_ns)) / 2
    return float(gauge.kept["area"][k - 1]) + step_s * power


def counter_edge(counter: Digest, edge: int) -> Edge:
    """One edge of a counter's window, from the mean powers of the intervals beside the one that the edge lies in.

    Interpolated: a step of power somewhere in the interval displaces the edge by up to share (1 - share) of it, one
    anywhere in it by 1 / sqrt(3) of that (root mean square). What an interval has more or less than both beside it is a
    pulse, which may lie on either side of the edge. Stamps that scatter cost energy at constant power too, for they
    stretch the window: P x width / sqrt(12).
    """
    t, v = counter.kept["t"], counter.kept["v"]
    k = between(counter, edge)
    span = (t[k] - t[k - 1]) / 1e9
    share = (edge - t[k - 1]) / 1e9 / span
    power = np.diff(v[max(k - 2, 0) : k + 2]) / (np.diff(t[max(k - 2, 0) : k + 2]) / 1e9)
    step, width = float(power.max() - power.min()), _width_s(counter, k) + counter.head.update_s
    beside = np.delete(power, min(k - 1, 1))
    own = float((v[k] - v[k - 1]) / span)
    pulse = max(own - float(beside.max()), float(beside.min()) - own, 0.0) if len(beside) else 0.0
    even = share * (1 - share)
    return Edge(
        span * (even * step / SQRT3 + math.sqrt(even) * pulse),
        width * math.hypot(step / SQRT3, float(power.max()) / math.sqrt(12)),
    )


def gauge_edge(gauge: Digest, edge: int, *, end: bool) -> Edge:
    """One edge of a gauge's window.

    Interpolated: with a part x of the interval inside the window, a step of power anywhere in the interval is off by
    sqrt(x^3 / 3 - x^4 / 4) of the interval (root mean square), and one right at the edge by x^2 / 2, which is less
    than twice that.
    """
    t, v = gauge.kept["t"], gauge.kept["v"]
    k = between(gauge, edge)
    span = (t[k] - t[k - 1]) / 1e9
    share = (edge - t[k - 1]) / 1e9 / span
    x = share if end else 1 - share
    step = abs(float(v[k] - v[k - 1]))
    smeared = span * step * math.sqrt(max(x**3 / 3 - x**4 / 4, 0.0)) + _leaked(gauge, edge)
    return Edge(smeared, _width_s(gauge, k) * step / SQRT3)


def _leaked(gauge: Digest, edge: int) -> float:
    """What a trailing mean carries across an edge (J), 0 for power of now.

    Half its window before the edge it knows nothing of what is behind. If the power stood still until the edge, all
    that rises above that value came from behind it; if it stood still from the edge on, all that lacks afterwards went
    before it. A single step at the edge is both, an eighth of the window times its height. Phases begin with steps, so
    what leaks is near this bound oftener than near 0: over sqrt(2), as of a U-shaped distribution.
    """
    if not (window_s := gauge.head.window_s):
        return 0.0
    t, half = gauge.kept["t"], round(window_s / 2 * 1e9)
    before, after = max(edge - half, int(t[0])), min(edge + half, int(t[-1]))
    middle = area(gauge, edge)
    ahead = middle - area(gauge, before) - (edge - before) / 1e9 * at(gauge, "v", before)
    behind = (after - edge) / 1e9 * at(gauge, "v", after) - (area(gauge, after) - middle)
    return max(abs(ahead), abs(behind)) / math.sqrt(2)


def _width_s(signal: Digest, k: int) -> float:
    """Seconds in which the updates on both sides of an interval really happened.

    Repeated values: the register is slower than, or as slow as, the readings, and a change is up to one of them old.
    """
    kept, slow = signal.kept, signal.updates < STEADY_SHARE * (signal.readings - 1)
    return max(float(kept["stamp_s"][i] + (kept["since_s"][i] if slow else 0.0)) for i in (k - 1, k))
