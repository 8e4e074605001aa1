"""Two selections against each other as a table, in the manner of benchstat: what is not shown is ``~``."""

from __future__ import annotations

from typing import Any

from meltbench.analysis.metrics import METRICS
from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity
from meltbench.targets import printable

Document = dict[str, Any]
_PLACE = ("workload", "mode", "point")
_SHOWN = 3
_MANY = 12


def contrast_sheet(document: Document) -> Sheet:
    """A row a figure, workload, mode, point and stratum; the geometric mean of the strata below them."""
    rows, labels = document["rows"], document["labels"]
    place = [name for name in _PLACE if len({row[name] for row in rows}) > 1]
    heads = [Column("", whole=True), *(Column(name, whole=True) for name in (*place, *labels))]
    right = ("A", "B", "B against A", "95 % interval", "shift", "delta")
    sheet = Sheet("", (*heads, *(Column(name, right=True, whole=True) for name in right)))
    means = {_key(one): one for one in document["means"]}
    for at, row in enumerate(rows):
        cells = [METRICS[row["measure"]].heading, *(row[name] for name in place)]
        cells += [printable(row["stratum"][name]) for name in labels]
        sheet.rows.append((*cells, *_numbers(row, document["family"])))
        if (at + 1 == len(rows) or _key(rows[at + 1]) != _key(row)) and (mean := means.get(_key(row))):
            of = ["geomean", *("" for _ in labels[1:])]
            cells = [METRICS[row["measure"]].heading, *(row[name] for name in place), *of]
            sheet.rows.append((*cells, *_mean(mean)))
    return sheet


def _key(one: Document) -> tuple[str, ...]:
    return (one["measure"], *(one[name] for name in _PLACE))


def _numbers(row: Document, family: int) -> list[str]:
    found, shift = row["against"], row["shift"]
    told = [_side(row, "first"), _side(row, "second"), _verdict(row, family), _interval(found, row["kind"])]
    told.append("" if shift["value"] is None else change(shift["value"], "ratio"))
    return [*told, "" if row["delta"] is None else f"{row['delta']:+.2f}"]


def _mean(mean: Document) -> list[str]:
    sides = [quantity(mean[side], mean["unit"]) for side in ("first", "second")]
    return [*sides, change(mean["against"]["value"], "ratio"), _interval(mean["against"], "ratio"), "", ""]


def _side(row: Document, side: str) -> str:
    held = row[side]
    if held["value"] is None:
        return MISSING
    told = _said(held["value"], row)
    return told if held["log_sd"] is None else f"{told} ± {round(held['log_sd'] * 100, 9):.2g} %"


def _said(value: float, row: Document) -> str:
    return f"{value * 100:.3g} %" if row["measure"] == "accuracy" else quantity(value, row["unit"])


def _verdict(row: Document, family: int) -> str:
    n = f"n={row['first']['n_runs']}+{row['second']['n_runs']}"
    if row["against"]["value"] is None:
        return MISSING
    if row["p"] is None:
        return f"~ ({n})"
    adjusted = f" q={_share(row['q'])}" if family > 1 and row["q"] is not None else ""
    told = change(row["against"]["value"], row["kind"]) if row["verdict"] == "differs" else "~"
    return f"{told} (p={_share(row['p'])}{adjusted} {n})"


def _interval(found: Document, kind: str) -> str:
    if found["lo"] is None:
        return MISSING
    return f"{change(found['lo'], kind)} to {change(found['hi'], kind)}"


def change(value: float, kind: str) -> str:
    """A ratio as what it adds or takes, beyond a factor of two as the factor; a difference of shares in points.

    >>> change(1.032, "ratio"), change(0.9, "ratio"), change(3.5, "ratio"), change(-0.02, "difference")
    ('+3.20 %', '-10.0 %', 'x 3.50', '-2.00 pp')
    >>> change(0.0742, "ratio"), change(1 - 1e-16, "ratio")
    ('x 0.0742', '+0.00 %')
    """
    if kind == "ratio" and not 0.5 <= value <= 2:
        return f"x {value:#.3g}"
    share = round((value - 1 if kind == "ratio" else value) * 100, 6) + 0.0  # a rounded nothing has no sign
    return f"{share:+.{2 if abs(share) < 9.995 else 1}f} {'%' if kind == 'ratio' else 'pp'}"


def _share(p: float) -> str:
    return f"{p:.3f}" if p >= 0.0005 else f"{p:.0e}"


def contrast_notes(document: Document) -> list[str]:
    """What A and B are, how to read the table, what was left out, outliers, and advice; a line each."""
    rows, family = document["rows"], document["family"]
    out = []
    for who, arm in (("A", document["first"]), ("B", document["second"])):
        n = len(arm["runs"])
        out.append(f"{who}: {arm['selection']} ({n} run{'s' if n > 1 else ''})")
    for one in document["differs"]:
        out.append(f"{one['name']}: {_several(one['first'])} in A, {_several(one['second'])} in B")
    if any(row[side]["log_sd"] is not None for row in rows for side in ("first", "second")):
        out.append("±: standard deviation of runs")
    if any(row["verdict"] != "differs" for row in rows):
        of = f", as one of {family} figures (q, Benjamini-Hochberg)" if family > 1 else ""
        out.append(f"~: no difference is shown at {document['alpha'] * 100:.0f} %{of}")
    if any(row["verdict"] == "alike" for row in rows):
        out.append(f"differences of {document['effect'] * 100:.3g} % are excluded by the interval of: {_alike(rows)}")
    lacking = dict.fromkeys(
        f"no {METRICS[row['measure']].heading} of B against A: {row['against']['reason']}"
        for row in rows if row["against"]["reason"]
    )  # fmt: skip
    methods = dict.fromkeys(
        text for row in rows for text in (row["against"]["method"] if row["against"]["lo"] else "", row["test"]) if text
    )
    out += [*lacking, *([f"methods: {'; '.join(methods)}"] if methods else []), *_outliers(document)]
    return [printable(line) for line in (*out, *document["notes"], *document["advice"])]


def _alike(rows: list[Document]) -> str:
    """Of which measures an interval excludes a difference that matters; of how many rows, where it is not all."""
    out = []
    for name in dict.fromkeys(row["measure"] for row in rows if row["verdict"] == "alike"):
        verdicts = [row["verdict"] for row in rows if row["measure"] == name]
        some = f" ({verdicts.count('alike')} of {len(verdicts)} rows)" if {*verdicts} != {"alike"} else ""
        out.append(f"{METRICS[name].heading}{some}")
    return ", ".join(out)


def _outliers(document: Document) -> list[str]:
    """A line a run."""
    found: dict[tuple[str, str], list[str]] = {}
    for one in document["outliers"]:
        of = f"{METRICS[one['measure']].heading} {one['point']}".rstrip()
        times = one["value"] / one["median"] if one["median"] else float("inf")
        found.setdefault((one["run"], one["reasons"]), []).append(f"{of} x {times:.3g}")
    lines = [
        f"outlier, kept: {run}, {', '.join(told)} of the median{f': {why}' if why else ''}"
        for (run, why), told in found.items()
    ]
    return lines[:_MANY] + ([f"and {len(lines) - _MANY} runs more"] if len(lines) > _MANY else [])


def _several(values: list[str]) -> str:
    told = [value or "not set" for value in values]
    more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
    return f"{', '.join(told[:_SHOWN])}{more}"
