"""One run: what it was in a few facts, and its traces."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Any

from meltbench.errors import UserError
from meltbench.pages.drawn import Drawn, nothing, shown
from meltbench.pages.published import Answer

if TYPE_CHECKING:
    from meltbench.pages.panel import Context

_ASK = """
SELECT r.run_id, r.started_at, r.outcome, r.failure, r.validity, r.device, r.model, r.quantisation, r.runner,
    concat_ws(' ', r.engine, r.engine_version) AS engine, r.accelerator, r.mode, r.workload, r.origin, r.manifest
FROM runs r WHERE r.run_id = $run"""
_TOLD = ("device", "model", "quantisation", "runner", "engine", "accelerator", "mode", "workload", "started_at")


def head(context: Context) -> Drawn:
    """What the run was, how far it can be trusted, where its evidence lies, and the command that measures it again."""
    found = _the_run(context)
    if isinstance(found, Drawn):
        return found
    facts = [(name.replace("_", " "), shown(found[name])) for name in _TOLD if found[name] is not None]
    trust = str(found["validity"]) + (f": {found['failure']}" if found["failure"] else "")
    facts.insert(0, ("validity", shown(trust)))
    if found["origin"]:
        facts.append(("imported from", shown(found["origin"])))
    folder = context.store.folder(str(found["run_id"])).path
    facts += [("raw evidence", str(folder / "evidence")), ("run it again", _command(json.loads(found["manifest"])))]
    return Drawn(f"Run {found['run_id']}, {found['validity']}.", facts=tuple(facts))


def trace(context: Context) -> Drawn:
    """Power, temperature, token rate, frequency and memory; phases and throttling shaded, requests marked."""
    found = _the_run(context)
    if isinstance(found, Drawn):
        return found
    from meltbench.report.figure import height_px, trace_figure
    from meltbench.report.traces import read_traces
    from meltbench.store import read_record

    folder = context.store.folder(str(found["run_id"]))
    record = read_record(folder.path, signals=False)
    traces = read_traces(folder.path, record)
    drawn = [one.name for one in (*traces.signals, *traces.beside) if any(v is not None for v in one.mean)]
    says = f"{', '.join(drawn) or 'Nothing'} over {traces.seconds:.3g} s, {len(record.requests)} requests"
    says += f", throttled {len(traces.throttled)} times." if traces.throttled else "."
    rows = [
        (one.name, one.unit, *values)
        for one in (*traces.signals, *traces.beside)
        for values in zip(one.t_s, one.mean, one.low, one.high, strict=True)
    ]
    return Drawn(
        says,
        trace_figure(traces),
        height_px=height_px(traces),
        answer=Answer(("signal", "unit", "t_s", "mean", "low", "high"), rows),
        sql=_samples_sql(str(folder.path)),
    )


def _samples_sql(folder: str) -> str:
    """All samples of a run, which lie in its folder: the traces are condensed from them."""
    quoted = folder.replace("'", "''")
    return (
        "SELECT se.name, se.unit, sa.t0_ns, sa.value, sa.status\n"
        f"FROM '{quoted}/samples.parquet' sa JOIN '{quoted}/series.parquet' se USING (series)\n"
        "ORDER BY se.name, sa.t0_ns"
    )


def _the_run(context: Context) -> dict[str, Any] | Drawn:
    if not context.address.run:
        return nothing("No run is chosen: open one from a list or from a point of a chart.")
    answer = context.asking.ask(_ASK, {"run": context.address.run}, 1)
    if not answer.rows:
        raise UserError(f"there is no run {context.address.run!r} in this store", hint="the list of runs has them all")
    return dict(zip(answer.columns, answer.rows[0], strict=True))


def _command(manifest: dict[str, Any]) -> str:
    """The command that measures it again, by the words of its spec."""
    spec = manifest.get("spec") or {}
    if not spec:
        return "not with meltbench: another tool measured it"
    program = [str(word) for word in spec.get("command") or ()]
    words = ["meltbench", "exec" if program else "run"]
    for name in ("device",) if program else ("device", "model", "runner", "engine", "workload"):
        if spec.get(name):
            words += [f"--{name}", str(spec[name])]
    if spec.get("threads"):
        words += ["--threads", ",".join(map(str, spec["threads"]))]
    if spec.get("seed") is not None and not program:
        words += ["--seed", str(spec["seed"])]
    for knob in spec.get("knobs") or ():
        words += ["--set", f"{knob[0]}={knob[1]}"]
    return shown(shlex.join([*words, "--", *program] if program else words))
