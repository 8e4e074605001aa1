"""``meltbench devices calibrate`` and ``selftest``: what the sensors of a device are worth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from meltbench.cli.common import Data, Json, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.calibration.job import Design

Name = Annotated[str, typer.Argument(metavar="NAME", help="A device profile: meltbench devices.")]
Idle = Annotated[float | None, typer.Option("--idle-s", metavar="S", help="Length of an idle window, s.")]
Load = Annotated[float | None, typer.Option("--load-s", metavar="S", help="Length of a load, s.")]
Steps = Annotated[int | None, typer.Option("--steps", metavar="N", help="Loads, each between two idle windows.")]


def calibrate(
    name: Name = "local",
    idle_s: Idle = None,
    load_s: Load = None,
    steps: Steps = None,
    quick: Annotated[bool, typer.Option("--quick", help="Windows of 5 s: for gauges that follow within one.")] = False,
    charge: Annotated[
        bool, typer.Option("--charge", help="Ten minutes more of load, for the battery's charge counter to move.")
    ] = False,
    show: Annotated[bool, typer.Option("--show", help="Show the records that there are; measure nothing.")] = False,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Find unit, sign and scale of a battery's gauge, and how fast and fine every source is; runs then use it.

    Loads all processors for minutes. Unplug a phone before: what a cable gives, its gauge does not see.
    """
    from meltbench.calibration import conduct, record
    from meltbench.calibration.job import CHARGE_S
    from meltbench.cli.watching import Terminal
    from meltbench.store import find_store

    if show:
        _show(record.of_device(find_store(data), name), as_json=as_json)
        return
    design = _design(idle_s, load_s, steps, charge_s=CHARGE_S if charge else 0.0, quick=quick)
    with Terminal(design.lengths()) as watch:
        kept = conduct.calibrate(name, design, data, watch)
    if as_json:
        print_json(kept.record)
    else:
        _print(kept.record)
        plain(console(), f"stored as {kept.path}")
    if kept.record["outcome"] != "done" or any(gauge["refused"] for gauge in kept.record["gauges"]):
        raise typer.Exit(1)


def selftest(
    name: Name = "local", idle_s: Idle = None, load_s: Load = None, steps: Steps = None, data: Data = None,
    as_json: Json = False,
) -> None:  # fmt: skip
    """Load the device in steps and show which of its sensors see it, how much, how fast and how finely."""
    from meltbench.calibration import conduct
    from meltbench.cli.watching import Terminal

    idle_s, load_s = (10.0 if one is None else one for one in (idle_s, load_s))
    design = _design(idle_s, load_s, steps, charge_s=0.0, quick=True, same=0)
    with Terminal(design.lengths()) as watch:
        found = conduct.selftest(name, design, data, watch)
    if as_json:
        print_json(found)
    else:
        _print(found)
    if found["outcome"] != "done":
        raise typer.Exit(1)


def register(devices: typer.Typer) -> None:
    """Put both commands below ``meltbench devices``."""
    devices.command(epilog="Example: meltbench devices calibrate pixel --charge")(calibrate)
    devices.command(epilog="Example: meltbench devices selftest local --load-s 20")(selftest)


def _design(
    idle_s: float | None, load_s: float | None, steps: int | None, *, charge_s: float, quick: bool, **more: Any
) -> Design:
    from dataclasses import replace

    from meltbench.calibration.job import QUICK, Design

    given = {"idle_s": idle_s, "load_s": load_s, "steps": steps}
    asked = {key: value for key, value in given.items() if value is not None} | more
    return replace(QUICK if quick else Design(), charge_s=charge_s, **asked)


def _show(records: list[Any], *, as_json: bool) -> None:
    if as_json:
        print_json([one.record for one in records])
        return
    for one in records:
        found = one.record
        console().print(f"\n{one.id}  {' '.join(filter(None, found['system']))}", markup=False, highlight=False)
        _print(found)
    if not records:
        console(stderr=True).print("no calibration of this device in the store", markup=False, highlight=False)


def _print(found: dict[str, Any]) -> None:
    """What a self-test or a calibration found, as tables and lines."""
    from meltbench.report.calibration import lines, sheets
    from meltbench.report.sheet import print_sheet

    out = console()
    for sheet in sheets(found):
        print_sheet(out, sheet, as_markdown=False)
    for line in lines(found):
        plain(out, line)
