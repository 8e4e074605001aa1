"""A bar with a line of text below it, both redrawn in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.progress import Progress
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.console import RenderableType


class BarAndLine(Progress):
    """rich's bars; ``line`` stands below them, cut at the edge of the terminal."""

    line = ""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The bars, then the line where there is one."""
        yield from super().get_renderables()
        if self.line:
            yield Text(self.line, no_wrap=True, overflow="ellipsis")
