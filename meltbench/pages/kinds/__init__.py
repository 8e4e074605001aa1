"""The kinds of panels: each a function from a context to what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.pages.kinds.changes import alerts, changes
from meltbench.pages.kinds.charts import bars, lines, scatter
from meltbench.pages.kinds.compare import compare
from meltbench.pages.kinds.heat import heat
from meltbench.pages.kinds.noise import noise
from meltbench.pages.kinds.pareto import pareto
from meltbench.pages.kinds.run import head, trace
from meltbench.pages.kinds.tables import table

if TYPE_CHECKING:
    from collections.abc import Callable

    from meltbench.pages.drawn import Drawn
    from meltbench.pages.panel import Context

KINDS: dict[str, Callable[[Context], Drawn]] = {
    "table": table,
    "heat": heat,
    "lines": lines,
    "bars": bars,
    "scatter": scatter,
    "head": head,
    "trace": trace,
    "changes": changes,
    "alerts": alerts,
    "compare": compare,
    "pareto": pareto,
    "noise": noise,
}
