"""What keeps runs from being taken together: everything that enters their cell key, in words a person can act on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Manifest = Mapping[str, Any]

# What each is called, what must be equal, and what a person knows it by; the most telling first.
_PARTS = (
    ("mode", ("runner", "mode"), ("runner", "mode")),
    ("device", ("device", "identity"), ("device", "name")),
    ("model", ("model", "sha256"), ("model", "name")),
    ("runner", ("runner", "name"), ("runner", "name")),
    ("engine", ("runner", "sha256"), ("runner", "version")),
    ("accelerator", ("runner", "accelerator"), ("runner", "accelerator")),
    ("OS", ("conditions", "os"), ("conditions", "os")),
    ("kernel", ("conditions", "kernel"), ("conditions", "kernel")),
    ("protocol", ("versions", "protocol"), ("versions", "protocol")),
)
_OF_WORKLOAD = (("workload", ("workload", "sha256"), ("workload", "name")),)
# Settled by the workload or the moment: room for its longest context, what the page cache held.
_FREE_KNOBS = ("ctx", "ctx_all", "load")
_OF_DEFINITION = (
    *("name", "sha256", "title", "version", "cite", "items", "questions", "data", "examples", "inputs"),
    *("gate_timeout_s", "charge_timeout_s", "timeout_s"),  # bounds of waiting, which end a run or change nothing
)
_SHOWN = 4


def differences(manifests: Sequence[Manifest], *, workload: bool) -> list[str]:
    """What these runs differ in, each with the values that it has, such as ``threads (1, 2)``.

    ``workload`` says whether they must have been asked the same.
    """
    found = []
    for word, path, label in (*_PARTS, *(_OF_WORKLOAD if workload else ())):
        # Where a run has no digest, as an imported one, its name has to do.
        held = {str(_at(one, path) or _at(one, label)): str(_at(one, label)) for one in manifests}
        if len(held) > 1:
            names = list(held.values()) if len({*held.values()}) == len(held) else [key[:12] for key in held]
            found.append(_said(word, names))
    parts = [("knobs", "knobs"), ("settings", "settings")]
    if workload and len({str(_at(one, ("workload", "sha256"))) for one in manifests}) == 1:
        parts.append(("workload", "workload"))  # of two workloads the settings have nothing in common
    for word, part in parts:
        settings = [_settings(one, part) for one in manifests]
        for name in sorted({name for one in settings for name in one} - {*_FREE_KNOBS}):
            values = list(dict.fromkeys(str(one.get(name, "not set")) for one in settings))
            if len(values) > 1:
                found.append(_said(f"setting {name}" if word == "settings" else name, values))
    return found


def signature(manifest: Manifest) -> tuple[object, ...]:
    """What two runs that were asked the same have in common exactly where ``differences`` finds nothing."""
    held = [str(_at(manifest, path) or _at(manifest, label)) for _, path, label in (*_PARTS, *_OF_WORKLOAD)]
    parts = []
    for part in ("knobs", "settings", "workload"):
        settings = _settings(manifest, part)
        parts.append(tuple((name, str(settings[name])) for name in sorted(settings.keys() - {*_FREE_KNOBS})))
    return (*held, *parts)


def demand_same(manifests: Sequence[Manifest], *, workload: bool, hint: str) -> None:
    """Raise UserError, naming what differs, when these runs must not be taken together."""
    found = differences(manifests, workload=workload)
    if found:
        shown = ", ".join(found[:_SHOWN]) + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")
        raise UserError(f"these {len(manifests)} runs are not to be taken together: they differ in {shown}", hint=hint)


def workload_settings(manifest: Manifest) -> dict[str, Any]:
    """What a run's workload was told, beside its definition and the files that its hash covers."""
    told = manifest.get("workload")
    return {k: v for k, v in told.items() if k not in _OF_DEFINITION} if isinstance(told, dict) else {}


def _settings(manifest: Manifest, part: str) -> Mapping[str, Any]:
    if part == "knobs":
        return manifest.get("knobs") or {}
    if part == "workload":
        return workload_settings(manifest)
    made = (manifest.get("conditions") or {}).get("settings") or {}
    return {name: one.get("used") if isinstance(one, dict) else one for name, one in made.items()}


def _said(word: str, values: Sequence[str]) -> str:
    more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
    return printable(f"{word} ({', '.join(values[:_SHOWN])}{more})")


def _at(manifest: Manifest, path: tuple[str, str]) -> Any:
    part = manifest.get(path[0])
    return part.get(path[1]) if isinstance(part, dict) else None
