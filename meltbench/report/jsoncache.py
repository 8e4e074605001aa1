"""The keys of what is printed of a device's cache of pushed files."""

from __future__ import annotations

from meltbench.report.jsonshapes import Document, Key

CACHE = Document(
    "cache",
    "meltbench devices cache",
    "One object; `blobs` in the order in which they were used.",
    (
        Key("blobs", "list", "The files."),
        Key("blobs[].sha256", "text", "Of the file."),
        Key("blobs[].state", "text", "whole; partial: not all of it came; unchecked: changed since it was verified."),
        Key("blobs[].bytes", "integer", "On the device, with its copies."),
        Key("blobs[].idle_s", "integer", "Since it was used, s, by the device's clock.", "nobody knows"),
        Key("blobs[].in_use", "true or false", "A running job names it, or a push is under way."),
        Key("blobs[].names", "list", "What it is called in engines' folders, and on this machine."),
        Key("environments", "list", "Python environments that were made of pushed wheels."),
        Key("environments[].key", "text", "Its folder in `cache/venvs`: by the hash of its wheels."),
        Key("environments[].state", "text", "whole; partial: its making was cut off, or is under way."),
        Key("environments[].bytes", "integer", "On the device."),
        Key("environments[].packages", "list", "What is installed in it: name and version."),
        Key("environments[].in_use", "true or false", "A process runs out of it, or somebody has the device's lease."),
        Key("used_bytes", "integer", "Of all files, environments not included."),
        Key("free_bytes", "integer", "Free on the disk."),
        Key("total_bytes", "integer", "The disk's size."),
        Key("dropped", "object", "What --drop or --all did.", "nothing was to be dropped"),
        Key("dropped.dropped", "list", "SHA-256 of the files that were removed, keys of environments."),
        Key("dropped.in_use", "list", "Of what was in use and stayed, the same."),
        Key("dropped.freed_bytes", "integer", "Of what was removed."),
    ),
)
