"""A store of many runs out of nothing: ``python -m benchmarks.made_store FOLDER --runs 10000 --samples 10000``.

Sensors and requests are made (made_fleet.py, made_signals.py); everything after them is what a run goes through: the
measures are taken of the samples, the folder is committed, and the index is made of the folders.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks import made_fleet, made_signals
from benchmarks.made_fleet import BITS, COST, Planned, Truth
from meltbench import catalog
from meltbench.definition import Workload
from meltbench.efficiency import run_measures
from meltbench.engines.checks import observed, with_prefill
from meltbench.measure import RunInputs, energies, measure_run, question_costs, question_measures
from meltbench.measure.beats import beats
from meltbench.measure.digest import Digester, Edges
from meltbench.measure.latency import in_mode
from meltbench.measure.phases import phases
from meltbench.measure.screening import Screen, most_w
from meltbench.measure.total import TOTAL, Designation
from meltbench.records import Request, RunRecord, Score
from meltbench.spec import digest
from meltbench.store import Store, fs, index, open_store
from meltbench.tables import read_table

if TYPE_CHECKING:
    from meltbench.records import Keep

IDLE_NS = 3_000_000_000
QUESTIONS = 16
QUICK = ("explain-tides", "plan-walk", "debug-loop", "summarise-note", "rewrite-mail")
POINTS = (("pp512", 512, 0), ("tg128", 0, 128))
RUNS, SAMPLES = 10_000, 10_000
SMALL_RUNS, SMALL_SAMPLES = 180, 5_000
WORKERS = 2
_AT_ONCE = 50
_WARM = "60 s were over at 47 degC, the target was 40"
_FAILED = "the engine ended with signal 9"

_Asked = tuple[str, int, int]  # item, prompt tokens, tokens to generate


@dataclass
class _Run:
    """What the making of one run shares. ``token_s`` and ``prompt_tps``: its true rates."""

    plan: Planned
    dice: np.random.Generator
    token_s: float
    prompt_tps: float
    power: float
    at_ns: int

    @property
    def weights_bytes(self) -> int:
        """Size of the model's file."""
        return round(self.plan.cell.model.n_params * BITS[self.plan.cell.quantisation] / 8)


def _begun(plan: Planned, known: Truth) -> _Run:
    cell, dice = plan.cell, np.random.default_rng([plan.seed, 3, plan.number])
    device, engine = cell.device, cell.engine
    tonight = known.drift[device.name][plan.night] * (1 + dice.normal(0, device.noise))
    busier = 1.12 if plan.fate == "background_load" else 1.0
    weights = cell.model.n_params * BITS[cell.quantisation] / 8
    token_s = weights / (device.bytes_s * engine.speed) * tonight * busier
    return _Run(
        plan,
        dice,
        token_s * known.slower(device.name, engine.engine, plan.night),
        device.ops_s * engine.prefill / (2 * cell.model.n_params) / tonight / busier,
        known.hotter(device.name, plan.night) * (1 + dice.normal(0, device.noise / 2)),
        20_000_000_000_000 + plan.number * 10**12,
    )


def _answered(run: _Run, number: int, asked: _Asked, start_ns: int, slow: float) -> Request:
    """A server's answer, token by token."""
    item, n_in, n_out = asked
    ttft_s = n_in / run.prompt_tps * (1 + run.dice.normal(0, 0.01)) + 0.004
    gaps = run.token_s * slow * np.abs(1 + run.dice.normal(0, 0.03, n_out - 1))
    first_ns = start_ns + round(ttft_s * 1e9)
    times = (first_ns + np.concatenate([[0.0], np.cumsum(gaps)]) * 1e9).astype(np.int64).tolist()
    blank = Request(
        number, item, "warmup" if number == 0 else "timed", "ok", start_ns, times[-1] + 30_000, n_in=n_in, n_cached=0,
        n_out=n_out, engine_prefill_s=ttft_s - 0.004, engine_prefill_tps=n_in / (ttft_s - 0.004),
        stop_reason="limit", count_source="server",
    )  # fmt: skip
    return with_prefill(observed(blank, [(t, 1) for t in times]))


def _benched(run: _Run, number: int, asked: _Asked, start_ns: int, slow: float) -> Request:
    """A repetition of llama-bench, by its own time."""
    name, n_in, n_out = asked
    prefill_s = n_in / run.prompt_tps * (1 + run.dice.normal(0, 0.004))
    decode_s = n_out * run.token_s * slow * (1 + run.dice.normal(0, 0.004))
    end_ns = start_ns + round((prefill_s + decode_s) * 1e9)
    return Request(
        number, name, "timed", "ok", start_ns, end_ns, start_ns + round(prefill_s * 1e9), n_in=n_in, n_cached=0,
        n_out=n_out, e2e_s=prefill_s + decode_s, prefill_tps=n_in / prefill_s if n_in else None,
        prefill_source="samples_ns" if n_in else None, decode_tps=n_out / decode_s if n_out else None, point=name,
    )  # fmt: skip


def _requests(run: _Run, start_ns: int, *, throttles: bool) -> list[Request]:
    """Everything that was asked, one after the other; of an engine that fails the first few."""
    plan, made = run.plan, list[Request]()
    if plan.cell.workload == "grid":
        asked: list[_Asked] = [point for point in POINTS for _ in range(5)]
    elif plan.cell.workload == "quick":
        asked = [(item, 38 + 9 * k, 64) for k, item in enumerate((QUICK[0], *QUICK))]
    else:
        lengths = np.random.default_rng([plan.seed, 4]).integers(24, 72, QUESTIONS + 1).tolist()
        asked = [(str(k), 96 + 3 * n, n) for k, n in enumerate(lengths)]
    if plan.fate == "engine_failed":
        asked = asked[: len(asked) // 3]
    for number, one in enumerate(asked):
        slow = 1.4 if throttles and number > len(asked) // 2 else 1.0
        make = _benched if plan.cell.workload == "grid" else _answered
        made.append(make(run, number, one, start_ns, slow))
        start_ns = made[-1].t_end_ns + 25_000
    return made


def _scores(run: _Run, requests: Sequence[Request]) -> list[Score]:
    """Whether each question was answered right: the same in every run of a cell, but for a few by its arithmetic."""
    cell, seed = run.plan.cell, run.plan.seed
    if cell.workload != "gsm8k":
        return []
    hard = np.random.default_rng([seed, 5]).normal(0, 1.2, QUESTIONS + 1)
    of_cell = int(digest([cell.model.name, cell.quantisation])[:8], 16)
    luck = np.random.default_rng([seed, 6, of_cell]).logistic(0, 1, QUESTIONS + 1)
    turned = run.dice.random(QUESTIONS + 1) < 0.03
    out = []
    for one in requests[1:]:
        right = bool(cell.model.ability - COST[cell.quantisation] - hard[one.index] + luck[one.index] > 0)
        right ^= bool(turned[one.index])
        gold = str(17 + one.index)
        said = gold if right else str(90 + one.index)
        out.append(
            Score(one.item, "number", float(right), parsed=True, extracted=said, gold=gold, requests=str(one.index),
                  best=float(right))
        )  # fmt: skip
    return out


def record_of(plan: Planned, known: Truth, samples: int, keep: Keep, *, hostile: bool = False) -> RunRecord:
    """The record of one run; its samples go to ``keep``."""
    run = _begun(plan, known)
    cell, at = plan.cell, run.at_ns
    device, failed = cell.device, plan.fate == "engine_failed"
    throttles = bool(run.dice.random() < device.throttles) and not failed
    idle, spawn = at + IDLE_NS // 6, at + IDLE_NS // 6 + IDLE_NS
    load_ns = round((0.4 + run.weights_bytes / 1.1e9 * (1 + run.dice.normal(0, 0.05))) * 1e9)
    requests = _requests(run, spawn + load_ns + 40_000_000, throttles=throttles)
    stop = requests[-1].t_end_ns + 120_000_000 + (requests[-1].t_end_ns - at) // 50  # seen once more after the last
    after = stop + 300_000_000
    events = [
        *_idle("idle_before", idle),
        {"event": "spawn", "proc": "engine", "boot_ns": spawn},
        {"event": "ready", "proc": "engine", "load_ns": load_ns, "boot_ns": spawn + load_ns},
        *_idle("idle_after", after),
    ]
    spans = phases(events, requests, "engine")
    course = _course(run, requests, (spawn, stop), at, after + IDLE_NS + 400_000_000, throttles=throttles)
    series = made_signals.signals(device, course, samples, run.dice)
    found = _scores(run, requests)
    edges = Edges.of(
        [(one.t0_ns, one.t1_ns) for one in spans] + [(one.t_send_ns, one.t_end_ns) for one in requests]
        + question_costs.windows(found, requests),
        whole := next(span for span in spans if span.name == "run"), beats=beats(requests),
    )  # fmt: skip
    screen, digests = Screen(most_w(None, []), whole), []
    for one in series:
        digester = Digester(one, edges, screen.limit_w)
        digester.add(screen.take(one))
        digests.append(digester.done())
    keep(list(enumerate(series)))
    slept = 4_000_000_000 if plan.fate == "suspended" else 0
    inputs = RunInputs(
        kind=_workload(cell.workload)["kind"],
        signals=digests,
        sources=made_signals.sources(device, series),
        phases=spans,
        mode=cell.engine.mode,
        requests=requests,
        load_s=load_ns / 1e9,
        load_label="warm",
        failure=("engine_failed", _FAILED) if failed else None,
        conditions=[("warm_start", "60 s were over at 47 degC, the target was 40")]
        if plan.fate == "warm_start"
        else (),
        clocks=[(at, at, at), (stop, stop - slept, stop)],
        totals=[device.meter.designation if device.meter else Designation("rapl")],
        screened=screen.done(),
        scores=found,
    )
    measures, reasons, state = measure_run(inputs)
    requests, found = energies(inputs, measures)
    record = RunRecord(
        plan.run_id, _manifest(plan, run, stop + IDLE_NS - at, hostile=hostile) | {"validity": state},
        [one.head for one in digests], list(inputs.sources), spans, requests, measures, reasons,
        list(inputs.regimes.regimes), found,
    )  # fmt: skip
    if not found:
        return record
    total = next((m for m in measures if (m.name, m.phase, m.source) == ("energy_j", "run", TOTAL)), None)
    more = [*question_measures(found, total), *run_measures(record)]
    return replace(record, measures=[*measures, *in_mode(more, inputs.mode)])


def _idle(name: str, start_ns: int) -> list[dict[str, Any]]:
    """What the probe says of an idle window."""
    step = {"event": "step", "op": "idle", "name": name}
    return [
        step | {"state": "start", "boot_ns": start_ns},
        step | {"state": "end", "result": "ok", "boot_ns": start_ns + IDLE_NS},
    ]


def _course(
    run: _Run, requests: Sequence[Request], engine: tuple[int, int], first: int, last: int, *, throttles: bool
) -> made_signals.Course:
    """The load of every span: a prefill takes all of the device, a decode four fifths, a load a third."""
    spawn, stop = engine
    edges, load = [first, spawn], [0.0, 0.35]
    for one in requests:
        edges.append(one.t_send_ns)
        load.append(1.0)
        if one.t_first_ns is not None and one.t_send_ns < one.t_first_ns < one.t_end_ns:
            edges.append(one.t_first_ns)
            load.append(0.8)
    slowed = requests[len(requests) // 2].t_end_ns if throttles else None
    others = 0.4 if run.plan.fate == "background_load" else 0.0
    return made_signals.Course(
        np.array([*edges, requests[-1].t_end_ns, last]), np.array([*load, 0.0]), (spawn, stop), run.weights_bytes,
        run.power, slowed, 0.7 if throttles else 1.0, others,
    )  # fmt: skip


@cache
def _workload(name: str) -> dict[str, Any]:
    """What a manifest says of a workload."""
    found = catalog.load("workloads", name)
    known = read_table(Workload, found.data, found.path)
    own = {"points": [name for name, _, _ in POINTS]} if name == "grid" else {}
    told: dict[str, Any] = json.loads(json.dumps(asdict(known) | own))
    return {"name": name, "sha256": found.sha256, **told}


def _manifest(plan: Planned, run: _Run, lasted_ns: int, *, hostile: bool) -> dict[str, Any]:
    cell, failed = plan.cell, plan.fate == "engine_failed"
    device, model = made_fleet.named(cell, hostile)
    engine = cell.engine
    weights = digest(["made", cell.model.name, cell.quantisation])
    spec = {"device": device, "model": model, "runner": engine.runner, "workload": cell.workload, "seed": 0, "reps": 1}
    program = digest(["made", engine.engine, plan.version])
    return {
        "run_id": plan.run_id,
        "plan_hash": digest([spec, plan.night]),
        "cell_key": digest([spec, weights, program, device]),
        "started_at": plan.started.isoformat(timespec="milliseconds"),
        "ended_at": (plan.started + timedelta(seconds=lasted_ns / 1e9)).isoformat(timespec="milliseconds"),
        "outcome": "failed" if failed else "done",
        "failure": _FAILED if failed else None,
        "failure_log": "made: killed\n" if failed else None,
        "device": {
            "name": device,
            "identity": made_fleet.identity(cell.device),
            "profile": cell.device.profile,
            "target": "local",
        },
        "model": {
            "name": model,
            "file": f"{cell.model.name}-{cell.quantisation}.gguf",
            "sha256": weights,
            "bytes": run.weights_bytes,
            "n_params": cell.model.n_params,
            "bits_per_weight": BITS[cell.quantisation],
            "quantisation": cell.quantisation,
            "architecture": "llama",
        },
        "runner": {
            "name": engine.runner,
            "engine": engine.engine,
            "version": plan.version,
            "sha256": program,
            "accelerator": "CUDA" if cell.device.name.startswith("orin") else "CPU",
            "mode": engine.mode,
            "url": None,
        },
        "workload": _workload(cell.workload),
        "spec": spec,
        "knobs": {"ctx": 4096, "threads": cell.device.cores // 2, "load": "warm"},
        "rep": plan.rep,
        "round": 0,
        "versions": {"meltbench": "0.1.0", "probe": "made", "protocol": 1},
        "calibrations": {},
        "conditions": made_fleet.conditions(cell.device),
    }


def _put(root: Path, known: Truth, samples: int, hostile: bool, plans: Iterable[Planned]) -> int:
    """Store these runs. Nothing is flushed to the disk by itself: what is lost is made again."""
    store, done = open_store(root), 0
    flush, fs.sync = fs.sync, lambda path: None  # noqa: ARG005  fs.sync's own name of it
    try:
        for plan in plans:
            folder = store.adopt(plan.run_id, {"plan_hash": "made", "target": "local", "spec": {"workload": "made"}})
            (folder.evidence / "journal").write_bytes(b"MELTJNL1")
            store.commit(folder, partial(_of_keep, plan, known, samples, hostile))
            done += 1
    finally:
        fs.sync = flush
    return done


def _of_keep(plan: Planned, known: Truth, samples: int, hostile: bool, keep: Keep) -> RunRecord:
    return record_of(plan, known, samples, keep, hostile=hostile)


def make(
    root: Path,
    runs: int,
    samples: int,
    *,
    small: bool = False,
    hostile: bool = False,
    workers: int = 1,
    say: Callable[[str], None] | None = None,
) -> Store:
    """Make a store in an empty folder, with its index. ``say`` is told of the progress."""
    plans = made_fleet.planned(runs, small=small)
    known = made_fleet.truth(plans[-1].night + 1)
    put = partial(_put, root, known, samples, hostile)
    store, done = open_store(root), 0
    if workers == 1:
        put(plans)
    else:
        with ProcessPoolExecutor(workers) as pool:
            for n in pool.map(put, [plans[k : k + _AT_ONCE] for k in range(0, runs, _AT_ONCE)]):
                done += n
                if say and done % 500 < _AT_ONCE:
                    say(f"{done} of {runs} runs")
    index.rebuild(store)
    return store


def small(root: Path, runs: int = SMALL_RUNS, samples: int = SMALL_SAMPLES, *, hostile: bool = False) -> Store:
    """A store of three devices (one without energy), three models, three engines and eight nights."""
    return make(root, runs, samples, small=True, hostile=hostile)


def main(argv: Sequence[str] | None = None) -> int:
    """Make a store."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.made_store", description="A store out of nothing.")
    parser.add_argument("folder", type=Path, help="where; it must not be there yet")
    parser.add_argument("--runs", type=int, help=f"{RUNS}, of a small store {SMALL_RUNS}")
    parser.add_argument("--samples", type=int, help=f"of a run, about; {SAMPLES}, of a small store {SMALL_SAMPLES}")
    parser.add_argument("--small", action="store_true", help="three devices, eight nights")
    parser.add_argument("--hostile", action="store_true", help="some names are markup and formulas")
    given = parser.parse_args(argv)
    if given.folder.exists():
        parser.error(f"{given.folder} is there already")
    runs, samples = (SMALL_RUNS, SMALL_SAMPLES) if given.small else (RUNS, SAMPLES)
    runs, samples = given.runs or runs, given.samples or samples

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    make(given.folder, runs, samples, small=given.small, hostile=given.hostile, workers=WORKERS, say=say)
    return 0


if __name__ == "__main__":
    sys.exit(main())
