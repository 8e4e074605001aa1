"""Our numbers from MELT's evidence, by docs/measuring.md: what it does not hold is None with a reason.

Tokens were seen inside the program, as those of an engine in our process are, so the figures bear that mode's names.
Times are of the program's own wall clock, in place of CLOCK_BOOTTIME. The meter's clock is the host's. Nobody compared
the two; but a prompt cannot have been there before the host sent it, nor its answer have gone on when the host saw the
next prompt, and all prompts together bound the offset (``tie``).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench.engines.checks import observed
from meltbench.engines.prompts import FIRST_TURN, LATER_TURNS
from meltbench.measure import Designation, RunInputs, energies, measure_run
from meltbench.measure.beats import beats
from meltbench.measure.digest import Digester, Edges
from meltbench.measure.phases import phases
from meltbench.measure.screening import Screen, most_w
from meltbench.records import Phase, Request, SourceStatus

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.engines.prompts import Kind
    from meltbench.imports.melt.conversation import Conversation, Prompt
    from meltbench.imports.melt.output import Counted
    from meltbench.imports.melt.power import Power
    from meltbench.records import Measure, Reason, Series, State

MODE = "in-process"
KIND: Kind = "chat"
_AROUND_NS = 10_000_000_000  # of a meter's recording, on either side of a conversation
_NS = 1_000_000_000


@dataclass(frozen=True)
class Tie:
    """What is added to the host's clock (ns) for the program's, how far that may be off (s), and by what it is known;
    ``why`` there is none."""

    offset_ns: int = 0
    bound_s: float = 0.0
    how: str = ""
    why: str = ""


@dataclass(frozen=True)
class Measured:
    """A conversation as one of our runs."""

    requests: list[Request]
    phases: list[Phase]
    series: list[Series]
    sources: list[SourceStatus]
    measures: list[Measure]
    reasons: list[Reason]
    validity: State
    tie: Tie


def tie(conversation: Conversation, power: Power | None, bound_s: float | None = None) -> Tie:
    """How the meter's clock and the program's hang together. ``bound_s``: what the user vouches for."""
    on_program = any(prompt.turn is not None for prompt in conversation.prompts)
    if power is not None and power.clock == "device":
        return Tie(how="the sampler ran on the device under test")
    if conversation.events is not None and conversation.events.dialect == "mlc-cli":
        return Tie(how="MLC's command line runs on the machine that drives it")
    if conversation.by_host and not on_program:
        return Tie(how="prompts and meter by the host's clock")
    if conversation.by_host and conversation.engine == "llama.cpp":
        found = _bounded(conversation)
        if bound_s is None or not found.why:
            return found
    if bound_s is not None:
        return Tie(0, bound_s, f"the two clocks agreed within {bound_s:g} s, by --option clock_bound_s")
    return Tie(
        why="the phone's clock and the meter's were never compared; if they agreed, --option clock_bound_s=SECONDS"
    )


def _bounded(conversation: Conversation) -> Tie:
    """The offset's bounds by cause and effect: nothing was there before it was sent, or went on after it was seen."""
    low, high = [], []
    turned = [(prompt.window_s, prompt.turn) for prompt in conversation.prompts if prompt.turn is not None]
    pairs = [(window, (turn.sent_ns, turn.end_ns)) for window, turn in turned]
    if conversation.load_ns is not None:
        pairs.append((conversation.load_window_s, conversation.load_ns))
    for window, (first_ns, last_ns) in pairs:
        if window is not None:
            start_ns, end_ns = round(window[0] * _NS), round((window[0] + window[1]) * _NS)
            high.append(first_ns - start_ns)
            low.append(last_ns - end_ns)
    if not low or max(low) > min(high):
        return Tie(why="the program's marks do not lie in the host's windows: one of their clocks was stepped")
    least, most = max(low), min(high)
    return Tie((least + most) // 2, (most - least) / 2e9, "bounded by what the host saw of each prompt")


def measure(conversation: Conversation, power: Power | None, found: Tie, what: str) -> Measured:
    """The run. ``what``: the files that it was made of, for the reason that says so."""
    requests = _requests(conversation, found)
    spans = phases((), requests, "engine")
    load = _load(conversation, requests)
    if load is not None:
        spans = sorted([*spans, load], key=lambda phase: (phase.t0_ns, -phase.t1_ns))
    run = next((span for span in spans if span.name == "run"), None)
    series, source, total = _placed(power, found, spans)
    screen = Screen(most_w(None, ()), run)
    windows = [(s.t0_ns, s.t1_ns) for s in spans] + [(r.t_send_ns, r.t_end_ns) for r in requests]
    edges = Edges.of(windows, run, (), beats(requests))
    signals = []
    for one in series:
        digester = Digester(one, edges, screen.limit_w)
        digester.add(screen.take(one))
        signals.append(digester.done())
    told = [("imported", f"MELT's {what}; what it did not record is missing")]
    if found.why and power is not None:
        told.append(("clock_unsynced", found.why))
    inputs = RunInputs(
        kind=KIND,
        mode=MODE,
        signals=signals,
        sources=[source],
        phases=spans,
        requests=requests,
        load_s=None if conversation.load_ns is None else (conversation.load_ns[1] - conversation.load_ns[0]) / 1e9,
        conditions=told,
        totals=[total],
        screened=screen.done(),
    )
    measures, reasons, state = measure_run(inputs)
    return Measured(energies(inputs, measures)[0], spans, series, [source], measures, reasons, state, found)


def _requests(conversation: Conversation, found: Tie) -> list[Request]:
    made = [_request(conversation, prompt, found) for prompt in conversation.prompts]
    return [replace(one, index=at) for at, one in enumerate(one for one in made if one is not None)]


def _request(conversation: Conversation, prompt: Prompt, found: Tie) -> Request | None:
    """A prompt as a request; None where nothing says when it was."""
    turn, said = prompt.turn, prompt.said
    if turn is not None:
        sent_ns, end_ns = turn.sent_ns, turn.end_ns
    elif prompt.window_s is not None:
        shift = found.offset_ns if conversation.by_host else 0
        sent_ns = round(prompt.window_s[0] * _NS) + shift
        end_ns = sent_ns + round(prompt.window_s[1] * _NS)
    else:
        return None
    request = Request(
        index=prompt.number,
        item=f"{conversation.number}/{prompt.number}",
        role="timed",
        status="ok",
        t_send_ns=sent_ns,
        t_end_ns=end_ns,
        answer=prompt.answer,
        point=LATER_TURNS if prompt.number else FIRST_TURN,
    )
    if said is not None:
        request = _reported(request, conversation, said)
    return request if turn is None else _observed(request, prompt)


def _reported(request: Request, conversation: Conversation, said: Counted) -> Request:
    """Add what the engine says of itself. What its count of a first prompt has in it of before is left out."""
    drawn = said.n_drawn if conversation.engine == "llama.cpp" else _plus_one(said.n_steps)
    mixed = request.point == FIRST_TURN and conversation.warmed
    rate = None if mixed else said.prefill_tps
    return replace(
        request,
        n_out=drawn,
        prefill_tps=rate,
        prefill_source="engine" if rate else None,
        engine_prefill_s=None if mixed else said.prefill_s,
        engine_prefill_tps=rate,
        engine_decode_s=said.decode_s,
        engine_decode_tps=said.tps,
        detail="the engine's prefill of the first prompt has the system prompt in it" if mixed else "",
    )


def _plus_one(steps: int | None) -> int | None:
    """MLC counts the tokens of its decodes; the first of an answer is drawn by the prefill."""
    return None if steps is None else steps + 1


def _observed(request: Request, prompt: Prompt) -> Request:
    """Add what the program marked. A token's time is the end of the step before it was drawn."""
    turn = prompt.turn
    assert turn is not None
    n_out = turn.n_out if turn.n_out is not None else request.n_out
    if turn.only_ends:
        return _ends(replace(request, n_out=n_out), turn.prefill[1], turn.end_ns)
    seen = observed(replace(request, n_out=None), [(t, 1) for t in turn.token_ns])
    # Whether an answer's last step gave a token may not be known; the rate of those before it is all the same.
    return replace(seen, n_out=n_out)


def _ends(request: Request, first_ns: int, last_ns: int) -> Request:
    """The same where of an answer's tokens the first and the last one's times are left, and the engine's count."""
    one = replace(request, t_first_ns=first_ns, ttft_s=(first_ns - request.t_send_ns) / 1e9)
    span_s, n_out = (last_ns - first_ns) / 1e9, request.n_out
    one = replace(one, e2e_s=(last_ns - request.t_send_ns) / 1e9)
    if n_out is None or n_out < 2 or span_s <= 0:
        return one
    return replace(one, tpot_s=span_s / (n_out - 1), decode_tps=(n_out - 1) / span_s)


def _load(conversation: Conversation, requests: Sequence[Request]) -> Phase | None:
    """The loading of the model by the program's marks; no table of the host tells it, see docs/melt.md. None where the
    run is on another clock than they are."""
    span, on_program = conversation.load_ns, any(prompt.turn is not None for prompt in conversation.prompts)
    if span is None or not on_program or span[1] <= span[0] or (requests and span[1] > requests[0].t_send_ns):
        return None
    return Phase("load", *span)


def _placed(power: Power | None, found: Tie, spans: Sequence[Phase]) -> tuple[list[Series], SourceStatus, Designation]:
    """The meter's series on the run's clock, around the run; what was seen of it; and what of it is the total."""
    if power is None:
        return [], SourceStatus("power", "absent", 0, 0, "no power file was given"), Designation("power")
    total = power.total or Designation(power.seen.source)
    if found.why:
        lost = replace(power.seen, status="error", detail=f"clock_unsynced: {found.why}")
        return [], lost, total
    if not spans:
        return [], power.seen, total
    start, end = spans[0].t0_ns - _AROUND_NS, max(span.t1_ns for span in spans) + _AROUND_NS
    return [_near(one, found, start, end) for one in power.series], power.seen, total


def _near(one: Series, found: Tie, start_ns: int, end_ns: int) -> Series:
    """What of a series lies between two times of the run's clock."""
    t0, t1 = one.t0_ns + found.offset_ns, one.t1_ns + found.offset_ns
    near = (t1 >= start_ns) & (t0 <= end_ns)
    cut = replace(one, t0_ns=t0[near], t1_ns=t1[near], value=one.value[near], status=one.status[near])
    return replace(cut, clock_bound_s=found.bound_s)
