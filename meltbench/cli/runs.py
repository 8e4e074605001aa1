"""``meltbench runs|show|collect|export|verify|rebuild``: what is in the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from meltbench.records import RunRecord

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or last.")]
RunNames = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Run ids; all runs when left out.")]


def runs(
    model: Annotated[
        str | None, typer.Option("--model", metavar="TEXT", help="Only runs of models with TEXT in their name.")
    ] = None,
    workload: Annotated[
        str | None, typer.Option("--workload", metavar="TEXT", help="Only runs of workloads with TEXT in their name.")
    ] = None,
    last: Annotated[int | None, typer.Option("--last", metavar="N", min=1, help="Only the newest N of them.")] = None,
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """List the runs of the store with their headline numbers, one table a mode; also those running or detached."""
    from meltbench.report.listing import listing_sheets, read_rows
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    store = find_store(data)
    rows, notes = read_rows(store, model=model, workload=workload, last=last)
    aside = console(stderr=True)
    if any(row["state"] == "detached" for row in rows):
        notes.append(f"detached runs are brought in by: {store.command('collect')}")
    if not rows:
        notes.append(f"no run in {store.root}" if not (model or workload) else f"no such run in {store.root}")
    for note in notes:
        plain(aside, note)
    if as_json:
        print_json(rows)
        return
    out = console()
    for sheet in listing_sheets(rows):
        print_sheet(out, sheet, as_markdown=as_markdown)


def show(
    run: RunName = "last",
    data: Data = None,
    no_plot: Annotated[
        bool, typer.Option("--no-plot", help="Leave out the plot of power, temperature and token rate.")
    ] = False,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Show one run: its table, its power, temperature and token rate over time, its phases, its requests."""
    from meltbench.report import console as tables
    from meltbench.report.document import as_json as document
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store, read_record

    check_format(as_json=as_json, as_markdown=as_markdown)
    store = find_store(data)
    folder = store.resolve(run, among=store.stored_ids())
    record = read_record(folder.path, signals=False)
    if as_json:
        print_json(document(record, str(folder.path)))
        return
    out = console()
    if as_markdown:
        plain(out, tables.markdown_run(record))
    else:
        tables.print_run(out, record, str(folder.path), store.command("show", folder.run_id))
    if not no_plot:
        plot = _plot(out, folder.path, record)
        plain(out, f"\n{_fenced(plot) if as_markdown else plot}\n")
    if record.phases:
        print_sheet(out, tables.phase_sheet(record), as_markdown=as_markdown)
    if record.requests:
        print_sheet(out, tables.request_sheet(record), as_markdown=as_markdown)


def _fenced(text: str) -> str:
    return f"```\n{text}\n```"


def _plot(out: Console, folder: Path, record: RunRecord) -> str:
    """As wide as the output, and finer than its characters, for each of them shows two points."""
    from meltbench.report.textplot import MAX_WIDTH, fits, text_plot
    from meltbench.report.traces import read_traces

    width = min(out.width, MAX_WIDTH)
    return text_plot(read_traces(folder, record, 2 * width), width, ascii_only=not fits(out.encoding))


def collect(
    run: RunNames = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="Also the runs that lie on this device, whoever started them."),
    ] = None,
    data: Data = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave runs that are still under way.")] = False,
    as_json: Json = False,
) -> None:
    """Bring in runs whose controller went away; waits for those still under way."""
    from meltbench import collecting
    from meltbench.cli.measure import report
    from meltbench.cli.watching import Terminal
    from meltbench.errors import StoreError, UserError
    from meltbench.store import find_store, open_store

    try:
        store = find_store(data) if device is None else open_store(data)
    except StoreError:
        if device is None:  # a new controller has no store yet, and does not know where the runs are
            with Terminal() as watch:
                collecting.tell_strays(None, watch)
        raise
    if device is not None:
        with Terminal() as watch:
            collecting.adopt(store, device, watch)
    open_ids = store.open_ids()
    wanted = [store.resolve(name).run_id for name in run] if run else open_ids
    if stored := [run_id for run_id in wanted if run_id not in open_ids]:
        raise UserError(f"run {stored[0]} is stored already", hint=store.command("show", stored[0]))
    with Terminal() as watch:
        if not wanted:
            watch.say("nothing to collect: every run of the store is complete")
            if device is None:
                collecting.tell_strays(store, watch)
        records, failed = collecting.collect(store, watch, wanted, wait=not no_wait)
    report(records, store, as_json=as_json)
    if failed or any(record.manifest.get("outcome") != "done" for record in records):
        raise typer.Exit(1)


def export(
    run: RunNames = None,
    format_: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="parquet (a folder), csv, llama-bench[-jsonl|-sql], melt, codecarbon, otel, mlperf.",
        ),
    ] = "csv",
    out: Annotated[
        str | None, typer.Option("--out", metavar="PATH", help="Where to; csv and JSON go to stdout without it.")
    ] = None,
    table: Annotated[
        str | None,
        typer.Option("--table", metavar="NAME", help="What csv holds: runs_wide (default), latency, energy, ..."),
    ] = None,
    data: Data = None,
) -> None:
    """Export runs as Parquet or CSV, or in the forms of other tools."""
    from meltbench.store import export as exporting
    from meltbench.store import find_store

    store = find_store(data)
    stored = store.stored_ids()
    named = [store.resolve(name, among=stored).run_id for name in run] if run else None
    ids = exporting.unnamed(store, stored, format_) if named is None else named
    for path in exporting.export(store, ids, format_, out, table=table):
        typer.echo(str(path), err=True)


def verify(run: RunNames = None, data: Data = None, as_json: Json = False) -> None:
    """Check every hash of the store, and its index against its folders. Exit 1 when something is wrong."""
    from meltbench.cli.watching import Terminal
    from meltbench.store import find_store, verifying

    store = find_store(data)
    stored = store.stored_ids()
    ids = [store.resolve(name, among=stored).run_id for name in run] if run else None
    with Terminal() as watch:
        findings = verifying.verify(store, ids, lambda done, total: watch.counted("checking runs", done, total))
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        for finding in findings:
            typer.echo(f"{finding.file}  {finding.problem}  {finding.detail}")
        typer.echo(f"{len(ids) if ids is not None else len(stored)} runs checked, {len(findings)} findings", err=True)
    if findings:
        raise typer.Exit(1)


def rebuild(data: Data = None, as_json: Json = False) -> None:
    """Build the DuckDB index anew from the run folders."""
    from meltbench.cli.watching import Terminal
    from meltbench.store import find_store, index

    store = find_store(data)
    with Terminal() as watch:
        done = index.rebuild(store, lambda count, total: watch.counted("indexing runs", count, total))
    if as_json:
        print_json({"index": str(store.index), "runs": len(done.added), "notes": list(done.notes)})
        return
    for note in done.notes:
        typer.echo(note, err=True)
    typer.echo(f"{store.index}: {len(done.added)} runs")
