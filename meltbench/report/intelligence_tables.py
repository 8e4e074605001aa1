"""Intelligence per watt and per joule of many cells as tables: IPW never without IPJ, nor gross without net."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.report.cells import cells_sheet, table_notes

if TYPE_CHECKING:
    from meltbench.report.sheet import Sheet

Document = dict[str, Any]
_BOTH = ("gross", "net")
_COLUMNS = (
    ("accuracy", None),
    ("perplexity", None),
    *((name, which) for name in ("ipw_per_w", "ipj_per_j", "ppw_per_w", "ppj_per_j") for which in _BOTH),
    *((name, "gross") for name in ("mean_power_w", "mean_energy_j")),
)
_HEADS = {
    "accuracy": "accuracy",
    "perplexity": "perplexity",
    **{
        f"{name} {which}": f"{name[:3].upper()} {which}"
        for name, which in _COLUMNS
        if name.endswith(("_per_w", "_per_j"))
    },
    "mean_power_w gross": "power",
    "mean_energy_j gross": "energy/query",
}


def intelligence_sheets(document: Document) -> list[tuple[Sheet, list[str]]]:
    """A sheet and its notes for each table, the rows in order of what they are put together by, which stands first."""
    more = (document["by"],)
    return [(cells_sheet(_shares(one), _COLUMNS, _HEADS, more), table_notes(one)) for one in document["tables"]]


def _shares(table: Document) -> Document:
    """The table with its accuracies as per cent."""
    rows = []
    for row in table["rows"]:
        numbers = [one | {"unit": "share"} if one["name"] == "accuracy" else one for one in row["numbers"]]
        rows.append(row | {"numbers": numbers})
    return table | {"rows": rows}
