"""One conversation of MELT's: what its files say of each prompt, put side by side.

llama.cpp and MLC's command line leave a table by the host's clock, marks by the program's own, and what the engine
printed; MLC's apps a file an iteration and marks, both by the phone's clock. Any of them may be missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from meltbench.imports.melt.tables import LOAD
from meltbench.imports.melt.turns import turns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.imports.melt.app import Session
    from meltbench.imports.melt.events import Events
    from meltbench.imports.melt.output import Counted, Timings
    from meltbench.imports.melt.tables import State
    from meltbench.imports.melt.turns import Turn

SMALLEST_BATCH = 128  # that MELT's scripts set (run_android.sh); a prompt of no more tokens is one batch for sure
ONE_BATCH = "each prompt is taken for one batch: how many tokens it has is not in these files"


@dataclass(frozen=True)
class Prompt:
    """A prompt. ``window_s``: start and duration, s, as MELT's report takes them; None where no table has it.

    ``taken``: what that report takes for the engine's words on it, ``said`` what the engine said of it: None where
    there is none, or nobody can tell which it is. ``turn``: by the program's marks.
    """

    number: int
    window_s: tuple[float, float] | None = None
    taken: Counted | None = None
    said: Counted | None = None
    turn: Turn | None = None
    answer: str = ""


@dataclass(frozen=True)
class Conversation:
    """``engine``: llama.cpp or MLC. ``load_window_s``: of the loading, as MELT's report takes it, and ``load_ns`` by
    the program's marks. ``by_host``: the windows are the host's, the marks always the program's own."""

    iteration: int
    number: int
    engine: str
    by_host: bool
    prompts: tuple[Prompt, ...]
    load_window_s: tuple[float, float] | None = None
    load_ns: tuple[int, int] | None = None
    events: Events | None = None
    notes: tuple[str, ...] = ()
    model: str = ""

    @property
    def warmed(self) -> bool:
        """Whether llama.cpp's count of the first prompt may have in it what was evaluated before: a system prompt."""
        first = self.prompts[0].turn if self.prompts else None
        if self.engine != "llama.cpp" or self.events is None or first is None:
            return self.engine == "llama.cpp"
        steps = self.events.numbered(r"generate\.(\d+)\.decode")
        return any(span[0] < first.sent_ns for _, span in steps)


@dataclass
class Parts:
    """The files of one conversation as they were read; ``batch``: tokens that the engine evaluates at a time."""

    states: Sequence[State] = ()
    events: Events | None = None
    timings: Timings | None = None
    stats: Sequence[Counted] = ()
    session: Session | None = None
    batch: int | None = None
    notes: list[str] = field(default_factory=list)


def put_together(iteration: int, number: int, parts: Parts) -> Conversation:
    """The conversation that these files are of."""
    notes = list(parts.notes)
    if parts.events is not None and parts.events.unread:
        notes.append(f"{parts.events.unread} lines of the event log are no event, or stand twice")
    if parts.session is not None:
        made, by_host = _of_app(parts, notes), False
    else:
        made, by_host = _of_tables(parts, notes), bool(parts.states)
    load = next(((one.start_s, one.duration_s) for one in parts.states if one.text == LOAD), None)
    return Conversation(
        iteration,
        number,
        _engine(parts),
        by_host,
        tuple(made),
        parts.session.load_s if parts.session is not None else load,
        None if parts.events is None else parts.events.load,
        parts.events,
        tuple(notes),
        "" if parts.session is None else parts.session.model,
    )


def _engine(parts: Parts) -> str:
    if parts.events is not None:
        return "llama.cpp" if parts.events.dialect == "llama.cpp" else "MLC"
    return "MLC" if parts.session is not None or parts.stats else "llama.cpp"


def _of_app(parts: Parts, notes: list[str]) -> list[Prompt]:
    """The questions of an app with their marks, where there are as many of both."""
    assert parts.session is not None
    questions = parts.session.questions
    marked = [] if parts.events is None else turns(parts.events)
    if parts.session.unread:
        notes.append(f"{parts.session.unread} questions have no times and are left out")
    if parts.events is not None and len(marked) != len(questions):
        notes.append(f"{len(marked)} prompts are marked, {len(questions)} recorded: the marks are left out")
        marked = []
    found = []
    for at, one in enumerate(questions):
        turn = marked[at] if at < len(marked) else None
        taken = one.stats
        if taken is not None:
            taken = replace(taken, n_in=one.n_in, n_steps=one.n_steps)
        found.append(Prompt(at, (one.start_s, one.duration_s), taken, one.stats, turn, one.answer))
    return found


def _of_tables(parts: Parts, notes: list[str]) -> list[Prompt]:
    """The prompts of a table, else those of the marks alone."""
    windows = [(one.start_s, one.duration_s) for one in parts.states if one.text != LOAD]
    n = len(windows) or len(_marked(parts, None, {}))
    taken = parts.timings.of_melt(n) if parts.timings is not None and parts.timings.lines else list(parts.stats[:n])
    said = _said(parts, n, notes)
    marked = _marked(parts, n, said)
    if parts.events is not None:
        notes += _of_marks(parts, parts.events, n, marked)
    return [
        Prompt(
            at,
            windows[at] if at < len(windows) else None,
            taken[at] if at < len(taken) else None,
            said.get(at),
            marked[at] if at < len(marked) else None,
        )
        for at in range(n)
    ]


def _marked(parts: Parts, n: int | None, said: Mapping[int, Counted]) -> list[Turn | None]:
    """The turns of ``n`` prompts, a place each; none where another number is marked. ``said`` tells of batches."""
    if parts.events is None:
        return []
    batches, unsure = _batches(parts, said)
    drawn = {at: one.n_drawn for at, one in said.items() if one.n_drawn is not None}
    found = turns(parts.events, batches, drawn)
    if parts.events.dialect == "mlc-cli" and n is not None:
        found = [*([None] * (n - len(found))), *found]
    if n is not None and len(found) != n:
        return []
    return [None if at in unsure else one for at, one in enumerate(found)]


def _of_marks(parts: Parts, events: Events, n: int, marked: Sequence[Turn | None]) -> list[str]:
    """What is to be said of the marks of ``n`` prompts."""
    if not marked:
        return [f"{len(turns(events))} prompts are marked, {n} are in the table: the marks are left out"]
    if events.dialect == "mlc-cli":
        return ["MLC's command line marks every prompt and every token under one name: the last one's marks are left"]
    lost = sum(one is None for one in marked)
    told = [f"{lost} prompts have no whole marks, or may have been evaluated in several batches"] if lost else []
    return told + ([ONE_BATCH] if parts.timings is None else [])


def _batches(parts: Parts, said: Mapping[int, Counted]) -> tuple[dict[int, int], set[int]]:
    """How many batches each prompt had, and the prompts of which nobody can tell.

    What a first prompt counts has in it what was evaluated before it: the system prompt.
    """
    size = parts.batch or SMALLEST_BATCH
    many = {at: -(-one.n_in // size) for at, one in said.items() if one.n_in is not None and one.n_in > size}
    unsure = {at for at in many if at == 0 or parts.batch is None}
    return {at: n for at, n in many.items() if at not in unsure}, unsure


def _said(parts: Parts, n: int, notes: list[str]) -> dict[int, Counted]:
    """What the engine said of each prompt, by its place. Empty where nobody can tell which words are whose."""
    if parts.stats:
        # It is asked before the first prompt too, and after the last one.
        last = parts.stats[-n:] if n else []
        return {n - len(last) + at: one for at, one in enumerate(last)}
    groups = parts.timings.groups if parts.timings is not None else ()
    choices = [dict(enumerate(groups[skip : skip + n])) for skip in range(len(groups) - n + 1)] if n else []
    fitting = [one for one in choices if _fit(one, _marked(parts, n, one))]
    if len(fitting) == 1:
        return fitting[0]
    if groups:
        why = "do not agree with its marks" if choices and not fitting else "are not told apart by anything"
        many = f"the engine told its timings {len(groups)} times for {n} prompts"
        notes.append(f"{many}, which {why}: they are left out")
    return {}


def _fit(said: Mapping[int, Counted], marked: Sequence[Turn | None]) -> bool:
    """Whether the tokens that were drawn agree with the marks, as far as there are any."""
    pairs = [(one.n_drawn, marked[at]) for at, one in said.items() if at < len(marked)]
    return all(
        drawn == turn.n_out
        for drawn, turn in pairs
        if drawn is not None and turn is not None and turn.n_out is not None
    )
