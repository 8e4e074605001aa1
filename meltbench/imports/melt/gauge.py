"""``measurements_adb.csv`` of MELT (collect_adb_measurements.sh): a phone's gauge every 3 s, stamped by the host.

``timestamp,current,voltage,cpu_util``: the first two lines of all supplies' uevents in which CURRENT_NOW or VOLTAGE_NOW
stands. So it may be a charger's and no battery's, its unit and sign are the vendor's, and the two columns may have
changed places, because a kernel may tell the voltage first. -1 stands where it was not asked for. MELT's report never
uses it; watts are told here only where all of that is given.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from meltbench.errors import UserError
from meltbench.imports.melt.power import Power
from meltbench.readings import battery
from meltbench.readings.polls import Raw
from meltbench.records import OK, Readings, SourceStatus, Stream

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench.records import Series

OPTIONS = ("current_unit", "voltage_unit", "discharge_sign", "columns")
_row = re.compile(
    rb"^(\d{1,10})(?:\.(\d{1,9}))?\d{0,9},(-?\d{1,18}),(-?\d{1,18})(?:,[-\d.eE+naif%]{0,24})?[ \t\r]*$", re.MULTILINE
)
_COLUMNS = {"current,voltage": (0, 1), "voltage,current": (1, 0)}
_NEEDED = "unit, sign and order of the columns are the phone's, and nobody wrote them down: no power is made of it"


def parse(raw: bytes, name: str, options: Mapping[str, object]) -> Power:
    """The gauge's rows; power only with ``OPTIONS``. Raises UserError where it has no row, or an option is wrong."""
    rows = _row.findall(raw)
    if not rows:
        raise UserError(f"{name} has no row of timestamp,current,voltage", hint="give measurements_adb.csv of MELT")
    t = np.array([int(s) * 10**9 + int(ns.ljust(9, b"0") or b"0") for s, ns, _, _ in rows], dtype=np.int64)
    cells = np.array([[float(a), float(b)] for _, _, a, b in rows])
    order = np.argsort(t, kind="stable")
    t, cells = t[order], cells[order]
    asked = ~(cells == -1).all(axis=1)
    seen = SourceStatus("adb", "ok", 1, len(rows), "")
    given = [option for option in OPTIONS if option in options]
    series: list[Series] = []
    if not asked.any():
        note = "the gauge was not asked: every row has -1"
    elif len(given) < len(OPTIONS):
        note = _NEEDED
    else:
        note, series = "", _series(t[asked], cells[asked], name, options)
    seen = replace(seen, status="ok" if series else "unparsed", detail=note)
    return Power("adb", name, {}, tuple(series), seen, None, "host", (f"{name}: {note}",) if note else ())


def _series(t: np.ndarray, cells: np.ndarray, name: str, options: Mapping[str, object]) -> list[Series]:
    columns = str(options["columns"])
    if columns not in _COLUMNS:
        raise UserError(f"columns is {columns!r}", hint=f"one of {', '.join(_COLUMNS)}")
    known = {key: options[key] for key in ("current_unit", "voltage_unit", "discharge_sign")}
    gauge = battery.gauge(known, voltage="uV")
    codes = np.zeros(len(t), np.uint8)
    current, voltage = (Raw(cells[:, at], codes) for at in _COLUMNS[columns])
    told = battery.known({"current": current, "voltage": voltage}, gauge)
    none = np.zeros(len(t), np.int32)
    stream = Stream(0, "adb", "log", name, "ok", 0, Readings.of(t, t, none, [b""] * len(t)))
    made = [battery.battery_series("adb", stream, "battery", quantity, raw, gauge) for quantity, raw in told.items()]
    return [one for one in made if (one.status == OK).any()]
