"""``meltbench devices``: what --device takes, what a profile says, and a draft of one for a device that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltbench.cli.common import Json, console, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from meltbench.targets.profile import Profile

devices_app = typer.Typer(help="List the devices that can be named; add, examine, draft and check them.")


@devices_app.callback(invoke_without_command=True, epilog="Example: meltbench devices --json")
def devices(context: typer.Context, as_json: Json = False) -> None:
    """List the devices that can be named; add, examine, draft and check them."""
    if context.invoked_subcommand is not None:
        if as_json:
            from meltbench.errors import UserError

            raise UserError(
                "--json stands before the sub-command", hint=f"meltbench devices {context.invoked_subcommand} --json"
            )
        return
    rows = [*_of_inventory(), *_of_profiles()]
    if as_json:
        print_json(rows)
        return
    widths = {key: max(len(row[key]) for row in rows) for key in ("name", "target", "checked")} if rows else {}
    for row in rows:
        cells = [f"{row[key]:{width}}" for key, width in widths.items()]
        plain(console(), "  ".join([*cells, row["title"]]))


def _of_inventory() -> list[dict[str, Any]]:
    from meltbench import catalog
    from meltbench.targets import inventory

    profiles = catalog.find("devices")
    rows = []
    for name, entry in inventory.load().items():
        found = catalog.load("devices", entry.profile) if entry.profile in profiles else None
        rows.append(
            {
                "name": name,
                "title": f"{entry.board or 'a device'} at {entry.place}, profile {entry.profile}",
                "target": entry.place.kind,
                "checked": str(found.data.get("checked", "unverified")) if found else "unverified",
                "origin": str(inventory.path()),
                "sha256": found.sha256 if found else "",
            }
        )
    return rows


def _of_profiles() -> list[dict[str, Any]]:
    from meltbench import catalog

    return [
        {
            "name": name,
            "title": str(found.data.get("title", "")),
            "target": str(found.data.get("target", "")),
            "checked": str(found.data.get("checked", "unverified")),
            "origin": found.origin,
            "sha256": found.sha256,
        }
        for name, found in catalog.definitions("devices").items()
    ]


def show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A device of the inventory, or a profile.")],
    as_json: Json = False,
) -> None:
    """Show what a device of the inventory is, live or as last seen; of a profile its sources, total and settings."""
    from dataclasses import asdict

    from meltbench import catalog
    from meltbench.errors import UnknownName
    from meltbench.targets import inventory
    from meltbench.targets.profile import load

    known, profiles = inventory.load(), catalog.find("devices")
    if name not in known and name not in profiles:
        raise UnknownName("device", name, [*known, *profiles])
    if name in known:
        from meltbench.cli.inventory import show_known

        show_known(name, as_json=as_json)
        if as_json:
            return
    profile_name = known[name].profile if name in known else name
    found, definition = load(profile_name)
    if as_json:
        print_json(
            {"name": name, "origin": definition.origin, "path": str(definition.path), "sha256": definition.sha256}
            | asdict(found)
        )
        return
    out = console()
    for line in _described(profile_name, str(definition.path), found):
        plain(out, line)


def profile(
    device: Annotated[
        str, typer.Option("--device", metavar="NAME", help="The profile by which the device is reached.")
    ] = "local",
    write: Annotated[bool, typer.Option("--write", help="Write ./devices/NAME.toml instead of printing it.")] = False,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="Name of the new profile: else after the board.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="With --write: replace a file of that name.")] = False,
) -> None:
    """Look at a device and draft a profile of it: what can be read, what is denied, and what is its total."""
    from meltbench import survey
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UserError
    from meltbench.targets.draft import draft

    if force and not write:
        raise UserError("--force replaces a file, and none is written", hint="add --write")
    if name is not None:
        survey.check_name(name)
    with Terminal() as watch:
        found = survey.look(device, watch, name)
        text = draft(found)
        if not write:
            typer.echo(text, nl=False)
            return
        path = survey.write(found.name, text, force=force)
        watch.say(f"wrote {path}; then: meltbench run --device {found.name}")


commands: dict[Callable[..., None], str] = {
    show: "meltbench devices show rpi5",
    profile: "meltbench devices profile --name bench-pi --write",
}
for command, example in commands.items():
    devices_app.command(command.__name__, epilog=f"Example: {example}")(command)


def _described(name: str, path: str, found: Profile) -> list[str]:
    """A profile in lines."""
    lines = [f"{name}: {found.title}", f"  {path}; target {found.target}, checked: {found.checked}"]
    if found.max_power_w is not None:
        lines.append(f"  draws less than {found.max_power_w:g} W")
    if found.slows_at_c is not None:
        lines.append(f"  slows itself from {found.slows_at_c:g} degC on")
    if found.big_cpus is not None:
        lines.append(f"  fast cores {found.big_cpus}")
    for what in ("board", "compatible", "product", "build"):
        if patterns := getattr(found.match, what):
            lines.append(f"  recognised by {what} {', '.join(patterns)}")
    if found.match.platform:
        lines.append(f"  recognised by platform {found.match.platform}, where nothing fits better")
    for source in found.source:
        options = "".join(f", {key} {value}" for key, value in source.options.items())
        gain = f", gain within {source.gain_limit:.0%} ({source.gain_limit_from})" if source.gain_limit else ""
        needs = found.permissions.get(source.name)
        said = f"{source.reader} every {source.period_ms:g} ms{options}{gain}" + (f"; needs {needs}" if needs else "")
        lines.append(f"  source {source.name}: {said}")
    lines += [f"  total {n}: {_total(one)}" for n, one in enumerate(found.total, 1)]
    if not found.total:
        lines.append("  total: none, so that energies are empty and say so")
    lines += [f"  {rail} contains {', '.join(parts)}" for rail, parts in found.contains.items()]
    if found.gate.zones or found.gate.target_c is not None:
        begin = "" if found.gate.target_c is None else f" at {found.gate.target_c:g} degC"
        lines.append(f"  gate: {', '.join(found.gate.zones) or 'any zone'}{begin}")
    if found.gate.soc_percent is not None:
        lines.append(f"  gate: {' to '.join(f'{one:g}' for one in found.gate.soc_percent)} % of charge")
    for setting in found.setting:
        way = setting.path or " ".join(setting.set)
        lines.append(f"  sets {setting.name} = {setting.value}: {way}{' (optional)' if setting.optional else ''}")
    return lines + [f"  unverified: {sentence}" for sentence in found.unverified]


def _total(one: Any) -> str:
    rails = " + ".join(one.rails) or "as the source itself tells"
    scope = f", scope {one.scope}" if one.scope else ""
    return f"{one.source}: {rails}{scope}" + (f"; leaves out {one.partial}" if one.partial else "")
