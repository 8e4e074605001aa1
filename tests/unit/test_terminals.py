"""What is shown where a screen can be drawn anew, and where it cannot: a pipe, or a dumb terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from test_live_jobs import SIGHT

from meltbench.cli import topping, watching
from meltbench.cli.common import draws
from meltbench.store import open_store


def terminal(kind: str) -> Console:
    """A terminal of that TERM; none where it is empty."""
    return Console(file=io.StringIO(), width=80, force_terminal=bool(kind), _environ={"TERM": kind})


def said(out: Console) -> str:
    assert isinstance(out.file, io.StringIO)
    return out.file.getvalue()


@pytest.mark.parametrize(("kind", "drawn"), [("xterm", True), ("dumb", False), ("", False)])
def test_only_a_terminal_that_can_is_drawn_on(kind: str, drawn: bool) -> None:
    assert draws(terminal(kind)) is drawn


@pytest.mark.parametrize("kind", ["dumb", ""])
def test_steps_and_figures_are_lines_where_nothing_can_be_drawn(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = terminal(kind)
    monkeypatch.setattr(watching, "console", lambda **_: out)
    with watching.Terminal() as watch:
        watch.live(SIGHT)
        watch.step(dict(SIGHT.status))
    assert "answering requests: 48.2 tok/s" in said(out)


def test_top_prints_lines_on_a_dumb_terminal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = terminal("dumb")
    monkeypatch.setattr(topping, "console", lambda **_: out)
    monkeypatch.setattr("os.nice", lambda _: 0)

    def tired(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", tired)
    open_store(tmp_path / "data").check_writable()
    topping.top(data=str(tmp_path / "data"))
    assert "is under way" in said(out)
