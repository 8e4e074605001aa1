"""Holds what a command printed as JSON against its description in meltbench.report.jsondoc."""

from __future__ import annotations

from collections.abc import Iterable

from meltbench.report.jsondoc import DOCUMENTS, Document, Key

NAMED = {document.name: document for document in DOCUMENTS}


def problems(document: Document, value: object) -> list[str]:
    """What of a printed document is not as described: unknown and absent keys, other types, unexplained nulls."""
    keys = {key.path: key for key in document.keys}
    return sorted(set(_walk(keys, "", value)))


def _walk(keys: dict[str, Key], path: str, value: object) -> Iterable[str]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(keys, f"{path}[]", item)
    if not isinstance(value, dict):
        return
    below = f"{path}." if path else ""
    is_open = f"{below}*" in keys
    for name, held in value.items():
        key = keys.get(f"{below}{name}") or keys.get(f"{below}*")
        if key is None:
            yield f"{below}{name} is not documented"
            continue
        if not _fits(key, held):
            yield f"{below}{name} is {type(held).__name__}, documented is {key.type}"
        if f"{below}{name}" in keys or not is_open:
            yield from _walk(keys, f"{below}{name}", held)
    for wanted in keys:
        head, dot, name = wanted.rpartition(".")
        if head == path and (dot or not path) and name != "*" and not name.startswith("[]") and name not in value:
            yield f"{wanted} is documented and absent"


def _fits(key: Key, value: object) -> bool:
    if value is None:
        return bool(key.null) or key.type == "any"
    kinds: dict[str, tuple[type, ...]] = {
        "text": (str,),
        "integer": (int,),
        "number": (int, float),
        "list": (list,),
        "object": (dict,),
        "true or false": (bool,),
        "any": (object,),
    }
    return isinstance(value, kinds[key.type]) and (not isinstance(value, bool) or key.type in ("true or false", "any"))
