"""``meltbench runs|show|collect|export|verify|rebuild``: what is in the store."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from meltbench.cli.common import Data, Json, console, print_json

RunName = Annotated[str, typer.Argument(metavar="RUN", help="A run's id, the beginning of one, or last.")]
RunNames = Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Run ids; all runs when left out.")]


def runs(data: Data = None, as_json: Json = False) -> None:
    """List the runs of the store, with those still running or detached."""
    from meltbench.store import find_store

    store = find_store(data)
    rows = [_row(entry) for entry in store.runs()]
    if as_json:
        print_json(rows)
        return
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column in ("run", "state", "device", "model", "workload", "validity"):
        table.add_column(column, no_wrap=column == "run", overflow="fold")
    for row in rows:
        names = ("run_id", "state", "device", "model", "workload", "validity")
        shown = row | {"workload": " ".join(part for part in (row["workload"], _short(row["command"])) if part)}
        table.add_row(*(escape(str(shown.get(key) or "")) for key in names))
    console().print(table)
    if any(row["state"] == "detached" for row in rows):
        how = f"detached runs are brought in by: {store.command('collect')}"
        console(stderr=True).print(how, markup=False, highlight=False, soft_wrap=True)


def _short(command: str | None) -> str:
    return "" if not command else command if len(command) <= 40 else f"{command[:39]}…"


def _row(entry: Any) -> dict[str, Any]:
    from meltbench.controller import is_alive
    from meltbench.report.console import command_line
    from meltbench.targets import printable

    info = entry.info

    def name(key: str) -> str | None:
        part = info.get(key)
        return printable(str(part["name"])) if isinstance(part, dict) and "name" in part else None

    looked_on = "running" if is_alive(info.get("controller")) else "detached"
    state = {"stored": info.get("outcome"), "open": looked_on}.get(entry.state, entry.state)
    return {
        "run_id": entry.run_id,
        "state": state,
        "started_at": info.get("started_at"),
        "device": name("device"),
        "model": name("model"),
        "runner": name("runner"),
        "workload": name("workload"),
        "command": command_line(info),
        "validity": info.get("validity"),
        "failure": info.get("failure") or info.get("error"),
        "plan_hash": info.get("plan_hash"),
        "cell_key": info.get("cell_key"),
    }


def show(run: RunName = "last", data: Data = None, as_json: Json = False) -> None:
    """Show one run: its table, its phases, its requests."""
    from meltbench.report import console as tables
    from meltbench.store import find_store, read_record

    store = find_store(data)
    folder = store.resolve(run, among=store.stored_ids())
    record = read_record(folder.path)
    if as_json:
        print_json(tables.as_json(record, str(folder.path)))
        return
    out = console()
    tables.print_run(out, record, str(folder.path), store.command("show", folder.run_id))
    if record.phases:
        out.print(tables.phase_table(record))
    if record.requests:
        out.print(tables.request_table(record))


def collect(
    run: RunNames = None,
    data: Data = None,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Leave runs that are still under way.")] = False,
    as_json: Json = False,
) -> None:
    """Bring in runs whose controller went away; waits for those still under way."""
    from meltbench import road
    from meltbench.cli.measure import report
    from meltbench.cli.watching import Terminal
    from meltbench.errors import UserError
    from meltbench.store import find_store

    store = find_store(data)
    open_ids = store.open_ids()
    wanted = [store.resolve(name).run_id for name in run] if run else open_ids
    if stored := [run_id for run_id in wanted if run_id not in open_ids]:
        raise UserError(f"run {stored[0]} is stored already", hint=store.command("show", stored[0]))
    with Terminal() as watch:
        if not wanted:
            watch.say("nothing to collect: every run of the store is complete")
        records, failed = road.collect(store, watch, wanted, wait=not no_wait)
    report(records, store, as_json=as_json)
    if failed or any(record.manifest.get("outcome") != "done" for record in records):
        raise typer.Exit(1)


def export(
    run: RunNames = None,
    format_: Annotated[
        str,
        typer.Option("--format", metavar="FORMAT", help="parquet (a folder), csv, llama-bench or llama-bench-jsonl."),
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
    """Export runs as Parquet, CSV, or JSON as llama-bench writes it."""
    from meltbench.store import export as exporting
    from meltbench.store import find_store

    store = find_store(data)
    stored = store.stored_ids()
    ids = [store.resolve(name, among=stored).run_id for name in run] if run else stored
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
