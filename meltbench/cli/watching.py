"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.cli.common import console, draws, plain
from meltbench.errors import Interrupted
from meltbench.report import living
from meltbench.report.progress import Lines, Steps
from meltbench.report.textplot import fits
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from rich.progress import TaskID

    from meltbench.cli.below import BarAndLine
    from meltbench.live.picture import Sight


class Terminal:
    """A Watch for people; use it as a context manager so that its bar is gone before a table is printed.

    ``lengths``: seconds of the steps whose length the plan fixes, by their names.
    """

    def __init__(self, lengths: Mapping[str, float] | None = None) -> None:
        self._console = console(stderr=True)
        self._lines = Lines(self._say)
        self._steps = Steps(lengths)
        self._ticker: living.Ticker | None = None
        self._sight: Sight | None = None
        self._progress: BarAndLine | None = None
        self._task: TaskID | None = None
        self._last = ""

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()
        if kind is KeyboardInterrupt:
            # While a run is under way Ctrl-C is counted, not raised (meltbench.watch.Interrupts): none is here.
            raise Interrupted("interrupted; nothing is running, and what was fetched so far is kept") from None

    def say(self, text: str) -> None:
        """Print one line above the bar."""
        self._lines.say(text)

    warn = say

    def _say(self, text: str) -> None:
        plain(self._console, text, style="dim")

    def fetched(self, done: int, total: int | None, what: str = "fetching the model") -> None:
        """Draw the bar of a download, or of what else is on its way."""
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

        if not draws(self._console):
            self._lines.fetched(done, total, what)
            return
        if self._progress is None or self._last != what:
            label = TextColumn(what, markup=False)
            self._open(what, label, BarColumn(), DownloadColumn(), TransferSpeedColumn())
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)
        if total is not None and done >= total:
            self._close()

    def counted(self, what: str, done: int, total: int) -> None:
        """Draw the bar of a count, such as of runs."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        if not draws(self._console):
            return
        if self._progress is None or self._last != what:
            self._open(what, TextColumn(what), BarColumn(), MofNCompleteColumn())
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)

    def step(self, status: dict[str, Any]) -> None:
        """Show which step of the run is under way, how far it is, and how long it may take where that is known."""
        from rich.progress import BarColumn, TextColumn

        if not draws(self._console):
            self._lines.step(status)
            return
        if self._progress is None or self._last != "run":
            plain = TextColumn("{task.fields[detail]}", markup=False)
            self._open("run", TextColumn("{task.description}", markup=False), BarColumn(), plain, detail="")
        assert self._progress is not None
        assert self._task is not None
        look = self._steps.look(status)
        # A bar without a total moves to and fro.
        total, done = (1.0, look.share) if look.share is not None else (None, 0.0)
        if self._sight is not None:
            self._progress.line = living.line(self._sight, bars=fits(self._console.encoding))
        self._progress.update(
            self._task, completed=done, total=total, description=printable(look.words), detail=look.detail
        )

    def live(self, sight: Sight) -> None:
        """Show token rate, power and temperature: below the bar, or as a line every few seconds."""
        if draws(self._console):
            self._sight = sight  # drawn with the next step, which comes at once
            return
        if self._ticker is None:
            self._ticker = living.Ticker(self._say)
        self._ticker.show(sight)

    def _open(self, what: str, *columns: Any, **fields: Any) -> None:
        from meltbench.cli.below import BarAndLine

        self._close()
        self._progress = BarAndLine(*columns, console=self._console, transient=True)
        self._progress.start()
        self._task = self._progress.add_task("", total=None, **fields)
        self._last = what

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = self._sight = None
