"""Power rails of a Pixel as its PMICs add them up: energy_value of On-Device Power Monitoring, in microwatt-seconds.

Google's kernels, drivers/power/../odpm.c: "t=<measurement timestamp, ms>", then a line a channel,
"CH<N>(T=<duration, ms>)[<schematic name>], <accumulated energy, uWs>". A phone has two PMICs, each read at a time and
by a clock of its own, so a sample's time is its device's and not that of the read. The registers are 41 bits wide; the
driver empties them before they are full and adds up in 64, so a counter that fell was started anew and did not wrap.
Older drivers (Pixel 4 and 5) print the bare time, and lines without a duration or a channel.

Rails are named as on the schematic, which differs from generation to generation (CL1 and CL2 change places between
Pixel 6 and 9). They are parts and no total: display and radio share channels, losses of the PMICs are not in them.
Class B like any counter of hardware, though Google publishes no accuracy. The files need root (SELinux: sysfs_odpm).
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from meltbench.readings.base import Column, PathSpec, Reader, folder, last_text, make_series, matching, sighting
from meltbench.readings.battery import calibration
from meltbench.readings.polls import Table, answers
from meltbench.records import OK, Readings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_DEVICE = "/sys/bus/iio/devices/iio:device*/"
_ENERGY = PathSpec(_DEVICE + "energy_value", lines=True)
_RAILS = PathSpec(_DEVICE + "enabled_rails", periodic=False, lines=True)
_RATES = (PathSpec(_DEVICE + "sampling_rate", periodic=False), PathSpec(_DEVICE + "ext_sampling_rate", periodic=False))
SLOWEST_HZ = 7.628125  # of the rates that the PMIC's meter can be set to (s2mpg1x-meter)
MAX_DEVICES, MAX_CHANNELS = 8, 64  # in one text
_MS = 1_000_000  # ns
_time = re.compile(r"(?:t=)?(\d{1,12})")
_channel = re.compile(r"(?:CH\d{1,3}(?:\(T=\d{1,15}\))?\[([^\]\n]{1,64})\]|([A-Za-z][\w.-]{0,63})), {0,4}(\d{1,18})")
_subsystem = re.compile(r"(?:CH\d{1,3}\[([^\]\n]{1,64})\]|([A-Za-z][\w.-]{0,63})):([^\n]{1,32})")
_hertz = re.compile(r"\d{1,5}(?:\.\d{1,6})?")
_odd = re.compile(r"[^A-Za-z0-9_.+-]")


class Snapshot(NamedTuple):
    """What one device said: its own time (ms) and microwatt-seconds by rail."""

    ms: int
    rails: dict[str, int]


def snapshots(text: str) -> list[Snapshot]:
    """The devices of a text, one after the other: a file holds one, a dump of both may hold two."""
    out: list[Snapshot] = []
    for line in text.split("\n")[: MAX_DEVICES * (MAX_CHANNELS + 1)]:
        word = line.strip()
        if at := _time.fullmatch(word):
            out.append(Snapshot(int(at[1]), {}))
        elif out and (found := _channel.fullmatch(word)) and len(out[-1].rails) < MAX_CHANNELS:
            out[-1].rails.setdefault(_odd.sub("_", found[1] or found[2]), int(found[3]))
    return [one for one in out if one.rails][:MAX_DEVICES]


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``odpm.RAIL.energy`` in joules, at the times of the device that counts it.

    A rail that stays at 0 is one that is off. A file that gave no rail at all shows as ``odpm.lost``, without a value.
    """
    checked = calibration(options)
    mine = [stream for _, stream in matching(_ENERGY, streams)]
    rates = [(folder(stream.path), _hz(stream)) for spec in _RATES for _, stream in matching(spec, streams)]
    series: list[Series] = []
    seen: Counter[str] = Counter()
    for stream in mine:
        hz = min((hz for place, hz in rates if place == folder(stream.path) and hz), default=SLOWEST_HZ)
        for table, timed in _devices(stream):
            for rail in table.names:
                seen[rail] += 1  # two devices that name a rail alike have two rails
                name = rail if seen[rail] == 1 else f"{rail}#{seen[rail]}"
                column = Column(f"odpm.{name}.energy", "J", "counter", "rail")
                raw = table.raw(rail)
                one = make_series(source, timed, column, raw.values, raw.codes, klass="B", update_s=1 / hz)
                series.append(replace(one, calibration=checked))
            if not table.names:
                raw = table.raw("")
                series.append(make_series(source, stream, Column("odpm.lost", "1", "state"), raw.values, raw.codes))
    return series, sighting(source, mine, series, absent=f"no {_ENERGY.glob} on this target", note=_subsystems(streams))


def _devices(stream: Stream) -> list[tuple[Table, Stream]]:
    """The rails of each device in a file, and the file's stamps at that device's times; one without rails if none."""
    n = len(stream.readings)
    found = [snapshots(text.decode("ascii", "replace")) if code == OK else code for code, text in answers(stream)]
    out = []
    for device in range(max((len(one) for one in found if not isinstance(one, int)), default=1 if n else 0)):
        table, clock = Table(n), np.full(n, -1, dtype=np.int64)
        for at, said in enumerate(found):
            if isinstance(said, int):
                table.fail(at, said)
            elif device >= len(said):
                table.fail(at)
            else:
                clock[at] = said[device].ms
                for rail, uws in said[device].rails.items():
                    table.put(at, rail, uws * 1e-6)
        out.append((table, at_device_times(stream, clock)))
    return out


def at_device_times(stream: Stream, clock_ms: npt.NDArray[np.int64]) -> Stream:
    """The stream with its stamps at a device's own times (ms, below 0 where it told none).

    A snapshot is taken before its read ends, so the least of (end of read - time) is the nearest to the offset of the
    two clocks that can be known; the snapshot behind it may be as much earlier as that read took. A copy that is read
    again has the time of the first, so that no age is added to it.
    """
    r = stream.readings
    told = clock_ms >= 0
    if not told.any():
        return stream
    ahead = np.where(told, r.t1_ns - clock_ms * _MS, np.iinfo(np.int64).max)
    best = int(np.argmin(ahead))
    at = clock_ms * _MS + int(ahead[best])
    t0 = np.where(told, at - int(r.t1_ns[best] - r.t0_ns[best]), r.t0_ns)
    t1 = np.where(told, at + _MS, r.t1_ns)  # times are cut to whole milliseconds
    own = Readings(t0, t1, r.err, r.data, r.ends)
    return replace(stream, readings=own)


def _hz(stream: Stream) -> float | None:
    """How often the meter samples, where that can be read."""
    text = last_text(stream) or ""
    return float(text) if _hertz.fullmatch(text) and float(text) > 0 else None


def _subsystems(streams: Sequence[Stream]) -> str:
    """The parts that the rails feed, in the driver's words; names alone mean little to a reader."""
    out: dict[str, None] = {}
    for _, stream in matching(_RAILS, streams):
        for _, text in answers(stream)[-1:]:
            found = (
                _subsystem.fullmatch(line.strip())
                for line in text.decode("ascii", "replace").split("\n")[:MAX_CHANNELS]
            )
            out |= {f"{one[1] or one[2]} {one[3]}": None for one in found if one and one[3].isprintable()}
    return f"rails: {', '.join(out)}" if out else ""


ODPM = Reader("odpm", (_ENERGY, _RAILS, *_RATES), parse, frozenset({"calibration"}))
