"""Calibration records: made of a journal, kept in the store, found again for a run of the same device and system.

DATA/calibrations/IDENTITY/ID.json      sealed like a run's manifest; written last, and never again
DATA/calibrations/IDENTITY/ID.journal   what the probe recorded, of which all of it is made
"""

from __future__ import annotations

import hashlib
import re
import shutil
import time
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.calibration.battery import Recorded, is_gauge, judge
from meltbench.calibration.sensors import looks
from meltbench.calibration.steady import observer, steady
from meltbench.calibration.steps import loops_per_s, windows
from meltbench.errors import StoreError
from meltbench.host import FOLDER, SYNC
from meltbench.paths import sha256_of
from meltbench.readings import Source as Reading
from meltbench.store import fs, manifest
from meltbench.store.folder import RUN_ID

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from meltbench.calibration.steps import Windows
    from meltbench.host import Hosted
    from meltbench.probe.journal import Journal
    from meltbench.records import Series
    from meltbench.store import Store
    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile, Source
    from meltbench.watch import Watch

_IDENTITY = re.compile(r"[0-9a-f]{16}", re.ASCII)
# What a calibration finds of a gauge. The other options say which gauge it is.
FOUND = frozenset({"current_unit", "charge_unit", "voltage_unit", "discharge_sign", "scale", "calibration"})


def made(ticket: dict[str, Any], journal: Journal, hosted: Hosted, alone: Journal | None) -> dict[str, Any]:
    """The record of a calibration from its evidence; ``alone``: the equal loads with nothing read. Pure."""
    found = windows(journal.events)
    gauges: list[dict[str, Any]] = []
    options: dict[str, dict[str, Any]] = {}
    for source in ticket["sources"]:
        if is_gauge(source["reader"]):
            streams = [journal.streams[n] for n in journal.numbers(source["name"])]
            recorded = Recorded(source["name"], source["reader"], streams, source["options"])
            gauge = judge(recorded, found, ticket["max_step_w"])
            gauges.append(asdict(gauge) | {"place": _place(source["options"])})
            options[source["name"]] = dict(gauge.options or {})
    shown, series = _shown(ticket, journal, hosted, found, options)
    rails = [one for one in series if one.unit == "J" or (one.unit == "W" and one.kind == "gauge")]
    return shown | {
        "gauges": gauges,
        "steady": [asdict(steady(one, found.same)) for one in rails if np.isfinite(one.value).any()],
        "observer": _observer(journal, alone),
    }


def tested(ticket: dict[str, Any], journal: Journal, hosted: Hosted) -> dict[str, Any]:
    """What the sensors show of load steps, by the units that a run would read them in. Pure."""
    return _shown(ticket, journal, hosted, windows(journal.events), {})[0]


def _shown(
    ticket: dict[str, Any], journal: Journal, hosted: Hosted, found: Windows, options: dict[str, dict[str, Any]]
) -> tuple[dict[str, Any], list[Series]]:
    """What every sensor shows, and the series of them all; ``options``: what is laid over those of a source."""
    series: list[Series] = []
    statuses = []
    for source in ticket["sources"]:
        name = source["name"]
        mine = hosted.journal if name in hosted.names else journal
        reading = Reading.of(name, source["reader"], source["options"] | options.get(name, {}))
        signals, seen = reading.read([mine.streams[n] for n in mine.numbers(name)])
        if name in hosted.names:
            signals, seen = hosted.placed(signals, seen)
        series += signals
        statuses.append(asdict(seen.told()))
    end = journal.end or {}
    return ticket | {
        "outcome": str(end.get("result") or "failed"),
        "failure": str(end.get("reason") or "") or ("the journal has no end" if not end else ""),
        "probe": (journal.first("begin") or {}).get("probe"),
        "windows": {"steps": len(found.steps), "same": len(found.same), "charge": found.charge is not None},
        "sensors": [asdict(one) for one in looks(series, found)],
        "sources_seen": statuses,
    }, series


def _place(options: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in FOUND}


def _observer(journal: Journal, alone: Journal | None) -> dict[str, float] | None:
    rates = [[] if one is None else _rates(one) for one in (journal, alone)]
    found = observer(*rates)
    return None if found is None else asdict(found)


def _rates(journal: Journal) -> list[float]:
    """Loops a second of the equal loads but the first."""
    names = [span.name for span in windows(journal.events).same[1:]]
    said = [loops_per_s(stream.readings.raw) for name in names for stream in journal.channel(name)]
    return [rate for rate in said if rate is not None]


@dataclass(frozen=True)
class Kept:
    """A record in the store: its name, and what it says."""

    id: str
    path: Path
    record: dict[str, Any]


def save(store: Store, record: dict[str, Any], evidence: Path) -> Kept:
    """Store a record with its evidence beside it, of which ``evidence`` is the folder. Raises StoreError when the disk
    refuses."""
    found = {"journal": "journal", "host.journal": f"{FOLDER}/journal", "sync.json": SYNC}
    paths = {end: evidence / path for end, path in found.items() if (evidence / path).exists()}
    facts = {end: {"sha256": sha256_of(path), "bytes": path.stat().st_size} for end, path in paths.items()}
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    content = manifest.dump(record | {"evidence": facts})
    name = f"{stamp}-{hashlib.sha256(stamp.encode() + content).hexdigest()[:6]}"
    folder = _folder(store, record["device"]["identity"])
    hint = f"free space in {store.root} or choose another folder with --data"
    with fs.explained(f"store the calibration in {folder}", hint=hint):
        folder.mkdir(parents=True, exist_ok=True)
        for end, path in paths.items():
            shutil.copyfile(path, folder / f"{name}.{end}")
            fs.sync(folder / f"{name}.{end}")
        files = {f"{name}.{end}": fact for end, fact in facts.items()}
        fs.write_atomic(folder / f"{name}.json", manifest.seal(record | {"calibration": name}, files))
    return _read(folder, name)


def _folder(store: Store, identity: str) -> Path:
    if not _IDENTITY.fullmatch(identity):
        raise StoreError(f"{identity!r} is no device identity", hint="please report it")
    return store.root / "calibrations" / identity


def kept(store: Store, identity: str) -> list[Kept]:
    """The records of a device, oldest first. Raises StoreError for one that is damaged."""
    folder = _folder(store, identity)
    names = sorted(path.stem for path in folder.glob("*.json") if RUN_ID.fullmatch(path.stem))
    return [_read(folder, name) for name in names]


def _read(folder: Path, name: str) -> Kept:
    path = folder / f"{name}.json"
    sealed = manifest.open_sealed(manifest.read_bounded(path), f"calibration {name}")
    return Kept(name, path, manifest.of_record(sealed))


def of_device(store: Store, name: str) -> list[Kept]:
    """The records made by the profile of that name, oldest first, of whatever device it reached."""
    root = store.root / "calibrations"
    identities = [folder.name for folder in sorted(root.glob("*")) if _IDENTITY.fullmatch(folder.name)]
    found = [one for identity in identities for one in kept(store, identity)]
    return sorted((one for one in found if one.record["device"]["name"] == name), key=lambda one: one.id)


def calibrated(profile: Profile, facts: Facts, store: Store, watch: Watch) -> Profile:
    """The profile with what the store's calibrations of this very device found."""
    profile, notes = overlaid(profile, facts, kept(store, facts.identity))
    for note in notes:
        watch.warn(f"{note}; meltbench devices calibrate makes another")
    return profile


def overlaid(profile: Profile, facts: Facts, records: Sequence[Kept]) -> tuple[Profile, list[str]]:
    """The profile with what was found of its gauges, by options that name the record; and what a user must know.

    A record counts for the device it was made on, under the very system it was made under: an update may bring another
    driver. The newest one that could trust the gauge is taken.
    """
    sources, notes = [], []
    for source in profile.source:
        gauges = [(one, gauge) for one in records if (gauge := _of(one.record, source)) is not None]
        mine = [pair for pair in gauges if pair[0].record["system"] == system(facts)]
        if mine:
            one, gauge = mine[-1]
            source = replace(source, options=source.options | gauge["options"] | {"calibration": one.id})  # noqa: PLW2901
        elif gauges:
            was = " ".join(part for part in gauges[-1][0].record["system"] if part)
            name = gauges[-1][0].id
            notes.append(f"calibration {name} of {source.name} was made under {was or 'another system'}: not used")
        sources.append(source)
    return replace(profile, source=tuple(sources)), notes


def _of(record: dict[str, Any], source: Source) -> dict[str, Any] | None:
    """What a record found of the gauge that a source reads; None where it could not be trusted, or is another."""
    for gauge in record["gauges"]:
        same = gauge["reader"] == source.reader and gauge["place"] == _place(source.options)
        if same and gauge["options"] and not gauge["refused"]:
            found: dict[str, Any] = gauge
            return found
    return None


def system(facts: Facts) -> list[str | None]:
    """What names the software that a gauge is read through: release or build of the system, and kernel."""
    return [facts.os, facts.kernel]
