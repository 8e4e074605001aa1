"""Runs of a grid workload in the shape of ``llama-bench -o json``.

Field names and order are those of llama.cpp's tools/llama-bench/llama-bench.cpp. What is not known is null, also
``stddev_*`` of a single sample. Two keys are ours: ``mode``, because figures of a server must never be mixed with
those of llama-bench itself, and ``meltbench``, which says where the entry comes from.

A server's sample is derived from what was observed: a pp entry from prefill_tps, a tg entry from decode_tps,
((n_out - 1) / (e2e - ttft)), a pp+tg entry from e2e_s; avg and stddev are over the timed requests of one run.
"""

from __future__ import annotations

import re
import statistics
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meltbench.records import Request, RunRecord

FIELDS = (
    *("build_commit", "build_number", "cpu_info", "gpu_info", "backends", "model_filename", "model_type"),
    *("model_size", "model_n_params", "n_batch", "n_ubatch", "n_threads", "cpu_mask", "cpu_strict", "poll"),
    *("type_k", "type_v", "n_gpu_layers", "n_cpu_moe", "split_mode", "main_gpu", "no_kv_offload", "flash_attn"),
    *("devices", "tensor_split", "tensor_buft_overrides", "load_mode", "lazy_mode", "embeddings"),
    *("no_op_offload", "no_host", "repack", "fit_target", "fit_min_ctx", "n_prompt", "n_gen", "n_depth"),
    *("test_time", "avg_ns", "stddev_ns", "avg_ts", "stddev_ts"),
)
_ITEM = re.compile(r"(?:pp([0-9]{1,7})(?:\+tg([0-9]{1,7}))?|tg([0-9]{1,7}))(?: ?@ ?d([0-9]{1,7}))?", re.ASCII)
_COMMIT = r"(?:([0-9a-f]{6,40})|unknown)"
# A release's name, and the two forms that --version has.
_BUILDS = tuple(
    re.compile(pattern, re.ASCII)
    for pattern in (
        rf"b([0-9]{{1,9}})(?:-{_COMMIT})?",
        rf"([0-9]{{1,9}}) \({_COMMIT}\)",
        rf"[^ ()]{{1,40}} \(build ([0-9]{{1,9}}), commit {_COMMIT}\)",
    )
)
_INTEGERS = ("n_batch", "n_ubatch", "n_threads", "n_gpu_layers")
_WORDS = ("type_k", "type_v", "flash_attn")


def parse_item(name: str) -> tuple[int, int, int] | None:
    """Return (n_prompt, n_gen, n_depth) of an item's name, None when it is not a grid item.

    >>> parse_item("pp512+tg128@d4096")
    (512, 128, 4096)
    """
    found = _ITEM.fullmatch(name)
    return (int(found[1] or 0), int(found[2] or found[3] or 0), int(found[4] or 0)) if found else None


def entries(record: RunRecord) -> list[dict[str, Any]]:
    """Return one entry per grid item of a run that has a timed request that ended ok."""
    shapes: dict[tuple[int, int, int], list[float]] = {}
    for request in record.requests:
        shape = parse_item(request.item)
        if shape and request.role == "timed" and request.status == "ok":
            rate = _rate(request, *shape[:2])
            if rate:
                shapes.setdefault(shape, []).append(rate)
    return [_entry(record, shape, rates) for shape, rates in shapes.items()]


def _rate(request: Request, n_prompt: int, n_gen: int) -> float | None:
    """Tokens per second of one request; None when it was not measured or not all tokens came."""
    if n_gen and request.n_out != n_gen:
        return None
    if n_prompt and n_gen:
        return (n_prompt + n_gen) / request.e2e_s if request.e2e_s else None
    return request.decode_tps if n_gen else request.prefill_tps


def _entry(record: RunRecord, shape: tuple[int, int, int], rates: list[float]) -> dict[str, Any]:
    n_prompt, n_gen, n_depth = shape
    samples_ns = [round(1e9 * (n_prompt + n_gen) / rate) for rate in rates]
    entry: dict[str, Any] = dict.fromkeys((*FIELDS, "samples_ns", "samples_ts"))
    entry |= _identity(record.manifest)
    entry |= {
        "n_prompt": n_prompt,
        "n_gen": n_gen,
        "n_depth": n_depth,
        "avg_ns": round(statistics.fmean(samples_ns)),
        "stddev_ns": round(statistics.stdev(samples_ns)) if len(samples_ns) > 1 else None,
        "avg_ts": statistics.fmean(rates),
        "stddev_ts": statistics.stdev(rates) if len(rates) > 1 else None,
        "samples_ns": samples_ns,
        "samples_ts": rates,
    }
    return entry


def parse_build(version: str) -> tuple[int | None, str | None]:
    """Return build number and commit of an engine's version, None for what it does not say.

    >>> parse_build("0.5.0-dev (build 1, commit 0c1e570)")
    (1, '0c1e570')
    """
    found = next((match for build in _BUILDS if (match := build.fullmatch(version))), None)
    # llama.cpp says build 0 where it was built outside of its repository.
    return (int(found[1]) or None, found[2]) if found else (None, None)


def _knob(knobs: dict[str, Any], name: str) -> Any:
    """A knob as llama.cpp names it or without its n_; "none", which leaves it to the engine, is unknown."""
    value = knobs.get(name, knobs.get(name.removeprefix("n_")))
    if name in _INTEGERS:
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    return None if value == "none" else value


def _identity(manifest: dict[str, Any]) -> dict[str, Any]:
    def part(name: str) -> dict[str, Any]:
        value = manifest.get(name)
        return value if isinstance(value, dict) else {}

    model, runner, knobs, device, found = (part(k) for k in ("model", "runner", "knobs", "device", "conditions"))
    number, commit = parse_build(str(runner.get("version", "")))
    gpus = found.get("gpus")
    return {
        **{name: _knob(knobs, name) for name in (*_INTEGERS, *_WORDS)},
        "build_commit": commit,
        "build_number": number,
        "cpu_info": found.get("cpu"),
        "gpu_info": ", ".join(map(str, gpus)) if isinstance(gpus, (list, tuple)) and gpus else None,
        "backends": runner.get("accelerator"),
        "model_filename": model.get("file"),
        "model_size": model.get("bytes"),
        "model_n_params": model.get("n_params"),
        "test_time": manifest.get("started_at"),
        "mode": runner.get("mode"),
        "meltbench": {
            "run_id": manifest.get("run_id"),
            "device": device.get("name"),
            "origin": part("imported").get("from", "meltbench"),
            "validity": manifest.get("validity"),
            "runner": runner.get("name"),
            "engine_version": runner.get("version"),
        },
    }
