"""``meltbench devices cache``: what a device keeps of what was pushed to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltbench.cli.common import Json, choosing, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.targets.cache import Blob, Dropped, Holding, PushCache

_SHORT = 12  # digits of a hash that are shown, and enough to tell files apart


def cache(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device: meltbench devices list.")],
    drop: Annotated[
        list[str] | None,
        typer.Option("--drop", metavar="SHA", help="Remove a file, by the beginning of its SHA-256 or its name."),
    ] = None,
    drop_all: Annotated[bool, typer.Option("--all", help="Remove all that is not in use.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a device keeps of the models and engines that were pushed to it, or remove some of it."""
    from meltbench import site
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UserError
    from meltbench.targets import inventory, profile
    from meltbench.targets.cache import PushCache

    if drop and drop_all:
        raise UserError("--all removes everything", hint="leave --drop out")
    known = choosing(inventory.resolve, name)
    with Terminal() as watch:
        found = site.meet(known, profile.load(known.profile_name)[0], watch, [])
    try:
        show(PushCache.beside(found.probe), drop or [], drop_all=drop_all, as_json=as_json)
    finally:
        found.probe.transport.close()


def show(cache: PushCache, drop: list[str], *, drop_all: bool, as_json: bool) -> None:
    """Remove what is asked for, then show what there is. Exit status 1 where something is in use and stayed."""
    dropped = None
    if drop or drop_all:
        dropped = cache.drop(None if drop_all else _chosen(_named(cache.holding()).blobs, drop))
    holding = _named(cache.holding())
    if as_json:
        print_json(document(holding, dropped))
    else:
        _print(holding, dropped)
    if dropped is not None and dropped.in_use:
        raise typer.Exit(1)


def document(holding: Holding, dropped: Dropped | None) -> dict[str, Any]:
    """The same as JSON: docs/json.md."""
    from dataclasses import asdict

    return asdict(holding) | {"dropped": asdict(dropped) if dropped else None}


def _named(holding: Holding) -> Holding:
    """With the names that files of these hashes have on this machine: a model has none there."""
    from dataclasses import replace

    from meltbench.models.hashes import remembered_names

    names = remembered_names()
    blobs = (replace(b, names=tuple(sorted({*b.names, *names.get(b.sha256, ())}))) for b in holding.blobs)
    return replace(holding, blobs=tuple(blobs))


def _chosen(blobs: tuple[Blob, ...], wanted: list[str]) -> list[str]:
    """The files that are meant: by the beginning of a hash, or by a name. Each must mean one."""
    from meltbench.errors import UnknownName, UserError

    chosen = []
    for word in wanted:
        found = [b.sha256 for b in blobs if (len(word) >= 4 and b.sha256.startswith(word.lower())) or word in b.names]
        if not found:
            known = [name for blob in blobs for name in (blob.sha256[:_SHORT], *blob.names)]
            raise UnknownName("file in the cache", word, known)
        if len(set(found)) > 1:
            raise UserError(f"{word!r} means {len(set(found))} files", hint=", ".join(sha[:_SHORT] for sha in found))
        chosen += found
    return chosen


def _print(holding: Holding, dropped: Dropped | None) -> None:
    from meltbench.report.sheet import MISSING, Column, Sheet, print_sheet
    from meltbench.report.units import quantity

    out = console()
    if holding.blobs:
        columns = (Column("sha256", whole=True), Column("size", right=True), Column("used", right=True))
        sheet = Sheet("", (*columns, Column("state"), Column("named")))
        for blob in reversed(holding.blobs):  # what was used last stands first
            used = f"{_age(blob.idle_s)} ago" if blob.idle_s is not None else MISSING
            state = f"{blob.state}, in use" if blob.in_use else blob.state
            size = quantity(blob.bytes, "B")
            sheet.rows.append((blob.sha256[:_SHORT], size, used, state, ", ".join(blob.names) or MISSING))
        print_sheet(out, sheet, as_markdown=False)
    used, free, total = (quantity(n, "B") for n in (holding.used_bytes, holding.free_bytes, holding.total_bytes))
    lines = [f"{len(holding.blobs)} files, {used}; {free} of {total} free on the disk"]
    if dropped is not None:
        lines.append(f"removed {len(dropped.dropped)} files, {quantity(dropped.freed_bytes, 'B')}")
        lines += [f"{sha[:_SHORT]} is in use and stays" for sha in dropped.in_use]
    for line in lines:
        plain(out, line)


def _age(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
