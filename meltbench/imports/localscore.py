"""What LocalScore's client prints with ``-o json`` and sends to its site: tests of a prompt and an answer, one run.

By its sources (llamafile's localscore/benchmark.cpp, printer.cpp): a test clears the cache, fills in n_prompt tokens
and generates n_gen, without drawing tokens, as llama-bench does; ``samples_ns`` is the time of a repetition of both,
``prompt_tps`` and ``gen_tps`` are means of n_prompt / time and n_gen / time, ``ttft_ms`` the mean time until the first
token was *evaluated*. So rates are ours of mode bench, as means; its ttft is none of ours, which ends with a token that
is there to be read. ``power_watts`` is the mean of a GPU's own reading over the test, 0 where none could be read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meltbench.engines.prompts import Point
from meltbench.errors import UserError
from meltbench.imports.foreign import (
    Imported,
    count,
    ended,
    facts,
    json_of,
    measured,
    part_of,
    positive,
    quantisation,
    samples_ns,
    utc_ns,
    word,
)
from meltbench.measure import RunInputs
from meltbench.records import Measure, Request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.imports.foreign import File

TOOL = "localscore"
_MAX_TESTS, _MAX_TOKENS = 1000, 10**7
_MODEL = ("model_name", "model_filename", "model_quant_str")
_SUMMARY = {
    "avg_prompt_tps": ("localscore_prompt_tps", "tok/s"),
    "avg_gen_tps": ("localscore_gen_tps", "tok/s"),
    "avg_ttft_ms": ("localscore_ttft_s", "s"),
    "performance_score": ("localscore_score", "1"),
}
_NO_SAMPLES = "no_samples: localscore tells the mean of its repetitions alone"


def read(files: Sequence[File], device: str | None = None) -> list[Imported]:
    """A run of each file. Raises UserError for one that is not LocalScore's."""
    return [_run(file, json_of(file), device) for file in files]


def _run(file: File, found: Any, device: str | None) -> Imported:
    results = part_of(found, "results")
    if not isinstance(results, list) or not 0 < len(results) <= _MAX_TESTS or part_of(found, "runtime_info") is None:
        raise UserError(
            f"{file.path} is not LocalScore's: it needs results and runtime_info",
            hint="give what localscore -o json printed, from its first brace on",
        )
    tests = [_checked(file, at, one) for at, one in enumerate(results, 1)]
    _check_alike(tests)
    starts = [ns for _, _, one in tests if (ns := utc_ns(one.get("test_time"))) is not None]
    now = min(starts, default=0)
    requests: list[Request] = []
    theirs: list[Measure] = []
    for where, point, one in tests:
        samples = samples_ns(where, one.get("samples_ns", []))  # none in what was sent to the site
        for sample in samples:
            requests.append(_request(len(requests), point, now, sample))
            now += sample
        theirs += _of_test(point, one, len(samples))
    ended(file.path, min(starts, default=0), now)
    theirs += _summary(part_of(found, "results_summary"))
    inputs = RunInputs(
        kind="grid",
        mode="bench",
        signals=(),
        sources=(),
        phases=(),
        requests=requests,
        totals=(),
        conditions=[("imported", f"{file.name} of LocalScore; what it did not record is missing")],
    )
    measures, reasons = measured(TOOL, inputs, theirs, clock="samples_ns")
    first = tests[0][2]
    gpu, cpu = (word(part_of(found, *keys)) for keys in (("accelerator_info", "name"), ("system_info", "cpu_name")))
    on_gpu = part_of(found, "accelerator_info", "type") == "GPU"
    name, quant = word(first.get("model_name")), word(first.get("model_quant_str"))
    runtime, version, commit = (word(part_of(found, "runtime_info", key)) for key in ("name", "version", "commit"))
    size, params = count(first.get("model_size")), count(first.get("model_n_params"))
    return Imported(
        tool=TOOL,
        files=(file,),
        part="0",
        started_ns=min(starts, default=None),
        ended_ns=now if starts and requests else None,
        device=device or (gpu if on_gpu else cpu) or cpu or "unknown",
        clock="test_time of the first test; repetitions are put one behind the other" if starts else "no file tells it",
        workload={"name": TOOL, "title": "the tests of LocalScore", "kind": "grid"},
        model={
            "name": name or word(first.get("model_filename")) or "unknown",
            "file": word(first.get("model_filename")) or None,
            "bytes": size or None,
            "n_params": params or None,
            "bits_per_weight": size * 8 / params if size and params else None,
            "quantisation": quantisation(quant) or quant or None,
        },
        runner={
            "name": TOOL,
            "engine": runtime or "llamafile",
            "version": f"{version or 'unknown'} ({commit or 'unknown'})",
            "protocol": TOOL,
            "mode": "bench",
            "accelerator": "GPU" if on_gpu else "CPU",
        },
        said={"quantisation": quant}
        | {key: facts(part_of(found, key)) for key in ("runtime_info", "system_info", "accelerator_info")},
        requests=requests,
        measures=measures,
        reasons=reasons,
        notes=() if starts else ("no file tells when it was",),
    )


def _checked(file: File, at: int, one: Any) -> tuple[str, Point, dict[str, Any]]:
    where = f"{file.path}, result {at}"
    n_prompt, n_gen = (count(part_of(one, key)) for key in ("n_prompt", "n_gen"))
    if n_prompt is None or n_gen is None or not 0 < n_prompt + n_gen <= _MAX_TOKENS:
        raise UserError(f"{where}: n_prompt and n_gen are no numbers of tokens")
    return where, Point(n_prompt, n_gen, 0), one


def _check_alike(tests: Sequence[tuple[str, Point, dict[str, Any]]]) -> None:
    """Raises UserError where they are no single run: tests of two models, or of one size twice."""
    seen: set[Point] = set()
    for where, point, one in tests:
        if any(one.get(key) != tests[0][2].get(key) for key in _MODEL):
            raise UserError(f"{where} is of another model than the first", hint="import them apart")
        if point in seen:
            raise UserError(f"{where} is a second one of {point.name}", hint="import them apart")
        seen.add(point)


def _request(index: int, point: Point, send_ns: int, sample: int) -> Request:
    return Request(
        index=index,
        item=point.name,
        point=point.name,
        role="timed",
        status="ok",
        t_send_ns=send_ns,
        t_end_ns=send_ns + sample,
        n_in=point.prefill,
        n_cached=0,
        n_out=point.generate,
        e2e_s=sample / 1e9,
    )


def _of_test(point: Point, one: dict[str, Any], n: int) -> list[Measure]:
    """The rates of a test as means, under our names; what it defines otherwise under its own."""
    out: list[Measure] = []
    for name, key, tokens in (("prefill", "prompt_tps", point.prefill), ("decode", "gen_tps", point.generate)):
        rate = positive(one.get(key))
        if rate is not None and tokens:
            how = f"{key} of localscore: mean of tokens / time over its repetitions"
            out.append(Measure(f"bench_{name}_tps", rate, "tok/s", "mean", point.name, n=n or None, method=how))
            out.append(Measure(f"bench_{name}_tps", None, "tok/s", "median", point.name, n=0, reason=_NO_SAMPLES))
    ttft_ms, power_w = positive(one.get("ttft_ms")), positive(one.get("power_watts"))
    if ttft_ms is not None:
        how = "ttft_ms of localscore: until the first token was evaluated, mean"
        out.append(Measure("localscore_ttft_s", ttft_ms / 1e3, "s", "mean", point.name, n=n or None, method=how))
    if power_w is not None:
        how = "power_watts of localscore: mean of the GPU's own reading over the test"
        out.append(Measure("localscore_power_w", power_w, "W", "mean", point.name, source="localscore", method=how))
    return out


def _summary(found: object) -> list[Measure]:
    """Its means over all tests, and its score: ten times the cube root of prompt_tps * gen_tps * 1000 / ttft_ms."""
    out = []
    for key, (name, unit) in _SUMMARY.items():
        value = positive(part_of(found, key))
        if value is not None:
            scaled = value / 1e3 if key.endswith("_ms") else value
            how = f"{key} of localscore, over tests of all sizes"
            out.append(Measure(name, scaled, unit, "mean" if key != "performance_score" else "value", method=how))
    return out
