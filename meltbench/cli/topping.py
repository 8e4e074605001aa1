"""``meltbench top``: the jobs that are under way, redrawn in place."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from meltbench.cli.common import Data, Json, Markdown, check_format, console, draws, plain, print_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rich.console import Console, RenderableType

    from meltbench.live.jobs import Job, Jobs
    from meltbench.report.progress import Look
    from meltbench.store import Store

_PERIOD_S, _PLAIN_S = 1.0, 5.0
_NICE = 19  # what measures goes first


def top(
    data: Data = None,
    once: Annotated[bool, typer.Option("--once", help="Print the table once and leave.")] = False,
    as_markdown: Markdown = False,
    as_json: Json = False,
) -> None:
    """Show the store's jobs under way: token rate, power, temperature. q or Ctrl-C ends it; no device is asked."""
    from meltbench.live.jobs import Jobs
    from meltbench.report import living
    from meltbench.report.sheet import print_sheet
    from meltbench.store import find_store

    check_format(as_json=as_json, as_markdown=as_markdown)
    os.nice(_NICE)
    store = find_store(data)
    jobs, steps, out = Jobs(store), _steps(), console()
    if as_json:
        print_json(living.jobs_json(jobs.look(), steps))
    elif once or as_markdown:
        found = jobs.look()
        if not found:
            plain(console(stderr=True), _none(store))
            return
        print_sheet(out, living.jobs_sheet(found, steps, bars=_bars(out)), as_markdown=as_markdown)
    else:
        with contextlib.suppress(KeyboardInterrupt):
            (_draw if draws(out) else _lines)(out, store, jobs, steps)


def _steps() -> Callable[[Job], Look]:
    """What each job is at: of every one it is remembered since when."""
    from meltbench.report.progress import Steps

    known: dict[str, Steps] = {}

    def look(job: Job) -> Look:
        assert job.sight is not None
        return known.setdefault(job.run_id, Steps()).look(job.sight.status)

    return look


def _bars(out: Console) -> bool:
    from meltbench.report.textplot import fits

    return fits(out.encoding)


def _none(store: Store) -> str:
    return f"no job of {store.root} is under way"


def _draw(out: Console, store: Store, jobs: Jobs, steps: Callable[[Job], Look]) -> None:
    from rich.console import Group
    from rich.live import Live
    from rich.text import Text

    from meltbench.report import living
    from meltbench.report.sheet import rich_table

    bars = _bars(out)
    with _pressed() as pressed, Live(console=out, auto_refresh=False, transient=True) as drawn:
        while True:
            found = jobs.look()
            sheet = living.jobs_sheet(found, steps, bars=bars, width=out.width)
            body: RenderableType = rich_table(sheet) if found else Text(f"{_none(store)}\n")
            drawn.update(Group(body, Text("q: leave", style="dim")), refresh=True)
            if pressed(_PERIOD_S):
                return


def _lines(out: Console, store: Store, jobs: Jobs, steps: Callable[[Job], Look]) -> None:
    """Where there is no terminal: a line a job, every few seconds."""
    import time

    from meltbench.report import living

    idle = False
    while True:
        found = jobs.look()
        for job in found:
            plain(out, living.job_line(job, steps))
        if not found and not idle:
            plain(out, _none(store))
        idle = not found
        out.file.flush()
        time.sleep(_PLAIN_S)


@contextlib.contextmanager
def _pressed() -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds and says whether q was pressed meanwhile."""
    import select
    import termios
    import time
    import tty

    if not sys.stdin.isatty():

        def rest(seconds: float) -> bool:
            time.sleep(seconds)
            return False

        yield rest
        return
    keys = sys.stdin.fileno()
    before = termios.tcgetattr(keys)

    def wait(seconds: float) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if select.select([keys], [], [], left)[0]:
                pressed = os.read(keys, 64)
                if not pressed or pressed[:1] in b"qQ":
                    return True
        return False

    try:
        tty.setcbreak(keys)
        yield wait
    finally:
        termios.tcsetattr(keys, termios.TCSADRAIN, before)
