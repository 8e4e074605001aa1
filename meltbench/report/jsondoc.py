"""Every key that ``--json`` prints: rendered into docs/json.md, and held against real outputs by a test."""

from __future__ import annotations

from meltbench.report.jsonanalysis import COMPARE, CONTRAST, INTELLIGENCE, PREDICT
from meltbench.report.jsonbilling import BILLING
from meltbench.report.jsoncache import CACHE
from meltbench.report.jsoncalibration import CALIBRATION, SELFTEST
from meltbench.report.jsonconditions import CONDITIONS
from meltbench.report.jsondevices import DEVICE, DEVICES, READ
from meltbench.report.jsonimport import IMPORT, IMPORTED
from meltbench.report.jsoninventory import ADDED, DOCTOR, INVENTORY, KNOWN
from meltbench.report.jsonlive import TOP
from meltbench.report.jsonmodels import MODELS
from meltbench.report.jsonpages import REPORT
from meltbench.report.jsonpareto import PARETO
from meltbench.report.jsonshapes import Document, Key
from meltbench.store import schema

_TYPES = {"VARCHAR": "text", "BIGINT": "integer", "INTEGER": "integer", "DOUBLE": "number", "TIMESTAMP": "text"}
_UNKNOWN = "it is not known"
_NO_ENGINE = "no engine was asked for (exec, idle)"
_NEVER = "the model was refused before it could be read, or the run was imported"
_IMPORTED = "the run was imported"
_UNTOLD = "the target does not tell"
# Columns of these tables that may be null, and when; a table's other columns never are.
_NULLS = {
    "measures": {
        "value": "there is a reason",
        "n": "it has no count",
        "u_k2": "it is not known",
        "reason": "there is a value",
        "klass": "it is not of a source of energy",
        "coverage": "it is not of a gauge or counter",
    },
    "phases": {"request": "always: the spans of requests are in the store"},
    "reasons": {},
    "regimes": {},
    "scores": {
        "correct": "no answer came, nobody says what is right, or it is a text",
        "value": "the answer was generated, or the engine tells only whether it was right",
        "n": "value is null",
        "best": "it was not generated, or nobody says what is right",
        "latency_s": "a request of it failed, or none was seen to its end",
        "energy_j": "there is a reason",
        "energy_u_k2_j": "there is no energy, or its uncertainty is not known",
    },
    "sources": {},
    "requests": dict.fromkeys(
        (
            *("t_first_ns", "n_in", "n_cached", "n_out", "ttft_s", "e2e_s", "tpot_s", "prefill_tps", "prefill_source"),
            *("decode_tps", "engine_prefill_s", "engine_prefill_tps", "engine_decode_s", "engine_decode_tps"),
            *("stop_reason", "engine_ttft_s"),
        ),
        "there was none, or the engine did not say",
    )
    | {
        "count_source": "it was no server, or an earlier version measured it",
        "energy_j": "there is a reason, or an earlier version measured it",
        "energy_u_k2_j": "there is no energy, or its uncertainty is not known",
    },
}


def _of_table(table: schema.Table) -> list[Key]:
    """Keys of the list that has the rows of a table; what has no field of its own is in the store alone."""
    nulls = _NULLS[table.name]
    keys = [Key(f"{table.name}", "list", table.comment)]
    for column in table.columns:
        if column.field:
            name = str(column.field)
            kind = "true or false" if name == "parsed" else _TYPES[column.type]
            keys.append(Key(f"{table.name}[].{name}", kind, column.comment, nulls.get(name, "")))
    return keys


_WORKLOAD = (
    Key("workload.name", "text", "Its name."),
    Key("workload.sha256", "text", "Of its definition and items.", "the run was imported"),
    Key("workload.title", "text", "What it is, in a line."),
    Key("workload.version", "integer", "Version of its definition."),
    Key("workload.kind", "text", "generate, grid, idle, exec ..."),
    Key("workload.items", "text", "The JSONL file of its items.", "the kind has none, or the run was imported"),
    Key("workload.*", "any", "Every setting of workloads, as docs/measuring.md and `meltbench run --set` name them."),
)

RUN = Document(
    "run",
    "meltbench run, exec, show, collect",
    "`show` prints one object, the others a list of such. Counts of bytes are in B, times in s or as their name ends.",
    (
        Key("run_id", "text", schema.RUN_ID.comment),
        Key("stored", "text", "Path of the run's folder."),
        Key("outcome", "text", "done, failed or stopped."),
        Key("validity", "text", "valid, degraded or invalid; `reasons` says why."),
        Key("failure", "text", "Why the run is not done.", "it is done"),
        Key("failure_log", "text", "The engine's or the command's last words.", "it is done, or there were none"),
        Key("started_at", "text", "Start, ISO 8601, UTC.", "it was imported, and no file told it"),
        Key("ended_at", "text", "End, ISO 8601, UTC.", "the journal has no end"),
        Key("plan_hash", "text", "SHA-256 of the plan: equal for the same spec and definitions.", _IMPORTED),
        Key("cell_key", "text", "SHA-256 of all that must be equal for runs to be compared."),
        Key("rep", "integer", "Repetition, from 0."),
        Key("round", "integer", "Round of a sweep, from 0."),
        Key("spec", "object", "What was asked for, before anything was looked up.", _IMPORTED),
        Key("spec.device", "text", "--device"),
        Key("spec.model", "text", "--model"),
        Key("spec.runner", "text", "--runner"),
        Key("spec.workload", "text", "--workload", "it was left out, and the runner's own was taken"),
        Key("spec.threads", "list", "--threads; of several each run has its own in knobs", "it was left out"),
        Key("spec.seed", "integer", "--seed"),
        Key("spec.reps", "integer", "--reps"),
        Key("spec.engine", "text", "--engine", "it was left out"),
        Key("spec.knobs", "list", "Pairs of key and text, as given with --set."),
        Key("spec.command", "list", "The words of the command of `exec`; else empty."),
        Key("spec.prepare", "true or false", "Whether to make the profile's settings; false: --no-prepare."),
        Key("spec.rehash", "true or false", "Whether what was pushed earlier was to be hashed again: --rehash."),
        Key("spec.wait", "true or false", "Whether to wait for a device that another controller holds: --wait."),
        Key("spec.steal", "text", "Why it was to be taken from its holder: --steal.", "it was left out"),
        Key("spec.unplug", "text", "What cut its USB power: --unplug.", "it was left out"),
        Key("spec.resume", "true or false", "Whether only questions not scored before were to be asked: --resume."),
        Key("spec.piece", "integer", "How many of them a run asks: --piece.", "it was left out"),
        Key("knobs", "object", "Settings of the engine as they were in force; empty without an engine."),
        Key("knobs.*", "any", "A number, or text such as none. `meltbench runners` leads to their meaning."),
        Key("device", "object", "Where it ran."),
        Key("device.name", "text", "Name of the device."),
        Key("device.profile", "text", "Name of its profile.", _IMPORTED),
        Key("device.identity", "text", "Digest of what identifies the hardware.", _IMPORTED),
        Key("device.board", "text", "Its board.", _UNTOLD),
        Key("device.sha256", "text", "Of the device profile.", _IMPORTED),
        Key("device.target", "text", "How it is reached: local, ssh or adb; log where the run was imported."),
        Key("device.address", "text", "Where; empty for local."),
        Key("device.adb_port", "integer", "Of the adb server.", "none was named"),
        Key("device.checked", "text", "How its profile was checked: device, capture, emulated or unverified."),
        Key("device.workdir", "text", "Folder on the target, where one is named.", "none is named"),
        Key("calibrations", "object", "Calibration records behind the values of sources; empty where there are none."),
        Key("calibrations.*", "text", "By source: the record's name (meltbench devices calibrate --show)."),
        Key("model", "object", "What was computed.", _NO_ENGINE),
        Key("model.name", "text", "Name, with its quantisation."),
        Key("model.file", "text", "Name of its file.", _UNKNOWN),
        Key("model.sha256", "text", "Of its file.", _NEVER),
        Key("model.bytes", "integer", "Size of its file.", _NEVER),
        Key("model.n_params", "integer", "Parameters.", _NEVER),
        Key("model.bits_per_weight", "number", "Bits of the file per parameter.", _NEVER),
        Key("model.architecture", "text", "Its architecture, in the file's words.", _NEVER),
        Key("model.quantisation", "text", "Quantisation of its weights.", _UNKNOWN),
        Key("model.descends_from", "text", "What it was requantised or built from.", "nobody says that it was"),
        Key("runner", "object", "What computed.", _NO_ENGINE),
        Key("runner.name", "text", "Name of the recipe."),
        Key("runner.engine", "text", "The engine's program or package."),
        Key("runner.version", "text", "Its version, unknown when it does not say."),
        Key("runner.sha256", "text", "Of its program and libraries.", _IMPORTED),
        Key("runner.protocol", "text", "How it is asked."),
        Key("runner.mode", "text", "server, bench or in-process: never compared with each other."),
        Key("runner.url", "text", "Where a server was that ran already.", "the run started its engine"),
        Key("runner.relayed", "true or false", "Whether our relay stood between the probe and that server."),
        Key("runner.unseen", "text", "Why memory and CPU of the engine are not known; empty where they are."),
        Key("runner.unloaded", "text", "Why its start is no load of the model; empty where it is."),
        Key("runner.accelerator", "text", "What it says it computes on: CPU, CUDA ...", "its log does not say"),
        Key("workload", "object", "What was asked."),
        *_WORKLOAD,
        Key("versions", "object", "Of what measured."),
        Key("versions.meltbench", "text", "Of meltbench."),
        Key("versions.probe", "text", "Of the probe.", "nothing was started"),
        Key("versions.protocol", "integer", "Of the way of measuring.", _IMPORTED),
        Key("imported", "object", "Where it is from: the tool, its files and clock.", "meltbench measured it itself"),
        Key("imported.*", "any", "Its tool under `from`, files by SHA-256, notes, what else the tool said."),
        *CONDITIONS,
        *_of_table(schema.MEASURES),
        *_of_table(schema.REASONS),
        *_of_table(schema.PHASES),
        *_of_table(schema.REGIMES),
        *_of_table(schema.SOURCES),
        *_of_table(schema.REQUESTS),
        *_of_table(schema.SCORES),
    ),
)
_OPEN = "nothing is known of it yet"
RUNS = Document(
    "runs",
    "meltbench runs",
    "A list, oldest first. Of a run that is not stored, or cannot be read, most is null.",
    (
        Key("[].run_id", "text", schema.RUN_ID.comment),
        Key("[].state", "text", "done, failed, stopped; running, detached; unreadable."),
        Key("[].started_at", "text", "Start, ISO 8601, UTC.", _OPEN),
        Key("[].device", "text", "Device profile.", _OPEN),
        Key("[].model", "text", "Model.", _NO_ENGINE),
        Key("[].runner", "text", "Recipe.", _NO_ENGINE),
        Key("[].engine", "text", "Engine.", _NO_ENGINE),
        Key("[].engine_version", "text", "Its version.", _NO_ENGINE),
        Key("[].accelerator", "text", "What it computes on.", "no engine, or it does not say"),
        Key("[].mode", "text", "server, bench or in-process.", _NO_ENGINE),
        Key("[].workload", "text", "Workload.", _OPEN),
        Key("[].command", "text", "The command of `exec`, as one would type it.", "there is none"),
        Key("[].validity", "text", "valid, degraded or invalid.", "it is not stored"),
        Key("[].origin", "text", "meltbench, or the tool whose records were imported.", "it cannot be read"),
        Key("[].failure", "text", "Why it failed, or cannot be read.", "it did not, and can"),
        Key("[].plan_hash", "text", "Hash of the plan.", _OPEN),
        Key("[].cell_key", "text", "Hash of all that must be equal for runs to be compared.", _OPEN),
        Key("[].measures", "object", "Headline measures that have a value, in SI units."),
        Key("[].measures.*", "number", "By name (docs/measuring.md): medians of rates, a peak of memory."),
        Key("[].points", "list", "The points of a grid that have any."),
        Key("[].points[].point", "text", "Its name."),
        Key("[].points[].measures", "object", "As above, of the point."),
        Key("[].points[].measures.*", "number", "By name."),
    ),
)
PLAN = Document(
    "plan",
    "meltbench run --dry-run, exec --dry-run",
    "One object: what would be done.",
    (
        Key("plan_hash", "text", "The hash that the runs will carry."),
        Key("device", "text", "What --device named: a device of the inventory, or a profile."),
        Key("profile", "text", "The device's profile."),
        Key("target", "text", "How it is reached."),
        Key("model", "object", "Model.", _NO_ENGINE),
        Key("model.name", "text", "Its name."),
        Key("model.sha256", "text", "Of its file.", "the first fetch pins it"),
        Key("runner", "object", "Engine.", _NO_ENGINE),
        Key("runner.name", "text", "Recipe."),
        Key("runner.engine", "text", "Engine."),
        Key("runner.version", "text", "Its version."),
        Key("runner.sha256", "text", "Of its program and libraries."),
        Key("runner.mode", "text", "server, bench or in-process."),
        Key("runner.url", "text", "Where a server is that runs already.", "the run starts its engine"),
        Key("workload", "object", "What will be asked."),
        *_WORKLOAD,
        Key("command", "list", "Words of the command of `exec`; else empty."),
        Key("knobs", "object", "Settings of the engine; auto is settled on the device."),
        Key("knobs.*", "any", "A number or text."),
        Key("settings", "list", "Settings of the device that will be made for the run and put back after it."),
        Key("settings[].name", "text", "Its name in the device profile."),
        Key("settings[].value", "text", "What it will be set to."),
        Key("cells", "list", "The runs, in order."),
        Key("cells[].rep", "integer", "Repetition, from 0."),
        Key("cells[].seed", "integer", "Its seed."),
    ),
)
VERIFY = Document(
    "verify",
    "meltbench verify",
    "A list, empty when nothing is wrong.",
    (
        Key("[].run_id", "text", "The run.", "it is not of one run"),
        Key("[].file", "text", "Path below the data folder."),
        Key("[].problem", "text", "changed, missing, extra, unreadable or index."),
        Key("[].detail", "text", "What was found."),
    ),
)
REBUILD = Document(
    "rebuild",
    "meltbench rebuild",
    "One object.",
    (
        Key("index", "text", "Path of the index."),
        Key("runs", "integer", "Runs in it."),
        Key("notes", "list", "A line for each run that is not, and why."),
    ),
)
_DEFINITION = (
    Key("[].name", "text", "What --runner or --workload takes."),
    Key("[].title", "text", "What it is."),
    Key("[].origin", "text", "Where it is defined: built in, a folder, or another package."),
    Key("[].sha256", "text", "Of its definition."),
)
DEFINITIONS = Document("definitions", "meltbench workloads", "A list.", _DEFINITION)
RUNNERS = Document(
    "runners",
    "meltbench runners",
    "A list. A target is local (this machine), ssh (Linux over SSH) or adb (Android).",
    (
        *_DEFINITION,
        Key("[].protocol", "text", "How its engine is asked."),
        Key("[].mode", "text", "server, bench or in-process: never compared with each other."),
        Key("[].models", "list", "Formats of model that it takes: gguf, onnx-genai, mlc, onnx, served."),
        Key("[].checked", "text", "run: by a real engine; contract: by what its documentation says alone."),
        Key("[].targets", "object", "By kind of target."),
        Key("[].targets.*", "object", "One kind of target."),
        Key("[].targets.*.runs", "true or false", "Whether it can run there."),
        Key("[].targets.*.how", "text", "How the engine comes to be there; empty where it cannot run."),
        Key("[].targets.*.why", "text", "Why it cannot run there.", "it can"),
    ),
)
BUILD = Document(
    "build",
    "meltbench runners build",
    "One object.",
    (
        Key("folder", "text", "Where the programs are: on this machine, or on the device that is named."),
        Key("device", "text", "Where it was compiled: --on-device.", "it was on this machine"),
        Key("version", "text", "What the programs say of themselves."),
        Key("target", "text", "--target", "it was compiled on a device, for itself"),
        Key("cpu", "text", "The level of its processors.", "it was compiled on a device, for itself"),
        Key("compiler", "text", "The compiler and its version."),
        Key("cuda", "text", "The version of CUDA's toolkit.", "it computes on the CPU"),
        Key("source_sha256", "text", "Of the package that its source is in."),
        Key("programs", "object", "SHA-256 by program."),
        Key("programs.*", "text", "SHA-256."),
    ),
)
DOCUMENTS = (
    *(RUN, RUNS, TOP, PLAN, VERIFY, REBUILD, *MODELS, DEVICES, INVENTORY, ADDED, DOCTOR, KNOWN, DEVICE, CACHE),
    *(CALIBRATION, SELFTEST, READ, COMPARE, CONTRAST),
    *(INTELLIGENCE, *BILLING, PARETO, REPORT, PREDICT, IMPORT, IMPORTED, DEFINITIONS, RUNNERS, BUILD),
)

_HEAD = """# What --json prints

Rendered from `meltbench/report/jsondoc.py` and the store's schema by `meltbench.report.jsondoc.render_docs()`;
a test holds both to what the commands print.

One document on stdout; messages stay on stderr. A number that is missing is null, and a measure then has a `reason`;
NaN and infinity never appear. Keys that end in `_ns` are CLOCK_BOOTTIME nanoseconds of the target, of an imported run
ns since 1970 of the clock that its files have. In a path `[]` are the items of a list, and `*` is any key. Exit status:
0 done; 1 a run is not done, or something is wrong; 2 bad input; 130 interrupted.
"""


def render_docs() -> str:
    """Return the text of docs/json.md."""
    return "\n".join([_HEAD, *(_section(document) for document in DOCUMENTS)])


def _section(document: Document) -> str:
    lines = [f"## {document.heading}", document.text, "", "| key | type | meaning | null when |", "|---|---|---|---|"]
    lines += [f"| `{key.path}` | {key.type} | {key.meaning} | {key.null} |" for key in document.keys]
    return "\n".join(lines) + "\n"
