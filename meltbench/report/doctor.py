"""An examination as lines and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meltbench.doctor import Finding
    from meltbench.targets.facts import Facts
    from meltbench.targets.inventory import Known
    from meltbench.targets.notes import Verdict


def exam_json(known: Known, facts: Facts | None, findings: list[Finding], verdict: Verdict) -> dict[str, Any]:
    """What `devices doctor --json` prints (docs/json.md)."""
    return {
        "name": known.name,
        "profile": known.profile_name,
        "target": known.place.kind,
        "address": known.place.address or None,
        "identity": None if facts is None else facts.identity,
        "board": None if facts is None else facts.board,
        "verdict": verdict,
        "findings": [asdict(one) for one in findings],
    }


def title(known: Known, facts: Facts | None) -> str:
    """Who is examined."""
    board = facts.board if facts is not None else None
    return f"{known.name}: {board or known.profile_name} at {known.place}"


def summary(findings: list[Finding]) -> str:
    """What came of it, in a line."""
    number = {word: sum(one.verdict == word for one in findings) for word in ("problem", "advice")}
    said = [
        f"{number['problem']} {'problem' if number['problem'] == 1 else 'problems'}" if number["problem"] else "",
        f"{number['advice']} {'piece' if number['advice'] == 1 else 'pieces'} of advice" if number["advice"] else "",
    ]
    return " and ".join(filter(None, said)) or "nothing to mend"
