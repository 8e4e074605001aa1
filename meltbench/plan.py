"""From the user's words to explicit cells: every definition looked up, every setting checked, all of it hashed.

Nothing here touches a target, and a model is only named, not fetched. What depends on the device (threads "auto")
stays open until its facts are known.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from meltbench import factors, models, runners, serving, workload
from meltbench.definition import ASKED, BY_TOKEN, CHARGE_LIMIT, OF_LANGUAGE, SETTINGS, Workload, no_setting
from meltbench.engines import Dialect, openai, protocol
from meltbench.errors import UnknownName, UserError
from meltbench.measure.likelihood import NORMALISE
from meltbench.probe.job import MAX_REQUESTS
from meltbench.spec import Scalar, Spec, digest
from meltbench.targets import inventory, profile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from meltbench.hub import Hub
    from meltbench.models import Model
    from meltbench.runners import Engine, Recipe
    from meltbench.targets.inventory import Known
    from meltbench.targets.profile import Profile

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


def make(spec: Spec, say: Callable[[str], None] | None = None) -> Plan:
    """Look everything up. Raises UserError with the nearest valid name for whatever is not known.

    A set of questions that is not on this machine yet is fetched, and ``say`` told so: what is asked is of the plan.
    """
    known = inventory.resolve(spec.device)
    device, device_definition = profile.load(known.profile_name)
    if device.target == "log":
        raise UserError(
            f"{spec.device} cannot be run on: the probe is for Linux and Android",
            hint=f"record its readings there, then: meltbench read LOG --device {spec.device}",
        )
    if not spec.prepare:
        device = replace(device, setting=())
    if spec.unplug is not None:
        device = replace(device, setting=(*device.setting, _hub(spec, known).setting()))
    if spec.workload is None:
        spec = replace(spec, workload=runners.load(spec.runner)[0].workload)
    assert spec.workload is not None
    work = workload.load(spec.workload)
    kind = work.workload.kind
    _check_command(spec, kind)
    recipe = definition = engine = model = None
    if kind in ASKED:
        recipe, definition = runners.load(spec.runner)
        _check_kind(spec.runner, recipe, work)
        _check_place(spec, recipe, known.place.kind)
        here = known.place.kind == "local"
        engine = runners.engine(spec.runner, recipe, definition.path.parent, spec.engine, here=here)
        model = models.resolve(spec.model, recipe.models)
    given = dict(spec.knobs) | ({"threads": str(spec.threads[0])} if spec.threads else {})
    device, given = factors.of_device(device, given)
    process, given = factors.of_process(device, given) if kind != "idle" else ({}, given)
    if CHARGE_LIMIT in given and device.gate.soc_percent is None:
        said = f"{CHARGE_LIMIT}: {spec.device} has no window of charge that could be waited for"
        raise UserError(said, hint="leave it out; a profile wants one by soc_percent of its [gate]")
    work, knobs = _settings(given, work, recipe, [*device.factor, *factors.PROCESS], say, spec)
    knobs |= process | ({} if spec.unplug is None else {"unplug": spec.unplug})
    if recipe is not None and engine is not None:
        _check_recipe(spec.runner, recipe, work)
        device = _with_source(device, knobs)
        if engine.url:
            _check_running(spec.runner, recipe, engine, knobs, process)
    reference = _reference(recipe, work)
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


def _check_command(spec: Spec, kind: str) -> None:
    """What is asked for beside a workload of this kind must mean something to it."""
    if (kind == "exec") != bool(spec.command):
        raise UserError("workload exec meters a command", hint="write meltbench exec -- COMMAND")
    if len(spec.command) > MAX_REQUESTS:
        raise UserError(
            f"the command has {len(spec.command)} words, at most {MAX_REQUESTS} can be",
            hint="put them in a script and meter that",
        )
    served = (spec.model, spec.runner, spec.engine, spec.threads, spec.seed)
    if kind == "idle" and served != (Spec.model, Spec.runner, Spec.engine, Spec.threads, Spec.seed):
        hint = "leave out --model, --runner, --engine, --threads and --seed"
        raise UserError("workload idle starts no engine", hint=hint)


def _check_place(spec: Spec, recipe: Recipe, kind: str) -> None:
    """The engine must be one for this kind of target, and the model one that it can have."""
    if why := recipe.refusal(kind):
        raise UserError(f"runner {spec.runner} does not run on {spec.device}: {why}", hint="meltbench runners")
    if "served" in recipe.models and spec.model == Spec.model:
        raise UserError(f"runner {spec.runner} takes what its server has", hint="--model NAME, as the server calls it")


def _check_running(
    name: str, recipe: Recipe, engine: Engine, knobs: Mapping[str, Scalar], process: Mapping[str, Scalar]
) -> None:
    """What would be of the start of an engine is refused for one that runs already."""
    told = [*process, *(["load"] if knobs["load"] == "cold" else [])]
    if told:
        raise UserError(f"{told[0]} is of an engine that is started, {engine.url} runs already", hint="leave it out")
    if recipe.relay is None and serving.relayed(engine.url, knobs):
        raise UserError(f"runner {name} has no relay, which {serving.KEY} needs", hint="--runner openai")


def _with_source(device: Profile, knobs: Mapping[str, Scalar]) -> Profile:
    """The profile with the source of energy that was named for a server in place of its own total."""
    name = knobs.get(ENERGY_SOURCE, "none")
    if name == "none":
        return device
    if name not in (known := [source.name for source in device.source]):
        raise UnknownName(f"source of {device.title}:", str(name), known)
    same = tuple(total for total in device.total if total.source == name)
    return replace(device, total=same or (profile.Total(str(name)),))


def _check_kind(name: str, recipe: Recipe, work: workload.Loaded) -> None:
    """The runner must do workloads of this kind; one that names none does all that ask a language model."""
    kinds = OF_LANGUAGE if recipe.kinds is None else recipe.kinds
    if work.workload.kind not in kinds:
        raise UserError(
            f"runner {name} does workloads of kind {' or '.join(kinds)}, {work.name} is of kind {work.workload.kind}",
            hint=f"--workload {recipe.workload}, or another --runner",
        )


def _check_resume(work: workload.Loaded) -> None:
    """Only what is scored by the item can be taken up."""
    if work.workload.kind != "choices" and not (work.workload.kind == "generate" and work.workload.score):
        raise UserError(
            f"--resume is for questions with right answers, {work.name} has none", hint="leave it out; --reps repeats"
        )


def _check_recipe(name: str, recipe: Recipe, work: workload.Loaded) -> None:
    """The runner must be able to ask as the workload wants it."""
    if work.workload.reference is not None and not recipe.takes("logits"):
        said = f"runner {name} holds no text against a model of reference"
        raise UserError(said, hint="--runner llama-perplexity --engine PATH")
    if work.slots > 1 and not (recipe.takes("parallel") or recipe.at_once):
        raise UserError(f"runner {name} answers one request at a time", hint="leave out concurrency")
    speak = protocol(recipe.protocol, recipe.asks)
    if isinstance(speak, openai.OpenAI):
        speak.check(_wanted(work.workload))
    if recipe.mode == "in-process" and (work.workload.pause_s or work.workload.sampling):
        raise UserError(
            f"runner {name} asks without a pause and takes the best token, {work.name} wants it otherwise",
            hint="--runner llamacpp, or leave out pause_s, temperature and repeat_penalty",
        )
    if recipe.mode == "in-process" and (held := _held(work)):
        said = f"runner {name} lets a model say what it likes, {work.name} has {held}"
        raise UserError(said, hint="--runner llamacpp, or leave that out")
    if recipe.mode == "bench" and work.workload.normalise == "mass":
        said = f"runner {name} takes the likeliest choice by tokens, {work.name} wants a share of probability"
        raise UserError(said, hint="--runner llamacpp")


def _held(work: workload.Loaded) -> str:
    """What of a workload bounds an answer beside its length; empty where nothing does."""
    if work.workload.thinking is not None:
        return "thinking switched"
    if work.workload.score == "letter":
        return "answers that can be nothing but a letter"
    return "answers that end at certain words" if any(item.get("stop") for item in work.items) else ""


def _wanted(work: Workload) -> set[str]:
    """What a server must know to be asked this."""
    more = {openai.TOKEN_IDS: work.kind == "grid", openai.LOGPROB: work.kind in BY_TOKEN}
    more |= {openai.ALLOWED: work.score == "letter", openai.THINKS: work.thinking is not None}
    return {*work.sampling, *(name for name, wanted in more.items() if wanted)}


def _settings(
    given: dict[str, str],
    work: workload.Loaded,
    recipe: Recipe | None,
    others: list[str],
    say: Callable[[str], None] | None,
    spec: Spec,
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
    work = workload.filled(work, say)
    work.check("--set")
    if spec.resume:
        _check_resume(work)
        work = replace(work, left=work.items[: spec.piece])
    if work.workload.kind == "grid":
        # One spelling of a point, so that the same work has the same hash.
        work = replace(work, workload=replace(work.workload, points=tuple(p.name for p in work.grid)))
    if work.n_requests > MAX_REQUESTS:
        raise UserError(
            f"{work.name} asks {work.n_requests} requests in one run, at most {MAX_REQUESTS} can be",
            hint="ask fewer items or passes; --reps makes runs of passes, --resume --piece 500 of scored items",
        )
    return work, knobs


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
