"""``meltbench devices add``, ``list`` and ``remove``: the devices that are reached over SSH or adb."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Json, console, plain, print_json

if TYPE_CHECKING:
    from meltbench import enrol
    from meltbench.errors import HostKeyError
    from meltbench.targets import Place

Device = Annotated[str, typer.Argument(metavar="NAME", help="A device of the inventory: meltbench devices list.")]


def add(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What it is to be called.")],
    ssh: Annotated[
        str | None, typer.Option("--ssh", metavar="ADDRESS", help="[USER@]HOST[:PORT], or a Host of ~/.ssh/config.")
    ] = None,
    adb: Annotated[
        str | None, typer.Option("--adb", metavar="SERIAL", help="As `adb devices` lists it, or HOST:PORT.")
    ] = None,
    adb_port: Annotated[
        int | None, typer.Option("--adb-port", metavar="PORT", help="Of an adb server of its own: else adb's.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option("--profile", metavar="NAME", help="Its profile: else the one that fits the board best."),
    ] = None,
    workdir: Annotated[
        str | None, typer.Option("--workdir", metavar="DIR", help="Our folder there: else .meltbench of its home.")
    ] = None,
    hub: Annotated[
        str | None,
        typer.Option("--hub", metavar="PORT", help="What can cut its USB power: uhubctl:1-1.4:2, ykush:[SERIAL:]3."),
    ] = None,
    accept_key: Annotated[
        str | None, typer.Option("--accept-key", metavar="SHA256:...", help="Accept its host key if it is this one.")
    ] = None,
    rename: Annotated[
        bool, typer.Option("--rename", help="The board is known under another name: give it this one.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add a device that is reached over SSH or adb, or tell where it is now: it is asked which board it is."""
    from meltbench import enrol
    from meltbench.cli.watching import Terminal
    from meltbench.report import inventory as report
    from meltbench.targets import inventory

    asked = enrol.Asked(name, _place(ssh, adb, adb_port), profile, workdir, rename, hub)
    with Terminal() as watch:
        done = enrol.add(asked, watch, lambda error: _trust(error, accept_key))
    where = str(inventory.path())
    if as_json:
        print_json(report.enrolled_json(done, where))
        return
    _say(report.enrolled_lines(done, where))


def _place(ssh: str | None, adb: str | None, adb_port: int | None) -> Place:
    from meltbench.errors import UserError
    from meltbench.targets import Place

    if (ssh is None) == (adb is None):
        raise UserError("a device is reached by --ssh ADDRESS or by --adb SERIAL", hint="give one of the two")
    if adb is not None:
        return Place("adb", adb, adb_port)
    if adb_port is not None:
        raise UserError("--adb-port is of a device that is reached by --adb", hint="leave it out")
    return Place("ssh", str(ssh))


def list_(as_json: Json = False) -> None:
    """Ask this machine and every device of the inventory: reachable, busy, healthy, and when last seen."""
    from meltbench import rollcall
    from meltbench.report import inventory as report
    from meltbench.report.sheet import print_sheet

    rows = rollcall.call()
    if as_json:
        print_json([report.row_json(row) for row in rows])
        return
    sheet, whys = report.sheet(rows)
    print_sheet(console(), sheet, as_markdown=False)
    for why in whys:
        plain(console(stderr=True), why)


def remove(
    name: Device,
    purge: Annotated[bool, typer.Option("--purge", help="Remove what is ours from the device, too.")] = False,
    force: Annotated[bool, typer.Option("--force", help="With --purge: also runs that nobody has collected.")] = False,
) -> None:
    """Take a device out of the inventory; its runs in the store stay."""
    from meltbench import enrol
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UnknownName, UserError
    from meltbench.targets import inventory

    if force and not purge:
        raise UserError("--force removes runs from a device, and nothing is removed there", hint="add --purge")
    known = inventory.load()
    if name not in known:
        raise UnknownName("device of the inventory", name, known)
    with Terminal() as watch:
        if purge:
            what = enrol.before_purge(inventory.of_entry(name, known[name]), watch)
            try:
                _purge(what, name, force=force)
            finally:
                what.probe.transport.close()
        enrol.remove(name)
        watch.say(f"{name} is out of {inventory.path()}")


def _purge(what: enrol.Purge, name: str, *, force: bool) -> None:
    from meltbench import enrol
    from meltbench.errors import UserError

    if what.runs and not force:
        raise UserError(
            f"{name} has {len(what.runs)} runs that nobody has collected: {', '.join(what.runs[:4])}",
            hint="meltbench collect, or lose them by --force",
        )
    if sys.stdin.isatty() and not typer.confirm(f"Remove {what.root} from {name}?", err=True):
        raise UserError("nothing was removed", hint="leave out --purge to take it out of the inventory alone")
    enrol.purge(what)


def show_known(name: str, *, as_json: bool) -> None:
    """Print what is known of a device of the inventory: as it is now where it can be reached, else as last seen."""
    from meltbench import rollcall
    from meltbench.report import inventory as report
    from meltbench.targets import inventory, notes

    entry = inventory.load()[name]
    (answer,) = rollcall.ask([inventory.of_entry(name, entry)])
    note = notes.noted(name, entry.identity)
    if as_json:
        print_json(report.known_json(name, entry, note, answer.why))
    else:
        _say(report.known_lines(name, entry, note, answer.why))


def register(devices: typer.Typer) -> None:
    """Put the commands below ``meltbench devices``."""
    devices.command(epilog="Example: meltbench devices add pi5 --ssh pi@10.0.0.7")(add)
    devices.command("list", epilog="Example: meltbench devices list --json")(list_)
    devices.command(epilog="Example: meltbench devices remove pi5 --purge")(remove)


def _say(lines: list[str]) -> None:
    out = console()
    for line in lines:
        plain(out, line)


def _trust(error: HostKeyError, accepted: str | None) -> None:
    """Raise unless the key is the one that was given, or none was known and a person says yes to it."""
    from meltbench.errors import HostKeyError

    if accepted is not None and error.state != "revoked":
        if accepted.rstrip("=") == error.fingerprint:
            return
        said = f"{error.message}, not {accepted}"
        raise HostKeyError(said, fingerprint=error.fingerprint, state=error.state, hint=error.hint)
    if error.state != "unknown" or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise error
    typer.echo(str(error), err=True)
    if not typer.confirm("Accept it?", err=True):
        raise error
