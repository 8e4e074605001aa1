"""Progress on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.cli.common import console
from meltbench.errors import Interrupted
from meltbench.report.units import quantity
from meltbench.targets import printable

if TYPE_CHECKING:
    from types import TracebackType

    from rich.progress import Progress, TaskID

_WORDS = {
    "idle_before": "idle window before",
    "idle_after": "idle window after",
    "spawn": "starting the engine",
    "ready": "loading the model",
    "requests": "answering requests",
    "stop": "stopping the engine",
    "exec": "running the command",
    "window": "measuring idle",
}


class Terminal:
    """A Watch for people; use it as a context manager so that its bar is gone before a table is printed."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._progress: Progress | None = None
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
        self._console.print(printable(text), markup=False, highlight=False, style="dim", soft_wrap=True)

    def fetched(self, done: int, total: int | None) -> None:
        """Draw the bar of a download."""
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn

        if not self._console.is_terminal:
            if self._last != "download":
                size = f", {quantity(total, 'B')}" if total else ""
                self.say(f"fetching the model{size}")
                self._last = "download"
            return
        if self._progress is None or self._last != "download":
            self._open(
                "download", TextColumn("fetching the model"), BarColumn(), DownloadColumn(), TransferSpeedColumn()
            )
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)
        if total is not None and done >= total:
            self._close()

    def counted(self, what: str, done: int, total: int) -> None:
        """Draw the bar of a count, such as of runs."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn

        if not self._console.is_terminal:
            return
        if self._progress is None or self._last != what:
            self._open(what, TextColumn(what), BarColumn(), MofNCompleteColumn())
        assert self._progress is not None
        assert self._task is not None
        self._progress.update(self._task, completed=done, total=total)

    def step(self, status: dict[str, Any]) -> None:
        """Show which step of the run is under way."""
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

        op, name = str(status.get("op", "")), str(status.get("name", ""))
        words = _WORDS.get(name) or _WORDS.get(op) or "starting"
        if not self._console.is_terminal:
            if words != self._last and status.get("state") == "running":
                self.say(words)
                self._last = words
            return
        if self._progress is None or self._last == "download":
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._open("run", *columns)
        assert self._progress is not None
        assert self._task is not None
        step, steps = int(status.get("step") or 0), int(status.get("steps") or 0)
        done, of = int(status.get("done") or 0), int(status.get("of") or 0)
        text = f"{words} {done}/{of}" if of else words
        if limit_ms := int(status.get("limit_ms") or 0):
            text = f"{words} {done}, {int(status.get('elapsed_ms') or 0) // 1000} of {limit_ms // 1000} s"
        self._progress.update(self._task, completed=step, total=steps or None, description=printable(text))

    def _open(self, what: str, *columns: Any) -> None:
        from rich.progress import Progress

        self._close()
        self._progress = Progress(*columns, console=self._console, transient=True)
        self._progress.start()
        self._task = self._progress.add_task("", total=None)
        self._last = what

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None
