"""The keys of ``meltbench top --json``, and what a run's record says of who watched it."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

_UNSEEN = "there is a reason"
_GONE = "whoever looked was gone before the run was brought in"
WATCHED = (
    Key("conditions.live", "object", "The looks of --live at the journal while it grew.", "nobody looked"),
    Key("conditions.live.link", "text", "Over what: local, ssh or adb."),
    Key("conditions.live.period_s", "number", "How far apart."),
    Key("conditions.live.looks", "integer", "How many.", _GONE),
    Key("conditions.live.bytes", "integer", "What was read, or fetched over the link.", _GONE),
    Key("conditions.live.cpu_s", "number", "Processor time that they took on the controller.", _GONE),
    Key("conditions.top", "object", "The looks of `meltbench top`, as above.", "nobody looked"),
    Key("conditions.top.looks", "integer", "How many."),
    Key("conditions.top.bytes", "integer", "What was read."),
    Key("conditions.top.cpu_s", "number", "Processor time that they took."),
)
_FIGURES = (
    ("tokens_per_s", "Tokens that arrived per second, of the last seconds (docs/live.md)."),
    ("power_w", "Power of the device's total, of the last seconds."),
    ("temp_c", "The hottest zone."),
)
TOP = Document(
    "top",
    "meltbench top",
    "A list of the runs that have begun and are not stored, oldest first.",
    (
        Key("[].run_id", "text", "The run."),
        Key("[].state", "text", "running, detached, ended, or unknown."),
        Key("[].device", "text", "Device."),
        Key("[].target", "text", "local, ssh or adb."),
        Key("[].model", "text", "Model.", "no engine was asked for (exec, idle)"),
        Key("[].engine", "text", "Engine.", "no engine was asked for"),
        Key("[].workload", "text", "Workload.", "nothing is known of it yet"),
        Key("[].command", "text", "The command of `exec`, as one would type it.", "there is none"),
        Key("[].elapsed_s", "number", "Since its start.", "nothing is known of it yet"),
        Key(
            "[].left_s",
            "number",
            "In how many seconds at most it should have ended.",
            "it should have, or none is known",
        ),
        Key("[].note", "text", "Why nothing more is known, and what to do; else empty."),
        Key("[].step", "text", "What is under way.", "nobody looks at it"),
        *(
            key
            for name, meaning in _FIGURES
            for key in (
                Key(f"[].{name}", "number", meaning, _UNSEEN),
                Key(f"[].{name}_of", "text", "What that is of.", "there is no value"),
                Key(f"[].{name}_reason", "text", "Why there is no value.", "there is one"),
            )
        ),
    ),
)
