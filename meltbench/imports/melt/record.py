"""A conversation of MELT's as a run of ours: what is known of it, and null for what MELT did not write down."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import meltbench
from meltbench.imports.melt.ours import KIND, MODE
from meltbench.records import RunRecord
from meltbench.spec import digest

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.imports.foreign import File
    from meltbench.imports.melt.account import Told
    from meltbench.imports.melt.study import Study

# Of an experiment's settings those of an engine or a workload, under our names (experiments/utils/args_utils.py).
_KNOBS = {
    "max_context_size": "ctx",
    "input_token_batching": "batch",
    "n_threads": "threads",
    "max_gen_len": "max_tokens",
    "prefill_chunk_size": "prefill_chunk_size",
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "repeat_penalty": "repeat_penalty",
    "brightness": "brightness",
}


def run_id(told: Told, evidence: Sequence[File]) -> str | None:
    """The id of the run: its start by the clock that its files have, and six digits of what they hold, so that the same
    files are the same run. None where nothing says when it was."""
    start_ns = _edges(told)[0]
    if start_ns is None:
        return None
    held = hashlib.sha256()
    for file in sorted(evidence, key=lambda one: one.name):
        held.update(hashlib.sha256(file.raw).digest())
    held.update(f"{told.conversation.iteration}/{told.conversation.number}".encode())
    return f"{datetime.fromtimestamp(start_ns // 10**9, UTC):%Y%m%dT%H%M%SZ}-{held.hexdigest()[:6]}"


def ticket(study: Study, told: Told, evidence: Sequence[File], left_out: Mapping[str, str]) -> dict[str, Any]:
    """What the run is, and which files it was made of. ``left_out``: those that are not kept, and why."""
    return _identity(study, told) | _imported(told, evidence, left_out)


def _imported(told: Told, evidence: Sequence[File], left_out: Mapping[str, str]) -> dict[str, Any]:
    return {
        "imported": {
            "from": "MELT",
            "iteration": told.conversation.iteration,
            "conversation": told.conversation.number,
            "files": {file.name: hashlib.sha256(file.raw).hexdigest() for file in evidence},
            "not_kept": dict(left_out),
            "clock": told.ours.tie.how or told.ours.tie.why,
            "notes": list(told.conversation.notes),
        }
    }


def record(study: Study, told: Told, name: str, evidence: Sequence[File], left_out: Mapping[str, str]) -> RunRecord:
    """The run as the store keeps it; evidence as of ``ticket``."""
    return RunRecord(
        run_id=name,
        manifest=ticket(study, told, evidence, left_out) | {"run_id": name, "validity": told.ours.validity},
        series=told.ours.series,
        sources=told.ours.sources,
        phases=told.ours.phases,
        requests=told.ours.requests,
        measures=told.ours.measures,
        reasons=told.ours.reasons,
    )


def _identity(study: Study, told: Told) -> dict[str, Any]:
    conversation, settings = told.conversation, study.configuration
    start_ns, end_ns = _edges(told)
    device = _word(settings.get("device")) or "unknown"
    model = conversation.model or _word(settings.get("model")) or "unknown"
    app = _word(settings.get("app"))
    knobs = {ours: value for key, ours in _KNOBS.items() if isinstance(value := settings.get(key), int | float | str)}
    return {
        "plan_hash": None,
        "cell_key": digest(["imported", "MELT", device, app, model, conversation.engine, conversation.number, knobs]),
        "started_at": _iso(start_ns),
        "ended_at": _iso(end_ns),
        "rep": conversation.iteration,
        "round": 0,
        "spec": None,
        "knobs": knobs,
        "device": {
            "name": device,
            "profile": None,
            "identity": None,
            "board": None,
            "sha256": None,
            "target": "log",
            "address": "",
            "adb_port": None,
            "checked": "unverified",
            "workdir": None,
        },
        "calibrations": {},
        "model": {
            "name": model,
            **dict.fromkeys(("file", "sha256", "bytes", "n_params", "bits_per_weight", "architecture")),
            **dict.fromkeys(("quantisation", "descends_from")),
        },
        "runner": {
            "name": f"melt {app}".strip(),
            "engine": conversation.engine,
            "version": "unknown",
            "sha256": None,
            "protocol": "melt",
            "mode": MODE,
            "url": None,
            "relayed": False,
            "unseen": "",
            "unloaded": "",
            "accelerator": "unknown",
        },
        "workload": {
            "name": f"melt-conversation-{conversation.number}",
            "sha256": None,
            "title": f"conversation {conversation.number} of a run of MELT",
            "version": 1,
            "kind": KIND,
            "items": None,
        },
        "outcome": "done",
        "failure": None,
        "failure_log": None,
        "versions": {"meltbench": meltbench.__version__, "probe": None, "protocol": None},
        "conditions": None,
    }


def _edges(told: Told) -> tuple[int | None, int | None]:
    """Start and end of what the run's files tell, ns since 1970."""
    spans = [(one.t0_ns, one.t1_ns) for one in told.ours.phases]
    if not spans and told.conversation.load_window_s is not None:
        start, duration = told.conversation.load_window_s
        spans = [(round(start * 1e9), round((start + duration) * 1e9))]
    return (min(a for a, _ in spans), max(b for _, b in spans)) if spans else (None, None)


def _iso(ns: int | None) -> str | None:
    return None if ns is None else datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")


def _word(value: object) -> str:
    return value[:200] if isinstance(value, str) else ""
