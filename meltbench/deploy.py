"""What a run needs on its target: the engine, the model and our helper programs, found or put there.

On this machine nothing is copied. On any other the files are pushed once, by their content, and what runs is what was
pushed: the probe says so again before the start.
"""

from __future__ import annotations

import importlib.util
import os
import socket
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from meltbench import builds, catalog, packages, serving, tensors
from meltbench.builds.gpus import accelerators, no_gpu_warning
from meltbench.builds.on_device import installed
from meltbench.builds.smoke import Smoke, remembered, smoke, smoked
from meltbench.deadline import Deadline
from meltbench.elf import HEAD_BYTES, header_of, machine_of, system_of
from meltbench.errors import UserError
from meltbench.models.hashes import file_sha256
from meltbench.readings import READERS
from meltbench.scripts import Scripts
from meltbench.site import PYTHON
from meltbench.spec import digest
from meltbench.targets import printable
from meltbench.targets.cache import PushCache

if TYPE_CHECKING:
    from meltbench.plan import Plan
    from meltbench.probe.client import Probe
    from meltbench.runners import Engine
    from meltbench.site import Site
    from meltbench.targets.cache import Policy
    from meltbench.targets.facts import Facts
    from meltbench.targets.inventory import Known
    from meltbench.targets.profile import Profile
    from meltbench.ticket import LocalModel
    from meltbench.watch import Watch
    from meltbench.workload import Loaded

_ASK_S, _SMOKE_S, _HASH_S, _LOCAL_S = 30.0, 60.0, 300.0, 5.0
_PACKAGES = "import importlib.util, sys; print(*(n for n in sys.argv[1:] if importlib.util.find_spec(n)))"
_BESIDE = {"nvml": "pynvml"}  # what a helper needs, and is one file of Python that can go with it


@dataclass(frozen=True)
class There:
    """What lies on the target: the engine, the model and what it is given by their paths there, the helper programs,
    and what of it was pushed and how that was checked, for the ticket."""

    engine: Engine | None
    model: LocalModel | None
    scripts: Scripts | None
    work: Loaded
    reference: LocalModel | None = None
    told: dict[str, Any] = field(default_factory=dict)


def engine_files(plan: Plan, site: Site, watch: Watch) -> Engine | None:
    """The plan's engine as files of this machine: a stock one is built for the device unless it was before.

    An engine that lies on the device already, was compiled there, or runs on this machine, stays what it is.
    """
    engine, facts = plan.engine, site.facts
    embedded = None if plan.recipe is None else plan.recipe.embedded
    if engine is not None and engine.origin == "package" and embedded is not None:
        return packages.files_for(engine, embedded, site, watch)
    if engine is None or engine.origin != "stock":
        return engine
    if (compiled := _compiled_there(engine, site)) is not None:
        return compiled
    folder = builds.ensure(builds.best_variant(facts.arch, facts.cpu_features), watch)
    program, record = folder / engine.name, builds.record_of(folder)
    return replace(
        engine,
        origin="files",
        sha256=digest([[program.name, file_sha256(program)]]),
        files=(program,),
        machine=machine_of(program),
        needs=() if record is None else record.needs,
    )


def _compiled_there(engine: Engine, site: Site) -> Engine | None:
    """A stock engine that was compiled on the device itself (`runners build --on-device`), with its GPU if one was."""
    root = str(PurePosixPath(site.probe.root).parent)
    found = [one for one in installed(site.probe.transport, root) if engine.name in one.programs]
    best = max(found, key=lambda one: (one.cuda is not None, one.folder), default=None)
    return None if best is None else replace(engine, origin="device", start=(f"{best.folder}/{engine.name}",))


def check_loader(plan: Plan, site: Site) -> None:
    """Raise UserError for a given engine whose loader the target lacks, before it is pushed: a build for Android on
    another Linux, one for glibc on Android or Alpine."""
    engine = plan.engine
    if engine is None or engine.machine is None or remembered(engine.sha256, site.facts) is not None:
        return
    program = engine.files[0] if engine.files else Path(engine.start[0])
    with program.open("rb") as file:
        header = header_of(file.read(HEAD_BYTES))
    if header is None or header.loader is None:
        return
    done = site.probe.transport.run(["sh", "-c", '[ -e "$1" ]', "sh", header.loader], Deadline.after(_ASK_S))
    if done.code != 0:
        system = system_of(header.loader) or "another C library"
        raise UserError(
            f"{program} was built for {system}: {printable(header.loader)}, which starts it, is not on "
            f"{plan.spec.device} ({site.facts.os or site.facts.platform})",
            hint="give the build for that system, or leave --engine out: those built here need none",
        )


def put(plan: Plan, site: Site, model: LocalModel | None, watch: Watch, reference: LocalModel | None = None) -> There:
    """See to it that engine, models and helper programs are on the plan's target, where the engine is tried once."""
    engine, scripts = plan.engine, helper_scripts(plan.profile, plan.known, site, watch)
    if engine is not None and engine.url:
        _check_running(plan, engine, site)
    if plan.known.place.kind == "local" or not (engine or model):
        return There(engine, model, scripts, plan.work, reference)
    where, folder, model_at = files_there(plan, site, model, watch, reference)
    embedded = None if plan.recipe is None else plan.recipe.embedded
    if engine is not None and engine.origin == "package" and embedded is not None:
        engine = packages.put(engine, embedded, site, folder, watch)
    elif engine is not None:
        if engine.files and (warning := no_gpu_warning(site.facts, accelerators(engine.files[0]), plan.spec.device)):
            watch.warn(warning)
        engine = _engine_there(engine, site, folder)
    if model is not None:
        model = replace(model, there=model_at)
    if reference is not None:
        reference = replace(reference, there=where[reference.files[0]])
    told = {"check": _policy(plan), "files": {path.name: file_sha256(path) for path in where}}
    work = plan.work
    if work.workload.kind == "infer":
        work = replace(work, items=tensors.elsewhere(work.items, where))
    return There(engine, model, scripts, work, reference, told)


def files_there(
    plan: Plan, site: Site, model: LocalModel | None, watch: Watch, reference: LocalModel | None = None
) -> tuple[dict[Path, str], str, str]:
    """See that engine, models and what a plain one is given are whole on another target, by the plan's policy, and push
    what of them is not.

    Returns where each file lies there, the folder that the engine runs from, and where the model is. To be asked before
    every run.
    """
    engine = plan.engine.files if plan.engine is not None else ()
    given = tensors.files(plan.work.items) if plan.work.workload.kind == "infer" else ()
    files = [*engine, *(path for one in (model, reference) if one is not None for path in one.files), *given]
    if plan.known.place.kind == "local" or not files:
        return {}, "", "" if model is None else model.at
    cache = PushCache.beside(site.probe)
    where = cache.ensure(files, watch, policy=_policy(plan))
    # By the same policy: where links are denied it is a copy that runs, which no look at the cache has hashed.
    folder = cache.tree({one.name: one for one in engine}, watch, policy=_policy(plan)) if engine else ""
    return where, folder, "" if model is None else _model_there(cache, model, where, watch, _policy(plan))


def _model_there(cache: PushCache, model: LocalModel, where: dict[Path, str], watch: Watch, policy: Policy) -> str:
    """A model's path on the target: of several files a folder in which they have their names."""
    if len(model.files) < 2:
        return where[model.files[0]] if model.files else model.at
    folder = cache.tree({one.name: one for one in model.files}, watch, policy=policy)
    return folder if Path(model.path).is_dir() else f"{folder}/{Path(model.path).name}"


def _policy(plan: Plan) -> Policy:
    return "full" if plan.spec.rehash else "fast"


def helper_scripts(profile: Profile, known: Known, site: Site, watch: Watch) -> Scripts | None:
    """How the helper programs of a profile are started on a target: from here, or pushed to a Python that is there."""
    if known.place.kind == "local":
        return Scripts.here()
    helpers = _helpers(profile, site.facts)
    if not helpers or PYTHON not in site.facts.programs:
        return None
    cache = PushCache.beside(site.probe)
    return replace(importable(site.probe), folder=cache.tree(helpers, watch))


def importable(probe: Probe) -> Scripts:
    """The target's Python, and which of the packages that helpers need it has."""
    wanted = sorted({one.package for reader in READERS.values() if (one := reader.helper) and one.package})
    done = probe.transport.run([PYTHON, "-c", _PACKAGES, *wanted], Deadline.after(_ASK_S))
    found = done.stdout.decode("utf-8", "replace").split()
    return Scripts(PYTHON, "", frozenset(found).intersection(wanted))


def _engine_there(engine: Engine, site: Site, folder: str) -> Engine:
    """The engine by its path on the target, tried there once; ``folder``: of one that was pushed."""
    if engine.url:
        return replace(engine, start=(PYTHON, "-B", f"{folder}/{engine.files[0].name}")) if engine.files else engine
    if engine.origin == "files":
        env = {"LD_LIBRARY_PATH": folder} if len(engine.files) > 1 else {}
        engine = replace(engine, start=(f"{folder}/{engine.files[0].name}",), env=env)
    else:
        engine = _found(engine, site.probe)
        if engine.name not in builds.PROGRAMS:  # what others say to --version tells nothing of whether they run
            return engine
    return replace(engine, version=_tried(engine, site))


def _check_running(plan: Plan, engine: Engine, site: Site) -> None:
    """Raise UserError where nothing listens at the address on this machine, or the relay cannot run on another."""
    address, device = serving.read_address(engine.url), plan.spec.device
    if plan.known.place.kind == "local":
        if address.straight:
            try:
                socket.create_connection((address.host, address.port), _LOCAL_S).close()
            except OSError as error:
                why = error.strerror or error
                raise UserError(f"no server at {engine.url}: {why}", hint="start it, or give its address") from None
        return
    if not serving.relayed(engine.url, plan.knobs):
        return
    if os.environ.get(serving.KEY) or plan.knobs.get("tokenizer", "none") != "none":
        raise UserError(f"{serving.KEY} and a tokenizer stay on this machine", hint=f"leave out --device {device}")
    if PYTHON not in site.facts.programs:
        raise UserError(
            f"{engine.url} is reached by a relay, and {device} has no Python to run it",
            hint="an address of its own loopback, as http://127.0.0.1:8000/v1, needs none",
        )


def _tried(engine: Engine, site: Site) -> str:
    """The engine's version, by itself. Raises UserError, with why, where it cannot run on the device."""

    def ask() -> Smoke:
        within = Deadline.after(_SMOKE_S)
        return smoke(site.probe.transport, engine.start[0], engine.env, site.facts, within, engine.needs)

    found = smoked(engine.sha256, site.facts, ask)
    if not found.ok:
        raise UserError(str(found.explanation), hint="--engine takes another build: docs/engines.md")
    return found.version or engine.version


def _found(engine: Engine, probe: Probe) -> Engine:
    """An engine that lies on the device: its full path and hash. Raises UserError where it does not."""
    name = engine.start[0]
    script = 'command -v -- "$1"'
    done = probe.transport.run(["sh", "-c", script, "sh", name], Deadline.after(_ASK_S))
    path = done.stdout.decode("utf-8", "replace").strip()
    if done.code != 0 or not path.startswith("/"):
        raise UserError(f"no such engine on the device: {name}", hint="give its full path: --engine device:PATH")
    sha = probe.hashes([path], Deadline.after(_HASH_S))[path]
    if sha is None:
        raise UserError(f"{path} cannot be read on the device", hint="check its permissions")
    return replace(engine, start=(path,), sha256=digest([[engine.name, sha]]))


def _helpers(profile: Profile, facts: Facts) -> dict[str, Path]:
    """The helper programs that a target has something for, and what goes with them, by their names there."""
    folder = catalog.builtin_root() / "runners" / "helpers"
    found: dict[str, Path] = {}
    for source in profile.source:
        helper = READERS[source.reader].helper
        if source.host or helper is None or not helper.there(facts):
            continue
        # Not by its own name: a helper jtop.py would be what `import jtop` finds.
        found[Scripts.name(helper)] = folder / f"{helper.script}.py"
        beside = _BESIDE.get(helper.script)
        spec = importlib.util.find_spec(beside) if beside else None
        if spec is not None and spec.origin is not None:
            found[f"{beside}.py"] = Path(spec.origin)
    return found
