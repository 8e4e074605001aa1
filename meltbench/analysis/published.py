"""Whether a printed row agrees with its own definition: IPW = accuracy / power, IPJ = accuracy / (power x latency)."""

from __future__ import annotations

from dataclasses import dataclass

TOLERANCE = 0.05  # relative; printed numbers have two or three digits


@dataclass(frozen=True)
class Row:
    """What a table prints of one system, in SI units and shares; None for what it does not print."""

    accuracy: float
    power_w: float | None = None
    latency_s: float | None = None
    energy_j: float | None = None
    ipw_per_w: float | None = None
    ipj_per_j: float | None = None


@dataclass(frozen=True)
class Checked:
    """By definition over printed, 1 where they agree, None where a part is not printed.

    ``inconsistent`` has a sentence for each that differs by more than the tolerance. ``implied_power_w`` is accuracy
    over the printed IPW: what the power must have been for IPW to be right.
    """

    ipw_ratio: float | None
    ipj_ratio: float | None
    energy_ratio: float | None
    implied_power_w: float | None
    inconsistent: tuple[str, ...]


def check(row: Row, tolerance: float = TOLERANCE) -> Checked:
    """Recompute what a row prints. Its joules are the printed ones where there are any, else power times latency."""
    made_j = None if row.power_w is None or row.latency_s is None else row.power_w * row.latency_s
    joules = made_j if row.energy_j is None else row.energy_j
    ipw = _over(_over(row.accuracy, row.power_w), row.ipw_per_w)
    ipj = _over(_over(row.accuracy, joules), row.ipj_per_j)
    energy = _over(made_j, row.energy_j)
    named = (
        ("IPW", "accuracy / power", ipw),
        ("IPJ", "accuracy / energy", ipj),
        ("energy", "power x latency", energy),
    )
    wrong = tuple(
        f"printed {what} is not {definition}: that is {ratio:.2f} times as much"
        for what, definition, ratio in named
        if ratio is not None and abs(ratio - 1) > tolerance
    )
    return Checked(ipw, ipj, energy, _over(row.accuracy, row.ipw_per_w), wrong)


def _over(above: float | None, below: float | None) -> float | None:
    return None if above is None or not below else above / below
