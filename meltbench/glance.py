"""What the sources of a profile say at this moment, asked by the controller between runs.

Files come with one call of the probe; a program of the target is run once each, as the probe would poll it. The same
readers as in a run take both.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded
from meltbench.readings import READERS, read
from meltbench.records import Readings, Stream
from meltbench.targets.facts import rooted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from meltbench.readings.base import Asked, Command
    from meltbench.records import Series
    from meltbench.site import Site
    from meltbench.targets import Transport
    from meltbench.targets.profile import Profile, Source

_LINK_S = 5.0  # what a call may take longer than the program that it runs
_MAX_BYTES = 65_536  # of an output, as the probe keeps of a poll
_EXITED, _SIGNALLED = 0x100, 0x200  # a poll's err beside an errno (docs/probe.md)


def sources(profile: Profile, what: Asked) -> list[Source]:
    """The sources of the target that tell of a matter before a run."""
    return [one for one in profile.source if not one.host and what in READERS[one.reader].asked]


def commands(wanted: Iterable[Source], programs: Sequence[str]) -> list[Command]:
    """The programs to run for these sources, each once; ``programs``: those that the target has."""
    every = [command for source in wanted for command in READERS[source.reader].commands]
    return [one for one in dict.fromkeys(every) if one.poll and one.program in programs]


def globs(profile: Profile, wanted: Iterable[Source]) -> list[str]:
    """The files to ask the probe for, each once."""
    specs = [spec for source in wanted for spec in READERS[source.reader].paths]
    found = [rooted(spec.glob, profile.roots.sys, profile.roots.proc) for spec in specs if "{pid:" not in spec.glob]
    return list(dict.fromkeys(found))


def look(site: Site, profile: Profile, wanted: Sequence[Source]) -> list[Series]:
    """The series of these sources, one reading each. Raises DeadlineExceeded for a probe that does not answer,
    DeviceError for a target that cannot be used; a program that does not answer is a reading that failed."""
    files = globs(profile, wanted)
    streams = of_files(site.probe.facts(files)) if files else []
    for command in commands(wanted, site.facts.programs):
        streams.append(_poll(len(streams), site.probe.transport, command))
    return series(wanted, streams)


def series(wanted: Iterable[Source], streams: Sequence[Stream]) -> list[Series]:
    """What the readers make of the streams."""
    return [one for source in wanted for one in read(source.name, source.reader, streams, source.options)[0]]


def of_files(answer: Mapping[str, Any]) -> list[Stream]:
    """The files of the probe's answer, each a stream of one reading; what is absent is left out."""
    files = answer.get("files")
    entries = files.items() if isinstance(files, dict) else ()
    return [one for n, (path, entry) in enumerate(entries) if (one := _file(n, str(path), entry)) is not None]


def _file(number: int, path: str, entry: object) -> Stream | None:
    if not isinstance(entry, dict) or entry.get("status") == "absent":
        return None
    code = entry.get("errno")
    failed = 0 if entry.get("status") == "ok" else code if isinstance(code, int) and code > 0 else errno.EIO
    raw = b"" if failed else str(entry.get("text", "")).encode("latin-1", "replace")
    return _stream(number, "file", path, failed & 0x7FFFFFFF, raw)


def _poll(number: int, transport: Transport, command: Command) -> Stream:
    """A program's output as the probe would have recorded it."""
    try:
        done = transport.run(command.argv, Deadline.after(command.deadline_s + _LINK_S))
    except DeadlineExceeded:
        return _stream(number, "poll", " ".join(command.argv), errno.ETIMEDOUT, b"")
    failed = _EXITED + done.code if done.code > 0 else _SIGNALLED - done.code if done.code else 0
    return _stream(number, "poll", " ".join(command.argv), failed, done.stdout[:_MAX_BYTES])


def _stream(number: int, kind: str, path: str, failed: int, raw: bytes) -> Stream:
    at = np.zeros(1, np.int64)
    readings = Readings.of(at, at, np.array([failed], np.int32), [raw])
    return Stream(number, "glance", kind, path, "ok", 0, readings)
