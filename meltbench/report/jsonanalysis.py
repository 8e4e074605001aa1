"""Keys of what the analyses print: predictions with their fits, intelligence per watt and joule."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

_NO_FIT = "there is no fit, for a reason"
_ABOUT = (
    Key("device", "text", "Name of the device.", "the run does not say"),
    Key("model", "text", "Name of the model.", "the run does not say"),
)
_ENGINE = (
    Key("engine", "text", "Engine.", "the run does not say"),
    Key("engine_version", "text", "Its version.", "the run does not say"),
    Key("accelerator", "text", "What it computes on.", "it does not say"),
    Key("mode", "text", "server, bench or in-process."),
)
PREDICT = Document(
    "predict",
    "meltbench predict",
    "One object. [analysis.md](analysis.md) has the forms, and how the intervals are made.",
    (
        Key("n_in", "integer", "--in"),
        Key("n_out", "integer", "--out"),
        Key(
            "n_steps", "integer", "Decode steps: n_out - 1, for the first token comes with the prefill; of bench n_out."
        ),
        *_ABOUT,
        Key("runner", "text", "Recipe.", "the run does not say"),
        *_ENGINE,
        Key("runs", "list", "Runs that it was fitted to."),
        Key("invalid_runs", "list", "Those of them that are invalid, and were named."),
        Key("n_requests", "integer", "Requests of them that could be used."),
        Key("left_out", "object", "How many timed requests were not used, or not for everything."),
        Key("left_out.*", "integer", "By why."),
        Key("scope", "text", "What the energies cover."),
        Key("klass", "text", "Their error class.", "there are none"),
        Key("gain_u_k2", "number", "Relative uncertainty of the meter's gain at k = 2.", "it is not known"),
        Key("predictions", "list", "prefill_s, decode_s, e2e_s, mean_power_w and energy_j of the request."),
        Key("predictions[].name", "text", "Which."),
        Key("predictions[].unit", "text", "s, W or J."),
        Key("predictions[].value", "number", "What is expected.", "there is a reason"),
        Key("predictions[].lo", "number", "Lower end of the 95 % prediction interval.", "there is a reason"),
        Key("predictions[].hi", "number", "Its upper end.", "there is a reason"),
        Key("predictions[].beyond", "text", "What of it is extrapolated; empty where nothing is."),
        Key("predictions[].reason", "text", "Why there is no value.", "there is a value"),
        Key("fits", "list", "The fits of prefill, decode and energy."),
        Key("fits[].name", "text", "Which."),
        Key("fits[].form", "text", "The form: I tokens in, O decode steps, T times in s."),
        Key("fits[].n", "integer", "Requests behind it; 0 for none."),
        Key("fits[].weights", "text", "constant, relative or stated: what the scatter was taken for.", _NO_FIT),
        Key("fits[].parameters", "list", "What was fitted; empty for none."),
        Key("fits[].parameters[].name", "text", "As in the form."),
        Key("fits[].parameters[].unit", "text", "Its unit."),
        Key("fits[].parameters[].value", "number", "Its value."),
        Key("fits[].parameters[].se", "number", "Its standard error."),
        Key("fits[].residuals", "object", "Observed less fitted, in s or J.", _NO_FIT),
        Key("fits[].residuals.rmse", "number", "Root of their mean square."),
        Key("fits[].residuals.largest", "number", "The largest."),
        Key("fits[].residuals.relative_rmse", "number", "The same of their shares of what was observed."),
        Key("fits[].residuals.relative_largest", "number", "The largest share."),
        Key("fits[].residuals.r_squared", "number", "1 less their variance's share.", "all observations are equal"),
        Key("fits[].n_in", "list", "Least and most tokens in that it was fitted to.", f"{_NO_FIT}, or it is of energy"),
        Key("fits[].n_steps", "list", "The same of decode steps.", "it is not of the decode, or there is no fit"),
        Key("fits[].reason", "text", "Why there is no fit.", "there is one"),
    ),
)
INTELLIGENCE = Document(
    "intelligence",
    "meltbench intelligence",
    "A list: an object for each point and method of scoring. [analysis.md](analysis.md) defines all of it.",
    (
        Key("[].runs", "list", "The runs, repetitions of each other."),
        *(Key(f"[].{key.path}", key.type, key.meaning, key.null) for key in (*_ABOUT, *_ENGINE)),
        Key("[].workload", "text", "What was asked.", "the run does not say"),
        Key("[].point", "text", "Point of the workload; empty where it has none."),
        Key("[].method", "text", "How answers were scored; empty where the accuracy is another run's alone."),
        Key("[].origin", "text", "generated, loglik or inherited: where accuracy or perplexity is from."),
        Key("[].scope", "text", "What the energies cover."),
        Key("[].klass", "text", "Their error class.", "there are none"),
        Key("[].n_queries", "integer", "Queries that were used."),
        Key("[].n_items", "integer", "Items that they are of."),
        Key(
            *("[].numbers", "list"),
            "accuracy; gross and net mean_power_w, mean_energy_j, ipw_per_w, ipj_per_j. Of a text: perplexity, "
            "ppw_per_w and ppj_per_j in their place.",
        ),
        Key("[].numbers[].name", "text", "Which."),
        Key("[].numbers[].energy", "text", "gross or net.", "it is accuracy or perplexity"),
        Key("[].numbers[].unit", "text", "Its unit."),
        Key("[].numbers[].value", "number", "Its value.", "there is a reason"),
        Key("[].numbers[].lo", "number", "Lower end of the 95 % interval.", "nothing tells it"),
        Key("[].numbers[].hi", "number", "Its upper end.", "nothing tells it"),
        Key("[].numbers[].se", "number", "Standard error over items alone.", "nothing tells it"),
        Key("[].numbers[].n", "integer", "Queries behind it."),
        Key("[].numbers[].clusters", "integer", "Items behind it: queries of one item are not independent."),
        Key("[].numbers[].method", "text", "How its interval was made, before gain, baseline and runs widened it."),
        Key("[].numbers[].reason", "text", "Why there is no value.", "there is a value"),
        Key("[].flags", "list", "What to know before these numbers are put beside others: `name: what`."),
    ),
)
