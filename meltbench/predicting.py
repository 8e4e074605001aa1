"""What a request of given lengths would take, from the requests of stored runs: fitted, predicted, as one document."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from meltbench.analysis.edgereasoning import (
    DECODE_NAMES,
    DECODE_UNITS,
    PREFILL_NAMES,
    PREFILL_UNITS,
    added,
    fit_latency,
    predict_decode,
    predict_prefill,
)
from meltbench.analysis.observations import meter_of, observed, steps_of
from meltbench.analysis.power import fit_energy, predict_energy
from meltbench.analysis.sameness import demand_same
from meltbench.efficiency_tables import OURS
from meltbench.errors import UserError
from meltbench.recalling import recalled
from meltbench.selecting import Selection
from meltbench.store import index, read_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.analysis.edgereasoning import Form, Prediction
    from meltbench.analysis.power import PowerForm
    from meltbench.records import RunRecord
    from meltbench.store import Store

_UNITS = dict(zip((*PREFILL_NAMES, *DECODE_NAMES), (*PREFILL_UNITS, *DECODE_UNITS), strict=True))
_PREFILL, _DECODE = "a I^2 + b I + c", "O (n + m I + m (O - 1) / 2)"


def chosen(store: Store, names: Sequence[str], model: str | None, device: str | None) -> list[RunRecord]:
    """The runs that are named or selected (``model=NAME``), else those that are done and not invalid, with these texts
    in their names, as records.

    Raises UserError where there is none, and what ``named`` raises.
    """
    if any("=" in name for name in names):
        ours = [] if Selection.parse(",".join(names)).of_word("origin") else [f"origin={OURS}"]
        return list(recalled(store, [*names, *ours], requests=True).records)
    if names:
        return named(store, names)
    found = index.query(
        store,
        """SELECT run_id FROM runs WHERE outcome = 'done' AND validity <> 'invalid' AND mode IS NOT NULL
        AND contains(lower(coalesce(model, '')), lower(?)) AND contains(lower(coalesce(device, '')), lower(?))
        ORDER BY run_id""",
        [model or "", device or ""],
    ).fetchall()
    if not found:
        asked = " and ".join(f"{word} {text!r}" for word, text in (("model", model), ("device", device)) if text)
        raise UserError(f"no run of {asked or 'a model'} in {store.root}", hint=store.command("runs"))
    return [read_record(store.folder(row[0]).path, signals=False) for row in found]


def named(store: Store, names: Sequence[str]) -> list[RunRecord]:
    """The runs of these names, each once. Raises UnknownName for a name that no run has, UserError without a model."""
    stored = store.stored_ids()
    ids = dict.fromkeys(store.resolve(name, among=stored).run_id for name in names)
    records = [read_record(store.folder(run_id).path, signals=False) for run_id in ids]
    lacking = [record.run_id for record in records if not record.manifest.get("runner")]
    if lacking:
        raise UserError(f"run {lacking[0]} is not of a model", hint=store.command("runs"))
    return records


def predict(records: Sequence[RunRecord], n_in: int, n_out: int) -> dict[str, Any]:
    """Times, power and energy of one request, with the fits behind them; docs/json.md has the keys.

    Raises UserError where the runs must not be taken together.
    """
    hint = "name the runs that agree, or narrow them with --model and --device"
    demand_same([record.manifest for record in records], workload=False, hint=hint)
    about = records[0].manifest
    mode = str(about["runner"]["mode"])
    found = [observed(record) for record in records]
    observations = [one for of_run in found for one in of_run.observations]
    left: dict[str, int] = {}
    for of_run in found:
        for why, n in of_run.left_out.items():
            left[why] = left.get(why, 0) + n
    latency = fit_latency(observations)
    meter = meter_of(records)
    power = fit_energy(observations, meter.gain_u)
    steps = steps_of(n_out, mode)
    first, rest = predict_prefill(latency.prefill, n_in), predict_decode(latency.decode, n_in, steps)
    energy, watts = predict_energy(power, n_in, first, rest)
    if power.fit is None and (why := next((one.energy_reason for one in found if one.energy_reason), "")):
        energy, watts = _because(why), _because(why)
    named = (
        ("prefill_s", "s", first),
        ("decode_s", "s", rest),
        ("e2e_s", "s", added(first, rest)),
        ("mean_power_w", "W", watts),
        ("energy_j", "J", energy),
    )
    return {
        "n_in": n_in,
        "n_out": n_out,
        "n_steps": steps,
        **{key: _name(about, key) for key in ("device", "model", "runner")},
        "engine": about["runner"].get("engine"),
        "engine_version": about["runner"].get("version"),
        "accelerator": about["runner"].get("accelerator"),
        "mode": mode,
        "runs": [record.run_id for record in records],
        "invalid_runs": [record.run_id for record in records if record.manifest.get("validity") == "invalid"],
        "n_requests": len(observations),
        "left_out": left,
        "scope": meter.scope,
        "klass": meter.klass,
        "gain_u_k2": None if meter.gain_u is None else 2 * meter.gain_u,
        "predictions": [_predicted(name, unit, one) for name, unit, one in named],
        "fits": [
            _described("prefill", _PREFILL, latency.prefill),
            _described("decode", _DECODE, latency.decode),
            _of_power(power, energy.reason),
        ],
    }


def _because(reason: str) -> Prediction:
    from meltbench.analysis.edgereasoning import Prediction

    return Prediction(None, reason=reason)


def _name(manifest: dict[str, Any], part: str) -> str | None:
    held = manifest.get(part)
    return None if not isinstance(held, dict) or held.get("name") is None else str(held["name"])


def _predicted(name: str, unit: str, one: Prediction) -> dict[str, Any]:
    made = {"name": name, "unit": unit, "value": one.value, "lo": one.lo, "hi": one.hi}
    return made | {"beyond": one.beyond, "reason": one.reason or None}


def _described(name: str, form: str, fitted: Form) -> dict[str, Any]:
    ranges = {"n_in": list(fitted.n_in), "n_steps": list(fitted.n_steps) if name == "decode" else None}
    if fitted.fit is None:
        ranges = {"n_in": None, "n_steps": None}
    return {"name": name, "form": form, **_of_fit(fitted), **ranges, "reason": fitted.reason or None}


def _of_power(fitted: PowerForm, reason: str) -> dict[str, Any]:
    """The form of the power in words, with the length and the time that are part of it."""
    rising = "" if fitted.tau_s is None else f" - delta_p tau (1 - exp(-T_decode / tau)), tau = {fitted.tau_s:.3g} s"
    prefill = "p_prefill"
    if fitted.threshold is not None:
        prefill = f"(p_prefill + p_growth ln(max(I / {fitted.threshold:g}, 1)))"
    one = fitted.fit is None or fitted.shape == "one power"
    form = "p (T_prefill + T_decode)" if one else f"{prefill} T_prefill + p_decode T_decode{rising}"
    made = {"name": "energy", "form": form, **_of_fit(fitted)}
    return made | {"n_in": None, "n_steps": None, "reason": None if fitted.fit is not None else reason}


def _of_fit(fitted: Form | PowerForm) -> dict[str, Any]:
    fit = fitted.fit
    if fit is None:
        return {"n": 0, "weights": None, "parameters": [], "residuals": None}
    parameters = [
        {"name": name, "unit": _UNITS.get(name, "W"), "value": value, "se": error}
        for name, value, error in zip(fit.names, fit.values, fit.errors, strict=True)
    ]
    return {"n": fit.n, "weights": fit.weights, "parameters": parameters, "residuals": asdict(fit.residuals)}
