"""The keys of what is printed of the inventory's devices, and of an examination."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

_UNSEEN = "nobody has reached it yet"
_ENTRY = (
    Key("name", "text", "What --device takes."),
    Key("profile", "text", "Its profile."),
    Key("ssh", "text", "Its address.", "it is reached by adb"),
    Key("adb", "text", "Its serial, or HOST:PORT.", "it is reached by ssh"),
    Key("adb_port", "integer", "The port of the adb server it is reached by.", "that is where adb looks for one"),
    Key("identity", "text", "Which board it is (docs/devices.md).", "nobody has looked"),
    Key("identity_from", "text", "What tells that.", "as above"),
    Key("board", "text", "What it calls itself.", "it has no name, or nobody has looked"),
    Key("workdir", "text", "Our folder there.", "it is $HOME/.meltbench, on Android /data/local/tmp/.meltbench"),
    Key("added", "text", "When, ISO 8601, UTC.", "it was written by hand"),
)
INVENTORY = Document(
    "inventory",
    "meltbench devices list",
    "A list: this machine, then the devices of the inventory.",
    (
        Key("[].name", "text", "What --device takes."),
        Key("[].target", "text", "How it is reached: local, ssh, adb."),
        Key("[].address", "text", "Its address.", "it is this machine"),
        Key("[].profile", "text", "Its profile."),
        Key("[].reachable", "true or false", "Whether it answered within 5 s, and is the board that is meant."),
        Key("[].why", "text", "Why not.", "it is reachable"),
        Key(
            "[].busy", "text", "With what; empty: with nothing.", "nobody can tell: unreachable, or no probe there yet"
        ),
        Key("[].verdict", "text", "The doctor's last: ok, advice, problem.", "it was not examined"),
        Key("[].last_seen", "text", "When, ISO 8601, UTC.", "never"),
        Key("[].board", "text", "What it calls itself, now or when last seen.", "it has no name, or " + _UNSEEN),
        Key("[].accelerator", "text", "Its GPU, now or when last seen.", "none was found, or " + _UNSEEN),
        Key("[].disk_free_bytes", "integer", "Free where our folder is.", "as busy"),
    ),
)
ADDED = Document(
    "device added",
    "meltbench devices add",
    "One object: the inventory's entry, and what became of it.",
    (
        *_ENTRY,
        Key("outcome", "text", "added; moved: the same board, another address or profile; renamed; unchanged."),
        Key("was", "text", "Its address before, or its name.", "it is new, or unchanged"),
        Key("fits_as_well", "list", "Profiles that fit as well as the one that was taken."),
        Key("root", "text", "Our folder there."),
        Key("inventory", "text", "The inventory's file."),
        Key("facts", "object", "What it is: as `conditions` of a run."),
        Key("facts.*", "any", "As there."),
    ),
)
KNOWN = Document(
    "device known",
    "meltbench devices show, of a device of the inventory",
    "One object. Of a profile: below.",
    (
        *_ENTRY,
        Key("reachable", "true or false", "Whether it answered within 5 s, and is the board that is meant."),
        Key("why", "text", "Why not.", "it is reachable"),
        Key("last_seen", "text", "When, ISO 8601, UTC.", "never"),
        Key("verdict", "text", "The doctor's last: ok, advice, problem.", "it was not examined"),
        Key("examined", "text", "When, ISO 8601, UTC.", "it was not"),
        Key("facts", "object", "What it is, or was when last seen: as `conditions` of a run.", _UNSEEN),
        Key("facts.*", "any", "As there."),
    ),
)
DOCTOR = Document(
    "doctor",
    "meltbench devices doctor",
    "One object. Exit status 1 when the verdict is problem.",
    (
        Key("name", "text", "The device."),
        Key("profile", "text", "Its profile."),
        Key("target", "text", "How it is reached."),
        Key("address", "text", "Its address.", "it is this machine"),
        Key("identity", "text", "Which board answered.", "none did, or the probe could not be put there"),
        Key("board", "text", "What it calls itself.", "as above, or it has no name"),
        Key("verdict", "text", "The worst of the findings: ok, advice, problem."),
        Key("findings", "list", "In the order in which they were looked for."),
        Key("findings[].what", "text", "What was looked at; `source NAME` for a sensor."),
        Key("findings[].seen", "text", "What was seen."),
        Key("findings[].verdict", "text", "ok; advice: it could be better; problem: it would spoil runs."),
        Key(
            "findings[].mend", "text", "What to do, in lines; those that begin with blanks can be pasted. Often empty."
        ),
    ),
)
