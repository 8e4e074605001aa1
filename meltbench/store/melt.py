"""Prompts of runs as MELT's results_model_inference_measurements.csv has them, for its notebooks.

Columns and definitions are those of report-measurements-llms.py (blade): ``output_tokens`` are the tokens that were
evaluated one by one, an answer's without its first; the rates are the engine's own; energy and charge of the whole
prompt are divided by ``output_tokens``. A prompt's window is ours, from sending to end. What was not measured is an
empty cell: MELT's notebooks drop such a row.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.records import Request, RunRecord, Series

COLUMNS = (
    *("iteration", "conversation", "prompt", "duration (sec)", "original_session_tokens", "input_tokens"),
    *("output_tokens", "prefill_tps", "tps", "energy_pt (mWh)", "discharge_pt (mAh)"),
)
_J_PER_MWH, _C_PER_MAH = 3.6, 3.6


def results(records: Sequence[RunRecord]) -> list[list[float | int | None]]:
    """A row a timed prompt that ended ok, of all runs; an iteration is a run's repetition.

    Conversations are numbered by their names, the same in every run; single prompts are one conversation.
    """
    talks = sorted({_place(one)[0] for record in records for one in _good(record)})
    return [
        [record.manifest.get("rep"), talks.index(_place(one)[0]), at, *_row(record, one)]
        for record in records
        for at, one in _numbered(_good(record))
    ]


def csv_text(records: Sequence[RunRecord]) -> str:
    """The same as the text of MELT's file."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(results(records))
    return text.getvalue()


def _good(record: RunRecord) -> list[Request]:
    return [one for one in record.requests if one.role == "timed" and one.status == "ok"]


def _place(request: Request) -> tuple[str, int]:
    """The conversation of a request and its turn, from 1; a single prompt has neither."""
    talk, slash, turn = request.item.rpartition("/")
    return (talk, int(turn)) if slash and turn.isascii() and turn.isdigit() and len(turn) < 10 else ("", 0)


def _numbered(requests: Sequence[Request]) -> list[tuple[int, Request]]:
    """The requests with their place in their conversation, from 0."""
    seen: dict[str, int] = {}
    out = []
    for one in requests:
        talk = _place(one)[0]
        out.append((seen.get(talk, 0), one))
        seen[talk] = seen.get(talk, 0) + 1
    return out


def _row(record: RunRecord, one: Request) -> list[float | int | None]:
    steps = None if one.n_out is None else max(one.n_out - 1, 0)
    seconds = (one.t_end_ns - one.t_send_ns) / 1e9
    fresh = None if one.n_in is None else one.n_in - (one.n_cached or 0)
    tps = steps / one.engine_decode_s if steps and one.engine_decode_s else one.engine_decode_tps
    charge = discharged_c(record.series, one.t_send_ns, one.t_end_ns)
    energy, drawn = (
        None if total is None or not steps else total / unit / steps
        for total, unit in ((one.energy_j, _J_PER_MWH), (charge, _C_PER_MAH))
    )
    cached = -1 if one.n_cached is None else one.n_cached  # MELT's own word for not available
    return [seconds, cached, fresh, steps, one.engine_prefill_tps, tps, energy, drawn]


def discharged_c(series: Sequence[Series], t0_ns: int, t1_ns: int) -> float | None:
    """The charge (C) that a battery gave from t0 to t1: the trapezoid of its one current, interpolated at both edges.

    A meter in the battery's place counts what is drawn, a battery's own gauge what flows in. None where there is no
    current of a battery, or more than one, or it was not read on both sides of both edges.
    """
    found = [one for one in series if one.unit == "A" and one.scope == "battery" and len(one)]
    if len(found) != 1:
        return None
    good = np.isfinite(found[0].value)
    t, amps = (found[0].t0_ns[good] + found[0].t1_ns[good]) / 2e9, found[0].value[good]
    start, end = t0_ns / 1e9, t1_ns / 1e9
    if len(t) < 2 or not t[0] <= start < end <= t[-1]:
        return None
    inside = (t > start) & (t < end)
    at = np.concatenate([[start], t[inside], [end]])
    value = np.interp(at, t, amps)
    sign = 1.0 if found[0].name.startswith("meter.") else -1.0
    return sign * float(np.sum(np.diff(at) * (value[1:] + value[:-1]) / 2))
