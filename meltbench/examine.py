"""Examines a device for the doctor: reaches it, asks, reads every sensor for a second as a run does. Changes nothing.

What is found is only kept here; what it means is said by meltbench.doctor.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench import site
from meltbench.builds.on_device import installed
from meltbench.compose import channels
from meltbench.deadline import Deadline
from meltbench.deploy import helper_scripts
from meltbench.doctor.exam import Exam, Folder, Link, Look
from meltbench.enrol import runs_of
from meltbench.errors import DeviceError, LinkLost, MeltbenchError, TargetBusy
from meltbench.measure.counters import MAX_POWER_W, Unwrapper
from meltbench.measure.digest import digest
from meltbench.measure.energy import is_relative
from meltbench.measure.total import Designation, designated
from meltbench.probe.client import passing_id
from meltbench.probe.job import Job, milliseconds
from meltbench.probe.journal import read_journal, unbyte
from meltbench.readings import READERS
from meltbench.readings import Source as ReadBy
from meltbench.records import OK
from meltbench.rollcall import lease_holder, running_in
from meltbench.site import Site
from meltbench.store.folder import RUN_ID
from meltbench.targets import connect, matching, printable
from meltbench.targets import profile as profiles
from meltbench.targets.facts import rooted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.probe.client import Probe
    from meltbench.probe.journal import Journal
    from meltbench.records import Series, SourceStatus, Stream
    from meltbench.scripts import Scripts
    from meltbench.store import Store
    from meltbench.targets import Completed, Transport
    from meltbench.targets.facts import Facts
    from meltbench.targets.inventory import Known
    from meltbench.targets.profile import Profile, Roots
    from meltbench.watch import Watch

_CALL_S = 15.0
_TRIES = 3
_KIND = "doctor"  # of job
_LOOK_S = 1.7  # a tool that tells twice a second has then told three times
_SLACK_S = 30.0  # a busy board starts a dozen programs late
_PAUSE_S = 0.2
_JOURNAL_BYTES = 16 << 20
# What the doctor looks at beside facts and sensors.
GLOBS = (
    "/proc/loadavg",
    "/proc/swaps",
    "/proc/device-tree/chosen/power/max_current",
    "/sys/devices/system/cpu/offline",
    "/sys/devices/system/cpu/present",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_driver",
    "/sys/devices/system/cpu/cpufreq/policy*/scaling_max_freq",
    "/sys/devices/system/cpu/cpufreq/policy*/cpuinfo_max_freq",
    "/sys/class/thermal/thermal_zone*/type",
    "/sys/class/thermal/thermal_zone*/trip_point_*_type",
    "/sys/class/thermal/thermal_zone*/trip_point_*_temp",
    "/etc/nvpmodel.conf",
)
_MAY_WRITE = 'for f; do test -w "$f" || exit 1; done'
_RATES = {"J": "W", "s": "1"}
_ASKED = {"nvpmodel": ("nvpmodel", "-q")}


def examine(known: Known, store: Store | None, watch: Watch) -> Exam:
    """Look at a device as far as one gets with it, so no DeviceError is raised. ``store``: of calibrations of it."""
    profile = profiles.load(known.profile_name)[0]
    exam = Exam(known, profile)
    transport = connect(known.place, known.identity)
    try:
        exam = replace(exam, link=_link(transport))
        folder, probe = _folder(known, transport, watch)
        exam = replace(exam, folder=folder)
        if probe is not None:
            exam = _visited(exam, probe, store, watch)
    except DeviceError as error:
        exam = _cut_short(exam, error)
    finally:
        transport.close()
    return exam


def _cut_short(exam: Exam, error: DeviceError) -> Exam:
    """A device that was not reached, or went away in the middle of it: then what was seen of it is told."""
    if exam.facts is not None:
        return replace(exam, looked_why=exam.looked_why or str(error))
    return replace(exam, failed=(error.message, error.hint or ""), link=None)


def _link(transport: Transport) -> Link:
    trips = []
    for _ in range(_TRIES):
        began = time.monotonic()
        _run(transport, "true")
        trips.append(time.monotonic() - began)
    who = _run(transport, "id", "-un").stdout.decode("utf-8", "replace").strip()
    number = _run(transport, "id", "-u").stdout.decode("utf-8", "replace").strip()
    groups = _run(transport, "id", "-Gn").stdout.decode("utf-8", "replace").split()
    return Link(
        min(trips), None, 0.0, printable(who)[:64], int(number) if number.isdecimal() else None,
        tuple(printable(one)[:64] for one in groups[:32]),
    )  # fmt: skip


def _run(transport: Transport, *argv: str) -> Completed:
    return transport.run(argv, Deadline.after(_CALL_S))


def _folder(known: Known, transport: Transport, watch: Watch) -> tuple[Folder, Probe | None]:
    """Our folder there: on what it lies, and the probe, where it runs from it."""
    root = site.root_of(known, transport)
    mounts = _run(transport, "cat", "/proc/mounts").stdout.decode("utf-8", "replace")
    folder = on_mount(Folder(root), mounts)
    try:
        return folder, site.put(transport, root, watch)
    except LinkLost:
        raise  # that says nothing of the folder
    except MeltbenchError as error:
        return replace(folder, why=str(error)), None


def on_mount(folder: Folder, mounts: str) -> Folder:
    """The folder with the file system that it lies on, by the text of /proc/mounts: of several the longest, then the
    last."""
    best = folder
    for line in mounts.splitlines():
        words = line.split(" ")
        if len(words) < 4:
            continue
        mount = words[1].encode("latin-1", "replace").decode("unicode_escape", "replace")
        within = folder.path == mount or folder.path.startswith(f"{mount.rstrip('/')}/")
        if within and len(mount) >= len(best.mount):
            best = replace(folder, mount=printable(mount), kind=printable(words[2]), options=tuple(words[3].split(",")))
    return best


def _visited(exam: Exam, probe: Probe, store: Store | None, watch: Watch) -> Exam:
    """Everything that the probe tells. Another board than the one that is meant is not looked into."""
    idle = probe.recover()
    roots = exam.profile.roots
    facts = site.ask(probe, exam.profile, [one.reader for one in exam.profile.source])
    answer = probe.facts([*(rooted(glob, roots.sys, roots.proc) for glob in GLOBS), f"{probe.root}/*/state"])
    assert exam.folder is not None
    exam = replace(
        exam, facts=facts, link=_timed(exam.link, probe),
        folder=replace(exam.folder, free_bytes=facts.disk_free_bytes), texts=_texts(answer, roots),
        page_bytes=_whole(answer.get("page_bytes")), fits=_better(exam.known, facts, watch),
    )  # fmt: skip
    assert exam.folder is not None
    if exam.wrong_board:
        return exam
    running = "" if idle else running_in(probe.transport, probe.path, answer) or "another run"
    holder = lease_holder(probe.lease_show())
    ended = tuple(one for one in runs_of(answer, "state") if one not in running and RUN_ID.fullmatch(one))
    exam = replace(
        exam, running=running, holder=holder, ended=ended,
        answers=_answers(probe, facts), settable=_settable(probe, exam.profile),
        cuda=next((one.cuda for one in installed(probe.transport, exam.folder.path) if one.cuda), None),
    )  # fmt: skip
    if running or holder is not None:
        return replace(exam, looked_why=running or f"held by {holder}")
    return _looked(exam, probe, store, watch)


def _timed(link: Link | None, probe: Probe) -> Link:
    """The link with how far the device's wall clock is from ours: it was read at some time within the trip."""
    assert link is not None
    began = time.time()
    wall = _whole(probe.facts([]).get("wall_ns"))
    ended = time.time()
    if wall is None:
        return link
    return replace(link, offset_s=wall / 1e9 - (began + ended) / 2, offset_u_s=(ended - began) / 2)


def _texts(answer: dict[str, Any], roots: Roots) -> dict[str, tuple[str, str]]:
    """Texts by kernel path, with the status of each; those of a binary file stay one character a byte."""
    found = {}
    files = answer.get("files")
    for path, entry in (files if isinstance(files, dict) else {}).items():
        kernel = printable(str(path))
        for root, name in ((roots.sys, "/sys"), (roots.proc, "/proc")):
            if kernel.startswith(root.rstrip("/") + "/"):
                kernel = name + kernel[len(root.rstrip("/")) :]
                break
        said = entry if isinstance(entry, dict) else {}
        text = str(said.get("text", ""))
        if not kernel.endswith("max_current"):
            text = "\n".join(printable(line) for line in unbyte(text).strip().split("\n"))
        found[kernel] = (str(said.get("status")), text)
    return found


def _better(known: Known, facts: Facts, watch: Watch) -> str | None:
    """A profile that knows the board better than the one it is read by, and that this one is not made of."""
    candidates, broken = profiles.candidates()
    for line in broken:
        watch.warn(f"left out: {line}")
    fits = matching.fits(facts, candidates)
    if not fits or fits[0].generic:
        return None
    own = next((fit for fit in fits if fit.name == known.profile_name), None)
    lineage = candidates[known.profile_name].ancestors if known.profile_name in candidates else ()
    if fits[0].name in (known.profile_name, *lineage) or (own is not None and own.literal >= fits[0].literal):
        return None
    return fits[0].name


def _answers(probe: Probe, facts: Facts) -> dict[str, str]:
    found = {}
    for name, argv in _ASKED.items():
        if argv[0] in facts.programs:
            done = _run(probe.transport, *argv)
            said = (done.stdout + b"\n" + done.stderr)[:65_536].decode("utf-8", "replace")
            found[name] = "\n".join(printable(line) for line in said.splitlines())
    return found


def _settable(probe: Probe, profile: Profile) -> dict[str, bool]:
    """Of each factor that is a file: whether all of its matches may be written. What has none is left out."""
    paths = {name: one.path for name, one in profile.factor.items() if one.path is not None}
    globs = [rooted(path, profile.roots.sys, profile.roots.proc) for path in paths.values()]
    found = {}
    for name, glob in zip(paths, globs, strict=True):
        files = [path for path, entry in probe.facts([glob])["files"].items() if entry.get("status") != "absent"]
        if files:
            found[name] = _run(probe.transport, "sh", "-c", _MAY_WRITE, "sh", *files).code == 0
    return found


def _looked(exam: Exam, probe: Probe, store: Store | None, watch: Watch) -> Exam:
    """A second of every sensor, by the job and the readers of a run."""
    assert exam.facts is not None
    profile, facts = exam.profile, exam.facts
    if store is not None:
        from meltbench.calibration.record import calibrated

        profile = calibrated(profile, facts, store, watch)
    try:
        scripts = helper_scripts(profile, exam.known, Site(probe, facts), watch)
        journal = _short_run(probe, profile, facts, scripts)
    except TargetBusy as error:
        return replace(exam, looked_why=error.message)
    streams = {one.name: [journal.streams[n] for n in journal.numbers(one.name)] for one in profile.source}
    return seen_in(replace(exam, profile=profile), streams)


def seen_in(exam: Exam, streams: Mapping[str, Sequence[Stream]]) -> Exam:
    """The examination with what each source of the profile gave: its streams, by its name. Pure."""
    looks: list[Look] = []
    statuses: list[SourceStatus] = []
    series: list[Series] = []
    for source in exam.profile.source:
        reader = READERS[source.reader]
        if source.host or (reader.paths and all("{pid:" in spec.glob for spec in reader.paths)):
            continue  # a process under test has it, or this machine: an examination starts neither
        read_by = ReadBy.of(source.name, source.reader, source.options, gain_limit=source.gain_limit)
        signals, seen = read_by.read(streams.get(source.name, ()))
        told = seen.told()
        looks.append(Look(source, told.status, told.detail, last_values(signals)))
        statuses.append(told)
        series += signals
    named = [Designation(one.source, one.rails, one.scope, one.partial) for one in exam.profile.total]
    total, why, partial, relative = _total(named, statuses, series)
    return replace(exam, looks=tuple(looks), total=total, total_why=why, total_partial=partial, relative=relative)


def _short_run(probe: Probe, profile: Profile, facts: Facts, scripts: Scripts | None) -> Journal:
    probe.sweep(_KIND)
    job = Job(passing_id(_KIND))
    job.limit("journal_bytes", _JOURNAL_BYTES)
    job.limit("duration_ms", milliseconds(_LOOK_S + _SLACK_S))
    channels(job, profile, facts, scripts, has_process=False)
    job.idle("look", _LOOK_S)
    folder = probe.start(job)
    try:
        until = Deadline.after(_LOOK_S + 2 * _SLACK_S)
        time.sleep(_LOOK_S)
        while probe.status(folder).get("state") != "ended":
            until.check("reading the sensors once")
            time.sleep(_PAUSE_S)
        with tempfile.TemporaryDirectory(prefix="meltbench-") as where:
            probe.fetch(folder, Path(where))
            return read_journal(Path(where) / "journal")  # it keeps the file, whose name goes
    except BaseException:
        probe.stop(folder)
        raise
    finally:
        probe.forget(folder)


def last_values(signals: Sequence[Series]) -> dict[str, tuple[float, str]]:
    """By series the last value; of a counter how fast it ran: watts, or seconds a second."""
    found = {}
    for one in signals:
        good = np.flatnonzero(one.status == OK)
        if not len(good):
            continue
        value, unit = float(one.value[good[-1]]), one.unit
        if one.kind == "counter" and one.unit in _RATES:
            line = Unwrapper(one.wrap, MAX_POWER_W if one.unit == "J" else None)
            t_ns, risen, *_ = line.add(one)
            if len(t_ns) < 2 or line.resets:
                continue
            value, unit = float(risen[-1] - risen[0]) / float(t_ns[-1] - t_ns[0]) * 1e9, _RATES[one.unit]
        found[printable(one.name)] = (value, unit)
    return found


def _total(named: list[Designation], statuses: list[SourceStatus], series: list[Series]) -> tuple[str, str, str, bool]:
    """What the energy would be made of, or why of nothing; what it leaves out; whether its gain is unknown."""
    if not named:
        return "", "", "", False
    found = designated(named, statuses, [digest(one) for one in series])
    if found.rail is None:
        return "", found.reason, "", False
    names = [part.name for part in found.rail.parts]
    watts = [last_values([one for one in series if one.name == name]).get(name) for name in names]
    power = f", {sum(one[0] for one in watts if one):.3g} W now" if all(watts) else ""
    relative = any(is_relative(part.head) for part in found.rail.parts)
    return f"{' + '.join(names)} ({found.rail.scope}{power})", "", found.partial, relative


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 1 << 63 else None
