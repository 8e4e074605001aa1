"""``meltbench runners|workloads``: what can be named."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.cli.common import Json, console, plain, print_json

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
            plain(out, f"{row['name']:{width}}  {row['title']}")

        if kind == "runners":
            _print_matrix()

    listing.__doc__ = f"List the {kind} that can be named."
    return listing


def _definitions(kind: Any) -> list[dict[str, Any]]:
    from meltbench import catalog, runners

    found = catalog.definitions(kind)
    rows = [
        {"name": name, "title": str(d.data.get("title", "")), "origin": d.origin, "sha256": d.sha256}
        for name, d in sorted(found.items())
    ]
    if kind != "runners":
        return rows
    from meltbench.report import matrix

    return [row | matrix.row_json(recipe) for row, recipe in zip(rows, runners.recipes().values(), strict=True)]


def _print_matrix() -> None:
    """Which of the runners runs where, and why a pair cannot."""
    from meltbench import runners
    from meltbench.report import matrix
    from meltbench.report.sheet import print_sheet

    out = console()
    sheet, whys = matrix.sheet(runners.recipes())
    print_sheet(out, sheet, as_markdown=False)
    for why in whys:
        plain(out, why)
