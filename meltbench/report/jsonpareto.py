"""Keys of what ``meltbench pareto`` prints."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

_OF_MODEL = "it is of the model alone"
_NO_SPREAD = "nobody knows how far it is off"
_UNBOUNDED = "--where was left out"

PARETO = Document(
    "pareto",
    "meltbench pareto",
    "One object. [analysis.md](analysis.md#fronts) says how it is drawn.",
    (
        Key("axes", "list", "Those of the front, in order, then those that only --where is about."),
        Key("axes[].name", "text", "The column of results."),
        Key("axes[].asked", "text", "As it was asked for."),
        Key("axes[].better", "text", "more or less."),
        Key("axes[].unit", "text", "Its unit."),
        Key("axes[].workload", "text", "The workload that it is of.", _OF_MODEL),
        Key("axes[].mode", "text", "server, bench or in-process.", _OF_MODEL),
        Key("axes[].point", "text", "The point of the workload; empty: whole runs.", _OF_MODEL),
        Key("axes[].arms", "integer", "Arms that have it there."),
        Key("axes[].alternatives", "list", "Where else it is."),
        Key("where", "text", "--where, in the columns' units.", "it was left out"),
        Key("draws", "integer", "Draws behind every probability."),
        Key("arms", "list", "Those that have every axis, the most probable on the front first."),
        Key("arms[].name", "text", "All that tells it from other arms."),
        Key("arms[].about", "object", "The same by name; empty where the runs do not say."),
        *(
            Key(f"arms[].about.{name}", "text", meaning)
            for name, meaning in (
                ("device", "Name of the device."),
                ("model", "Name of the model."),
                ("quantisation", "Of its weights."),
                ("engine", "Engine."),
                ("engine_version", "Its version."),
                ("accelerator", "What it computes on."),
                ("origin", "The tool that measured it."),
            )
        ),
        Key("arms[].settings", "object", "Settings in which runs of this device, model and engine differ."),
        Key("arms[].settings.*", "text", "As it was in force."),
        Key("arms[].numbers", "list", "Of each axis, in order; null where only --where asked and the arm has none."),
        Key("arms[].numbers[].value", "number", "The median of its runs; of items their mean."),
        Key("arms[].numbers[].lo", "number", "Lower end of the 95 % of its draws.", _NO_SPREAD),
        Key("arms[].numbers[].hi", "number", "Their upper end.", _NO_SPREAD),
        Key("arms[].numbers[].runs", "list", "The runs behind it."),
        Key("arms[].on_front", "true or false", "Whether no other arm beats it by the values, if it meets --where."),
        Key(
            *("arms[].p_front", "number", "The probability that none does, and that it meets --where."),
            f"of one of its axes {_NO_SPREAD}, or a number is missing that decides --where",
        ),
        Key(
            *("arms[].meets", "true or false", "Whether its values meet --where."),
            f"{_UNBOUNDED}, or a number is missing that decides it",
        ),
        Key("arms[].p_meets", "number", "The probability that it does.", "as above"),
        Key("arms[].dominated_by", "text", "The name of the arm that beats it most often.", "none ever does"),
        Key(
            "arms[].p_dominated",
            "number",
            "The probability that this one does.",
            f"none does, or of an axis of either {_NO_SPREAD}",
        ),
        Key("arms[].flags", "list", "What to know before it is put beside others: `name: what`."),
        Key("left_out", "list", "Arms that lack an axis."),
        Key("left_out[].name", "text", "Which."),
        Key("left_out[].lacks", "list", "What it has no number of."),
        Key("left_out[].flags", "list", "Why, where that is known: `name: what`."),
        Key("hypervolume", "object", "The share of the box between two points that the front dominates."),
        Key("hypervolume.value", "number", "Of the values.", "there is a reason"),
        Key(
            "hypervolume.lo", "number", "Lower end of its 95 % interval.", "there is a reason, or an arm has no p_front"
        ),
        Key("hypervolume.hi", "number", "Its upper end.", "as above"),
        Key("hypervolume.reference", "list", "By axis the worst value; empty where no arm meets --where."),
        Key("hypervolume.ideal", "list", "By axis the best value; empty where no arm meets --where."),
        Key("hypervolume.reason", "text", "Why there is none.", "there is one"),
        Key("notes", "list", "What is to be known of all of it: `name: what`."),
    ),
)
