"""A store with runs in it, small but with every table filled, for the tests of the store."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import numpy as np

from meltbench.records import AGAIN, OK, Measure, Phase, Reason, Regime, Request, RunRecord, Series, SourceStatus
from meltbench.store import Store, open_store

if TYPE_CHECKING:
    from pathlib import Path

    from meltbench.store import RunFolder

TICKET = {"plan_hash": "p1", "spec": {"workload": "grid"}, "target": "local"}


def manifest_of(run_id: str) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "plan_hash": "p1",
        "cell_key": "c1",
        "started_at": "2026-11-21T10:31:05Z",
        "ended_at": "2026-11-21T10:32:05+00:00",
        "outcome": "done",
        "failure": None,
        "validity": "degraded",
        "device": {"name": "desk", "identity": {"machine": "m1"}},
        "model": {"name": "tiny", "sha256": "ab", "file": "tiny.gguf", "bytes": 1 << 33, "n_params": 134515008},
        "runner": {
            "name": "llamacpp",
            "engine": "llama.cpp",
            "version": "b6543",
            "accelerator": "cpu",
            "mode": "server",
        },
        "workload": {"name": "grid", "version": 1, "sha256": "cd"},
        "spec": {"reps": 1},
        "knobs": {"threads": 2, "batch": 2048, "gpu_layers": "none", "type_k": "none", "type_v": "q8_0"},
        "rep": 0,
        "round": 0,
        "versions": {"meltbench": "0.1.0", "probe": "1", "protocol": "1"},
        "conditions": {"cpu": "a cpu", "gpus": ["a gpu", "0x10de"]},
    }


def record_of(run_id: str, seed: int = 0) -> RunRecord:
    """A record whose numbers depend on ``seed`` alone."""
    dice = random.Random(seed)
    t0 = np.arange(500, dtype=np.int64) * 9_700_000 + dice.randrange(10**15)
    power = np.array([dice.uniform(1, 9) for _ in t0])
    power[3] = np.nan
    codes = np.where(np.isnan(power), AGAIN, OK).astype(np.uint8)
    requests = [_request(index, item, dice) for index, item in enumerate(("pp512", "tg16", "tg16@d4096", "pp8+tg16"))]
    return RunRecord(
        run_id,
        manifest_of(run_id),
        series=[
            Series("power_w", "W", "gauge", "rapl", "soc", t0, t0 + 900, power, codes, "/sys/a", "B", 262143.3),
            Series("temp_c", "degC", "gauge", "thermal", "none", t0[:2], t0[:2], power[2:4], codes[2:4]),
        ],
        sources=[SourceStatus("rapl", "ok", 1, 500), SourceStatus("psu", "denied", 2, 0, "/sys/b")],
        phases=[Phase("idle_before", 0, 10), Phase("decode", 10, 20, 1)],
        regimes=[Regime("idle", 0, 10), Regime("throttled", 10, 20, "gpu0.thermal_slowdown")],
        requests=requests,
        measures=[
            Measure("ttft_s", dice.random(), "s", "median", n=4),
            Measure("decode_tps", dice.uniform(10, 20), "1/s", "median", n=3),
            Measure("energy_j", dice.uniform(1, 2), "J", source="core", scope="rail", klass="B"),
            Measure("energy_j", None, "J", source="total", scope="soc", reason="sensor_denied"),
            Measure("max_temp_c", 50.0, "degC", "max", source="zone0"),
            Measure("max_temp_c", 61.5, "degC", "max", source="zone1"),
            Measure("peak_rss_bytes", 123456789.0, "B", "max", scope="process"),
        ],
        reasons=[Reason("sensor_denied", "degraded", "EACCES", "run as root"), Reason("not_gated", "degraded", "", "")],
    )


def _request(index: int, item: str, dice: random.Random) -> Request:
    ttft_s, e2e_s = 0.25 + dice.random() / 100, 1.25 + dice.random() / 100
    start = index * 10**10
    times = tuple(start + k * 10**7 for k in range(16))
    return Request(
        index,
        item,
        "timed",
        "ok",
        start,
        start + 10**9,
        n_in=512,
        n_out=1 if item == "pp512" else 16,
        ttft_s=ttft_s,
        e2e_s=e2e_s,
        prefill_tps=512 / ttft_s,
        decode_tps=None if item == "pp512" else 15 / (e2e_s - ttft_s),
        answer="an answer",
        token_t_ns=times,
        token_n=(1,) * 16,
    )


def store_at(path: Path, runs: int = 0) -> Store:
    """A store with ``runs`` stored and indexed runs."""
    store = open_store(path)
    for seed in range(runs):
        store.ingest(add_run(store, seed).run_id)
    return store


def open_run(store: Store) -> RunFolder:
    """A run with its evidence, not yet committed."""
    folder = store.new_run(TICKET)
    (folder.evidence / "req").mkdir()
    (folder.evidence / "req" / "0").write_bytes(b"POST / HTTP/1.1\r\n\r\n")
    (folder.evidence / "journal").write_bytes(b"MELTJNL1" + bytes(range(256)))
    return folder


def add_run(store: Store, seed: int = 0) -> RunFolder:
    """A stored run, not yet indexed."""
    folder = open_run(store)
    store.commit(folder, record_of(folder.run_id, seed))
    return folder


def dump(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table and view of an index, sorted."""
    import duckdb

    connection = duckdb.connect(":memory:")
    try:
        connection.execute(f"ATTACH '{path}' AS idx (READ_ONLY)")
        connection.execute("USE idx")
        names = [row[0] for row in connection.execute("SELECT table_name FROM information_schema.tables").fetchall()]
        return {name: connection.execute(f"SELECT * FROM {name} ORDER BY ALL").fetchall() for name in sorted(names)}
    finally:
        connection.close()
