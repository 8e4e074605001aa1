"""What several runs of one plan say together: the median and the range of each headline measure over the runs."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from meltbench.records import bare
from meltbench.report.headline import INFERRED, METERED, POINTED, SERVED, Headline, natural, of_points
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Measure, RunRecord


def usable(record: RunRecord) -> bool:
    """Whether an aggregate may take a run in: it is done and not invalid."""
    return record.manifest.get("outcome") == "done" and record.manifest.get("validity") != "invalid"


def summary_sheet(records: Sequence[RunRecord]) -> Sheet | None:
    """One row a headline measure, of the run or of a point; of a sweep one row a setting. None where no run may be
    summed up.

    The runs must be of one plan: then they have one mode, and nothing is mixed.
    """
    good = [record for record in records if usable(record)]
    if not good:
        return None
    left = len(records) - len(good)
    title = f"{len(good)} runs" + (f"; {left} failed or invalid, left out" if left else "")
    if swept := _swept(records):
        return _sweep(title, good, swept)
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
    wanted: Sequence[Headline] = METERED
    if any(record.manifest.get("runner") for record in good):
        wanted = list(dict.fromkeys((*SERVED, *INFERRED)))
    _add(sheet, "", wanted, [[m for m in record.measures if m.phase == "run"] for record in good])
    by_point = [of_points(record.measures) for record in good]
    for point in sorted({point for found in by_point for point in found}, key=natural):
        _add(sheet, point, POINTED, [found.get(point, []) for found in by_point])
    return sheet


def _swept(records: Sequence[RunRecord]) -> list[str]:
    """The knobs that are not the same in all runs."""
    knobs = [record.manifest.get("knobs") or {} for record in records]
    return sorted(
        name for name in {name for one in knobs for name in one} if len({str(one.get(name)) for one in knobs}) > 1
    )


def _sweep(title: str, good: Sequence[RunRecord], swept: Sequence[str]) -> Sheet:
    """One row a setting, and one more for each of its points: medians over its runs, of the measures that any has."""
    rows: dict[tuple[str, ...], list[Sequence[Measure]]] = {}
    for record in good:
        label = tuple(str(record.manifest["knobs"].get(name)) for name in swept)
        whole = {"": [one for one in record.measures if one.phase == "run"]}
        for point, measures in {**whole, **of_points(record.measures)}.items():
            rows.setdefault((*label, point), []).append(measures)
    order = sorted(rows, key=lambda key: [natural(part) for part in key])
    served = any(record.manifest.get("runner") for record in good)
    wanted = dict.fromkeys((*SERVED, *POINTED, *INFERRED) if served else METERED)
    found = {headline: [_values(rows[key], headline) for key in order] for headline in wanted}
    shown = {headline: values for headline, values in found.items() if any(values)}
    columns = [*(Column(name, right=True) for name in swept), Column("")]
    columns += [Column(headline.heading, right=True) for headline in shown] + [Column("n", right=True)]
    sheet = Sheet(f"{title}; medians", tuple(columns))
    for at, key in enumerate(order):
        cells = [(values[at], headline.unit) for headline, values in shown.items()]
        if any(values for values, _ in cells):
            told = [quantity(statistics.median(values), unit) if values else MISSING for values, unit in cells]
            sheet.rows.append((*key, *told, str(len(rows[key]))))
    return sheet


def _values(runs: Sequence[Sequence[Measure]], headline: Headline) -> list[float]:
    found = [_of(measures, headline) for measures in runs]
    return [one.value for one in found if one is not None and one.value is not None]


def _add(sheet: Sheet, label: str, wanted: Sequence[Headline], runs: Sequence[Sequence[Measure]]) -> None:
    """The rows of one point, or of the run; a measure that no run has a value of is left out."""
    for headline in wanted:
        values = _values(runs, headline)
        if not values:
            continue
        name = next(m.name for measures in runs if (m := _of(measures, headline)) is not None)
        cells = [quantity(value, headline.unit) for value in (statistics.median(values), min(values), max(values))]
        sheet.rows.append((label, name, *cells, str(len(values))))
        label = ""


def _of(measures: Sequence[Measure], headline: Headline) -> Measure | None:
    mine = [m for m in measures if bare(m.name) == headline.name and m.stat == headline.stat]
    return mine[0] if mine else None
