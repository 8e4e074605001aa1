"""A run as HTML for a notebook: the tables of the console."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from meltbench.report.console import run_sheet, title
from meltbench.targets import printable

if TYPE_CHECKING:
    from meltbench.records import RunRecord
    from meltbench.report.sheet import Sheet


def run_html(record: RunRecord) -> str:
    """What ran, its numbers, and how far they can be trusted; every text of a device is escaped."""
    reasons = "".join(f"<li>{_text(f'{one.code}: {one.detail}')}</li>" for one in record.reasons)
    return (
        f"<b>{_text(title(record.manifest))}</b>{_table(run_sheet(record)) if record.measures else ''}"
        f"<p>{_text(str(record.manifest.get('validity')))}</p><ul>{reasons}</ul><p>run {_text(record.run_id)}</p>"
    )


def _table(sheet: Sheet) -> str:
    head = "".join(f"<th>{_text(column.heading)}</th>" for column in sheet.columns)
    rows = []
    for row in sheet.rows:
        cells = zip(sheet.columns, row, strict=True)
        rows.append(
            "".join(f'<td style="text-align:{"right" if c.right else "left"}">{_text(t)}</td>' for c, t in cells)
        )
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>"


def _text(text: str) -> str:
    return escape(printable(text))
