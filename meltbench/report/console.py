"""A run as a table for a terminal, and the same numbers as JSON.

Text of a device or an engine is printed only after ``printable`` has taken its escape codes away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.records import bare
from meltbench.report.headline import natural, of_points
from meltbench.report.sheet import MISSING, Column, Sheet, markdown, print_sheet
from meltbench.report.units import quantity
from meltbench.targets import printable

if TYPE_CHECKING:
    from rich.console import Console

    from meltbench.records import Measure, RunRecord

_STYLE = {"valid": "green", "degraded": "yellow", "invalid": "red"}
# The table of a run, top to bottom: (heading, the measures under it, by name and stat).
_SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "quality",
        (
            ("accuracy", "mean"),
            ("accuracy_sum", "mean"),
            ("accuracy_per_character", "mean"),
            ("accuracy_per_token", "mean"),
            ("best_of_n", "mean"),
            ("unparsed", "mean"),
            ("answer_flip_rate", "mean"),
            ("accuracy_drift_per_pass", "slope"),
            ("domain_specialization_index", "value"),
            ("generalization_gap", "value"),
            ("cross_domain_transfer_ratio", "value"),
            ("perplexity", "value"),
            ("nll_per_token", "value"),
            ("kl_divergence", "value"),
        ),
    ),
    (
        "time",
        (
            ("load_s", "value"),
            ("first_inference_s", "value"),
            ("inference_s", "median"),
            ("inference_s", "p90"),
            ("inference_s", "p99"),
            ("inference_s", "min"),
            ("inferences_per_s", "value"),
            ("ttft_s", "median"),
            ("prefill_tps", "median"),
            ("decode_tps", "median"),
            ("engine_decode_tps", "median"),
            ("tpot_s", "median"),
            ("decode_tps_first", "median"),
            ("decode_tps_last", "median"),
            ("burst_decode_tps", "median"),
            ("sustained_decode_tps", "median"),
            ("throttle_retention", "value"),
            ("decode_tps_drift_per_min", "value"),
            ("question_latency_s", "mean"),
            ("wall_s", "value"),
            ("cpu_s", "value"),
        ),
    ),
    (
        "memory",
        (
            ("peak_rss_bytes", "max"),
            ("peak_pss_bytes", "max"),
            ("peak_gpu_memory_bytes", "max"),
            ("memory_available_bytes", "min"),
        ),
    ),
    (
        "energy",
        (
            ("energy_j", "value"),
            ("net_energy_j", "value"),
            ("mean_power_w", "value"),
            ("power_drift_per_min", "value"),
            ("j_per_output_token", "ratio_of_sums"),
            ("j_per_inference", "ratio_of_sums"),
            ("net_j_per_inference", "ratio_of_sums"),
            ("j_per_question", "mean"),
            ("ipw_per_w", "ratio_of_means"),
            ("ipj_per_j", "ratio_of_means"),
            ("ppw_per_w", "ratio_of_means"),
            ("ppj_per_j", "ratio_of_means"),
            ("discharge_mah_per_token", "ratio_of_sums"),
            ("prompts_per_charge", "ratio_of_sums"),
            ("battery_life_h", "value"),
        ),
    ),
    ("heat", (("start_temp_c", "value"), ("max_temp_c", "max"), ("recovery_s", "value"))),
)


def command_line(manifest: dict[str, Any]) -> str | None:
    """The command that was metered, as one would type it; None for a run of a model."""
    import shlex

    spec = manifest.get("spec")
    words = spec.get("command") if isinstance(spec, dict) else None
    return printable(shlex.join(map(str, words))) if isinstance(words, list | tuple) and words else None


def title(manifest: dict[str, Any]) -> str:
    """One line that says what ran: model, engine, accelerator, workload, command, device."""
    model, runner = manifest.get("model") or {}, manifest.get("runner") or {}
    parts = [
        str(model.get("name") or ""),
        f"{runner.get('engine')} {runner.get('version')} ({runner.get('accelerator')}, {runner.get('mode')})"
        if runner
        else "",
        str((manifest.get("workload") or {}).get("name") or ""),
        (command_line(manifest) or "")[:200],
        str((manifest.get("device") or {}).get("name") or ""),
    ]
    return printable(" · ".join(part for part in parts if part))


def chosen(record: RunRecord) -> list[tuple[str, Measure]]:
    """The measures of the table with their headings, in order; measures that do not apply are left out."""
    found = {(bare(m.name), m.stat): m for m in reversed(record.measures) if m.phase == "run"}
    rows = [(heading, found[key]) for heading, keys in _SECTIONS for key in keys if key in found]
    # The first of a section says why there is nothing; the same again says no more.
    first = {heading: next((m for h, m in rows if h == heading and m.value is None), None) for heading, _ in rows}
    return [(h, m) for h, m in rows if h not in ("energy", "heat") or m.value is not None or m is first[h]]


def points(record: RunRecord) -> list[tuple[str, Measure]]:
    """The rates of a grid, of levels of concurrency, or of kinds of turn, point by point."""
    wanted = {("prefill_tps", "median"), ("decode_tps", "median"), ("j_per_output_token", "ratio_of_sums")}
    if (record.manifest.get("workload") or {}).get("kind") != "grid":
        wanted |= {("ttft_s", "median"), ("output_tps", "value")}
    wanted |= {("ipw_per_w", "ratio_of_means"), ("ipj_per_j", "ratio_of_means")}
    wanted |= {(name, "mean") for name in ("accuracy", "best_of_n", "question_latency_s", "j_per_question")}
    shown = []
    for point, measures in sorted(of_points(record.measures).items(), key=lambda found: natural(found[0])):
        for m in measures:
            name = bare(m.name)
            # A point without any answer has no rate: the reason of its end-to-end time says why.
            rate = (name, m.stat) in wanted and (m.value is not None or name == "decode_tps")
            if rate or (name == "e2e_s" and m.reason):
                shown.append((point, m))
    return shown


def run_sheet(record: RunRecord) -> Sheet:
    """The measures that ``meltbench run`` prints."""
    sheet = Sheet("", (Column(""), Column("measure"), Column("value", right=True), Column("", faint=True)))
    last = ""
    for heading, measure in [*points(record), *chosen(record)]:
        value = MISSING if measure.value is None else quantity(measure.value, measure.unit)
        if measure.value is not None and measure.u_k2 is not None:
            value += f" ± {quantity(measure.u_k2, measure.unit)}"
        note = measure.reason or _note(measure)
        sheet.rows.append((heading if heading != last else "", measure.name, value, note))
        last = heading
    return sheet


def print_validity(console: Console, record: RunRecord) -> None:
    """How far the run can be trusted: its state, and each reason with what was seen and what to do."""
    state = str(record.manifest.get("validity"))
    console.print(f"  validity   [{_STYLE.get(state, 'red')}]{_escape(state)}[/]")
    for reason in record.reasons:
        detail = _escape(f"{printable(reason.detail)}. {reason.advice}")
        console.print(f"  {reason.code}: [dim]{detail}[/dim]", highlight=False)


def _note(measure: Measure) -> str:
    parts = [measure.stat if measure.stat not in ("value", "ratio_of_sums") else ""]
    parts.append(f"n = {measure.n}" if measure.n is not None and measure.stat in ("median", "p90", "mean") else "")
    parts.append(measure.method.partition(";")[0].removesuffix(" on the target"))
    return ", ".join(part for part in parts if part)


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)


def print_run(console: Console, record: RunRecord, where: str, show: str) -> None:
    """What ran, its numbers, why it failed if it did, where it is stored, and the command ``show`` that shows it again.

    A run that was never started has no numbers, and then no table.
    """
    console.print(f"[bold]{_escape(title(record.manifest))}[/bold]", highlight=False)
    if record.measures:
        print_sheet(console, run_sheet(record), as_markdown=False)
    manifest = record.manifest
    if ended_by := _ended_by(manifest):
        console.print(f"  ended by   {_escape(ended_by)}", highlight=False)
    if told := regimes_line(record):
        console.print(f"  regimes    {_escape(told)}", highlight=False)
    print_validity(console, record)
    console.print()
    if manifest.get("failure"):
        console.print(f"[red]{_escape(str(manifest['outcome']))}:[/red] {_escape(printable(str(manifest['failure'])))}")
        for line in str(manifest.get("failure_log") or "").splitlines()[-8:]:
            console.print(f"  [dim]{_escape(printable(line))[:300]}[/dim]")
    console.print(f"stored in {_escape(where)}  ·  {_escape(show)}", soft_wrap=True, highlight=False)


def _ended_by(manifest: dict[str, Any]) -> str | None:
    """What ended a run that goes on until something does; None for any other."""
    conditions = manifest.get("conditions")
    found = conditions.get("ended_by") if isinstance(conditions, dict) else None
    return None if found is None else printable(str(found))


_AROUND = ("idle", "load", "unload")
_MAX_REGIMES = 8


def regimes_line(record: RunRecord) -> str | None:
    """The states that the device went through under load, in seconds of the run; None where it was one burst."""
    run = next((phase for phase in record.phases if phase.name == "run"), None)
    found = [one for one in record.regimes if one.name not in _AROUND]
    if run is None or {one.name for one in found} <= {"burst"}:
        return None
    told = [
        f"{printable(one.name)} {(one.t0_ns - run.t0_ns) / 1e9:.0f}-{(one.t1_ns - run.t0_ns) / 1e9:.0f} s"
        for one in found
    ]
    return ", ".join(told[:_MAX_REGIMES]) + (
        f" and {len(told) - _MAX_REGIMES} more" if len(told) > _MAX_REGIMES else ""
    )


def markdown_run(record: RunRecord) -> str:
    """The same in Markdown, without where it is stored: for an issue or a forum, where nobody has that folder."""
    lines = [f"**{printable(title(record.manifest))}**", ""]
    if record.measures:
        lines.append(markdown(run_sheet(record)))
    if ended_by := _ended_by(record.manifest):
        lines += [f"ended by: {ended_by}", ""]
    if told := regimes_line(record):
        lines += [f"regimes: {told}", ""]
    lines.append(f"validity: {record.manifest.get('validity')}")
    lines += [f"- {reason.code}: {printable(reason.detail)}" for reason in record.reasons]
    if record.manifest.get("failure"):
        lines += ["", f"{record.manifest['outcome']}: {printable(str(record.manifest['failure']))}"]
    run, versions = record.run_id, record.manifest.get("versions")
    own = versions.get("meltbench") if isinstance(versions, dict) else None
    return "\n".join([*lines, "", f"run {run}, meltbench {own or 'of unknown version'}", ""])


def phase_sheet(record: RunRecord) -> Sheet:
    """The spans of a run, from its start; the prefills and decodes of requests are in the table of requests."""
    columns = [Column(name, right=name != "phase") for name in ("phase", "from", "to", "lasts")]
    sheet = Sheet("phases", tuple(columns))
    spans = [phase for phase in record.phases if phase.request is None]
    start = min((phase.t0_ns for phase in spans), default=0)
    for phase in spans:
        edges = [quantity((t - start) / 1e9, "s") for t in (phase.t0_ns, phase.t1_ns)]
        sheet.rows.append((phase.name, *edges, quantity(phase.duration_s, "s")))
    return sheet


_MAX_ROWS = 40
_REQUEST = ("#", "item", "role", "in", "out", "ttft ms", "prefill/s", "decode/s", "engine/s", "status")


def request_sheet(record: RunRecord) -> Sheet:
    """One row a request: tokens in (fresh@cached) and out, what was observed, and the engine's own decode rate."""
    shown = record.requests[:_MAX_ROWS]
    title = (
        "requests" if len(shown) == len(record.requests) else f"first {_MAX_ROWS} of {len(record.requests)} requests"
    )
    text = ("item", "role", "status")
    sheet = Sheet(title, tuple(Column(name, right=name not in text, whole=name not in text) for name in _REQUEST))

    def cell(value: float | None, scale: float = 1) -> str:
        return MISSING if value is None else f"{value * scale:.4g}"

    for r in shown:
        tokens_in = (
            MISSING if r.n_in is None else f"{r.n_in}" if not r.n_cached else f"{r.n_in - r.n_cached}@{r.n_cached}"
        )
        rates = [cell(rate) for rate in (r.prefill_tps, r.decode_tps, r.engine_decode_tps)]
        told = f"{r.role} {r.point}" if r.point not in ("", r.item) else r.role
        status = r.status if not r.detail else f"{r.status}: {r.detail}"
        out = MISSING if r.n_out is None else str(r.n_out)
        sheet.rows.append((str(r.index), r.item, told, tokens_in, out, cell(r.ttft_s, 1e3), *rates, status))
    return sheet
