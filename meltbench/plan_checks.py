"""Whether what is asked for goes together: a workload, a runner, a place and a command.

Each check raises UserError with what to ask for instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from meltbench import serving
from meltbench.definition import BY_TOKEN, OF_LANGUAGE, Workload
from meltbench.engines import openai, protocol
from meltbench.errors import UserError
from meltbench.models.header import in_words
from meltbench.models.mlc.cache import libraries_of
from meltbench.models.names import FileSource, how_to_build
from meltbench.probe.job import MAX_REQUESTS
from meltbench.spec import Scalar, Spec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench import workload
    from meltbench.models import Model
    from meltbench.runners import Engine, Recipe

LIBRARY = "library"  # the knob that names what a model was compiled to, where it lies elsewhere


def check_device(spec: Spec, kind: str) -> None:
    """The device must be one that a run can be on."""
    if kind == "log":
        raise UserError(
            f"{spec.device} cannot be run on: the probe is for Linux and Android",
            hint=f"record its readings there, then: meltbench read LOG --device {spec.device}",
        )


def check_command(spec: Spec, kind: str) -> None:
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


def check_place(spec: Spec, recipe: Recipe, kind: str) -> None:
    """The engine must be one for this kind of target, and the model one that it can have."""
    if why := recipe.refusal(kind):
        raise UserError(f"runner {spec.runner} does not run on {spec.device}: {why}", hint="meltbench runners")
    if "served" in recipe.models and spec.model == Spec.model:
        if recipe.models == ("served",):
            said, hint = f"runner {spec.runner} takes what its server has", "--model NAME, as the server calls it"
        else:
            said, kinds = f"runner {spec.runner} must be told its model", in_words(recipe.models)
            hint = f"--model NAME: of the catalogue (meltbench models), {kinds}"
        raise UserError(said, hint=hint)


def check_built(spec: Spec, recipe: Recipe, model: Model) -> None:
    """A model that is compiled for a machine must have been: what is fetched was not for this one."""
    if not recipe.built_by or dict(spec.knobs).get(LIBRARY, "none") != "none":
        return
    if not isinstance(model.source, FileSource):
        said = f"{model.name} would be fetched, runner {spec.runner} takes what was compiled on this machine"
    elif not libraries_of(model.source.path):
        said = f"{model.source} holds no library (*.so), runner {spec.runner} takes what was compiled on this machine"
    else:
        return
    raise UserError(said, hint=how_to_build(spec.model, recipe.built_by))


def check_running(
    name: str, recipe: Recipe, engine: Engine, knobs: Mapping[str, Scalar], process: Mapping[str, Scalar]
) -> None:
    """What would be of the start of an engine is refused for one that runs already."""
    told = [*process, *(["load"] if knobs["load"] == "cold" else [])]
    if told:
        raise UserError(f"{told[0]} is of an engine that is started, {engine.url} runs already", hint="leave it out")
    if recipe.relay is None and serving.relayed(engine.url, knobs):
        raise UserError(f"runner {name} has no relay, which {serving.KEY} needs", hint="--runner openai")


def check_kind(name: str, recipe: Recipe, work: workload.Loaded) -> None:
    """The runner must do workloads of this kind; one that names none does all that ask a language model."""
    kinds = OF_LANGUAGE if recipe.kinds is None else recipe.kinds
    if work.workload.kind not in kinds:
        raise UserError(
            f"runner {name} does workloads of kind {' or '.join(kinds)}, {work.name} is of kind {work.workload.kind}",
            hint=f"--workload {recipe.workload}, or another --runner",
        )


def check_resume(work: workload.Loaded) -> None:
    """Only what is scored by the item can be taken up."""
    if work.workload.kind != "choices" and not (work.workload.kind == "generate" and work.workload.score):
        raise UserError(
            f"--resume is for questions with right answers, {work.name} has none", hint="leave it out; --reps repeats"
        )


def check_asked(name: str, recipe: Recipe, work: workload.Loaded) -> None:
    """The runner must be able to ask as the workload wants it, whatever its items are."""
    asked = work.workload
    if asked.reference is not None and not recipe.takes("logits"):
        said = f"runner {name} holds no text against a model of reference"
        raise UserError(said, hint="--runner llama-perplexity --engine PATH")
    if work.slots > 1 and not (recipe.takes("parallel") or recipe.at_once):
        several = "samples" if max(asked.samples) > 1 else "concurrency"
        raise UserError(f"runner {name} answers one request at a time", hint=f"--set {several}=1")
    speak = protocol(recipe.protocol, recipe.asks)
    if isinstance(speak, openai.OpenAI):
        speak.check(_wanted(asked))
    if recipe.mode == "in-process" and (drawn := [*(["pause_s"] if asked.pause_s else []), *asked.sampling]):
        said = f"runner {name} asks without a pause and takes the best token, {work.name} has {', '.join(drawn)} set"
        raise UserError(said, hint="--runner llamacpp")
    if recipe.mode == "in-process" and asked.thinking is not None:
        _lets_say(name, work, "thinking switched", "--runner llamacpp, or leave out thinking")
    if recipe.mode == "in-process" and asked.score == "letter":
        _lets_say(name, work, "answers that can be nothing but a letter", "--runner llamacpp")
    if recipe.mode == "bench" and asked.normalise == "mass":
        said = f"runner {name} takes the likeliest choice by tokens, {work.name} wants a share of probability"
        raise UserError(said, hint="--runner llamacpp")


def check_items(name: str, recipe: Recipe, work: workload.Loaded) -> None:
    """The runner must be able to ask the workload's items, which may have to be fetched to be known."""
    if recipe.mode == "in-process" and any(item.get("stop") for item in work.items):
        _lets_say(name, work, "answers that end at certain words", "--runner llamacpp")
    asked = work.workload
    if asked.thinking is not None and not asked.chat and not all(item.get("messages") for item in work.items):
        said = f"thinking = {asked.thinking} is of messages, {work.name} asks prompts as they are"
        raise UserError(said, hint="--set chat=true, or leave out thinking")


def _lets_say(name: str, work: workload.Loaded, held: str, hint: str) -> NoReturn:
    raise UserError(f"runner {name} lets a model say what it likes, {work.name} has {held}", hint=hint)


def _wanted(work: Workload) -> set[str]:
    """What a server must know to be asked this."""
    more = {openai.TOKEN_IDS: work.kind == "grid", openai.LOGPROB: work.kind in BY_TOKEN}
    more |= {openai.ALLOWED: work.score == "letter", openai.THINKS: work.thinking is not None}
    return {*work.sampling, *(name for name, wanted in more.items() if wanted)}
