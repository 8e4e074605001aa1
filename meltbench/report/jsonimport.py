"""The keys that ``meltbench import`` prints."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

_SKIPPED = "MELT's report has no such figure of it, or its file is not there"
_UNMARKED = "the files do not tell"
_NO_RAILS = "Energy and charge by rail; empty without power, or where MELT makes none of it."


def _rails(path: str, energy: str, discharge: str) -> tuple[Key, ...]:
    return (
        Key(f"{path}.rails", "object", _NO_RAILS),
        Key(f"{path}.rails.*", "object", "By MELT's name of the rail; main of a Monsoon."),
        Key(f"{path}.rails.*.{energy}", "number", "mWh, by MELT's sum."),
        Key(f"{path}.rails.*.{discharge}", "number", "mAh, by MELT's sum."),
    )


def _measure(path: str) -> tuple[Key, ...]:
    return (
        Key(path, "list", "Ours, as in the first table of this page."),
        Key(f"{path}[].*", "any", "As there."),
    )


_OVERALL = "nothing is left of it: `reason` says why"
IMPORT = Document(
    "import",
    "meltbench import melt",
    "One object: MELT's numbers by its definitions, ours beside them. docs/melt.md has the definitions.",
    (
        Key("files", "list", "The files that were read."),
        Key("files[].path", "text", "As it was named."),
        Key("files[].kind", "text", "events, states, app, output, monsoon, start, adb, stages, jetson, operators ..."),
        Key("notes", "list", "What is to be said of the files."),
        Key("power", "list", "What the power files hold."),
        Key("power[].file", "text", "Its path."),
        Key("power[].kind", "text", "monsoon, jetson or adb."),
        Key("power[].clock", "text", "Of which machine its times are: host or device."),
        Key("power[].rails", "list", "What MELT sums up of it; empty where it does not."),
        Key("power[].notes", "list", "What is to be said of it."),
        Key("power[].series", "list", "Ours, as `meltbench read` describes them."),
        Key("power[].series[].*", "any", "As there."),
        Key("conversations", "list", "By iteration and number."),
        Key("conversations[].iteration", "integer", "Of the file's name."),
        Key("conversations[].conversation", "integer", "Of the file's name, or its place in the app's list."),
        Key("conversations[].engine", "text", "llama.cpp or MLC."),
        Key("conversations[].notes", "list", "What is to be said of its files."),
        Key("conversations[].clocks", "object", "How the program's clock and the meter's hang together."),
        Key("conversations[].clocks.offset_s", "number", "Program's clock less meter's, s.", "nothing ties them"),
        Key("conversations[].clocks.bound_s", "number", "How far that may be off, s.", "nothing ties them"),
        Key("conversations[].clocks.how", "text", "By what that is known, or why it is not."),
        Key("conversations[].load", "object", "The loading of the model by MELT's account.", _SKIPPED),
        Key("conversations[].load.duration_s", "number", "s."),
        *_rails("conversations[].load", "energy_mwh", "discharge_mah"),
        Key("conversations[].prompts", "list", "The prompts in order."),
        Key("conversations[].prompts[].prompt", "integer", "Its place, from 0."),
        Key("conversations[].prompts[].melt", "object", "MELT's row of results_model_inference_measurements.csv."),
        Key("conversations[].prompts[].melt.duration_s", "number", "duration (sec).", _SKIPPED),
        Key("conversations[].prompts[].melt.input_tokens", "integer", "Its name.", _SKIPPED),
        Key("conversations[].prompts[].melt.output_tokens", "integer", "Its name.", _SKIPPED),
        Key("conversations[].prompts[].melt.prefill_tps", "number", "Its name.", _SKIPPED),
        Key("conversations[].prompts[].melt.tps", "number", "Its name.", _SKIPPED),
        Key("conversations[].prompts[].melt.reason", "text", "Why it lacks something; empty where it does not."),
        *_rails("conversations[].prompts[].melt", "energy_pt_mwh", "discharge_pt_mah"),
        Key("conversations[].prompts[].ours", "object", "Our request.", "nothing says when it was"),
        Key("conversations[].prompts[].ours.n_out", "integer", "Tokens drawn.", _UNMARKED),
        Key("conversations[].prompts[].ours.ttft_s", "number", "s.", _UNMARKED),
        Key("conversations[].prompts[].ours.e2e_s", "number", "s.", _UNMARKED),
        Key("conversations[].prompts[].ours.tpot_s", "number", "s.", _UNMARKED),
        Key("conversations[].prompts[].ours.prefill_tps", "number", "tok/s.", _UNMARKED),
        Key("conversations[].prompts[].ours.decode_tps", "number", "tok/s.", _UNMARKED),
        Key("conversations[].prompts[].ours.engine_decode_tps", "number", "tok/s.", _UNMARKED),
        Key("conversations[].prompts[].ours.energy_j", "number", "J.", "energy_reason says why"),
        Key("conversations[].prompts[].ours.energy_u_k2_j", "number", "Its u, k = 2.", "it is not known"),
        Key("conversations[].prompts[].ours.energy_reason", "text", "Why there is no energy; empty where there is."),
        Key("conversations[].prompts[].ours.detail", "text", "What else there is to say."),
        Key(
            "conversations[].stages",
            "list",
            "What the program marked, by kind: MELT's results_detailed_measurements.csv.",
        ),
        Key("conversations[].stages[].kind", "text", "The mark's name, * for a number."),
        Key("conversations[].stages[].n", "integer", "How many."),
        Key("conversations[].stages[].duration_s", "number", "Their sum, s."),
        *_rails("conversations[].stages[]", "energy_mwh", "discharge_mah"),
        *_measure("conversations[].measures"),
        Key("conversations[].validity", "text", "valid, degraded or invalid."),
        *_measure("conversations[].reasons"),
        Key("overall", "object", "What MELT's notebook shows of all conversations.", "there is none"),
        Key("overall.tps", "number", "Mean over the prompts that it keeps.", _OVERALL),
        Key("overall.prefill_tps", "number", "The same.", _OVERALL),
        Key("overall.n", "integer", "The prompts that it keeps."),
        Key("overall.energy_pt_mwh", "number", "Sum over an iteration's kept prompts, mean of iterations.", _OVERALL),
        Key("overall.discharge_pt_mah", "number", "The same.", _OVERALL),
        Key("overall.discharge_per_token_mah", "number", "discharge_pt over the tokens once more, the same.", _OVERALL),
        Key("overall.n_energy", "integer", "The prompts that it keeps for these."),
        Key("overall.reason", "text", "Why nothing is left; empty where something is."),
        Key("operators", "list", "Logs of operators."),
        Key("operators[].file", "text", "Its path."),
        Key("operators[].engine", "text", "llama.cpp or MLC."),
        Key("operators[].chunked", "true or false", "Whether TVM's reports are in numbered pieces."),
        Key("operators[].unread", "integer", "Graphs or reports that are not whole."),
        Key("operators[].tensors", "object", "Tensors of the model by quantisation; of llama.cpp."),
        Key("operators[].tensors.*", "integer", "How many."),
        Key("operators[].melt", "object", "MELT's tables: its parser's --merge."),
        *(
            key
            for table in ("by_operator", "by_module")
            for key in (
                Key(
                    f"operators[].melt.{table}",
                    "list",
                    f"--merge {'per_op' if table == 'by_operator' else 'per_module'}.",
                ),
                Key(f"operators[].melt.{table}[].name", "text", "Operator, or function."),
                Key(f"operators[].melt.{table}[].device", "text", "Device of TVM; else empty."),
                Key(f"operators[].melt.{table}[].n", "integer", "Reports of a function.", "it is not of such a table"),
                Key(
                    f"operators[].melt.{table}[].cpu_ms",
                    "number",
                    "Duration (ms) of its detailed table.",
                    "it is of TVM",
                ),
                Key(f"operators[].melt.{table}[].wall_ms", "number", "Wall time (ms) of it.", "it is of TVM"),
                Key(f"operators[].melt.{table}[].total_ms", "number", "Duration of its summary, or of TVM, ms."),
            )
        ),
        Key("operators[].ours", "list", "By what the engine did."),
        Key("operators[].ours[].what", "text", "Warm-up, prompts, tokens of answers; of TVM the function."),
        Key("operators[].ours[].n", "integer", "Evaluations."),
        Key("operators[].ours[].tokens", "integer", "Tokens that they evaluated.", "their shapes do not tell"),
        Key("operators[].ours[].seconds", "number", "Of their operators, wall time, s."),
        Key("operators[].ours[].median_s", "number", "Of one, s."),
        Key("operators[].ours[].per_s", "number", "Tokens by second of operators: at most.", "the tokens are not told"),
        Key("differences", "list", "Where and why the two accounts differ."),
        Key("stored", "list", "Folders of the runs that were stored; empty without --store."),
    ),
)
_NO_ENGINE = "no engine is known to have been under test"
IMPORTED = Document(
    "imported",
    "meltbench import llama-bench|ipw|tegrastats|codecarbon|localscore",
    "One object: the runs of another tool. docs/import-export.md says what each tool's numbers are.",
    (
        Key("tool", "text", "The tool that measured them."),
        Key("files", "list", "Paths of the files that were read, as they were named."),
        Key("runs", "list", "In the order of the files."),
        Key("runs[].part", "text", "Which of the runs that its files hold."),
        Key("runs[].origin", "text", "The tool; meltbench-export where we wrote the file ourselves."),
        Key("runs[].started_at", "text", "When it began.", "no file tells it"),
        Key("runs[].clock", "text", "By which clock its times are."),
        Key("runs[].device", "text", "Given by --device, else what the files call the hardware."),
        Key("runs[].model", "object", "As in the first table of this page.", _NO_ENGINE),
        Key("runs[].model.*", "any", "As there."),
        Key("runs[].runner", "object", "As in the first table of this page.", _NO_ENGINE),
        Key("runs[].runner.*", "any", "As there."),
        Key("runs[].workload", "text", "What it did, by a name that is no workload's of ours."),
        Key("runs[].rep", "integer", "Which time the same was measured, from 0."),
        Key("runs[].knobs", "object", "Its settings, ours under our names."),
        Key("runs[].knobs.*", "any", "Its value."),
        Key("runs[].said", "object", "What else the tool wrote down of it."),
        Key("runs[].said.*", "any", "As it stands there."),
        Key("runs[].requests", "integer", "Requests, queries or repetitions."),
        Key("runs[].scores", "integer", "Queries with a mark or without one."),
        Key("runs[].series", "list", "Names of the signals."),
        Key("runs[].measures", "list", "Ours, and the tool's own under names that begin with the tool's."),
        Key("runs[].measures[].*", "any", "As in the first table of this page."),
        Key("runs[].validity", "text", "valid, degraded or invalid."),
        Key("runs[].reasons", "list", "As in the first table of this page."),
        Key("runs[].reasons[].*", "any", "As there."),
        Key("runs[].notes", "list", "What is to be said of the files."),
        Key("stored", "list", "Folders of the runs that were stored; empty without --store."),
    ),
)
