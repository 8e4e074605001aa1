"""Rows of codecarbon's emissions.csv: energies that it made of counters, of models and of constants.

By its sources (3.3.0): ``energy_consumed`` is cpu_energy + gpu_energy + ram_energy in kWh. RAM is always a constant
times its size; the CPU is RAPL where that can be read, else its TDP times the load, and no column says which; GPUs are
NVML's or AMD's counter. So the class is E, a model, for all of a row. A RAPL file that cannot be read counts there as 0
and the next reading as a wrap: a failed read adds max_energy_range_uj, 262 kJ on most machines.
"""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from typing import TYPE_CHECKING

from meltbench.errors import UserError
from meltbench.imports.foreign import MAX_RUNS, File, Imported, measured, number, positive, seconds, utc_ns, word
from meltbench.measure import RunInputs
from meltbench.measure.screening import most_w
from meltbench.measure.total import TOTAL
from meltbench.records import Measure

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.records import Scope

TOOL = "codecarbon"
J_PER_KWH = 3.6e6
WRAP_J = 262_143.328850  # max_energy_range_uj of a package of most Intel and AMD machines
_NEEDED = ("timestamp", "duration", "energy_consumed")
_PARTS = ("cpu", "gpu", "ram")
_MAX_COLUMNS, _MAX_CELL = 200, 4096
_SAID = (
    *("timestamp", "project_name", "run_id", "experiment_id", "country_iso_code", "region", "cloud_provider"),
    *("cloud_region", "os", "python_version", "codecarbon_version", "cpu_count", "cpu_model", "gpu_count", "gpu_model"),
    *("ram_total_size", "tracking_mode", "on_cloud", "pue"),
)
_METHOD = "codecarbon's own: RAM by a constant, CPU by RAPL or by TDP times load (the file does not tell), GPU by NVML"


def read(files: Sequence[File], device: str | None = None) -> list[Imported]:
    """A run of each row. Raises UserError, with the line, for a file that is no emissions.csv."""
    return [_run(_own(file, row), line, row, device) for file in files for line, row in _rows(file)]


def _own(file: File, row: Mapping[str, str]) -> File:
    """The row alone below its head: codecarbon appends to a file for ever, and each run is to keep its own."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows((row.keys(), row.values()))
    return File(file.path, text.getvalue().encode("utf-8", "replace"))


def _rows(file: File) -> list[tuple[int, dict[str, str]]]:
    """The rows with the line on which each ends."""
    text = io.StringIO(file.raw.decode("utf-8-sig", "replace"), newline="")
    reader = csv.reader(text, strict=True)
    out: list[tuple[int, dict[str, str]]] = []
    head: list[str] | None = None
    try:
        for cells in reader:
            if head is None:
                head = [cell.strip() for cell in cells]
                _check_head(file, head)
            elif cells:
                if len(cells) != len(head):
                    raise UserError(
                        f"{file.path}, line {reader.line_num}: {len(cells)} cells under {len(head)} columns",
                        hint="codecarbon leaves a row short where all of a column is missing; take that row out",
                    )
                out.append((reader.line_num, dict(zip(head, cells, strict=True))))
            if len(out) > MAX_RUNS:
                raise UserError(f"{file.path} has more than {MAX_RUNS} rows", hint="cut it into parts")
    except csv.Error as error:
        raise UserError(f"{file.path}, line {reader.line_num}: not CSV: {error}") from error
    if not out:
        raise UserError(f"{file.path} has no row", hint="give the emissions.csv that codecarbon wrote")
    return out


def _check_head(file: File, head: Sequence[str]) -> None:
    lacking = [name for name in _NEEDED if name not in head]
    if lacking or len(head) > _MAX_COLUMNS or len(set(head)) != len(head):
        what = f"lacks {lacking[0]}" if lacking else "names a column twice, or too many"
        raise UserError(f"{file.path}, line 1: the head {what}", hint="give the emissions.csv that codecarbon wrote")


def _run(file: File, line: int, row: Mapping[str, str], device: str | None) -> Imported:
    lasted_s = seconds(row["duration"])
    if lasted_s is None:
        raise UserError(f"{file.path}, line {line}: the duration {row['duration'][:40]!r} is no time in s")
    ended = utc_ns(row["timestamp"])
    watts = {part: _watts(row, part, lasted_s) for part in ("cpu_energy", "gpu_energy", "energy_consumed")}
    wrong = _wrong(row, watts)
    more = [("implausible_power", wrong)] if wrong else []
    joules = number(row.get("cpu_energy"))
    if not wrong and joules is not None and joules * J_PER_KWH >= WRAP_J:
        said = f"{joules * J_PER_KWH / 1e3:.4g} kJ of the CPU: a failed read of RAPL would be 262 kJ of it, unseen"
        more.append(("counter_reset", said))
    inputs = RunInputs(
        kind="exec",
        signals=(),
        sources=(),
        phases=(),
        totals=(),
        conditions=[("imported", f"{file.name} of codecarbon, line {line}; what it did not record is missing")],
    )
    measures, reasons = measured(TOOL, inputs, _measures(row, lasted_s, wrong), more)
    started = None if ended is None else ended - round(lasted_s * 1e9)
    project = word(row.get("project_name")) or TOOL
    return Imported(
        tool=TOOL,
        files=(file,),
        identity=file.raw,
        part=str(line),
        started_ns=started if started is not None and started > 0 else None,
        ended_ns=ended,
        device=device or _machine(row),
        clock="the end by the machine's clock on the wall, whose zone the file does not name: taken as UTC",
        workload={"name": project, "title": f"what codecarbon tracked as {project}", "kind": "exec"},
        said={key: row[key][:_MAX_CELL] for key in _SAID if row.get(key)},
        measures=measures,
        reasons=reasons,
    )


def _machine(row: Mapping[str, str]) -> str:
    """The machine by its parts: codecarbon does not know its name."""
    parts = [word(row.get("cpu_model")), word(row.get("gpu_model"))]
    return ", ".join(part for part in parts if part) or "unknown"


def _watts(row: Mapping[str, str], column: str, lasted_s: float) -> float:
    return (number(row.get(column)) or 0.0) * J_PER_KWH / lasted_s


def _wrong(row: Mapping[str, str], watts: Mapping[str, float]) -> str:
    """Why its energies cannot be true; empty where they can."""
    lowest = min((number(row.get(f"{part}_energy")) or 0.0 for part in _PARTS), default=0.0)
    if lowest < 0 or (number(row["energy_consumed"]) or 0.0) < 0:
        return "an energy below 0"
    limit = most_w(None, ["gpu"] * min(int(positive(row.get("gpu_count")) or 0), 64))
    beyond = {part: w for part, w in watts.items() if w > (most_w(None, ()) if part == "cpu_energy" else limit)}
    if not beyond:
        return ""
    part, most = max(beyond.items(), key=lambda one: one[1])
    return f"{most:.4g} W by its {part}: a read of RAPL that fails adds 262 kJ in codecarbon"


def _measures(row: Mapping[str, str], lasted_s: float, wrong: str) -> list[Measure]:
    """Its energies in joules, class E, and what else it prints under its own names."""
    scope: Scope = "process" if row.get("tracking_mode", "").strip() == "process" else "soc"
    if scope == "soc" and positive(row.get("gpu_energy")) is not None:
        scope = "module"
    out = [Measure("wall_s", lasted_s, "s", method="duration of codecarbon")]
    columns = {TOTAL: "energy_consumed", **{f"codecarbon.{part}": f"{part}_energy" for part in _PARTS}}
    for source, column in columns.items():
        kwh = positive(row.get(column))  # 0 stands for what is not there, or could not be read
        blank = Measure("energy_j", None, "J", scope=scope if source == TOTAL else "rail", source=source, klass="E")
        if wrong:
            out.append(replace(blank, reason=f"implausible_power: {wrong}"))
        elif kwh is None:
            out.append(replace(blank, reason=f"not_recorded: codecarbon has no {column}"))
        else:
            out.append(replace(blank, value=kwh * J_PER_KWH, method=f"{column} in kWh; {_METHOD}"))
    total = next(one for one in out if one.source == TOTAL)
    power = Measure("mean_power_w", None, "W", scope=scope, source=TOTAL, klass="E")
    if total.value is None:
        out.append(replace(power, reason=total.reason))
    else:
        out.append(replace(power, value=total.value / lasted_s, method=f"energy_consumed / duration; {_METHOD}"))
    emitted = number(row.get("emissions"))
    if emitted is not None and not wrong:
        how = "energy_consumed times the carbon intensity that codecarbon took for the place, kg CO2 equivalent"
        out.append(Measure("codecarbon_emissions_kg", emitted, "kg", klass="E", method=how))
    return out
