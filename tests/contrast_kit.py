"""An index in memory with made runs, whose numbers are known: for the comparison of selections."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import duckdb

from meltbench.records import MODE_PREFIX
from meltbench.store.views import RESULTS_OF, statements

START = datetime(2026, 11, 20, 20, 0, 0)


class MadeIndex:
    """Tables and views as an index has them; ``add`` brings in a run."""

    def __init__(self) -> None:
        self.connection = duckdb.connect(":memory:")
        for statement in statements():
            self.connection.execute(statement)
        self.n = 0

    def add(
        self,
        values: Mapping[str, float] | None = None,
        *,
        points: Mapping[str, Mapping[str, float]] | None = None,
        scores: Sequence[tuple[str, str, float]] = (),
        scope: str = "soc",
        klass: str = "B",
        reasons: Sequence[str] = (),
        knobs: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        at_s: float | None = None,
        **about: Any,
    ) -> str:
        """A run named r0001 ...: ``scores`` are item, method, and a mark or the nats by token."""
        self.n += 1
        run_id = f"r{self.n:04d}"
        row = {
            "run_id": run_id,
            "started_at": START + timedelta(seconds=600 * self.n if at_s is None else at_s),
            "outcome": "done",
            "validity": "valid",
            "device": "desk",
            "device_identity": about.get("device", "desk"),
            "model": "tiny",
            "model_sha256": about.get("model", "tiny") * 3,
            "runner": "llamacpp",
            "engine": "llama.cpp",
            "engine_version": "b1",
            "engine_sha256": f"{about.get('engine_version', 'b1')}{about.get('device', 'desk')}",
            "accelerator": "CPU",
            "mode": "server",
            "workload": "quick",
            "workload_sha256": "w1",
            "cell_key": "c1",
            "plan_hash": "p1",
        } | about
        manifest = {
            "knobs": {"threads": 4, "ctx": 512, **(knobs or {})},
            "conditions": {"os": "Debian", "kernel": "6.1", "settings": dict(settings or {})},
            "workload": {"name": row["workload"], "sha256": row["workload_sha256"]},
        }
        row["manifest"] = json.dumps(manifest)
        names = ", ".join(row)
        self.connection.execute(f"INSERT INTO runs ({names}) VALUES ({', '.join('?' * len(row))})", list(row.values()))
        held = {"run": dict(values or {}), **{name: dict(of) for name, of in (points or {}).items()}}
        if "energy_j" not in held["run"]:
            self._measure(run_id, "energy_j", None, "run", "total", scope, klass, "no_energy_source: none")
        for phase, of in held.items():
            for name, value in of.items():
                self._measure(run_id, MODE_PREFIX[row["mode"]] + name, value, phase, "total", scope, klass, None)
        for seq, (item, method, value) in enumerate(scores):
            mark, nats = (None, -value * 10) if method == "nll" else (value, None)
            self.connection.execute(
                "INSERT INTO scores (run_id, seq, item, point, method, correct, value, n) "
                "VALUES (?, ?, ?, '', ?, ?, ?, 10)",
                [run_id, seq, item, method, mark, nats],
            )
        for seq, code in enumerate(reasons):
            self.connection.execute("INSERT INTO reasons (run_id, seq, code) VALUES (?, ?, ?)", [run_id, seq, code])
        return run_id

    def _measure(self, run_id: str, name: str, value: float | None, phase: str, *rest: str | None) -> None:
        source, scope, klass, reason = rest
        bare = name.removeprefix("bench_").removeprefix("inprocess_")
        self.connection.execute(
            "INSERT INTO measures (run_id, seq, name, value, stat, phase, source, scope, klass, reason) "
            "VALUES (?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
            [run_id, name, value, RESULTS_OF[bare], phase, source, scope, klass, reason],
        )
