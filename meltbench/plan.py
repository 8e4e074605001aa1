"""From the user's words to explicit cells: every definition looked up, every setting checked, all of it hashed.

Nothing here touches a target, and a model is only named, not fetched. What depends on the device (threads "auto")
stays open until its facts are known.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from meltbench import factors, models, plan_checks, runners, serving, workload
from meltbench.definition import ASKED, CHARGE_LIMIT, SETTINGS, Workload, no_setting
from meltbench.engines import Dialect
from meltbench.errors import UnknownName, UserError
from meltbench.measure.likelihood import NORMALISE
from meltbench.probe.job import MAX_REQUESTS
from meltbench.spec import Scalar, Spec, digest
from meltbench.targets import inventory, profile

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from meltbench.hub import Hub
    from meltbench.models import Model
    from meltbench.runners import Engine, Recipe
    from meltbench.targets.inventory import Known
    from meltbench.targets.profile import Profile
    from meltbench.watch import Watch

# Grows when the same spec would be measured in another way: figures of two protocols are never compared.
PROTOCOL = 1
_LOADS = ("warm", "cold")
ENERGY_SOURCE = "energy_source"  # the knob that names what measures a server
_RUNNING = "not_started_here: the server was running before the run"


@dataclass(frozen=True)
class Cell:
    """One run to be made: an engine start between two idle windows. ``knobs``: what it has otherwise than the plan.

    ``rep``: of those with the same knobs, from 0.
    """

    rep: int
    seed: int
    knobs: tuple[tuple[str, Scalar], ...] = ()

    def told(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return {"rep": self.rep, "seed": self.seed} | ({"knobs": dict(self.knobs)} if self.knobs else {})


@dataclass(frozen=True)
class Plan:
    """Everything a run needs that is known beforehand. ``hash`` comes from the spec and the definitions alone."""

    spec: Spec
    known: Known
    profile: Profile
    device_sha256: str
    work: workload.Loaded
    recipe: Recipe | None
    recipe_sha256: str | None
    engine: Engine | None
    model: Model | None
    knobs: dict[str, Scalar]
    cells: tuple[Cell, ...]
    hash: str
    reference: Model | None = None

    @property
    def dialect(self) -> Dialect | None:
        """How the engine is asked: as its recipe says, at the path of a server's own address."""
        asks = None if self.recipe is None else self.recipe.asks
        path = serving.read_address(self.engine.url).path if self.engine is not None and self.engine.url else ""
        return replace(asks or Dialect(), path=path) if path else asks

    @property
    def unseen(self) -> str:
        """Why memory and CPU of the engine are not those of a process that the run starts; empty where they are."""
        if self.engine is not None and self.engine.url:
            return _RUNNING
        return f"other_process: {self.recipe.unseen}" if self.recipe is not None and self.recipe.unseen else ""

    @property
    def unloaded(self) -> str:
        """Why the start of the engine is no load of the model; empty where it is."""
        if self.engine is not None and self.engine.url:
            return _RUNNING
        return f"loaded_later: {self.recipe.unloaded}" if self.recipe is not None and self.recipe.unloaded else ""

    def describe(self) -> dict[str, Any]:
        """The plan as JSON-ready data, what ``--dry-run`` prints."""
        return {
            "plan_hash": self.hash,
            "device": self.spec.device,
            "profile": self.known.profile_name,
            "target": str(self.known.place),
            "model": None if self.model is None else {"name": self.model.name, "sha256": self.model.sha256},
            "runner": None
            if self.recipe is None or self.engine is None
            else {
                "name": self.spec.runner,
                "engine": self.engine.name,
                "version": self.engine.version,
                "sha256": self.engine.sha256,
                "mode": self.recipe.mode,
                "url": self.engine.url or None,
            },
            "workload": {"name": self.work.name, "sha256": self.work.sha256, **self.work.workload.told()},
            "command": list(self.spec.command),
            "knobs": self.knobs,
            "settings": [{"name": one.name, "value": one.value} for one in self.profile.setting],
            "cells": [cell.told() for cell in self.cells],
        }


def make(spec: Spec, watch: Watch | None = None) -> Plan:
    """Look everything up. Raises UserError with the nearest valid name for whatever is not known.

    A set of questions that is not on this machine yet is fetched, which ``watch`` is told of: what is asked is of the
    plan.
    """
    place = inventory.kind_of(spec.device)
    plan_checks.check_device(spec, place)
    if spec.workload is None:
        spec = replace(spec, workload=runners.load(spec.runner)[0].workload)
    assert spec.workload is not None
    work = workload.load(spec.workload)
    kind = work.workload.kind
    plan_checks.check_command(spec, kind)
    recipe = definition = engine = model = None
    if kind in ASKED:
        recipe, definition = runners.load(spec.runner)
        plan_checks.check_kind(spec.runner, recipe, work)
        plan_checks.check_place(spec, recipe, place)
    known = inventory.resolve(spec.device)  # which may look for it: what cannot be is said before
    device, device_definition = profile.load(known.profile_name)
    if not spec.prepare:
        device = replace(device, setting=())
    if spec.unplug is not None:
        device = replace(device, setting=(*device.setting, _hub(spec, known).setting()))
    if recipe is not None and definition is not None:
        here = known.place.kind == "local"
        engine = runners.engine(spec.runner, recipe, definition.path.parent, spec.engine, here=here)
        model = models.resolve(spec.model, recipe.models)
        plan_checks.check_built(spec, recipe, model)
    given = dict(spec.knobs) | ({"threads": str(spec.threads[0])} if spec.threads else {})
    device, given = factors.of_device(device, given)
    process, given = factors.of_process(device, given) if kind != "idle" else ({}, given)
    if CHARGE_LIMIT in given and device.gate.soc_percent is None:
        said = f"{CHARGE_LIMIT}: {spec.device} has no window of charge that could be waited for"
        raise UserError(said, hint="leave it out; a profile wants one by soc_percent of its [gate]")
    work, knobs = _settings(given, work, recipe, [*device.factor, *factors.PROCESS])
    knobs |= process | ({} if spec.unplug is None else {"unplug": spec.unplug})
    if recipe is not None and engine is not None:
        plan_checks.check_asked(spec.runner, recipe, work)
        device = _with_source(device, knobs)
        if engine.url:
            plan_checks.check_running(spec.runner, recipe, engine, knobs, process)
    reference = _reference(recipe, work)
    work = _filled(work, spec, watch)  # which may fetch its questions: what cannot be asked is said before
    if recipe is not None:
        plan_checks.check_items(spec.runner, recipe, work)
    if _swept(spec):
        del knobs["threads"]  # which each cell has of its own
    cells = tuple(_cells(spec, len(work.items)))
    identity: dict[str, Any] = {
        "protocol": PROTOCOL,
        "device": [spec.device, device_definition.sha256],
        "model": None if model is None else [model.name, model.sha256],
        **({"resume": spec.piece} if spec.resume else {}),
        **({} if reference is None else {"reference": [reference.name, reference.sha256]}),
        "runner": None if definition is None or engine is None else [spec.runner, definition.sha256, engine.sha256],
        "workload": [work.name, work.sha256, work.workload.identity()],
        "command": list(spec.command),
        "knobs": knobs,
        "cells": [cell.told() for cell in cells],
        "prepare": spec.prepare,
    }
    if made := [[one.name, one.value] for one in device.setting if one.name in device.factor]:
        identity["factors"] = made
    return Plan(
        spec=spec,
        known=known,
        profile=device,
        device_sha256=device_definition.sha256,
        work=work,
        recipe=recipe,
        recipe_sha256=None if definition is None else definition.sha256,
        engine=engine,
        model=model,
        knobs=knobs,
        cells=cells,
        hash=digest(identity),
        reference=reference,
    )


def _hub(spec: Spec, known: Known) -> Hub:
    """The port that the device's cable is in."""
    if known.place.kind == "local":
        raise UserError("this machine cannot be unplugged from itself", hint="leave out --unplug")
    if known.hub is None:
        raise UserError(
            f"nobody knows which port of a hub {spec.device} is in",
            hint=f"meltbench devices add {spec.device} {known.place.words} --hub uhubctl:LOCATION:PORT",
        )
    return known.hub


def _swept(spec: Spec) -> tuple[int, ...]:
    """The numbers of threads where there are several."""
    return spec.threads if spec.threads is not None and len(spec.threads) > 1 else ()


def _cells(spec: Spec, n_items: int) -> Iterator[Cell]:
    """The runs in the order they are made: of several settings each has one in every round, in an order drawn from the
    seed, so that what drifts falls on all alike."""
    settings: list[tuple[tuple[str, Scalar], ...]] = [(("threads", count),) for count in _swept(spec)] or [()]
    for rep in range(-(-n_items // spec.piece) if spec.piece else spec.reps):
        seed = (spec.seed + rep) % 2**31
        rng = random.Random(seed)  # noqa: S311  (a plan must repeat; nothing here is secret)
        for knobs in rng.sample(settings, len(settings)):
            yield Cell(rep, seed, knobs)


def _reference(recipe: Recipe | None, work: workload.Loaded) -> Model | None:
    """The model that a text is held against."""
    named = work.workload.reference
    return None if recipe is None or named is None else models.resolve(named, recipe.models)


def _with_source(device: Profile, knobs: Mapping[str, Scalar]) -> Profile:
    """The profile with the source of energy that was named for a server in place of its own total."""
    name = knobs.get(ENERGY_SOURCE, "none")
    if name == "none":
        return device
    if name not in (known := [source.name for source in device.source]):
        raise UnknownName(f"source of {device.title}:", str(name), known)
    same = tuple(total for total in device.total if total.source == name)
    return replace(device, total=same or (profile.Total(str(name)),))


def _settings(
    given: dict[str, str],
    work: workload.Loaded,
    recipe: Recipe | None,
    others: list[str],
) -> tuple[workload.Loaded, dict[str, Scalar]]:
    """Sort ``--set`` into the workload's settings and the engine's knobs; ``others`` could have been given as well."""
    knobs: dict[str, Scalar] = {} if recipe is None else {name: knob.default for name, knob in recipe.knobs.items()}
    if recipe is not None:
        knobs["load"] = "warm"
    changed: dict[str, Any] = {}
    for key, text in given.items():
        if recipe is not None and key in recipe.knobs:
            knobs[key] = recipe.knobs[key].read(key, text)
        elif recipe is not None and key == "load":
            if text not in _LOADS:
                raise UserError(f"load = {text!r} is not a valid setting", hint="give warm or cold")
            knobs[key] = text
        elif key in work.workload.knobs:
            changed[key] = _coerced(key, text)
        elif key in SETTINGS:
            hint = f"known here: {', '.join(work.workload.knobs)}"
            raise UserError(f"{no_setting(key, work.workload.kind)}; {work.name} is one", hint=hint)
        else:
            raise UnknownName(f"key of workload {work.name}", key, [*knobs, *work.workload.knobs, *others])
    work = replace(work, workload=replace(work.workload, **changed))
    work.workload.check("--set")
    return work, knobs


def _filled(work: workload.Loaded, spec: Spec, watch: Watch | None) -> workload.Loaded:
    """The workload with its items, those that a run of it asks."""
    if spec.resume:
        plan_checks.check_resume(work)
    work = workload.filled(work, watch)
    work.check("--set")
    if spec.resume:
        work = replace(work, left=work.items[: spec.piece])
    if work.workload.kind == "grid":
        # One spelling of a point, so that the same work has the same hash.
        work = replace(work, workload=replace(work.workload, points=tuple(p.name for p in work.grid)))
    if work.n_requests > MAX_REQUESTS:
        raise UserError(
            f"{work.name} asks {work.n_requests} requests in one run, at most {MAX_REQUESTS} can be",
            hint="ask fewer items or passes; --reps makes runs of passes, --resume --piece 500 of scored items",
        )
    return work


def _coerced(key: str, text: str) -> Any:
    kind = {field.name: field.type for field in fields(Workload)}[key]
    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    if kind == "tuple[str, ...]":
        return parts
    if kind in ("str", "str | None"):
        return text
    if kind == "bool":
        if text not in ("true", "false"):
            raise UserError(f"{key} = {text!r} is neither true nor false", hint=f"write --set {key}=true")
        return text == "true"
    if key == "thinking":
        if text not in ("on", "off"):
            raise UserError(f"thinking = {text!r} is neither on nor off", hint="leave it out to leave it to the model")
        return text
    if kind == "Normalise":
        if text not in NORMALISE:
            raise UserError(f"{key} = {text!r} is no way to normalise", hint=f"give {', '.join(NORMALISE)}")
        return text
    try:
        if kind == "tuple[int, ...]":
            return tuple(int(part) for part in parts)
        return int(text) if kind in ("int", "int | None") else float(text)
    except ValueError:
        raise UserError(f"{key} = {text!r} is not a number", hint=f"write --set {key}=5") from None
