"""``meltbench devices cache``: what a device keeps of what was pushed to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltbench.cli.common import Json, choosing, console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.probe.client import Probe
    from meltbench.targets.cache import Dropped, Holding, PushCache
    from meltbench.targets.venvs import Venv
    from meltbench.watch import Watch

_SHORT = 12  # digits of a hash that are shown, and enough to tell files apart


def cache(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device: meltbench devices list.")],
    drop: Annotated[
        list[str] | None,
        typer.Option(
            "--drop",
            metavar="SHA",
            help="Remove a file or a Python environment, by the beginning of its hash or by a name.",
        ),
    ] = None,
    drop_all: Annotated[bool, typer.Option("--all", help="Remove all that is not in use.")] = False,
    as_json: Json = False,
) -> None:
    """Show what a device keeps of the models and engines that were pushed to it, or remove some of it."""
    from meltbench import site
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UserError
    from meltbench.targets import inventory, profile

    if drop and drop_all:
        raise UserError("--all removes everything", hint="leave --drop out")
    known = choosing(inventory.resolve, name)
    with Terminal() as watch:
        found = site.meet(known, profile.load(known.profile_name)[0], watch, [])
    try:
        show(found.probe, drop or [], watch, drop_all=drop_all, as_json=as_json)
    finally:
        found.probe.transport.close()


def show(probe: Probe, drop: list[str], watch: Watch, *, drop_all: bool, as_json: bool) -> None:
    """Remove what is asked for, then show what there is. Exit status 1 where something is in use and stayed."""
    from meltbench.targets import venvs
    from meltbench.targets.cache import PushCache

    cache = PushCache.beside(probe)
    holding, environments, dropped = _named(cache.holding()), venvs.listed(probe), None
    if drop or drop_all:
        names = {b.sha256: b.names for b in holding.blobs} | {one.key: one.packages for one in environments}
        chosen = set(names if drop_all else _chosen(names, drop))
        dropped = _dropped(cache, probe, None if drop_all else [b.sha256 for b in holding.blobs if b.sha256 in chosen],
                           [one for one in environments if one.key in chosen], watch)  # fmt: skip
        holding, environments = _named(cache.holding()), venvs.listed(probe)
    if as_json:
        print_json(document(holding, environments, dropped))
    else:
        _print(holding, environments, dropped)
    if dropped is not None and dropped.in_use:
        raise typer.Exit(1)


def _dropped(
    cache: PushCache, probe: Probe, shas: list[str] | None, environments: Sequence[Venv], watch: Watch
) -> Dropped:
    """What was removed of these files, None for all of them, and of these environments."""
    from meltbench.targets import venvs
    from meltbench.targets.cache import Dropped

    of_files = Dropped((), (), 0) if shas == [] else cache.drop(shas)
    gone = venvs.drop(probe, environments, watch)
    return Dropped(
        (*of_files.dropped, *(one.key for one in gone)),
        (*of_files.in_use, *(one.key for one in environments if one not in gone)),
        of_files.freed_bytes + sum(one.bytes for one in gone),
    )


def document(holding: Holding, environments: Sequence[Venv], dropped: Dropped | None) -> dict[str, Any]:
    """The same as JSON: docs/json.md."""
    from dataclasses import asdict

    more = {"environments": [asdict(one) for one in environments], "dropped": asdict(dropped) if dropped else None}
    return asdict(holding) | more


def _named(holding: Holding) -> Holding:
    """With the names that files of these hashes have on this machine: a model has none there."""
    from dataclasses import replace

    from meltbench.models.hashes import remembered_names

    names = remembered_names()
    blobs = (replace(b, names=tuple(sorted({*b.names, *names.get(b.sha256, ())}))) for b in holding.blobs)
    return replace(holding, blobs=tuple(blobs))


def _chosen(names: Mapping[str, Sequence[str]], wanted: list[str]) -> list[str]:
    """What is meant of all that has names: by the beginning of a hash, or by a name. Each must mean one."""
    from meltbench.errors import UnknownName, UserError

    chosen = []
    for word in wanted:
        found = [sha for sha in names if (len(word) >= 4 and sha.startswith(word.lower())) or word in names[sha]]
        if not found:
            known = [name for sha, own in names.items() for name in (sha[:_SHORT], *own)]
            raise UnknownName("file or environment in the cache", word, known)
        if len(found) > 1:
            raise UserError(f"{word!r} means {len(found)} of them", hint=", ".join(sha[:_SHORT] for sha in found))
        chosen += found
    return chosen


def _print(holding: Holding, environments: Sequence[Venv], dropped: Dropped | None) -> None:
    from meltbench.models.hashes import SHA256
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
    if environments:
        made_of = (Column("state"), Column("packages"))
        sheet = Sheet("", (Column("Python environment", whole=True), Column("size", right=True), *made_of))
        for one in environments:
            state = f"{one.state}, in use" if one.in_use else one.state
            packages = ", ".join(one.packages) or MISSING
            sheet.rows.append((one.key, quantity(one.bytes, "B"), state, packages))
        print_sheet(out, sheet, as_markdown=False)
    used, free, total = (quantity(n, "B") for n in (holding.used_bytes, holding.free_bytes, holding.total_bytes))
    lines = [f"{len(holding.blobs)} files, {used}; {free} of {total} free on the disk"]
    if dropped is not None:
        made = sum(not SHA256.match(name) for name in dropped.dropped)
        what = f"{len(dropped.dropped) - made} files" + (f" and {made} Python environments" if made else "")
        lines.append(f"removed {what}, {quantity(dropped.freed_bytes, 'B')}")
        lines += [f"{sha[:_SHORT]} is in use and stays" for sha in dropped.in_use]
    for line in lines:
        plain(out, line)


def _age(seconds: int) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
