"""A run as a table for a terminal, and the same numbers as JSON.

Text of a device or an engine is printed only after ``printable`` has taken its escape codes away.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.measure.latency import bare
from meltbench.report.units import quantity
from meltbench.targets import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from meltbench.records import Measure, RunRecord

_STYLE = {"valid": "green", "degraded": "yellow", "invalid": "red"}
# The table of a run, top to bottom: (heading, the measures under it, by name and stat).
_SECTIONS: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = (
    (
        "time",
        (
            ("load_s", "value"),
            ("ttft_s", "median"),
            ("prefill_tps", "median"),
            ("decode_tps", "median"),
            ("engine_decode_tps", "median"),
            ("tpot_s", "median"),
            ("wall_s", "value"),
            ("cpu_s", "value"),
        ),
    ),
    ("memory", (("peak_rss_bytes", "max"), ("peak_pss_bytes", "max"), ("memory_available_bytes", "min"))),
    (
        "energy",
        (
            ("energy_j", "value"),
            ("net_energy_j", "value"),
            ("mean_power_w", "value"),
            ("j_per_output_token", "ratio_of_sums"),
        ),
    ),
    ("heat", (("start_temp_c", "value"), ("max_temp_c", "max"))),
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
    """The rates of a grid, point by point."""
    names = {request.item for request in record.requests}
    wanted = {("prefill_tps", "median"), ("decode_tps", "median"), ("j_per_output_token", "ratio_of_sums")}
    of_points = [m for m in record.measures if m.phase in names]
    # A point without any answer has no rate: the reason of its end-to-end time says why.
    shown = [
        m
        for m in of_points
        if ((bare(m.name), m.stat) in wanted and (m.value is not None or bare(m.name) == "decode_tps"))
        or (bare(m.name) == "e2e_s" and m.reason)
    ]
    return [(m.phase, m) for m in sorted(shown, key=lambda m: m.phase)]


def run_table(record: RunRecord) -> Table:
    """The measures that ``meltbench run`` prints."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD)
    for column, justify in (("", "left"), ("measure", "left"), ("value", "right"), ("", "left")):
        table.add_column(column, justify="right" if justify == "right" else "left", overflow="fold")
    last = ""
    for heading, measure in [*points(record), *chosen(record)]:
        value = "—" if measure.value is None else quantity(measure.value, measure.unit)
        if measure.value is not None and measure.u_k2 is not None:
            value += f" ± {quantity(measure.u_k2, measure.unit)}"
        note = printable(measure.reason) if measure.reason else _note(measure)
        table.add_row(heading if heading != last else "", measure.name, value, f"[dim]{_escape(note)}[/dim]")
        last = heading
    return table


def print_validity(console: Console, record: RunRecord) -> None:
    """How far the run can be trusted: its state, and each reason with what was seen and what to do."""
    state = str(record.manifest.get("validity"))
    console.print(f"  validity   [{_STYLE.get(state, 'red')}]{_escape(state)}[/]")
    for reason in record.reasons:
        detail = _escape(f"{printable(reason.detail)}. {reason.advice}")
        console.print(f"  {reason.code}: [dim]{detail}[/dim]", highlight=False)


def _note(measure: Measure) -> str:
    parts = [measure.stat if measure.stat not in ("value", "ratio_of_sums") else ""]
    parts.append(f"n = {measure.n}" if measure.n is not None and measure.stat in ("median", "p90") else "")
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
        console.print(run_table(record))
    print_validity(console, record)
    console.print()
    manifest = record.manifest
    if manifest.get("failure"):
        console.print(f"[red]{_escape(str(manifest['outcome']))}:[/red] {_escape(printable(str(manifest['failure'])))}")
        for line in str(manifest.get("failure_log") or "").splitlines()[-8:]:
            console.print(f"  [dim]{_escape(printable(line))[:300]}[/dim]")
    console.print(f"stored in {_escape(where)}  ·  {_escape(show)}", soft_wrap=True, highlight=False)


def as_json(record: RunRecord, where: str) -> dict[str, Any]:
    """A run as ``--json`` prints it: its manifest, every measure, every reason, every request."""
    from dataclasses import asdict

    requests = [asdict(request) for request in record.requests]
    for request in requests:
        del request["token_t_ns"], request["token_n"]  # they are in tokens.parquet, by the thousand
    return {
        "run_id": record.run_id,
        "stored": where,
        **record.manifest,
        "measures": [asdict(measure) for measure in record.measures],
        "reasons": [asdict(reason) for reason in record.reasons],
        "phases": [asdict(phase) for phase in record.phases if phase.request is None],
        "sources": [asdict(source) for source in record.sources],
        "requests": requests,
    }


def phase_table(record: RunRecord) -> Table:
    """The spans of a run, from its start; the prefills and decodes of requests are in the table of requests."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="phases", title_justify="left", title_style="bold")
    for column in ("phase", "from", "to", "lasts"):
        table.add_column(column, justify="left" if column == "phase" else "right")
    spans = [phase for phase in record.phases if phase.request is None]
    start = min((phase.t0_ns for phase in spans), default=0)
    for phase in spans:
        edges = [quantity((t - start) / 1e9, "s") for t in (phase.t0_ns, phase.t1_ns)]
        table.add_row(phase.name, *edges, quantity(phase.duration_s, "s"))
    return table


_MAX_ROWS = 40


def request_table(record: RunRecord) -> Table:
    """One row a request: tokens in (fresh@cached) and out, what was observed, and the engine's own decode rate."""
    from rich import box
    from rich.table import Table

    shown = record.requests[:_MAX_ROWS]
    title = (
        "requests" if len(shown) == len(record.requests) else f"first {_MAX_ROWS} of {len(record.requests)} requests"
    )
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    columns = ("#", "item", "role", "in", "out", "ttft ms", "prefill/s", "decode/s", "engine/s", "status")
    for column in columns:
        left = column in ("item", "role", "status")
        table.add_column(column, justify="left" if left else "right", no_wrap=not left, overflow="fold")

    def cell(value: float | None, scale: float = 1) -> str:
        return "—" if value is None else f"{value * scale:.4g}"

    for r in shown:
        tokens_in = "—" if r.n_in is None else f"{r.n_in}" if not r.n_cached else f"{r.n_in - r.n_cached}@{r.n_cached}"
        rates = [cell(rate) for rate in (r.prefill_tps, r.decode_tps, r.engine_decode_tps)]
        status = r.status if not r.detail else f"{r.status}: {r.detail}"
        item, role, said = (_escape(printable(text)) for text in (r.item, r.role, status))
        out = "—" if r.n_out is None else str(r.n_out)
        table.add_row(str(r.index), item, role, tokens_in, out, cell(r.ttft_s, 1e3), *rates, said)
    return table
