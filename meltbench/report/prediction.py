"""What was predicted, and how well the fits behind it fit, as tables."""

from __future__ import annotations

from typing import Any

from meltbench.report.sheet import MISSING, Column, Sheet
from meltbench.report.units import quantity

Document = dict[str, Any]


def title(document: Document) -> str:
    """What was asked of what, in a line."""
    engine = f"{document['engine']} {document['engine_version']} ({document['accelerator']}, {document['mode']})"
    asked = f"{document['n_in']} tokens in, {document['n_out']} out"
    return " · ".join(str(part) for part in (document["model"], engine, document["device"], asked) if part)


def prediction_sheet(document: Document) -> Sheet:
    """The numbers, each with its 95 % interval for one new request, and what makes it less than sure."""
    sheet = Sheet(
        title(document),
        (
            Column("predicted", whole=True),
            Column("value", right=True, whole=True),
            Column("95 % interval", whole=True),
            Column("", faint=True),
        ),
    )
    for one in document["predictions"]:
        if one["value"] is None:
            sheet.rows.append((one["name"], MISSING, "", one["reason"]))
            continue
        interval = f"{quantity(one['lo'], one['unit'])} to {quantity(one['hi'], one['unit'])}"
        beyond = f"extrapolated: {one['beyond']}" if one["beyond"] else ""
        of = f"scope {document['scope']}, class {document['klass'] or '?'}" if one["unit"] in ("J", "W") else ""
        note = "; ".join(part for part in (of, beyond) if part)
        sheet.rows.append((one["name"], quantity(one["value"], one["unit"]), interval, note))
    return sheet


def fit_sheet(document: Document) -> Sheet:
    """The forms, their parameters with standard errors, and their residuals."""
    right = {"n", "RMSE", "largest", "R²"}
    heads = ("form", "parameters", "n", "RMSE", "largest", "R²")
    sheet = Sheet("fits", tuple(Column(head, right=head in right, whole=head in right) for head in heads))
    for fit in document["fits"]:
        held, unit = fit["residuals"], "J" if fit["name"] == "energy" else "s"
        if held is None:
            sheet.rows.append((f"{fit['name']}: {fit['form']}", fit["reason"], "", MISSING, MISSING, MISSING))
            continue
        parameters = ", ".join(f"{p['name']} = {p['value']:.4g} ± {p['se']:.2g} {p['unit']}" for p in fit["parameters"])
        share = f"{quantity(held['rmse'], unit)}, {held['relative_rmse'] * 100:.2g} %"
        largest = f"{quantity(held['largest'], unit)}, {held['relative_largest'] * 100:.2g} %"
        r2 = MISSING if held["r_squared"] is None else f"{held['r_squared']:.5f}"
        sheet.rows.append((f"{fit['name']}: {fit['form']}", parameters, str(fit["n"]), share, largest, r2))
    return sheet


def notes(document: Document) -> list[str]:
    """Lines below the tables: how many requests of how many runs, and which were not used."""
    n = len(document["runs"])
    lines = [f"from {document['n_requests']} requests of {n} run{'s' * (n > 1)}"]
    if n == 1:
        lines[0] += ": how runs differ is not in the intervals"
    lines += [f"left out: {count} requests, {why}" for why, count in document["left_out"].items()]
    if document["invalid_runs"]:
        lines.append(f"invalid, and used because named: {', '.join(document['invalid_runs'])}")
    return lines
