"""The views of the index, the statements that make it, and docs/store.md."""

from __future__ import annotations

from dataclasses import dataclass

from meltbench.measure.validity import TABLE as RULES
from meltbench.records import MODE_PREFIX, SPANS
from meltbench.store.schema import INDEX_VERSION, RUN_ID, RUNS, TABLES, index_columns

# runs_wide takes each of these from the measure of that name and stat, phase run.
WIDE = {
    "ttft_s": "median",
    "tpot_s": "median",
    "prefill_tps": "median",
    "decode_tps": "median",
    "load_s": "value",
    "inprocess_ttft_s": "median",
    "inprocess_tpot_s": "median",
    "inprocess_prefill_tps": "median",
    "inprocess_decode_tps": "median",
    "inprocess_load_s": "value",
    "bench_load_s": "value",
    "peak_rss_bytes": "max",
    "peak_pss_bytes": "max",
    "energy_j": "value",
    "net_energy_j": "value",
    "j_per_output_token": "ratio_of_sums",
    "inprocess_j_per_output_token": "ratio_of_sums",
    "max_temp_c": "max",
    "wall_s": "value",
    "accuracy": "mean",
    "perplexity": "value",
}
# results takes each of these as runs_wide does, whatever the mode's prefix: its column mode tells them apart.
RESULTS_OF = {
    "ttft_s": "median",
    "tpot_s": "median",
    "e2e_s": "median",
    "prefill_tps": "median",
    "decode_tps": "median",
    "output_tps": "value",
    "inference_s": "median",
    "question_latency_s": "mean",
    "load_s": "value",
    "wall_s": "value",
    "energy_j": "value",
    "net_energy_j": "value",
    "mean_power_w": "value",
    "j_per_output_token": "ratio_of_sums",
    "j_per_request": "ratio_of_sums",
    "j_per_question": "mean",
    "peak_rss_bytes": "max",
    "peak_pss_bytes": "max",
    "start_temp_c": "value",
    "max_temp_c": "max",
    "throttle_retention": "value",
    "accuracy": "mean",
    "perplexity": "value",
    "ipw_per_w": "ratio_of_means",
    "ipj_per_j": "ratio_of_means",
}
# Parts are never summed into a total: of these, only the row of the designated total counts.
TOTAL_ONLY = ("energy_j", "net_energy_j", "j_per_output_token", "inprocess_j_per_output_token")
TOTAL_SOURCE = "total"

_RUN_COLUMNS = ("device", "model", "runner", "mode", "accelerator", "workload", "validity")


@dataclass(frozen=True)
class View:
    """One view: its SQL and its columns as (name, meaning)."""

    name: str
    comment: str
    sql: str
    columns: tuple[tuple[str, str], ...]


def _wide_cell(name: str, stat: str) -> str:
    where = f"name = '{name}' AND stat = '{stat}'"
    if name in TOTAL_ONLY:
        where += f" AND source = '{TOTAL_SOURCE}'"
    # Several rows can hold a maximum (one a thermal zone); of anything else the first one stands.
    value = "max(value)" if stat == "max" else "first(value ORDER BY seq)"
    return f"{value} FILTER (WHERE {where}) AS {name}"


def _wide_sql() -> str:
    cells = ",\n        ".join(_wide_cell(name, stat) for name, stat in WIDE.items())
    energy = f"FILTER (WHERE name = 'energy_j' AND value IS NULL AND source = '{TOTAL_SOURCE}')"
    return f"""
    SELECT r.run_id, r.started_at, r.device, r.model, r.runner, r.workload, r.rep, r.validity, v.reasons,
        {", ".join(f"m.{name}" for name in WIDE)}, m.energy_reason,
        coalesce(q.n_requests, 0) AS n_requests, r.accelerator, r.mode, r.cell_key AS key, r.plan_hash
    FROM runs r
    LEFT JOIN (SELECT run_id,
        {cells},
        first(reason ORDER BY seq) {energy} AS energy_reason
        FROM measures WHERE phase = 'run' GROUP BY run_id) m ON m.run_id = r.run_id
    LEFT JOIN (SELECT run_id, string_agg(DISTINCT code, ',' ORDER BY code) AS reasons
        FROM reasons GROUP BY run_id) v ON v.run_id = r.run_id
    LEFT JOIN (SELECT run_id, count(*) AS n_requests
        FROM requests WHERE role = 'timed' GROUP BY run_id) q ON q.run_id = r.run_id"""


_MEANINGS = {column.name: column.comment for column in RUNS.columns}
_WIDE_MEANINGS = {
    **_MEANINGS,
    "reasons": "Names of the reasons against full validity, comma separated; null when there are none.",
    "energy_reason": "Why energy_j is null.",
    "n_requests": "Timed requests of the run.",
    "key": _MEANINGS["cell_key"],
    **{
        name: f"Measure {name}, {stat}, whole run" + (f", source {TOTAL_SOURCE}." if name in TOTAL_ONLY else ".")
        for name, stat in WIDE.items()
    },
}
WIDE_COLUMNS = (
    *("run_id", "started_at", "device", "model", "runner", "workload", "rep", "validity", "reasons"),
    *(*WIDE, "energy_reason"),
    *("n_requests", "accelerator", "mode", "key", "plan_hash"),
)

RUNS_WIDE = View(
    "runs_wide",
    "One row per run: what it was and its headline numbers.",
    _wide_sql(),
    tuple((name, _WIDE_MEANINGS[name]) for name in WIDE_COLUMNS),
)

_ABOUT = (
    *("started_at", "device", "device_identity", "model", "model_sha256", "model_bytes", "n_params", "bits_per_weight"),
    *("quantisation", "runner", "engine", "engine_version", "engine_sha256", "accelerator", "mode", "workload"),
    *("workload_sha256", "rep", "outcome", "validity", "cell_key", "plan_hash"),
)


def _results_cell(name: str, stat: str) -> str:
    names = ", ".join(f"'{prefix}{name}'" for prefix in MODE_PREFIX.values())
    where = f"name IN ({names}) AND stat = '{stat}'"
    if name.startswith(("j_per_", "ip")) or name in ("energy_j", "net_energy_j", "mean_power_w"):
        where += f" AND source = '{TOTAL_SOURCE}'"
    value = "max(value)" if stat == "max" else "first(value ORDER BY seq)"
    return f"{value} FILTER (WHERE {where}) AS {name}"


def _results_sql() -> str:
    cells = ",\n        ".join(_results_cell(name, stat) for name, stat in RESULTS_OF.items())
    named = ", ".join(f"'{prefix}{name}'" for name in RESULTS_OF for prefix in MODE_PREFIX.values())
    spans = ", ".join(f"'{phase}'" for phase in SPANS if phase != "run")
    total = f"FILTER (WHERE name = 'energy_j' AND source = '{TOTAL_SOURCE}')"
    return f"""
    SELECT r.run_id, coalesce(m.point, '') AS point, {", ".join(f"r.{name}" for name in _ABOUT)},
        coalesce(r.origin, 'meltbench') AS origin, strftime(r.started_at - INTERVAL 12 HOUR, '%Y-%m-%d') AS night,
        {", ".join(f"m.{name}" for name in RESULTS_OF)},
        m.energy_scope, m.energy_class, m.energy_reason
    FROM runs r
    LEFT JOIN (SELECT run_id, CASE WHEN phase = 'run' THEN '' ELSE phase END AS point,
        {cells},
        first(scope ORDER BY seq) {total} AS energy_scope,
        first(klass ORDER BY seq) {total} AS energy_class,
        first(reason ORDER BY seq) {total} AS energy_reason
        FROM measures WHERE phase NOT IN ({spans}) AND name IN ({named})
        GROUP BY run_id, point) m ON m.run_id = r.run_id"""


RESULTS = View(
    "results",
    "One row per run, and one more per point of it: what was measured on what, and the numbers that runs are compared "
    "by, under the same names in every mode. Rows of two modes, points, workloads or origins are not to be pooled.",
    _results_sql(),
    (
        ("run_id", RUN_ID.comment),
        ("point", "Empty: of the whole run; else a point of a grid, a level of concurrency or a kind of turn."),
        *((name, _MEANINGS[name]) for name in _ABOUT),
        ("origin", "The tool that measured it: meltbench, or the one whose records were imported."),
        ("night", "Noon to noon UTC, by the date on which it begins."),
        *(
            (name, f"{stat}{f', source {TOTAL_SOURCE}' if TOTAL_SOURCE in _results_cell(name, stat) else ''}.")
            for name, stat in RESULTS_OF.items()
        ),
        ("energy_scope", "What the designated total covers: wall > battery > module > soc > rail."),
        ("energy_class", "Error class A to E of the designated total."),
        ("energy_reason", "Why there is no energy_j."),
    ),
)

ENERGY = View(
    "energy",
    "One row per run, phase, scope and source that has an energy, or a reason why not.",
    """
    SELECT r.run_id, r.device, r.model, r.runner, r.mode, r.accelerator, r.workload, r.validity,
        m.phase, m.scope, m.source,
        m.energy_j, m.u_k2, m.coverage, m.klass, m.method, m.reason, m.net_energy_j
    FROM runs r JOIN (SELECT run_id, phase, scope, source,
        first(value ORDER BY seq) FILTER (WHERE name = 'energy_j') AS energy_j,
        first(u_k2 ORDER BY seq) FILTER (WHERE name = 'energy_j') AS u_k2,
        first(coverage ORDER BY seq) FILTER (WHERE name = 'energy_j') AS coverage,
        first(klass ORDER BY seq) FILTER (WHERE name = 'energy_j') AS klass,
        first(method ORDER BY seq) FILTER (WHERE name = 'energy_j') AS method,
        first(reason ORDER BY seq) FILTER (WHERE name = 'energy_j') AS reason,
        first(value ORDER BY seq) FILTER (WHERE name = 'net_energy_j') AS net_energy_j
        FROM measures WHERE name IN ('energy_j', 'net_energy_j') AND stat = 'value'
        GROUP BY run_id, phase, scope, source) m ON m.run_id = r.run_id""",
    (
        *((name, _MEANINGS[name]) for name in ("run_id", *_RUN_COLUMNS)),
        ("phase", "Phase the energy is of; run: the whole run."),
        ("scope", "What it covers: wall > battery > module > soc > rail."),
        ("source", f"Source or rail; {TOTAL_SOURCE}: the designated total. Never sum sources."),
        ("energy_j", "Energy, J; null with a reason."),
        ("u_k2", "Its expanded uncertainty at k = 2, J."),
        ("coverage", "Part of the phase that readings cover, 0 to 1."),
        ("klass", "Error class A to E."),
        ("method", "How it was computed."),
        ("reason", "Why there is no energy."),
        ("net_energy_j", "Energy above the idle baseline, J."),
    ),
)

_LATENCIES = ("ttft_s", "tpot_s", "e2e_s")

LATENCY = View(
    "latency",
    "One row per run of a server, item and point: percentiles over its timed requests that ended ok (linear "
    "interpolation). Those of other modes are measures with their prefix.",
    """
    SELECT r.run_id, r.device, r.model, r.runner, r.mode, r.accelerator, r.workload, r.validity,
        q.item, q.point, q.n,
        q.ttft_s_p50, q.ttft_s_p90, q.ttft_s_p99, q.tpot_s_p50, q.tpot_s_p90, q.tpot_s_p99,
        q.e2e_s_p50, q.e2e_s_p90, q.e2e_s_p99
    FROM runs r JOIN (SELECT run_id, item, point, count(*) AS n,
        quantile_cont(ttft_s, 0.5) AS ttft_s_p50, quantile_cont(ttft_s, 0.9) AS ttft_s_p90,
        quantile_cont(ttft_s, 0.99) AS ttft_s_p99,
        quantile_cont(tpot_s, 0.5) AS tpot_s_p50, quantile_cont(tpot_s, 0.9) AS tpot_s_p90,
        quantile_cont(tpot_s, 0.99) AS tpot_s_p99,
        quantile_cont(e2e_s, 0.5) AS e2e_s_p50, quantile_cont(e2e_s, 0.9) AS e2e_s_p90,
        quantile_cont(e2e_s, 0.99) AS e2e_s_p99
        FROM requests WHERE role = 'timed' AND status = 'ok' GROUP BY run_id, item, point) q ON q.run_id = r.run_id
    WHERE r.mode = 'server'""",
    (
        *((name, _MEANINGS[name]) for name in ("run_id", *_RUN_COLUMNS)),
        ("item", "Item of the workload."),
        ("point", "Level of concurrency or kind of turn; of a grid the item again; else empty."),
        ("n", "Timed requests that ended ok."),
        *((f"{name}_{p}", f"{p} of {name}, s.") for name in _LATENCIES for p in ("p50", "p90", "p99")),
    ),
)

RUN_REASONS = View(
    "run_reasons",
    "One row per run with a column for each reason of docs/measuring.md, true where it speaks against the run: "
    "FROM run_reasons WHERE charging OR throttled.",
    f"""
    SELECT r.run_id, r.device, r.model, r.runner, r.mode, r.accelerator, r.workload, r.validity,
        {", ".join(f"coalesce(list_contains(v.codes, '{code}'), false) AS {code}" for code in RULES)}
    FROM runs r LEFT JOIN (SELECT run_id, list(code) AS codes FROM reasons GROUP BY run_id) v ON v.run_id = r.run_id""",
    (
        *((name, _MEANINGS[name]) for name in ("run_id", *_RUN_COLUMNS)),
        *((code, f"{rule.threshold[:1].upper()}{rule.threshold[1:]} ({rule.state}).") for code, rule in RULES.items()),
    ),
)

VIEWS = (RUNS_WIDE, RESULTS, RUN_REASONS, ENERGY, LATENCY)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def statements() -> list[str]:
    """Return the SQL that makes an empty index: tables, views, their comments and the version."""
    made = [
        "CREATE TABLE schema_version (version INTEGER NOT NULL)",
        f"INSERT INTO schema_version VALUES ({INDEX_VERSION})",
    ]
    for table in TABLES:
        if not table.indexed:
            continue
        columns = index_columns(table)
        body = ", ".join(f'"{c.name}" {c.type}{" NOT NULL" if c is RUN_ID else ""}' for c in columns)
        made.append(f"CREATE TABLE {table.name} ({body})")
        made.append(f"COMMENT ON TABLE {table.name} IS {_quoted(table.comment)}")
        made += [f'COMMENT ON COLUMN {table.name}."{c.name}" IS {_quoted(c.comment)}' for c in columns]
    for view in VIEWS:
        made.append(f"CREATE VIEW {view.name} AS {view.sql}")
        made.append(f"COMMENT ON VIEW {view.name} IS {_quoted(view.comment)}")
        made += [f'COMMENT ON COLUMN {view.name}."{n}" IS {_quoted(text)}' for n, text in view.columns]
    return made
