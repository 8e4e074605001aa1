"""A run of any length out of nothing: the journal that the probe would have written while a machine idled for hours.

Twenty files of counters, temperatures and clocks at one rate, in frames of a second as the probe flushes them.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from meltbench import plan
from meltbench.compose import compose
from meltbench.spec import Spec
from meltbench.store import RunFolder, Store
from meltbench.targets import facts

BOOT_NS = 10**12
IDLE_S = 3.0
_RAPL = "/sys/class/powercap/intel-rapl:"
_ZONE = "/sys/class/thermal/thermal_zone"
_POLICY = "/sys/devices/system/cpu/cpufreq/policy"
RANGE_UJ = 262143328850
_START_UJ = RANGE_UJ - 5e9  # both wrap within five minutes
WATTS = (31.0, 17.0)  # of the two packages


def _frame(kind: int, payload: bytes) -> bytes:
    head = struct.pack("<HHI", kind, 0, len(payload))
    return struct.pack("<I", 0x4A544C4D) + head + struct.pack("<I", zlib.crc32(payload, zlib.crc32(head))) + payload


def _event(event_: str, t_s: float, **fields: Any) -> bytes:
    boot_ns = BOOT_NS + round(t_s * 1e9)
    clocks = {"mono_ns": boot_ns, "wall_ns": boot_ns + 10**18}
    return _frame(1, json.dumps({"event": event_, "seq": 0, "boot_ns": boot_ns, **clocks, **fields}).encode())


def _readings(stream: int, t_ns: np.ndarray, texts: list[bytes]) -> bytes:
    n = len(texts)
    lengths = np.fromiter(map(len, texts), "<u4", n)
    columns = (t_ns.astype("<i8"), (t_ns + 1500).astype("<i8"), np.zeros(n, "<i4"), lengths)
    return _frame(2, struct.pack("<II", stream, n) + b"".join(c.tobytes() for c in columns) + b"".join(texts))


def _files() -> list[tuple[str, str, list[bytes]]]:
    """Channel, path, and what a file that never changes says; an empty list for one that is read at the rate."""
    found: list[tuple[str, str, list[bytes]]] = []
    for i in range(2):
        found += [
            ("rapl", f"{_RAPL}{i}/name", [b"package-%d\n" % i]),
            ("rapl", f"{_RAPL}{i}/max_energy_range_uj", [b"%d\n" % RANGE_UJ]),
            ("rapl", f"{_RAPL}{i}/energy_uj", []),
        ]
    for i in range(10):
        found += [("thermal", f"{_ZONE}{i}/type", [b"zone-%d\n" % i]), ("thermal", f"{_ZONE}{i}/temp", [])]
    found += [("cpufreq", f"{_POLICY}{i}/scaling_cur_freq", []) for i in range(8)]
    return found


LONG = sum(not texts for _, _, texts in _files())


def _second(number: int, t_s: np.ndarray, dice: np.random.Generator) -> list[bytes]:
    """What file ``number`` of those that change says at these times."""
    if number < len(WATTS):
        return [b"%d\n" % v for v in ((_START_UJ + WATTS[number] * 1e6 * t_s) % RANGE_UJ).astype(np.int64).tolist()]
    if number < 12:
        return [b"%d\n" % v for v in (45_000 + 10 * dice.integers(0, 900, len(t_s))).tolist()]
    return [b"%d\n" % v for v in (dice.integers(4, 36, len(t_s)) * 100_000).tolist()]


def journal(seconds: float, hz: int) -> Iterator[bytes]:
    """The journal of an idle window of ``seconds`` between two of IDLE_S, every file read ``hz`` times a second."""
    dice = np.random.default_rng(1)
    files = _files()
    whole = seconds + 2 * IDLE_S
    yield b"MELTJNL1" + _event("begin", 0, run="made", probe="made", boot_id="made", pid=1, guard_pid=2, uid=0)
    for number, (channel, path, texts) in enumerate(files):
        yield _event("stream", 0, stream=number, channel=channel, kind="file", path=path, status="ok", errno=0)
        if texts:
            yield _readings(number, np.array([BOOT_NS]), texts)
    changing = [number for number, (_, _, texts) in enumerate(files) if not texts]
    edges = [0.0, IDLE_S, whole - IDLE_S, whole]
    steps = [("idle_before", edges[0], edges[1]), ("window", edges[1], edges[2]), ("idle_after", edges[2], edges[3])]
    ends = {round(end): name for name, _, end in steps}
    starts = {round(start): name for name, start, _ in steps}
    for second in range(round(whole)):
        if second in ends:
            yield _event("step", second, step=0, op="idle", name=ends[second], state="end", result="ok")
        if second in starts:
            yield _event("step", second, step=0, op="idle", name=starts[second], state="start", result="ok")
        for place, number in enumerate(changing):
            t_s = second + (np.arange(hz) + 0.01 * place) / hz
            yield _readings(number, BOOT_NS + (t_s * 1e9).astype(np.int64), _second(place, t_s, dice))
    yield _event("step", whole - 1e-3, step=0, op="idle", name=ends[round(whole)], state="end", result="ok")
    yield _event("end", whole, result="done", reason="", step=None)


def put(store: Store, seconds: float, hz: int) -> tuple[RunFolder, dict[str, Any], int]:
    """A run folder with such a journal, its ticket, and how many readings the journal has."""
    made = plan.make(Spec(workload="idle", knobs=(("window_s", str(seconds)), ("idle_s", str(IDLE_S)))))
    folder = store.new_run({"plan_hash": made.hash})
    _, ticket = compose(made, made.cells[0], folder.run_id, facts.parse({}), {}, None, "")
    folder.write_ticket(ticket)
    path: Path = folder.evidence / "journal"
    with path.open("wb") as out:
        out.writelines(journal(seconds, hz))
    return folder, ticket, LONG * hz * round(seconds + 2 * IDLE_S)
