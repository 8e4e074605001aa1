"""What ails a device, and how to mend it: findings made of what an examination saw. Pure.

What holds for one board stands in its profile ([advice]); what holds for any, in the modules here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.doctor import contact, heat, machine, power
from meltbench.doctor.exam import CASES, Exam, Finding, Look

if TYPE_CHECKING:
    from meltbench.targets.notes import Verdict

__all__ = ["CASES", "Exam", "Finding", "Look", "diagnose", "worst"]


def diagnose(exam: Exam) -> list[Finding]:
    """Every finding, in the order in which a person would look: can it be reached, measured, trusted."""
    found = contact.findings(exam)
    if exam.facts is None or exam.wrong_board:
        return found
    return [*found, *machine.findings(exam), *heat.findings(exam), *power.findings(exam)]


def worst(findings: list[Finding]) -> Verdict:
    """``problem`` where something would spoil runs, ``advice`` where something could be better, else ``ok``."""
    said = {one.verdict for one in findings}
    return "problem" if "problem" in said else "advice" if "advice" in said else "ok"
