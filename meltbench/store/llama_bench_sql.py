"""Runs of a grid as ``llama-bench -o sql`` prints them, which llama.cpp's scripts/compare-llama-bench.py reads.

The script joins two builds where all settings are equal, and SQL's NULL equals nothing: what is not known is an empty
text, or llama.cpp's own word for it. Its table has no column for the mode, so ``backends`` names any other mode than
llama-bench's own, and the two are never joined.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.engines.llama_bench import marked
from meltbench.store.llama_bench import FIELDS
from meltbench.store.manifest import harmless

if TYPE_CHECKING:
    from collections.abc import Sequence

TABLE = "llama_bench"
_REAL = ("avg_ts", "stddev_ts")
_INTEGER = {
    *("build_number", "model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "cpu_strict", "poll"),
    *("n_gpu_layers", "n_cpu_moe", "main_gpu", "no_kv_offload", "flash_attn", "embeddings", "no_op_offload"),
    *("no_host", "repack", "fit_target", "fit_min_ctx", "n_prompt", "n_gen", "n_depth", "avg_ns", "stddev_ns"),
}
# What llama.cpp itself writes where it was not told: a build outside of its repository, layers left to it.
_UNKNOWN = {"build_commit": "unknown", "n_gpu_layers": -1}
_NULL = ("stddev_ns", "stddev_ts")  # of a single sample; no setting, so nothing is joined by it


def sql_text(entries: Sequence[dict[str, Any]]) -> str:
    """The entries of ``meltbench.store.llama_bench.entries`` as statements: the table where it is not there, the rows.

    >>> sql_text([{"n_prompt": 512, "mode": "server"}]).splitlines()[0]
    'CREATE TABLE IF NOT EXISTS llama_bench ('
    """
    columns = ",\n".join(f"  {name} {_type(name)}" for name in FIELDS)
    lines = [f"CREATE TABLE IF NOT EXISTS {TABLE} (\n{columns}\n);\n"]
    for entry in entries:
        values = ", ".join(_value(name, entry) for name in FIELDS)
        lines.append(f"INSERT INTO {TABLE} ({', '.join(FIELDS)}) VALUES ({values});")
    return "\n".join(lines) + "\n"


def _type(name: str) -> str:
    return "REAL" if name in _REAL else "INTEGER" if name in _INTEGER else "TEXT"


def _value(name: str, entry: dict[str, Any]) -> str:
    value = entry.get(name)
    if value is None and name in _NULL:
        return "NULL"
    value = _UNKNOWN.get(name, "") if value is None else value
    if name == "backends":
        value = marked(str(value), str(entry.get("mode")))
    if isinstance(value, bool):
        value = int(value)
    text = repr(value) if isinstance(value, float) else harmless(str(value))
    return "'" + text.replace("'", "''") + "'"
