"""The account of a run: what was run, on what, under which conditions, what speaks against it, how it ended."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from meltbench import factors, settings
from meltbench.measure.findings import charge_conditions, gate_conditions
from meltbench.serving import read_address
from meltbench.spec import digest
from meltbench.targets import printable
from meltbench.targets.facts import accelerator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.measure.outcome import Outcome
    from meltbench.probe.journal import Journal

_LOG_CHARS = 2048


def gpus(ticket: dict[str, Any]) -> list[str]:
    """The graphics processors that were found on the target."""
    return [str(gpu) for gpu in ticket["conditions"].get("gpus") or ()]


def remote(ticket: dict[str, Any]) -> str:
    """What an engine on another machine means for a run; empty where it was on the target."""
    url = (ticket["runner"] or {}).get("url")
    if not url or not read_address(url).remote:
        return ""
    return f"the engine was at {url}: what this machine draws is not what it takes"


def conditions(
    ticket: dict[str, Any],
    journal: Journal,
    starts: Sequence[dict[str, Any]],
    engine: dict[str, str],
    made: list[settings.Verdict],
) -> list[tuple[str, str]]:
    """What of the conditions speaks against a run, by code and in words; ``starts``: of its engine's processes."""
    found = gate_conditions(ticket.get("gate")) + charge_conditions(ticket.get("charge"))
    label = load_label(journal.first("pages") or {})
    against = settings.against(made) + factors.against(ticket["knobs"], starts)
    if ticket["knobs"].get("load") == "cold" and label != "cold":
        against.append(f"a cold load was asked for, the page cache was {label or 'unknown'}")
    if against:
        found.append(("settings_not_applied", "; ".join(against)))
    visits = (journal.end or {}).get("visits") if ticket["device"]["target"] != "local" else 0
    asked = [(ticket.get("looks"), "looks"), (visits, "visits of others")]
    words = [f"{n} {what}" for n, what in asked if isinstance(n, int) and n]
    live = ticket.get("live") or {}
    if live and live["link"] != "local":
        words.append(_watched(live, "--live"))
    if words:
        found.append(("link_traffic", f"{' and '.join(words)} over the link"))
    watched = [_watched(live, "--live")] if live and live["link"] == "local" else []
    watched += [_watched(ticket["top"], "meltbench top")] if ticket.get("top") else []
    if watched:
        found.append(("watched", " and ".join(watched)))
    if remote(ticket):
        found.append(("remote_engine", f"the server was at {ticket['runner']['url']}: latencies include the network"))
    there = accelerator(gpus(ticket), map(str, ticket["conditions"].get("compatible") or ()))
    if there and engine.get("accelerator") == "CPU":
        found.append(("gpu_unused", f"the engine computed on the CPU only, the machine has {there}"))
    if formless := ticket.get("no_chat_template"):
        found.append(("no_chat_template", str(formless)))
    if part := _piece(ticket.get("piece") or {}):
        found.append(("piece", part))
    return found


def _watched(took: dict[str, Any], by: str) -> str:
    """Who looked at the journal of a run while it was measured, how often, and what that took."""
    if took.get("looks") is None:  # whoever looked is gone
        return f"looks of {by}"
    return f"{took['looks']} looks of {by} at {took['bytes']} bytes, in {took['cpu_s']:.2f} s of a processor"


def _piece(piece: dict[str, Any]) -> str:
    """What of the items a run asked, where that is not all of them."""
    n, whole, before = piece.get("items"), piece.get("of"), piece.get("before")
    if n == whole:
        return ""
    earlier = len(piece.get("runs") or ())
    return f"{n} of {whole} items; {before} were scored before in {earlier} run{'s' * (earlier != 1)}"


def manifest(
    ticket: dict[str, Any],
    journal: Journal,
    starts: Sequence[dict[str, Any]],
    log: str,
    verdict: Outcome,
    engine: dict[str, str],
    made: list[settings.Verdict],
) -> dict[str, Any]:
    """What a record keeps of a run beside its numbers. ``log``: its engine's words; ``starts``: of its processes."""
    of_ticket = ("run_id", "plan_hash", "cell_key", "started_at", "rep", "round", "spec", "knobs", "device")
    begin, end = journal.first("begin") or {}, journal.end or {}
    runner = ticket["runner"]
    key = ticket["cell_key"]
    if runner is not None:
        known = runner["version"] != "unknown"
        runner = runner | {name: said for name, said in engine.items() if name != "version" or not known}
        # Only the engine knows, and only once it ran, what it computed on: figures of two devices are never one cell's.
        key = digest([key, engine.get("accelerator")])
    pages = journal.first("pages") or {}
    return {
        **{name: ticket[name] for name in (*of_ticket, "model", "workload")},
        "cell_key": key,
        "runner": runner,
        "ended_at": _ended_at(ticket["started_at"], begin, end),
        "calibrations": {
            source["name"]: source["options"]["calibration"]
            for source in ticket["sources"]
            if source.get("options", {}).get("calibration")
        },
        "outcome": verdict.outcome,
        "failure": verdict.detail,
        "failure_log": log[-_LOG_CHARS:] if verdict.outcome != "done" and log else None,
        "versions": ticket["versions"] | {"probe": begin.get("probe")},
        "conditions": ticket["conditions"]
        | {
            "gate": ticket.get("gate"),
            "charge": ticket.get("charge"),
            "boot_id": begin.get("boot_id") or ticket["conditions"].get("boot_id"),
            "model_cached_bytes": pages.get("resident_bytes") if pages.get("status") == "ok" else None,
            "load": load_label(pages),
            "ended_by": ended_by(ticket, journal.first("until") or {}),
            "journal_dropped_bytes": journal.dropped_bytes,
            "settings": settings.conditions(made),
            "process": factors.in_force(starts),
            "lease": ticket.get("lease"),
            "pushed": ticket.get("pushed") or None,
            "piece": ticket.get("piece"),
            "live": ticket.get("live"),
            "top": ticket.get("top"),
        },
    }


def ended_by(ticket: dict[str, Any], event: dict[str, Any]) -> str | None:
    """What ended a sustained run, in words; None where nothing did: it was stopped, failed, or is no such run."""
    path, value = printable(str(event.get("path") or "")), event.get("value")
    if event.get("by") == "time":
        return f"time: {ticket['workload']['limit_s']:g} s were over"
    if not path or not isinstance(value, int | float):
        return None
    folder = path.rsplit("/", 2)[-2] if path.count("/") > 1 else path
    if path.endswith("/capacity"):
        return f"battery: {folder} was down to {value:g} %"
    return f"temperature: {folder} had {value / 1000:g} degC"


def load_label(pages: dict[str, Any]) -> str | None:
    """Cold, warm or mixed: how much of the model the page cache held when the engine started; None when unknown."""
    total, resident = pages.get("total_bytes"), pages.get("resident_bytes")
    if pages.get("status") != "ok" or not total or resident is None:
        return None
    share = resident / total
    return "warm" if share >= 0.95 else "cold" if share <= 0.05 else "mixed"


def _ended_at(started_at: str, begin: dict[str, Any], end: dict[str, Any]) -> str | None:
    """When a run ended, by the clock that says when it started: the target's own may be off, or have been stepped.

    None where no clock of the run's own boot was read at its end.
    """
    if end.get("wall_ns") is None or "boot_ns" not in begin:
        return None
    lasted = timedelta(seconds=(end["boot_ns"] - begin["boot_ns"]) / 1e9)
    return (datetime.fromisoformat(started_at) + lasted).isoformat(timespec="milliseconds")
