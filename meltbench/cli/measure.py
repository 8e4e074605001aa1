"""``meltbench run`` and ``meltbench exec``: measure something."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, choosing, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.plan import Cell
    from meltbench.records import RunRecord
    from meltbench.spec import Spec
    from meltbench.store import Store

Sets = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A setting of the workload or the engine; repeatable."),
]
Reps = Annotated[int, typer.Option("--reps", metavar="N", help="Runs, each with an engine start of its own.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and its hash; run nothing.")]
Prepare = Annotated[
    bool,
    typer.Option(
        " /--no-prepare", show_default=False, help="Leave the device's settings (governor, power mode ...) as they are."
    ),
]
Device = Annotated[str, typer.Option("--device", metavar="NAME", help="A device: meltbench devices.")]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for a device that another controller holds.")]
Live = Annotated[
    bool,
    typer.Option(
        "--live", help="Show token rate, power and temperature meanwhile; over a link too, which the record notes."
    ),
]
Unplug = Annotated[
    str | None,
    typer.Option("--unplug", metavar="hub", help="Cut its USB power while it measures (devices add --hub)."),
]
Steal = Annotated[
    str | None,
    typer.Option(
        "--steal", metavar="REASON", help="Take a device from whoever holds it; its run is ended, and told why."
    ),
]


def run(
    device: Device = "local",
    model: Annotated[
        str,
        typer.Option(
            "--model",
            metavar="NAME",
            help="A name (meltbench models), a file or folder, hub owner/repo:file, or what a server calls it.",
        ),
    ] = "smollm2-135m-q4",
    runner: Annotated[
        str, typer.Option("--runner", metavar="NAME", help="An engine's recipe: meltbench runners.")
    ] = "llamacpp",
    workload: Annotated[
        str | None,
        typer.Option(
            "--workload", metavar="NAME", help="A name (meltbench workloads) or a JSONL file of prompts or questions."
        ),
    ] = None,
    reps: Reps = 1,
    threads: Annotated[
        str | None,
        typer.Option(
            "--threads", metavar="N[,N...]", help="Computing threads of the engine; of several, runs of each."
        ),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of orders, random prompts and sampling.")] = 0,
    set_: Sets = None,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            metavar="PATH",
            help="A program, its folder or archive; device:NAME, one that is there; http://..., a server that runs.",
        ),
    ] = None,
    prepare: Prepare = True,
    rehash: Annotated[
        bool, typer.Option("--rehash", help="Hash what was pushed earlier again on the device, before the start.")
    ] = False,
    wait: Wait = False,
    steal: Steal = None,
    unplug: Unplug = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Ask only the questions that no stored run of this kind has scored.")
    ] = False,
    piece: Annotated[
        int | None, typer.Option("--piece", metavar="N", help="With --resume: in runs of N questions each.")
    ] = None,
    live: Live = False,
    data: Data = None,
    dry_run: DryRun = False,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Measure a model on a device: time, memory, energy, heat. Without options: a small model on this machine."""
    from meltbench.spec import Spec, parse_sets, parse_threads

    spec = Spec(
        device=device,
        model=model,
        runner=runner,
        workload=workload,
        threads=parse_threads(threads),
        seed=seed,
        reps=reps,
        engine=engine,
        knobs=parse_sets(set_ or []),
        prepare=prepare,
        rehash=rehash,
        wait=wait,
        steal=steal,
        unplug=unplug,
        resume=resume,
        piece=piece,
    )
    _measure(spec, data, live=live, dry_run=dry_run, as_markdown=as_markdown, as_json=as_json)


def exec_(
    command: Annotated[
        list[str], typer.Argument(metavar="COMMAND...", help="The program and its arguments, after --.")
    ],
    device: Device = "local",
    reps: Reps = 1,
    set_: Sets = None,
    prepare: Prepare = True,
    wait: Wait = False,
    steal: Steal = None,
    unplug: Unplug = None,
    live: Live = False,
    data: Data = None,
    dry_run: DryRun = False,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Meter any program: wall time, CPU, peak memory, energy. Like perf stat, with a store."""
    from meltbench.spec import Spec, parse_sets

    spec = Spec(
        device=device,
        workload="exec",
        reps=reps,
        knobs=parse_sets(set_ or []),
        command=tuple(command),
        prepare=prepare,
        wait=wait,
        steal=steal,
        unplug=unplug,
    )
    _measure(spec, data, live=live, dry_run=dry_run, as_markdown=as_markdown, as_json=as_json)


def _measure(spec: Spec, data: str | None, *, live: bool, dry_run: bool, as_markdown: bool, as_json: bool) -> None:
    from meltbench import plan
    from meltbench.errors import UserError

    check_format(as_json=as_json, as_markdown=as_markdown)
    if dry_run and as_markdown:
        raise UserError("a plan has no tables for --markdown", hint="leave one out")
    from meltbench.cli.watching import Terminal

    with Terminal() as watch:
        planned = choosing(lambda device: plan.make(replace(spec, device=device), watch), spec.device)
    if dry_run:
        _print_plan(planned, as_json=as_json)
        return
    from meltbench import road
    from meltbench.store import open_store

    store = open_store(data)
    records: list[RunRecord] = []
    spared: list[Cell] = []
    try:
        work = planned.work.workload
        windows = {"idle_before": work.idle_s, "idle_after": work.idle_s, "window": work.window_s}
        with Terminal(windows) as watch:
            if planned.model is not None and planned.model.stands_for:
                watch.say(planned.model.stands_for)
            for record in road.run(planned, store, watch, spared, watch.live if live else None):
                records.append(record)  # what is stored is shown also when a later run cannot be made
    finally:
        if records or len(spared) == len(planned.cells):
            report(records, store, as_markdown=as_markdown, as_json=as_json)
    if len(records) + len(spared) < len(planned.cells) or any(r.manifest.get("outcome") == "stopped" for r in records):
        raise typer.Exit(130)
    if any(record.manifest.get("outcome") != "done" for record in records):
        raise typer.Exit(1)


def report(records: list[RunRecord], store: Store, *, as_markdown: bool = False, as_json: bool = False) -> None:
    """Print runs as tables, or as one JSON list; after several of one plan, what they say together."""
    from meltbench.report.console import markdown_run, print_run
    from meltbench.report.document import as_json as document
    from meltbench.report.sheet import print_sheet
    from meltbench.report.summary import summary_sheet

    if as_json:
        print_json([document(record, str(store.folder(record.run_id).path)) for record in records])
        return
    out = console()
    for record in records:
        if as_markdown:
            plain(out, markdown_run(record))
        else:
            print_run(out, record, str(store.folder(record.run_id).path), store.command("show", record.run_id))
    of_one_plan = len({record.manifest.get("plan_hash") for record in records}) == 1
    parts = any(reason.code == "piece" for record in records for reason in record.reasons)
    if len(records) > 1 and of_one_plan and not parts and (sheet := summary_sheet(records)):
        out.print()
        print_sheet(out, sheet, as_markdown=as_markdown)


def _print_plan(planned: object, *, as_json: bool) -> None:
    from meltbench.plan import Plan
    from meltbench.spec import canonical

    assert isinstance(planned, Plan)
    described = planned.describe()
    if as_json:
        print_json(described)
        return
    out = console()
    for key, value in described.items():
        if key != "cells":
            text = value if isinstance(value, str) else canonical(value)
            plain(out, f"{key:10} {text}")
    for number, cell in enumerate(planned.cells, 1):
        own = "".join(f" {name} {value}" for name, value in cell.knobs)
        out.print(f"run {number:<6} seed {cell.seed}{own}", markup=False, highlight=False)
