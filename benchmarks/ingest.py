"""From a journal to Parquet, numbers and index: samples a second, and memory that the length of a run does not move."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import made_run
from benchmarks.claims import Claim, Part, Row, Site
from benchmarks.kit import HERE
from meltbench.store import open_store

RATE = Claim("10 M samples from journal to Parquet and index", ">=", 2.0, "M/s")
MEMORY = Claim("peak memory at 10 M samples over that at 1 M", "<=", 1.25)

HZ = 100
SHORT_S, LONG_S = 494.0, 4994.0  # 1 M and 10 M readings of 20 files, with the idle windows

# A process of its own: its time is without imports, its peak memory is of this alone.
_INGEST = """
import json, resource, sys, time
import duckdb, numpy, pyarrow.parquet
from meltbench.assemble import assemble
from meltbench.probe.journal import read_journal
from meltbench.store import open_store
store, run_id = open_store(sys.argv[1]), sys.argv[2]
folder = store.folder(run_id)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = time.perf_counter()
record = store.commit(folder, lambda keep: assemble(folder.ticket(), read_journal(folder.evidence / "journal"), keep))
committed = time.perf_counter()
store.ingest(run_id)
end = time.perf_counter()
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
energy = {m.source: m.value for m in record.measures if (m.name, m.phase) == ("energy_j", "run")}
json.dump({"seconds": end - start, "index_s": end - committed, "before_kib": before, "peak_kib": peak, "j": energy},
          sys.stdout)
"""


def ingested(store: Path, run_id: str) -> dict[str, Any]:
    """Bring a made run in, and tell how long it took and how much memory."""
    done = subprocess.run(
        [sys.executable, "-c", _INGEST, str(store), run_id], cwd=HERE.parent, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"the ingest failed: {done.stderr.strip()[-500:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(site: Site) -> Iterator[Row]:
    """A short and a long run of the same files."""
    store = open_store(site.folder / "data")
    found: list[dict[str, Any]] = []
    for seconds in (14.0, 44.0) if site.quick else (SHORT_S, LONG_S):
        site.say(f"making {seconds * made_run.LONG * HZ / 1e6:.1f} M readings")
        folder, _, n = made_run.put(store, seconds, HZ)
        size = (folder.evidence / "journal").stat().st_size
        site.say("ingesting them")
        one = ingested(store.root, folder.run_id) | {"n": n, "journal": size}
        one["parquet"] = (folder.path / "samples.parquet").stat().st_size
        found.append(one)
    short, long = found
    beside = {
        "seconds": long["seconds"],
        "of them the index": long["index_s"],
        "journal MB": long["journal"] / 1e6,
        "samples.parquet MB": long["parquet"] / 1e6,
    }
    yield RATE.row(long["n"] / long["seconds"] / 1e6, beside)
    peaks = {f"MiB at {one['n'] / 1e6:.1f} M": one["peak_kib"] / 1024 for one in found}
    yield MEMORY.row(long["peak_kib"] / short["peak_kib"], peaks | {"MiB before": long["before_kib"] / 1024})


PARTS = (Part(measure, (RATE, MEMORY)),)
