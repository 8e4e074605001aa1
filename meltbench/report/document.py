"""A run as the JSON that ``--json`` prints; docs/json.md has every key of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meltbench.records import RunRecord


def as_json(record: RunRecord, where: str) -> dict[str, Any]:
    """A run as ``--json`` prints it: its manifest, every measure, every reason, every request."""
    requests = [asdict(request) for request in record.requests]
    for request in requests:
        del request["token_t_ns"], request["token_n"]  # they are in tokens.parquet, by the thousand
        del request["logprob"]  # of one token; what they come to is a score
    return {
        "run_id": record.run_id,
        "stored": where,
        "imported": None,
        **record.manifest,
        "measures": [asdict(measure) for measure in record.measures],
        "reasons": [asdict(reason) for reason in record.reasons],
        "phases": [asdict(phase) for phase in record.phases if phase.request is None],
        "regimes": [asdict(regime) for regime in record.regimes],
        "sources": [asdict(source) for source in record.sources],
        "requests": requests,
        "scores": [asdict(score) for score in record.scores],
    }
