"""``meltbench runners|workloads``: what can be named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.cli.common import Json, console, print_json

if TYPE_CHECKING:
    from collections.abc import Callable


def command(kind: str) -> Callable[..., None]:
    """The command that lists one kind of definition."""

    def listing(as_json: Json = False) -> None:
        rows = _definitions(kind)
        if as_json:
            print_json(rows)
            return
        out = console()
        width = max(len(row["name"]) for row in rows) if rows else 0
        for row in rows:
            out.print(f"{row['name']:{width}}  {row['title']}", markup=False, highlight=False, soft_wrap=True)

    listing.__doc__ = f"List the {kind} that can be named."
    return listing


def _definitions(kind: Any) -> list[dict[str, Any]]:
    from meltbench import catalog

    found = catalog.definitions(kind)
    return [
        {"name": name, "title": str(d.data.get("title", "")), "origin": d.origin, "sha256": d.sha256}
        for name, d in sorted(found.items())
    ]
