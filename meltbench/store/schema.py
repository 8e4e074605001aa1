"""Every table of the store: its columns, their types and what they mean, in one place.

The Parquet files, the tables of the DuckDB index, their COMMENTs and docs/store.md all come from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

INDEX_VERSION = 7

SqlType = Literal["VARCHAR", "BIGINT", "INTEGER", "DOUBLE", "TIMESTAMP"]


@dataclass(frozen=True)
class Column:
    """One column. ``field`` is the attribute of the record it comes from, or the path of keys in the manifest.

    ``indexed`` is False for what stays in the Parquet file because it is long. ``later``: runs stored by an earlier
    version lack it, and have an empty text there, or no number.
    """

    name: str
    type: SqlType
    comment: str
    field: str | tuple[str, ...] = ""
    indexed: bool = True
    later: bool = False


@dataclass(frozen=True)
class Table:
    """One table. ``parquet`` is its file in the run folder, None for what comes from the manifest.

    ``indexed`` is False for the two tables that stay in Parquet because they are large. ``later``: runs stored by an
    earlier version have no such file, and no row.
    """

    name: str
    comment: str
    columns: tuple[Column, ...]
    parquet: str | None = None
    indexed: bool = True
    later: bool = False


RUN_ID = Column("run_id", "VARCHAR", "The run: UTC start, then six hex digits; also the name of its folder.")


def _seq(what: str) -> Column:
    return Column("seq", "INTEGER", f"Position of the {what} in the run, from 0.")


RUNS = Table(
    "runs",
    "One row per stored run, from its manifest. A value the manifest does not have is null.",
    (
        RUN_ID,
        Column("started_at", "TIMESTAMP", "Start of the run, UTC.", ("started_at",)),
        Column("ended_at", "TIMESTAMP", "End of the run, UTC.", ("ended_at",)),
        Column("outcome", "VARCHAR", "done, failed or stopped.", ("outcome",)),
        Column("failure", "VARCHAR", "Why the run failed; null when it did not.", ("failure",)),
        Column("validity", "VARCHAR", "valid, degraded or invalid; the table reasons says why.", ("validity",)),
        Column("plan_hash", "VARCHAR", "Hash of the plan, from the spec alone.", ("plan_hash",)),
        Column("cell_key", "VARCHAR", "Hash of all that must be equal for runs to be compared.", ("cell_key",)),
        Column("rep", "INTEGER", "Repetition within the cell.", ("rep",)),
        Column("round", "INTEGER", "Round of the plan.", ("round",)),
        Column("device", "VARCHAR", "Name of the device.", ("device", "name")),
        Column("device_identity", "VARCHAR", "What identifies the very device.", ("device", "identity")),
        Column("model", "VARCHAR", "Name of the model; null for exec and idle runs.", ("model", "name")),
        Column("model_file", "VARCHAR", "File of the model.", ("model", "file")),
        Column("model_sha256", "VARCHAR", "SHA-256 of that file.", ("model", "sha256")),
        Column("model_bytes", "BIGINT", "Size of that file in bytes.", ("model", "bytes")),
        Column("n_params", "BIGINT", "Parameters of the model.", ("model", "n_params")),
        Column("bits_per_weight", "DOUBLE", "File bits per parameter.", ("model", "bits_per_weight")),
        Column("quantisation", "VARCHAR", "Quantisation of the weights.", ("model", "quantisation")),
        Column("ftype", "VARCHAR", "The file's own name for its quantisation.", ("model", "ftype")),
        Column("runner", "VARCHAR", "Name of the runner.", ("runner", "name")),
        Column("engine", "VARCHAR", "Engine the runner starts.", ("runner", "engine")),
        Column("engine_version", "VARCHAR", "Version of the engine.", ("runner", "version")),
        Column("engine_sha256", "VARCHAR", "SHA-256 of the engine's program.", ("runner", "sha256")),
        Column(
            "accelerator",
            "VARCHAR",
            "What computed, by the engine's own log: CPU, CUDA, Vulkan, Metal ...",
            ("runner", "accelerator"),
        ),
        Column(
            "mode", "VARCHAR", "server, bench or in-process; figures of two modes are never mixed.", ("runner", "mode")
        ),
        Column("workload", "VARCHAR", "Name of the workload.", ("workload", "name")),
        Column("workload_version", "VARCHAR", "Version of the workload.", ("workload", "version")),
        Column("workload_sha256", "VARCHAR", "SHA-256 of the workload.", ("workload", "sha256")),
        Column(
            "origin",
            "VARCHAR",
            "The tool that measured it, where its records were imported; null: meltbench itself.",
            ("imported", "from"),
        ),
        Column("meltbench_version", "VARCHAR", "Version of meltbench.", ("versions", "meltbench")),
        Column("probe_version", "VARCHAR", "Version of the probe.", ("versions", "probe")),
        Column("protocol_version", "VARCHAR", "Version of the measuring protocol.", ("versions", "protocol")),
        Column("manifest", "VARCHAR", "The whole manifest but its file list, as JSON text; cast it with ::JSON."),
    ),
)

REQUESTS = Table(
    "requests",
    "One row per request, as observed on the target, beside what the engine says of itself.",
    (
        Column("request", "INTEGER", "Index of the request in the run.", "index"),
        Column("item", "VARCHAR", "Item of the workload.", "item"),
        Column(
            "point",
            "VARCHAR",
            "What it is condensed with: a point of a grid, a level, the first or later turns; else empty.",
            "point",
            later=True,
        ),
        Column("role", "VARCHAR", "setup, warmup or timed; only timed requests enter a measure.", "role"),
        Column("status", "VARCHAR", "ok, or why there is no full answer.", "status"),
        Column("t_send_ns", "BIGINT", "Request sent.", "t_send_ns"),
        Column("t_end_ns", "BIGINT", "Answer ended.", "t_end_ns"),
        Column(
            "t_first_ns", "BIGINT", "First non-empty token arrived; of llama-bench: its prefill ended.", "t_first_ns"
        ),
        Column("n_in", "BIGINT", "Prompt tokens, evaluated or found in the cache.", "n_in"),
        Column("n_cached", "BIGINT", "Prompt tokens found in the cache.", "n_cached"),
        Column("n_out", "BIGINT", "Tokens generated.", "n_out"),
        Column("ttft_s", "DOUBLE", "Sent to first non-empty token, s.", "ttft_s"),
        Column("e2e_s", "DOUBLE", "Sent to end of the answer, s.", "e2e_s"),
        Column("tpot_s", "DOUBLE", "(e2e - ttft) / (n_out - 1), s; n_out >= 2.", "tpot_s"),
        Column("prefill_tps", "DOUBLE", "Prompt tokens per second.", "prefill_tps"),
        Column(
            "prefill_source",
            "VARCHAR",
            "Where prefill_tps is from; client_side: n_in / ttft; cache_unknown: why there is none.",
            "prefill_source",
        ),
        Column(
            "decode_tps",
            "DOUBLE",
            "(n_out - 1) / (e2e - ttft), tokens per second; in mode bench n_out / its time.",
            "decode_tps",
        ),
        Column("engine_prefill_s", "DOUBLE", "Prefill time the engine reports, s.", "engine_prefill_s"),
        Column("engine_prefill_tps", "DOUBLE", "Prefill rate the engine reports.", "engine_prefill_tps"),
        Column("engine_decode_s", "DOUBLE", "Decode time the engine reports, s.", "engine_decode_s"),
        Column("engine_decode_tps", "DOUBLE", "Decode rate the engine reports.", "engine_decode_tps"),
        Column(
            "energy_j",
            "DOUBLE",
            "Energy from sending to end by the designated total, J; null with a reason.",
            "energy_j",
            later=True,
        ),
        Column("energy_u_k2_j", "DOUBLE", "Its expanded uncertainty at k = 2, J.", "energy_u_k2_j", later=True),
        Column(
            "energy_reason",
            "VARCHAR",
            "Why there is no energy_j, and which window around the request has one; empty where it is there.",
            "energy_reason",
            later=True,
        ),
        Column(
            "count_source",
            "VARCHAR",
            "Who counted the tokens of a server's answer: server, tokenizer, or chunks: nobody, and n_out is null.",
            "count_source",
            later=True,
        ),
        Column(
            "engine_ttft_s",
            "DOUBLE",
            "Time to the first token that the engine reports, s.",
            "engine_ttft_s",
            later=True,
        ),
        Column("stop_reason", "VARCHAR", "Why generation stopped.", "stop_reason"),
        Column("detail", "VARCHAR", "What went wrong, when something did.", "detail"),
        Column("answer", "VARCHAR", "Text of the answer, at most 65,536 characters.", "answer", indexed=False),
    ),
    parquet="requests.parquet",
)

PHASES = Table(
    "phases",
    "Spans of the run: idle, load, prefill, decode ...",
    (
        _seq("phase"),
        Column("name", "VARCHAR", "Name of the phase.", "name"),
        Column("t0_ns", "BIGINT", "Start.", "t0_ns"),
        Column("t1_ns", "BIGINT", "End.", "t1_ns"),
        Column("request", "INTEGER", "Request of a prefill or decode phase, else null.", "request"),
    ),
    parquet="phases.parquet",
)

REGIMES = Table(
    "regimes",
    "States the device went through, one after the other without a gap: the regime of a sample is that of its time.",
    (
        _seq("regime"),
        Column("name", "VARCHAR", "idle, load, burst, throttled, recovery, sustained or unload.", "name"),
        Column("t0_ns", "BIGINT", "Start.", "t0_ns"),
        Column("t1_ns", "BIGINT", "End.", "t1_ns"),
        Column("cause", "VARCHAR", "By what evidence.", "cause"),
    ),
    parquet="regimes.parquet",
    later=True,
)

SCORES = Table(
    "scores",
    "How good the answer to each item was. correct is null where no answer came, or nobody says what is right.",
    (
        _seq("score"),
        Column("item", "VARCHAR", "Item of the workload.", "item"),
        Column("point", "VARCHAR", "Which of several ways of asking it; empty where there is one.", "point"),
        Column("category", "VARCHAR", "What it is summed up with, such as a subject.", "group"),
        Column("method", "VARCHAR", "How the answer was compared, or what was scored.", "method"),
        Column("correct", "DOUBLE", "0 to 1.", "correct"),
        Column("parsed", "INTEGER", "1 where something could be read out of the answer, else 0.", "parsed"),
        Column("extracted", "VARCHAR", "What was read out of it; of choices the number of the one taken.", "extracted"),
        Column("gold", "VARCHAR", "What is right.", "gold"),
        Column("value", "DOUBLE", "Log-likelihood of the choice taken, or of the text, nat.", "value"),
        Column("n", "BIGINT", "Tokens that it is of.", "n"),
        Column("requests", "VARCHAR", "Indices of the requests behind it, separated by commas.", "requests"),
        Column("detail", "VARCHAR", "Why there is no score.", "detail"),
        Column("best", "DOUBLE", "1 where any of the answers voted on was right; null where none was judged.", "best"),
        Column("latency_s", "DOUBLE", "First sending to last end of its requests, s.", "latency_s"),
        Column("energy_j", "DOUBLE", "Energy of that window, of the designated total, J.", "energy_j"),
        Column("energy_u_k2_j", "DOUBLE", "Its expanded uncertainty at k = 2, J.", "energy_u_k2_j"),
        Column("energy_reason", "VARCHAR", "Why there is no energy.", "energy_reason"),
    ),
    parquet="scores.parquet",
    later=True,
)

MEASURES = Table(
    "measures",
    "One number of a run with its conditions. value is null exactly when reason is set; it is never 0 for missing.",
    (
        _seq("measure"),
        Column("name", "VARCHAR", "Name of the measure; the unit is its suffix.", "name"),
        Column("value", "DOUBLE", "The number, in unit.", "value"),
        Column("unit", "VARCHAR", "SI unit.", "unit"),
        Column("stat", "VARCHAR", "How it was condensed: value, median, p90, max, sum, ratio_of_sums ...", "stat"),
        Column("phase", "VARCHAR", "Phase it is of; run: the whole run.", "phase"),
        Column("scope", "VARCHAR", "What an energy covers: wall > battery > module > soc > rail.", "scope"),
        Column("source", "VARCHAR", "Source or rail; total: the designated total of the device.", "source"),
        Column("n", "BIGINT", "Samples or requests behind it.", "n"),
        Column("u_k2", "DOUBLE", "Expanded uncertainty at k = 2, in unit.", "u_k2"),
        Column("method", "VARCHAR", "How it was computed.", "method"),
        Column("reason", "VARCHAR", "Why there is no value.", "reason"),
        Column("klass", "VARCHAR", "Error class A to E of its source.", "klass"),
        Column("coverage", "DOUBLE", "Part of the phase that readings cover, 0 to 1.", "coverage"),
    ),
    parquet="measures.parquet",
)

REASONS = Table(
    "reasons",
    "Named reasons against full validity.",
    (
        _seq("reason"),
        Column("code", "VARCHAR", "Name of the reason.", "code"),
        Column("state", "VARCHAR", "State it leads to: degraded or invalid; valid for a note.", "state"),
        Column("detail", "VARCHAR", "What was seen.", "detail"),
        Column("advice", "VARCHAR", "What to do about it.", "advice"),
    ),
    parquet="reasons.parquet",
)

SOURCES = Table(
    "sources",
    "Every source of readings, also one that gave nothing, and why.",
    (
        _seq("source"),
        Column("source", "VARCHAR", "Name of the source.", "source"),
        Column("status", "VARCHAR", "ok, denied, absent, again, gated, error, unparsed or implausible.", "status"),
        Column("paths", "INTEGER", "Paths or streams found.", "paths"),
        Column("readings", "BIGINT", "Readings taken.", "readings"),
        Column("detail", "VARCHAR", "What was seen.", "detail"),
    ),
    parquet="sources.parquet",
)

SERIES = Table(
    "series",
    "What each number in samples.parquet's column series stands for.",
    (
        Column("series", "INTEGER", "Number of the series in the run, from 0."),
        Column("name", "VARCHAR", "Name of the signal.", "name"),
        Column("unit", "VARCHAR", "SI unit of its values.", "unit"),
        Column("kind", "VARCHAR", "counter, gauge or state.", "kind"),
        Column("source", "VARCHAR", "Source it comes from.", "source"),
        Column("scope", "VARCHAR", "What it covers.", "scope"),
        Column("klass", "VARCHAR", "Error class A to E.", "klass"),
        Column("path", "VARCHAR", "Path it was read from on the target.", "path"),
        Column("wrap", "DOUBLE", "Modulus of a counter in unit; null when it does not wrap.", "wrap"),
        Column(
            "window_s",
            "DOUBLE",
            "A value is the mean of this long before its reading, s; 0: of now; null: of unknown length.",
            "window_s",
            later=True,
        ),
        Column(
            "clock_bound_s",
            "DOUBLE",
            "Bound of the offset between the clock of its stamps and the target's, s.",
            "clock_bound_s",
            later=True,
        ),
        Column(
            "gain_limit",
            "DOUBLE",
            "Relative limit of its gain error where it is better founded than its class's, else null.",
            "gain_limit",
            later=True,
        ),
        Column(
            "calibration", "VARCHAR", "Calibration record behind its values; empty: none.", "calibration", later=True
        ),
    ),
    parquet="series.parquet",
)

SAMPLES = Table(
    "samples",
    "Every sample of every series, in blocks of time, each series in order of time; Parquet only.",
    (
        Column("series", "INTEGER", "Number of the series, see the table series."),
        Column("t0_ns", "BIGINT", "Start of the read."),
        Column("t1_ns", "BIGINT", "End of the read."),
        Column("value", "DOUBLE", "Value in the unit of the series; null when missing."),
        Column("status", "VARCHAR", "ok, denied, absent, again, gated, error, unparsed or implausible."),
    ),
    parquet="samples.parquet",
    indexed=False,
)

TOKENS = Table(
    "tokens",
    "Arrival of every chunk that carried tokens; Parquet only.",
    (
        Column("request", "INTEGER", "Index of the request."),
        Column("k", "INTEGER", "Position of the chunk in the answer, from 0."),
        Column("t_ns", "BIGINT", "Arrival on the target."),
        Column("n", "INTEGER", "Tokens it carried; 0: some, and nobody says how many."),
    ),
    parquet="tokens.parquet",
    indexed=False,
)

FILES = Table(
    "files",
    "Every file of every run folder: where samples, tokens and raw evidence are.",
    (
        RUN_ID,
        Column("path", "VARCHAR", "Path below the data folder."),
        Column("sha256", "VARCHAR", "SHA-256 of the file."),
        Column("bytes", "BIGINT", "Size in bytes."),
    ),
)

TABLES = (RUNS, REQUESTS, PHASES, REGIMES, MEASURES, SCORES, REASONS, SOURCES, SERIES, FILES, SAMPLES, TOKENS)


def index_columns(table: Table) -> tuple[Column, ...]:
    """Return the columns a table has in the index: the run first, then those that are indexed."""
    columns = tuple(column for column in table.columns if column.indexed)
    return columns if RUN_ID in columns else (RUN_ID, *columns)
