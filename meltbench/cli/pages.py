"""``meltbench dashboard`` and ``meltbench report``: pages in a browser, live or as one file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, plain, print_json

if TYPE_CHECKING:
    from meltbench.selecting import Selection
    from meltbench.store import Store


def dashboard(
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="0 takes one that is free.", min=0, max=65535)
    ] = 8050,
    host: Annotated[
        str,
        typer.Option("--host", metavar="ADDRESS", help="Where to listen; anything but this machine needs a token."),
    ] = "127.0.0.1",
    open_: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    data: Data = None,
) -> None:
    """Look at all runs in a browser: overview, Pareto front, runs, comparisons, trends, devices, accuracy."""
    from meltbench.cli.watching import Terminal
    from meltbench.dashboard.serve import bound
    from meltbench.store import find_store

    with Terminal() as watch:
        watch.say("reading the store ...")
        serving = bound(find_store(data), host, port)
    try:
        typer.echo(f"{serving.address}  (Ctrl-C ends it)")
        if open_:
            import webbrowser

            webbrowser.open(serving.address)
        serving.run()
    finally:
        serving.close()


def report(
    what: Annotated[
        list[str] | None,
        typer.Argument(metavar="[WORD=VALUE|RUN]...", help="Which runs: model=NAME,night=DATE or runs; else all."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE", help="Where to write it; else report.html, Markdown on stdout."),
    ] = None,
    title: Annotated[str, typer.Option("--title", metavar="TEXT", help="What stands above it.")] = "meltbench report",
    data: Data = None,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Write the pages of a selection as one HTML file that needs no network, or a summary of them in Markdown."""
    from pathlib import Path

    from meltbench.cli.watching import Terminal
    from meltbench.errors import UserError
    from meltbench.pages import offline, summary
    from meltbench.pages.published import Published
    from meltbench.store import find_store, fs, index

    check_format(as_json=as_json, as_markdown=as_markdown)
    title = title.encode("utf-8", "replace").decode()  # a command line may hold bytes that are no text
    store = find_store(data)
    selection = _selection(store, what or [])
    with Terminal() as watch:
        for note in index.refresh(store).notes:
            watch.warn(note)
    with Published(store).snapshot().asking(selection) as asking, Terminal() as watch:
        if not asking.ask("SELECT 1 FROM listed LIMIT 1").rows:
            hint = f"{store.command('runs')} lists what is there"
            raise UserError(f"no run in {store.root}{f' is of {selection}' if selection.values else ''}", hint=hint)
        runs = offline.chosen_runs(asking, selection)
        facts = summary.facts(asking, selection, runs)
        made = offline.chapters(store, asking, runs, lambda done, total: watch.counted("panels", done, total))
        text = summary.markdown(title, made, facts) if as_markdown else offline.html(title, made, facts)
    path = Path(out or ("" if as_markdown else "report.html"))
    if as_markdown and not out:
        plain(console(), text)
        return
    with fs.explained(f"write {path}", hint="name another file with --out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        fs.write_atomic(path.absolute(), text.encode("utf-8"))
    if as_json:
        chapters = [{"title": one.title, "panels": [part.title for part in one.parts]} for one in made]
        print_json({"path": str(path.absolute()), "bytes": path.stat().st_size, "facts": facts, "pages": chapters})
        return
    plain(console(), f"{path}: {len(made)} pages, {path.stat().st_size / 1e6:.1f} MB")


def _selection(store: Store, what: list[str]) -> Selection:
    """The words as given, and every run by its whole name."""
    from meltbench.selecting import Selection

    pairs: list[tuple[str, str]] = []
    names = [text for text in what if "=" not in text]
    stored = store.stored_ids() if names else []
    for text in what:
        pairs += Selection.parse(text).values if "=" in text else [("run", store.resolve(text, among=stored).run_id)]
    return Selection.of(pairs)
