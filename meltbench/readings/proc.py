"""Texts of /proc: the machine's memory, processor time, pressure and load, and the engine's own share.

Formats: proc(5), Documentation/filesystems/proc.rst and Documentation/accounting/psi.rst of the Linux kernel.
"kB" there means 1024 bytes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.errors import DefinitionError
from meltbench.readings.base import (
    NAN,
    Column,
    PathSpec,
    Reader,
    matching,
    sighting,
    text_series,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meltbench.readings.base import Parse, Sighting
    from meltbench.records import Series, Stream

KIB = 1024.0
Row = tuple[float, ...]


def _keyed(pattern: bytes, scale: float = 1.0) -> Callable[[bytes], dict[bytes, float]]:
    """Values by key; the first line of a key counts, and only whole lines do."""
    line = re.compile(pattern, re.MULTILINE)

    def find(raw: bytes) -> dict[bytes, float]:
        out: dict[bytes, float] = {}
        for key, value in line.findall(raw):
            out.setdefault(key, int(value) * scale)
        return out

    return find


_meminfo = _keyed(rb"^(MemTotal|MemAvailable|SwapTotal|SwapFree):[ \t]+(\d{1,15}) kB\n", KIB)
_status = _keyed(rb"^(VmHWM|VmRSS|VmSwap):[ \t]+(\d{1,15}) kB\n", KIB)
_smaps = _keyed(rb"^(Rss|Pss|Swap|SwapPss|Pss_File):[ \t]+(\d{1,15}) kB\n", KIB)
_vmstat = _keyed(rb"^(oom_kill|pswpin|pswpout) (\d{1,18})\n")
_psi = _keyed(rb"^(some|full) avg10=[\d.]{1,12} avg60=[\d.]{1,12} avg300=[\d.]{1,12} total=(\d{1,18})\n", 1e-6)
_loadavg = re.compile(rb"(\d{1,6}\.\d\d) \d{1,6}\.\d\d \d{1,6}\.\d\d \d{1,9}/\d{1,9} \d{1,10}\n?\Z")
_cpu_line = re.compile(rb"^cpu(\d{0,5}) +((?:\d{1,18} ){3,9}\d{1,18})\n", re.MULTILINE)
_stat = re.compile(rb"\d{1,10} \(")


def _meminfo_row(raw: bytes) -> Row:
    found = _meminfo(raw)
    # Both lines are needed: a machine without swap says 0 and 0, which is a used swap of 0 and not a missing one.
    swap = found.get(b"SwapTotal", NAN) - found.get(b"SwapFree", NAN)
    return found.get(b"MemAvailable", NAN), found.get(b"MemTotal", NAN), swap


def _of(find: Callable[[bytes], dict[bytes, float]], *keys: bytes) -> Callable[[bytes], Row]:
    def row(raw: bytes) -> Row:
        found = find(raw)
        return tuple(found.get(key, NAN) for key in keys)

    return row


def _status_row(raw: bytes) -> Row:
    found = _status(raw)
    peak, rss, swap = (found.get(key, NAN) for key in (b"VmHWM", b"VmRSS", b"VmSwap"))
    # What goes to a swap or to zram leaves RSS: only the two of one text say what the process held.
    return peak, rss, swap, rss + swap


def _smaps_row(raw: bytes) -> Row:
    found = _smaps(raw)
    pss, swap_pss, pss_file, rss, swap = (found.get(k, NAN) for k in (b"Pss", b"SwapPss", b"Pss_File", b"Rss", b"Swap"))
    # Pss alone hides what was swapped out; Rss + Swap is what the process held when this very text was made.
    return pss, swap_pss, pss_file, pss + swap_pss, rss + swap


def _loadavg_row(raw: bytes) -> Row:
    found = _loadavg.match(raw)
    return (float(found[1]),) if found else (NAN,)


def _cpu_seconds(ticks: bytes, user_hz: float) -> Row:
    """Busy and stolen seconds: guest time is inside user, waiting for a disk is idle."""
    t = [int(word) for word in ticks.split()] + [0] * 6
    return (t[0] + t[1] + t[2] + t[5] + t[6]) / user_hz, t[7] / user_hz


def process_row(raw: bytes, user_hz: float) -> Row:
    """utime + stime, s, and majflt of /proc/PID/stat: pages that had to be read from a disk or a swap.

    The name in brackets may itself hold brackets, blanks and line ends.
    """
    words = raw[raw.rfind(b")") + 1 :].split() if _stat.match(raw) else []
    if len(words) < 13 or not all(w.isdigit() and len(w) <= 18 for w in (words[9], *words[11:13])):
        return NAN, NAN
    return (int(words[11]) + int(words[12])) / user_hz, float(int(words[9]))


def _user_hz(options: Mapping[str, object]) -> float:
    """Ticks a second that the kernel shows to programs: 100 on every Linux of the targets (proc(5))."""
    value = options.get("user_hz", 100)
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 1 <= value <= 10_000:
        raise DefinitionError(f"user_hz is {value!r}", hint="give the ticks a second of `getconf CLK_TCK`")
    return float(value)


def _procstat_row(user_hz: float) -> Callable[[bytes], Row]:
    return lambda raw: process_row(raw, user_hz)


def _single(
    spec: PathSpec, columns: Sequence[Column], row: Callable[[Mapping[str, object]], Callable[[bytes], Sequence[float]]]
) -> Parse:
    """A reader of one text with fixed columns."""

    def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
        made = row(options)  # also without a stream: a wrong option is found before anything is run
        mine = [stream for _, stream in matching(spec, streams)]
        series = [one for stream in mine for one in text_series(source, stream, columns, made)]
        return series, sighting(source, mine, series, absent=f"no {spec.glob} on this target")

    return parse


def _plain(name: str, spec: PathSpec, columns: Sequence[Column], row: Callable[[bytes], Sequence[float]]) -> Reader:
    return Reader(name, (spec,), _single(spec, columns, lambda _: row))


_PSI = {what: PathSpec(f"/proc/pressure/{what}", lines=True) for what in ("cpu", "memory", "io")}
_CPU = PathSpec("/proc/stat", lines=True)
_PROCSTAT = PathSpec("/proc/{pid:engine}/stat")


def _parse_psi(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    del options  # this reader knows none
    mine = [(what, stream) for what, spec in _PSI.items() for _, stream in matching(spec, streams)]
    series = []
    for what, stream in mine:
        columns = [Column(f"pressure.{what}.{kind}_s", "s", "counter") for kind in ("some", "full")]
        series += text_series(source, stream, columns, _of(_psi, b"some", b"full"))
    kept = [stream for _, stream in mine]
    return series, sighting(source, kept, series, absent="no /proc/pressure: the kernel was built without PSI")


def _parse_cpustat(
    source: str, streams: Sequence[Stream], options: Mapping[str, object]
) -> tuple[list[Series], Sighting]:
    mine = [stream for _, stream in matching(_CPU, streams)]
    hz = _user_hz(options)
    series = []
    for stream in mine:
        cores = _cores(stream) if options.get("per_cpu") else []
        columns = [Column("cpu.busy_s", "s", "counter"), Column("cpu.steal_s", "s", "counter")]
        columns += [Column(f"cpu.busy_s.cpu{n.decode()}", "s", "counter") for n in cores]

        def row(raw: bytes, cores: list[bytes] = cores) -> Row:
            found = {n: _cpu_seconds(ticks, hz) for n, ticks in _cpu_line.findall(raw)}
            total = found.get(b"", (NAN, NAN))
            return (*total, *(found.get(n, (NAN, NAN))[0] for n in cores))

        series += text_series(source, stream, columns, row)
    return series, sighting(source, mine, series, absent="no /proc/stat on this target")


def _cores(stream: Stream) -> list[bytes]:
    """The cores any reading named: a core may be off at the start."""
    seen = {n for raw in stream.readings.raw for n, _ in _cpu_line.findall(raw)} - {b""}
    return sorted(seen, key=int)[:512]


MEMINFO = _plain(
    "meminfo",
    PathSpec("/proc/meminfo", lines=True),
    [
        Column("memory.available_bytes", "B", "gauge"),
        Column("memory.total_bytes", "B", "gauge"),
        Column("memory.swap_used_bytes", "B", "gauge"),
    ],
    _meminfo_row,
)
PROCMEM = _plain(
    "procmem",
    PathSpec("/proc/{pid:engine}/status", lines=True),
    [
        Column("process.hwm_bytes", "B", "gauge", "process"),
        Column("process.rss_bytes", "B", "gauge", "process"),
        Column("process.swap_bytes", "B", "gauge", "process"),
        Column("process.rss_swap_bytes", "B", "gauge", "process"),
    ],
    _status_row,
)
# Walks every mapping with mmap_lock held: at most twice a second, or the sampler shows in the engine's speed.
SMAPS = _plain(
    "smaps",
    PathSpec("/proc/{pid:engine}/smaps_rollup", min_period_ns=500_000_000, lines=True),
    [
        Column("process.pss_bytes", "B", "gauge", "process"),
        Column("process.swap_pss_bytes", "B", "gauge", "process"),
        Column("process.pss_file_bytes", "B", "gauge", "process"),
        Column("process.pss_total_bytes", "B", "gauge", "process"),
        Column("process.held_bytes", "B", "gauge", "process"),
    ],
    _smaps_row,
)
VMSTAT = _plain(
    "vmstat",
    PathSpec("/proc/vmstat", lines=True),
    [
        Column("vm.oom_kills", "1", "counter"),
        Column("vm.swap_in_pages", "1", "counter"),
        Column("vm.swap_out_pages", "1", "counter"),
    ],
    _of(_vmstat, b"oom_kill", b"pswpin", b"pswpout"),
)
LOADAVG = _plain("loadavg", PathSpec("/proc/loadavg"), [Column("load.avg_1min", "1", "gauge")], _loadavg_row)
PSI = Reader("psi", tuple(_PSI.values()), _parse_psi)
CPUSTAT = Reader("cpustat", (_CPU,), _parse_cpustat, frozenset({"user_hz", "per_cpu"}))
PROCSTAT = Reader(
    "procstat",
    (_PROCSTAT,),
    _single(
        _PROCSTAT,
        [
            Column("process.cpu_s", "s", "counter", "process"),
            Column("process.major_faults", "1", "counter", "process"),
        ],
        lambda options: _procstat_row(_user_hz(options)),
    ),
    frozenset({"user_hz"}),
)
