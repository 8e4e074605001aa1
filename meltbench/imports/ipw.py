"""Results of HazyResearch's intelligence-per-watt: the profiler's records of queries, and traces of its benchmarks.

By its sources. ``ipw profile`` saves a Hugging Face dataset in Arrow, a row a query (execution/types.py), beside a
summary.json; the same rows may come as JSONL. ``ipw run`` appends a trace a query to JSONL (execution/trace.py).
Latencies are of its client's clock around the call. Energies are differences of a counter of the GPU, as far as the
monitor's readings lie within the query; for the profiler's first ten months, from November 2025 on, a buffer of 30 s
let a longer query have the energy of its last 30 s alone. No row says which version it is of: that energy is left out
where its own mean power tells that it is of less than the query, or nothing can tell. ``lm_correctness`` is False in
every row and no answer's mark; marks are in ``evaluation``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from meltbench.errors import UserError
from meltbench.imports.foreign import (
    Imported,
    count,
    ended,
    facts,
    json_lines,
    json_of,
    measured,
    part_of,
    positive,
    seconds,
    within,
    word,
)
from meltbench.measure import RunInputs, question_measures
from meltbench.measure.total import TOTAL
from meltbench.records import Measure, Request, Score

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from meltbench.imports.foreign import File

T = TypeVar("T", int, float)
TOOL = "intelligence-per-watt"
SUMMARY = "summary.json"
BUFFER_S = 30.0  # of the old profiler's window
_SEEN_SHARE = 0.9  # of a query: less than that by its energy over its mean power was cut off
_MAX_QUERIES, _MAX_MODELS, _MAX_TURNS = 100_000, 64, 10_000
_MAX_ROW_BYTES, _MAX_ANSWER = 256 << 20, 65_536  # rows as they unfold, a compressed file's too
_METHOD = "difference of the GPU's counter between the monitor's first and last reading within the query"
_ARROW = (b"\xff\xff\xff\xff", b"ARROW1")
_CAPPED = "capped"


class _Query(NamedTuple):
    """A query as the tool tells it; None for what it does not."""

    name: str
    latency_s: float
    n_in: int | None
    n_out: int | None
    ttft_s: float | None
    energy_j: float | None
    cpu_energy_j: float | None
    power_w: float | None
    correct: float | None
    unscored: str
    group: str
    answer: str
    gold: str
    status: str = "ok"


def read(files: Sequence[File], device: str | None = None) -> list[Imported]:
    """A run of each model that the files tell of. Raises UserError, with the line, for a file that is none of these."""
    summaries = [file for file in files if file.name == SUMMARY]
    if len(summaries) > 1:
        raise UserError(f"{summaries[1].path} is a second {SUMMARY}", hint="import one folder at a time")
    summary = json_of(summaries[0]) if summaries else {}
    rows = [file for file in files if file.name not in (SUMMARY, "dataset_info.json", "state.json")]
    if not rows:
        raise UserError("no file with queries was given", hint="give the folder that ipw profile wrote, or its JSONL")
    of_model: dict[str, list[_Query]] = {}
    about: dict[str, dict[str, Any]] = {}
    for file in rows:
        for where, row in _rows(file):
            for model, metrics in _entries(where, row, summary):
                if model not in of_model and len(of_model) == _MAX_MODELS:
                    raise UserError(f"{where}: more than {_MAX_MODELS} models", hint="import them apart")
                mine = of_model.setdefault(model, [])
                mine.append(_query(where, len(mine), row, metrics, model))
                about.setdefault(model, metrics if isinstance(metrics, dict) else {})
    return [_run(files, model, queries, about[model], summary, device) for model, queries in of_model.items()]


def _rows(file: File) -> Iterator[tuple[str, dict[str, Any]]]:
    """The rows of a file, each with where it stands."""
    if file.raw.startswith(_ARROW):
        found = [(f"row {at}", row) for at, row in enumerate(_arrow(file), 1)]
    else:
        found = [(f"line {at}", row) for at, row in json_lines(file, _MAX_QUERIES)]
    if not found:
        raise UserError(f"{file.path} holds no query")
    for where, row in found:
        if not isinstance(row, dict):
            raise UserError(f"{file.path}, {where}: no object")
        yield f"{file.path}, {where}", row


def _arrow(file: File) -> list[dict[str, Any]]:
    """The rows of a file of a saved dataset: Arrow's stream, or its file format."""
    import pyarrow as pa

    try:
        source = pa.BufferReader(file.raw)
        if file.raw.startswith(b"ARROW1"):
            whole = pa.ipc.open_file(source)
            batches = (whole.get_batch(at) for at in range(whole.num_record_batches))
        else:
            batches = iter(pa.ipc.open_stream(source))
        rows: list[dict[str, Any]] = []
        size = 0
        for batch in batches:
            size += batch.nbytes
            if len(rows) + batch.num_rows > _MAX_QUERIES or size > _MAX_ROW_BYTES:
                raise UserError(f"{file.path} has more than {_MAX_QUERIES} rows or 256 MiB", hint="cut it into parts")
            batch.validate(full=True)
            rows += batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, KeyError, OverflowError) as error:
        why = str(error).partition("\n")[0][:200]
        raise UserError(f"{file.path} cannot be read as Arrow: {why}") from error
    return rows


def _entries(where: str, row: dict[str, Any], summary: Any) -> list[tuple[str, Any]]:
    """The models that a row tells of, and what it tells of each."""
    if isinstance(row.get("trace_json"), str):
        row |= _trace(where, row["trace_json"])
    if isinstance(row.get("turns"), list):
        model = word(part_of(summary, "config", "model")) or word(part_of(summary, "model"))
        return [(model or "unknown", row)]
    metrics = row.get("model_metrics")
    # A dataset has a column for each model of any row: those without a value are of other rows.
    named = [(word(name), one) for name, one in metrics.items() if one] if isinstance(metrics, dict) else []
    if not named or not all(name and isinstance(one, dict) for name, one in named):
        raise UserError(f"{where}: neither model_metrics nor turns: no record of intelligence-per-watt")
    return named


def _trace(where: str, text: str) -> dict[str, Any]:
    from meltbench.imports.foreign import File as Text

    found = json_of(Text(where, text.encode("utf-8", "replace")))
    return found if isinstance(found, dict) else {}


def _query(where: str, at: int, row: dict[str, Any], metrics: dict[str, Any], model: str) -> _Query:
    made = _of_trace(at, row) if metrics is row else _of_profile(at, row, metrics, model)
    if made is None:
        raise UserError(f"{where}: a query without its time")
    return made


def _of_profile(at: int, row: dict[str, Any], metrics: dict[str, Any], model: str) -> _Query | None:
    latency = seconds(part_of(metrics, "latency_metrics", "total_query_seconds"))
    if latency is None:
        return None
    evaluation = part_of(metrics, "evaluation", "is_correct")
    ttft = seconds(part_of(metrics, "latency_metrics", "time_to_first_token_seconds"))
    return _Query(
        name=str(at),
        latency_s=latency,
        # The profiler writes 0 where the server gave no count.
        n_in=count(part_of(metrics, "token_metrics", "input")) or None,
        n_out=count(part_of(metrics, "token_metrics", "output")) or None,
        ttft_s=ttft if ttft is not None and ttft <= latency else None,
        energy_j=positive(part_of(metrics, "energy_metrics", "per_query_joules")),
        cpu_energy_j=positive(part_of(metrics, "energy_metrics", "cpu_per_query_joules")),
        power_w=positive(part_of(metrics, "power_metrics", "gpu", "per_query_watts", "avg")),
        correct=float(evaluation) if isinstance(evaluation, bool) else None,
        unscored="" if isinstance(evaluation, bool) else "not_scored: no evaluation; run ipw analyze on it",
        group=word(row.get("subject")),
        answer=_text(part_of(row, "model_answers", model)),
        gold=_text(row.get("answer")),
    )


def _of_trace(at: int, row: dict[str, Any]) -> _Query | None:
    latency, turns = seconds(row.get("total_wall_clock_s")), row["turns"]
    if latency is None or len(turns) > _MAX_TURNS:
        return None
    resolved = row.get("is_resolved")
    return _Query(
        name=word(row.get("query_id")) or str(at),
        latency_s=latency,
        n_in=_sum(turns, "input_tokens", count),
        n_out=_sum(turns, "output_tokens", count),
        ttft_s=None,
        energy_j=_sum(turns, "gpu_energy_joules", positive),
        cpu_energy_j=_sum(turns, "cpu_energy_joules", positive),
        power_w=None,
        correct=float(resolved) if isinstance(resolved, bool) else None,
        unscored="" if isinstance(resolved, bool) else "not_scored: the trace has no is_resolved",
        group=word(row.get("workload_type")),
        answer=_text(row.get("response_text")),
        gold="",
        status="ok" if row.get("completed") is True else "unfinished",
    )


def _sum(turns: Sequence[Any], key: str, read: Callable[[object], T | None]) -> T | None:
    """Of all turns; None where one has none, or the 0 of what nobody counted: a sum without it is of another query."""
    found = [read(part_of(turn, key)) or None for turn in turns]
    known = [one for one in found if one is not None]
    return sum(known[1:], known[0]) if known and len(known) == len(found) else None


def _text(value: object) -> str:
    return value[:_MAX_ANSWER] if isinstance(value, str) else ""


def energy_of(latency_s: float, energy_j: float | None, power_w: float | None) -> tuple[float | None, str]:
    """The energy of a query, or why it has none: a longer one than the buffer may have that of its last 30 s."""
    if energy_j is None:
        return None, "not_recorded: the profiler had no reading of the GPU's counter within it"
    if latency_s <= BUFFER_S:
        return energy_j, ""
    if power_w is None:
        return None, f"{_CAPPED}: longer than the {BUFFER_S:g} s that old profilers kept, and nothing tells if this did"
    seen_s = energy_j / power_w
    if seen_s < _SEEN_SHARE * latency_s:
        return None, f"{_CAPPED}: {energy_j:.4g} J at {power_w:.4g} W are {seen_s:.3g} of its {latency_s:.4g} s"
    return energy_j, ""


def _run(
    files: Sequence[File],
    model: str,
    queries: Sequence[_Query],
    metrics: dict[str, Any],
    summary: Any,
    device: str | None,
) -> Imported:
    requests: list[Request] = []
    scores: list[Score] = []
    now = 0
    for at, query in enumerate(queries):
        energy, why = energy_of(query.latency_s, query.energy_j, query.power_w)
        end = now + round(query.latency_s * 1e9)
        requests.append(_request(at, query, now, end, energy, why))
        scores.append(_score(at, query, energy, why))
        now = ended(model, 0, end)
    capped = [one for one in requests if one.energy_reason.startswith(_CAPPED)]
    told = [("imported", f"{TOOL} of {model}; what it did not record is missing")]
    inputs = RunInputs(
        kind="generate",
        mode="server",
        signals=(),
        sources=(),
        phases=(),
        requests=requests,
        scores=scores,
        totals=(),
        conditions=told,
    )
    more = [("low_coverage", f"{len(capped)} of {len(requests)} energies: {capped[0].energy_reason}")] if capped else []
    measures, reasons = measured(
        TOOL, inputs, _theirs(requests, scores, queries), more, clock="the clock of the profiler's client"
    )
    system, gpu = (part_of(metrics, key) or part_of(summary, key) for key in ("system_info", "gpu_info"))
    stamp = positive(part_of(summary, "generated_at"))
    ended_ns = None if stamp is None else within(round(min(stamp, 1e12) * 1e9))
    hardware = word(part_of(gpu, "name")) or word(part_of(system, "cpu_brand"))
    dataset = word(part_of(summary, "dataset_name")) or word(part_of(summary, "dataset"))
    client = word(part_of(summary, "profiler_config", "client_id"))
    return Imported(
        tool=TOOL,
        files=tuple(files),
        part=model,
        started_ns=None if ended_ns is None else within(ended_ns - now),
        ended_ns=ended_ns,
        device=device or hardware or word(part_of(summary, "hardware_label")) or "unknown",
        clock="queries are put one behind the other; the start is the summary's time less theirs, so at the latest",
        workload={
            "name": f"ipw-{dataset}" if dataset else "ipw",
            "title": "queries of intelligence-per-watt",
            "kind": "generate",
        },
        model={"name": model},
        runner={
            "name": f"ipw {client}".strip(),
            "engine": client or "unknown",
            "protocol": TOOL,
            "mode": "server",
            "accelerator": word(part_of(gpu, "backend")) or "unknown",
        },
        said={
            "hardware_label": word(part_of(summary, "hardware_label")),
            "ipw": word(part_of(summary, "versions", "ipw")) or "unknown",
            "system": facts(system),
            "gpu": facts(gpu),
        },
        requests=requests,
        scores=scores,
        measures=measures,
        reasons=reasons,
        notes=_notes(queries),
    )


def _notes(queries: Sequence[_Query]) -> tuple[str, ...]:
    out = ["energies are of the GPU alone, by its counter; the rest of the machine is in none of them"]
    unscored = sum(one.correct is None for one in queries)
    if unscored:
        out.append(f"{unscored} of {len(queries)} queries were not evaluated and have no accuracy")
    return tuple(out)


def _request(at: int, query: _Query, send_ns: int, end_ns: int, energy: float | None, why: str) -> Request:
    """The query; rates by our definitions where its tokens were counted and its first one timed."""
    ttft, n_out = query.ttft_s, query.n_out
    span_s = None if ttft is None else query.latency_s - ttft
    paced = span_s is not None and span_s > 0 and n_out is not None and n_out >= 2
    return Request(
        index=at,
        item=query.name,
        role="timed",
        status=query.status,
        t_send_ns=send_ns,
        t_end_ns=max(end_ns, send_ns + 1),
        t_first_ns=None if ttft is None else send_ns + round(ttft * 1e9),
        n_in=query.n_in,
        n_out=n_out,
        ttft_s=ttft,
        e2e_s=query.latency_s,
        tpot_s=span_s / (n_out - 1) if paced and span_s and n_out else None,
        decode_tps=(n_out - 1) / span_s if paced and span_s and n_out else None,
        prefill_tps=query.n_in / ttft if query.n_in and ttft else None,
        prefill_source="client_side" if query.n_in and ttft else None,
        answer=query.answer,
        energy_j=energy,
        energy_reason=why,
        count_source="server" if n_out is not None else None,
    )


def _score(at: int, query: _Query, energy: float | None, why: str) -> Score:
    return Score(
        item=query.name,
        method="ipw",
        correct=query.correct,
        parsed=query.correct is not None,
        gold=query.gold[:1000],
        group=query.group,
        requests=str(at),
        detail=query.unscored,
        latency_s=query.latency_s if query.status == "ok" else None,
        energy_j=energy,
        energy_reason=why,
    )


def _theirs(requests: Sequence[Request], scores: Sequence[Score], queries: Sequence[_Query]) -> list[Measure]:
    """Energies of the queries under our names, as far as every one has its own, and the profiler's own numbers."""
    known = [one.energy_j for one in requests if one.energy_j is not None]
    n_out = [one.n_out for one in requests if one.n_out is not None]
    whole = bool(known) and len(known) == len(requests)
    lack = next((one.energy_reason for one in requests if one.energy_reason), "no_reading: no query has one")
    method = f"energies of the queries alone, without the time between them; each: {_METHOD}"
    blank = Measure("energy_j", None, "J", scope="rail", source=TOTAL, klass="B", n=len(known))
    total = replace(blank, value=sum(known), method=method) if whole else replace(blank, reason=lack)
    out = [total, *(one for one in question_measures(scores, total) if one.name == "j_per_question")]
    for name, unit, of in (("j_per_request", "J/request", len(requests)), ("j_per_output_token", "J/tok", sum(n_out))):
        blank = Measure(name, None, unit, "ratio_of_sums", scope="rail", source=TOTAL, klass="B", n=len(known))
        counted = name == "j_per_request" or (of and len(n_out) == len(requests))
        if whole and counted:
            out.append(replace(blank, value=sum(known) / of, method=method))
        else:
            out.append(replace(blank, reason="no_token_count: of the answers" if whole else lack))
    for name, unit, values, how in (
        ("ipwtool_gpu_energy_j", "J", [q.energy_j for q in queries], "the GPU's energy as it is told, capped or not"),
        ("ipwtool_cpu_energy_j", "J", [q.cpu_energy_j for q in queries], "the CPU's energy as it is told"),
        ("ipwtool_gpu_power_w", "W", [q.power_w for q in queries], "mean of the GPU's power readings within a query"),
    ):
        found = [one for one in values if one is not None]
        if found:
            mean = sum(found) / len(found)
            out.append(
                Measure(name, mean, unit, "mean", source="ipwtool", n=len(found), method=f"{how}; mean of queries")
            )
    return out
