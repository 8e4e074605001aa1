"""A cell of a plan and the facts of a device to a job for the probe, with the ticket that says what it was."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from meltbench import factors, loglik, serving, settings
from meltbench.asks import Play
from meltbench.conversing import untemplated
from meltbench.elf import runs_on
from meltbench.engines import ProgramEngine, ScoringEngine, ServerEngine, protocol
from meltbench.engines.reuse import with_repeats
from meltbench.errors import DoesNotFit, UserError
from meltbench.probe.job import MAX_REQUESTS, Job, Until
from meltbench.readings import READERS
from meltbench.scripts import wanted
from meltbench.targets.facts import rooted
from meltbench.targets.profile import Roots
from meltbench.ticket import described, expected_s, ticket

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.loglik import Scored
    from meltbench.plan import Cell, Plan
    from meltbench.scripts import Scripts
    from meltbench.settings import Planned
    from meltbench.spec import Scalar
    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile
    from meltbench.ticket import LocalModel
    from meltbench.tokenizer import Tokenized
    from meltbench.workload import Loaded

ENGINE, RELAY = "engine", "relay"
_PREPARES = "reference"
_JOURNAL_BYTES = 256 << 20
# What a run of hours may add: a fast engine's tokens come to 300 kB a second, the samples of a machine to 50.
_CIRCLE_BYTES_PER_S = 512_000
_MAX_JOURNAL_BYTES = 4 << 30
_LOG_BYTES = 256 << 10
_ANSWER_BYTES = 16 << 20
_READY_S = 300.0
_GRACE_S = 5.0
_MAX_PROGRAM_S = 86_400.0
_MAX_SERVED_S = 7 * 86_400.0
_SETTING_S = 3.0  # Android starts a virtual machine for each `settings`, three times for one that is set
# Until no supply from outside is there, as far as the device lets that be seen, and a moment for its gauge to settle.
_UNPLUGGED_S = 60.0
BEFORE_S = 15.0  # of which it takes so much where all goes well
_UNTIL_UNPLUGGED = """n=0
while [ $n -lt 80 ]; do
  on=0
  for f in /sys/class/power_supply/*/online; do read -r v < "$f" && [ "$v" = 1 ] && on=1; done 2> /dev/null
  [ $on = 0 ] && break
  sleep 0.5; n=$((n + 1))
done
sleep 5"""


def settled(plan: Plan, cell: Cell, facts: Facts, model: LocalModel | None) -> dict[str, Scalar]:
    """The knobs of a run with every "auto" worked out from the device and the workload."""
    knobs = plan.knobs | dict(cell.knobs)
    if knobs.get("threads") == "auto":
        # A process that is kept to some of the processors has no use for more threads than those.
        bound = len(factors.processors(str(knobs[factors.CPUS]))) if factors.CPUS in knobs else facts.threads
        knobs["threads"] = min(facts.threads, bound)
    if model is None:
        return knobs
    longest = model.header.context_length
    if knobs.get("ctx") == "auto":
        wanted = -(-max(plan.work.n_ctx, 512) // 256) * 256
        knobs["ctx"] = min(wanted, longest) if longest else wanted
    room = knobs["ctx"] if isinstance(knobs.get("ctx"), int) else longest
    # Only a grid's tokens are known beforehand; for other prompts the engine has the last word.
    if plan.work.workload.kind == "grid" and isinstance(room, int) and plan.work.n_ctx > room:
        larger = f"give --set ctx={plan.work.n_ctx}, or " if longest is None or longest > room else ""
        raise UserError(
            f"{plan.work.longest_point} needs a context of {plan.work.n_ctx} tokens, {model.model.name} has {room}",
            hint=f"{larger}ask for a shorter point",
        )
    return knobs


def check_engine(plan: Plan, facts: Facts) -> None:
    """Refuse a program that is built for another machine, before anything is started."""
    engine = plan.engine
    if engine is not None and not runs_on(engine.machine, facts.arch):
        raise UserError(
            f"{(engine.files or engine.start)[0]} is for {engine.machine}, "
            f"the target {plan.spec.device} is {facts.arch}",
            hint=f"give a build for {facts.arch}",
        )


def check_fit(plan: Plan, model: LocalModel, knobs: dict[str, Scalar], facts: Facts) -> None:
    """Refuse a model that the device has no memory for, before anything is started."""
    from meltbench.models.header import fits

    if facts.memory_available_bytes is None:
        return
    device, slots = plan.spec.device, plan.work.slots
    # An engine that cannot be told of a context makes the one that each of its points needs.
    ctx = knobs.get("ctx", plan.work.n_ctx)
    # Told nothing, the engine takes all the context that the model was made for.
    tokens = ctx * slots if isinstance(ctx, int) else model.header.context_length or 512
    fit = fits(model.header, model.bytes, tokens, facts.memory_available_bytes)
    if not fit.ok:
        gib = 2**30
        raise DoesNotFit(
            f"{model.model.name} needs {fit.needed_bytes / gib:.1f} GiB with a context of {tokens}, "
            f"{device} has {facts.memory_available_bytes / gib:.1f} GiB available",
            hint="take a smaller quantisation"
            + (", or a smaller context with --set ctx=512" if tokens > 512 * slots else "")
            + (", or fewer requests at a time" if slots > 1 else ""),
        )


def compose(
    plan: Plan,
    cell: Cell,
    run_id: str,
    facts: Facts,
    knobs: dict[str, Scalar],
    model: LocalModel | None,
    folder: str,
    todo: Sequence[Planned] = (),
    scripts: Scripts | None = None,
    tokens: Tokenized | None = None,
    reference: LocalModel | None = None,
) -> tuple[Job, dict[str, Any]]:
    """The job of one run and its ticket. ``knobs`` are settled; ``folder`` is where the run will lie on the target,
    ``todo`` what is to be done about the settings of its profile, ``scripts`` how helpers are started there; ``tokens``
    are those of the texts of a workload that is scored by the token, ``reference`` is a model to hold it against."""
    job = Job(run_id)
    circle_s = plan.work.workload.limit_s if plan.work.workload.kind == "sustained" else 0.0
    job.limit("journal_bytes", min(_JOURNAL_BYTES + round(circle_s * _CIRCLE_BYTES_PER_S), _MAX_JOURNAL_BYTES))
    job.limit("log_bytes", _LOG_BYTES)
    work = plan.work.workload
    channels(job, plan.profile, facts, scripts, has_process=work.kind != "idle" and not plan.unseen)
    asks: list[dict[str, Any]] = []
    scored: list[Scored] = []
    formless = ""
    measured_s = work.timeout_s
    settings_s = settings.make(job, todo, plan.profile)
    if plan.spec.unplug is not None:
        settings_s += _UNPLUGGED_S
        job.attempt("unplug", _UNPLUGGED_S, ("sh", "-c", _UNTIL_UNPLUGGED))
    job.idle("idle_before", work.idle_s)
    if plan.recipe is not None and plan.engine is not None and model is not None:
        speak = protocol(plan.recipe.protocol, plan.dialect, model.at)
        plays = _plays(plan, cell, model)
        if isinstance(speak, ServerEngine):
            if tokens is not None:
                plays, scored = by_token(plan.work, tokens, cell.seed)
            asks, measured_s = _serve(job, plan, speak, plays, facts, knobs, model)
        else:
            asks, measured_s = _execute(job, plan, speak, plays, knobs, model, folder, reference)
        formless = untemplated(plan, model, asks)
        measured_s += circle_s
    elif work.kind == "exec":
        job.execute(ENGINE, work.timeout_s, plan.spec.command, **factors.limits(knobs))
    else:
        job.idle("window", work.window_s)
        measured_s = work.window_s
    job.idle("idle_after", work.idle_s)
    settings.look_again(job, todo, plan.profile)
    longest_s = measured_s + 2 * work.idle_s + settings_s + 60
    job.limit("duration_ms", round(longest_s * 1000))
    likely_s = expected_s(plan, asks) + 2 * work.idle_s + min(settings_s, _SETTING_S * len(todo) + BEFORE_S)
    more = {"settings": settings.as_rows(todo), "longest_s": longest_s, "expected_s": min(likely_s, longest_s)}
    if formless:
        more["no_chat_template"] = formless
    if scored:
        targets = [ask["target"] for ask in asks if ask["role"] == "timed"]
        more |= {"scored": {"items": [one.told() for one in scored], "targets": targets}}
        # The others are one a token; what of them is needed to read the answers stands with the items.
        asks = [ask for ask in asks if ask["role"] == "warmup"]
    return job, ticket(plan, cell, run_id, facts, knobs, model, described(asks)) | more


def by_token(work: Loaded, tokens: Tokenized, seed: int) -> tuple[list[Play], list[Scored]]:
    """The requests of a workload that is scored by the token, and what each of its items is made of."""
    if work.workload.kind == "choices":
        asks, scored = loglik.choices(work.asked, tokens.tokens, seed)
    else:
        text = work.items[0]["text"]
        asks, scored = loglik.chunks(text, tokens.tokens, work.workload.chunk, work.workload.chunks, seed, tokens.bos)
    asks = [*loglik.warmups(asks, work.workload.warmup), *asks]
    plays = [Play(tuple(asks[at : at + MAX_REQUESTS])) for at in range(0, len(asks), MAX_REQUESTS)]
    return plays, scored


def channels(
    job: Job, profile: Profile, facts: Facts, scripts: Scripts | None, *, has_process: bool, host: bool = False
) -> None:
    """What is read on the target by the sources of its profile; ``has_process``: of the one under test, too.

    ``scripts``: how helper programs are started there, None where they cannot be. ``host``: instead what is read on the
    controller, whose ``facts`` they are then, and whose /sys is its own.
    """
    roots = Roots() if host else profile.roots
    offset = 0
    for source in profile.source:
        if source.host != host:
            continue
        helper = READERS[source.reader].helper
        if helper is not None and scripts is not None and wanted(helper, profile, facts, scripts, host=host):
            # The period is the helper's to keep.
            job.stream(source.name, scripts.argv(helper, helper.words(source.period_ms, source.options)))
        for command in READERS[source.reader].commands:
            words = command.words(source.period_ms)
            if command.program not in facts.programs or (not has_process and any("{pid:" in word for word in words)):
                continue
            if command.poll:
                job.poll(source.name, round(source.period_ms * 1e6), command.deadline_s, words)
            else:
                job.stream(source.name, words)
        for spec in READERS[source.reader].paths:
            if "{pid:" in spec.glob and not has_process:
                continue
            period = max(round(source.period_ms * 1e6), spec.min_period_ns) if spec.periodic else 0
            # Sources are read one after another, not all at the same instant: less of a bump for the engine.
            job.file(source.name, rooted(spec.glob, roots.sys, roots.proc), period, offset if period else 0)
            offset += 1_300_000


def _plays(plan: Plan, cell: Cell, model: LocalModel) -> list[Play]:
    n_vocab = model.header.vocab_size
    if plan.work.workload.kind == "grid" and not n_vocab:
        raise UserError(
            f"{model.path} does not say how large its vocabulary is", hint="a grid needs it; use another workload"
        )
    return plan.work.plays(n_vocab or 0, cell.seed)


def _serve(
    job: Job,
    plan: Plan,
    speak: ServerEngine,
    plays: list[Play],
    facts: Facts,
    knobs: dict[str, Scalar],
    model: LocalModel,
) -> tuple[list[dict[str, Any]], float]:
    """The steps of a server's life: what each request file asks, and how long it may take, s."""
    work = plan.work.workload
    asks = with_repeats([ask for play in plays for ask in play.asks])
    for ask in asks:
        job.requests[ask.file] = speak.request(ask)
    started = _start(job, plan, speak, knobs, model)
    for play in plays:
        files = [f"req/{ask.file}" for ask in play.asks]
        until = _until(plan, facts) if play.circle else None
        job.http("requests", ENGINE, play.concurrency, work.timeout_s, _ANSWER_BYTES, files, until, work.pause_s)
    if started:
        job.stop(started, _GRACE_S)
    return [asdict(ask) for ask in asks], min(_READY_S + (work.timeout_s + work.pause_s) * len(asks), _MAX_SERVED_S)


def _start(job: Job, plan: Plan, speak: ServerEngine, knobs: dict[str, Scalar], model: LocalModel) -> str:
    """The steps until a server can be asked, and the name of the process that was started: none where one runs."""
    assert plan.engine is not None
    ctx, slots = knobs.get("ctx"), plan.work.slots
    address = serving.read_address(plan.engine.url) if plan.engine.url else None
    fixed = {
        "model": model.at,
        "port": "{port:" + ENGINE + "}",
        "parallel": str(slots),
        "ctx_all": str(ctx * slots) if isinstance(ctx, int) else "none",
        "upstream": "none" if address is None else address.origin,
    }
    if address is not None and not serving.relayed(plan.engine.url, knobs):
        job.port(ENGINE, address.port)
        return ""
    name = ENGINE if address is None else RELAY
    job.port(ENGINE)
    if model.files:
        job.pages(model.weights, drop=knobs["load"] == "cold")
    job.spawn(name, *_command(plan, knobs, fixed), **factors.limits(knobs))
    job.ready(name, ENGINE, speak.health_path, min(_READY_S, plan.work.workload.timeout_s))
    return name


def _execute(
    job: Job,
    plan: Plan,
    speak: ProgramEngine,
    plays: list[Play],
    knobs: dict[str, Scalar],
    model: LocalModel,
    folder: str,
    reference: LocalModel | None,
) -> tuple[list[dict[str, Any]], float]:
    """The steps of a program's life, a process after the other under one name; what is returned is as of ``_serve``."""
    commands = speak.commands([ask for play in plays for ask in play.asks], f"{folder}/req")
    if reference is not None and isinstance(speak, ScoringEngine):
        commands = speak.against(commands[0], reference.at, f"{folder}/req")
    log_bytes = max((command.log_bytes for command in commands), default=0)
    if log_bytes > _JOURNAL_BYTES // 4:
        raise UserError(
            f"{plan.work.name} has the engine print about {log_bytes >> 20} MiB, the journal has room for "
            f"{_JOURNAL_BYTES >> 22}",
            hint="ask fewer items, tokens or passes; --reps makes runs of them",
        )
    if log_bytes > _LOG_BYTES:
        job.limit("log_bytes", log_bytes)  # of two limits the later one counts
    job.pages(model.weights, drop=knobs["load"] == "cold")
    measured_s = 0.0
    for command in commands:
        job.requests |= command.files
        # A warm-up and a depth may go before each request, and take as long.
        parts = plan.work.parts or len(command.asks)
        deadline_s = min(_READY_S + 3 * plan.work.workload.timeout_s * parts, _MAX_PROGRAM_S)
        words = _command(plan, knobs, {"model": model.at, **_cut(plan.work), **command.words})
        # What only prepares the ground, such as a model of reference, is not the engine under test.
        job.execute(ENGINE if command.asks else _PREPARES, deadline_s, *words, **factors.limits(knobs))
        measured_s += deadline_s
    return [asdict(ask) for command in commands for ask in command.asks], measured_s


def _cut(work: Loaded) -> dict[str, str]:
    """How a text is to be cut, for an engine that does it by itself."""
    chunk, chunks = work.workload.chunk, work.workload.chunks
    return {"window": str(chunk), "chunks": "none" if chunks is None else str(chunks)}


def _command(plan: Plan, knobs: dict[str, Scalar], fixed: dict[str, str]) -> tuple[list[str], dict[str, str]]:
    """The engine's command line and what its environment has more."""
    assert plan.recipe is not None
    assert plan.engine is not None
    return plan.recipe.argv(plan.engine.start, knobs, fixed), plan.engine.env | plan.recipe.environment(knobs, fixed)


def _until(plan: Plan, facts: Facts) -> Until:
    """What ends a sustained run. The kernel counts temperature in 1/1000 degC and charge in whole percent."""
    work, roots = plan.work.workload, plan.profile.roots
    limits: list[tuple[str, Literal["below", "above"], float]] = []
    if work.limit_temp_c is not None:
        if not facts.thermal_zones:
            hint = "leave out limit_temp_c"
            raise UserError(f"{plan.spec.device} has no thermal zone that could reach a limit", hint=hint)
        # The probe waits until a value is past its limit, and these files hold whole numbers.
        zones = rooted("/sys/class/thermal/thermal_zone*/temp", roots.sys, roots.proc)
        limits.append((zones, "above", work.limit_temp_c * 1000 - 0.5))
    if work.limit_soc_percent is not None:
        if not facts.batteries:
            raise UserError(
                f"{plan.spec.device} has no battery that could run down", hint="leave out limit_soc_percent"
            )
        for name in facts.batteries:
            path = rooted(f"/sys/class/power_supply/{name}/capacity", roots.sys, roots.proc)
            limits.append((path, "below", work.limit_soc_percent + 0.5))
    return Until(work.limit_s, tuple(limits))
