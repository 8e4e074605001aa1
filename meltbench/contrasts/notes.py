"""What a comparison of selections left out, what its arms have unlike unasked, and why there is no comparison."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.contrasts.chosen import Arm
    from meltbench.contrasts.strata import Pairing

    Pairings = Mapping[tuple[str, str], Pairing]  # by workload and mode

OF_ENERGY = (
    *("j_per_output_token", "j_per_question", "j_per_request", "mean_power_w", "energy_j", "ipj_per_j", "ipw_per_w"),
)


def nothing(arms: Sequence[Arm], pairings: Pairings, wanted: Sequence[str]) -> UserError:
    """Why no figure of one arm can be held against one of the other."""
    if not pairings:
        asked = [" and ".join(sorted({f"{row.workload} ({row.mode})" for row in arm.rows})) for arm in arms]
        hint = "figures of two workloads or modes are never compared; measure the same in both"
        return UserError(f"A was asked {asked[0]}, B {asked[1]}", hint=hint)
    for found in pairings.values():
        for line, hint in found.refused.items():
            return UserError(line, hint=hint)
    if any(found.strata for found in pairings.values()):
        names = ", ".join(wanted[:3]) + (" ..." if len(wanted) > 3 else "")
        return UserError(f"A and B have no figure in common of {names}", hint="choose others with --measure")
    lines = [line for found in pairings.values() for line in found.left_out]
    return UserError(f"A and B have nothing alike: {'; '.join(lines[:2])}", hint="add words to both, or measure it")


def notes(
    arms: Sequence[Arm], pairings: Pairings, rows: Sequence[Mapping[str, Any]], wanted: Sequence[str]
) -> list[str]:
    """A line each."""
    out = []
    for arm, who in zip(arms, "AB", strict=True):
        if arm.left_out:
            told = " and ".join(f"{n} {why}" for why, n in arm.left_out.items())
            out.append(f"{who}: {told} run{'s' if sum(arm.left_out.values()) > 1 else ''} left out")
    only = _of_one_arm(arms)
    for found in pairings.values():
        only.update(found.left_out)
        out += [f"{line}; {hint}" for line, hint in found.refused.items()]
    out = list(dict.fromkeys(out))  # several workloads may be refused for the same reason
    out += [f"{n} run{'s' if n > 1 else ''} {line}: left out" for line, n in only.items()]
    out += _energies(arms, rows, {*wanted} & {*OF_ENERGY})
    first, second = (arm.started_at.values() for arm in arms)
    if max(first) < min(second) or max(second) < min(first):
        out.append("all runs of one arm came before those of the other: what drifted meanwhile counts as a difference")
    return out


def _of_one_arm(arms: Sequence[Arm]) -> Counter[str]:
    """Runs of workloads and modes that the other arm has not."""
    asked = [{(row.run_id, row.workload, row.mode) for row in arm.rows} for arm in arms]
    out: Counter[str] = Counter()
    for at, who in ((0, ("A", "B")), (1, ("B", "A"))):
        there = {(workload, mode) for _, workload, mode in asked[1 - at]}
        for _, workload, mode in sorted(asked[at]):
            if (workload, mode) not in there:
                out[f"of {who[0]}: {workload} ({mode}), which {who[1]} has not"] += 1
    return out


def _energies(arms: Sequence[Arm], rows: Sequence[Mapping[str, Any]], wanted: set[str]) -> list[str]:
    """Energies that do not cover the same, or why there are none."""
    pairs = {(row["first"]["scope"], row["second"]["scope"]) for row in rows if row["measure"] in wanted}
    if pairs:
        unlike = sorted(f"{first} and {second}" for first, second in pairs if first != second)
        return [
            f"energies of {told} stand side by side: they do not cover the same, or not as surely" for told in unlike
        ]
    without = [(who, a) for who, a in zip("AB", arms, strict=True) if not any(r.values.keys() & wanted for r in a.rows)]
    if not wanted or not without:
        return []
    reason = next((row.energy_reason for _, arm in without for row in arm.rows if row.energy_reason), "not_measured")
    return [f"no energy of {' and '.join(who for who, _ in without)}: {reason}"]
