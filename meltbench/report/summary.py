"""What several runs of one plan say together: the median and the range of each headline measure over the runs."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from meltbench.records import bare
from meltbench.report.headline import METERED, POINTED, SERVED, Headline, natural, of_points
from meltbench.report.sheet import Column, Sheet
from meltbench.report.units import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Measure, RunRecord


def usable(record: RunRecord) -> bool:
    """Whether an aggregate may take a run in: it is done and not invalid."""
    return record.manifest.get("outcome") == "done" and record.manifest.get("validity") != "invalid"


def summary_sheet(records: Sequence[RunRecord]) -> Sheet | None:
    """One row a headline measure, of the run or of a point; None where no run may be summed up.

    The runs must be of one plan: then they have one mode, and nothing is mixed.
    """
    good = [record for record in records if usable(record)]
    if not good:
        return None
    left = len(records) - len(good)
    title = f"{len(good)} runs" + (f"; {left} failed or invalid, left out" if left else "")
    sheet = Sheet(
        title,
        (
            Column(""),
            Column("measure"),
            Column("median", right=True),
            Column("least", right=True),
            Column("most", right=True),
            Column("n", right=True),
        ),
    )
    wanted = SERVED if any(record.manifest.get("runner") for record in good) else METERED
    _add(sheet, "", wanted, [[m for m in record.measures if m.phase == "run"] for record in good])
    by_point = [of_points(record.measures) for record in good]
    for point in sorted({point for found in by_point for point in found}, key=natural):
        _add(sheet, point, POINTED, [found.get(point, []) for found in by_point])
    return sheet


def _add(sheet: Sheet, label: str, wanted: Sequence[Headline], runs: Sequence[Sequence[Measure]]) -> None:
    """The rows of one point, or of the run; a measure that no run has a value of is left out."""
    for headline in wanted:
        found = [_of(measures, headline) for measures in runs]
        values = [m.value for m in found if m is not None and m.value is not None]
        if not values:
            continue
        name = next(m.name for m in found if m is not None)
        cells = [quantity(value, headline.unit) for value in (statistics.median(values), min(values), max(values))]
        sheet.rows.append((label, name, *cells, str(len(values))))
        label = ""


def _of(measures: Sequence[Measure], headline: Headline) -> Measure | None:
    mine = [m for m in measures if bare(m.name) == headline.name and m.stat == headline.stat]
    return mine[0] if mine else None
