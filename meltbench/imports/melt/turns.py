"""From the events of a program to its prompts: when each was sent, when its first token was there, and each after it.

llama.cpp numbers its marks by the turns of its main loop (examples/main/main.cpp). A prompt that is tokenised in turn
k is evaluated from turn k + 2 on, in as many turns as it has batches; turn k + 1 evaluates what was left over of the
answer before it (its end-of-text token), or nothing. Each turn after that evaluates one token, from which the next one
is drawn: the end of a turn is the earliest time at which its token can have been there, for drawing it is not marked.
The last turn before the next prompt draws a token only where that was the end of the text: else it is the token at
which the answer was cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from meltbench.imports.melt.events import Events

    Span = tuple[int, int]


@dataclass(frozen=True)
class Turn:
    """A prompt and its answer, in ns of the program's clock.

    ``sent_ns``: before the prompt was tokenised. ``token_ns``: when each token can have been there at the earliest; the
    first one with the end of the prefill. ``n_out``: how many there were, None where that was not marked. ``end_ns``:
    of the last step that was. ``only_ends``: of the steps the last one's end alone is left.
    """

    sent_ns: int
    prefill: Span
    token_ns: tuple[int, ...]
    n_out: int | None
    end_ns: int
    only_ends: bool = False


def turns(
    events: Events, batches: Mapping[int, int] | None = None, drawn: Mapping[int, int] | None = None
) -> list[Turn | None]:
    """The prompts of a log in order; None for one whose marks are not whole.

    Of llama.cpp ``batches`` are those of a prompt by its place (one where it is not in it), and ``drawn`` the tokens
    that the engine says it drew: they tell whether the last answer's last turn drew one.
    """
    if events.dialect == "llama.cpp":
        return _llamacpp(events, batches or {}, drawn or {})
    return _mlc_app(events) if events.dialect == "mlc-app" else _mlc_cli(events)


def _llamacpp(events: Events, batches: Mapping[int, int], drawn: Mapping[int, int]) -> list[Turn | None]:
    asked = events.numbered(r"prompt\.(\d+)\.tokenize")
    steps = dict(events.numbered(r"generate\.(\d+)\.decode"))
    last = max(steps, default=0)
    found: list[Turn | None] = []
    for place, (k, (sent_ns, _)) in enumerate(asked):
        final = place + 1 == len(asked)
        until = last if final else asked[place + 1][0]
        first = k + 2
        chunks = [steps.get(first + at) for at in range(batches.get(place, 1))]
        later = [steps[n] for n in range(first + len(chunks), until + 1) if n in steps]
        whole = [chunk for chunk in chunks if chunk is not None]
        # Every turn of an answer evaluates something: a hole is a line that was lost.
        if len(whole) < len(chunks) or len(later) != max(until + 1 - first - len(chunks), 0):
            found.append(None)
            continue
        ends = [whole[-1][1], *(end for _, end in later)]
        if final:
            n_out = drawn.get(place)
            n_out = n_out if n_out in (len(ends), len(ends) - 1) else None
            tokens = ends[:n_out] if n_out else ends[:-1] or ends
        else:
            # What ended by itself left its last token over, which the turn after the next prompt evaluates.
            tokens = ends if until + 1 in steps or len(ends) == 1 else ends[:-1]
            n_out = len(tokens)
        found.append(Turn(sent_ns, (whole[0][0], whole[-1][1]), tuple(tokens), n_out, ends[-1]))
    return found


def _mlc_app(events: Events) -> list[Turn | None]:
    """The prefill draws the first token, each decode one more (cpp/llm_chat.cc: PrefillStep, DecodeStep)."""
    prefills = [span for _, span in events.numbered(r"prefill\.(\d+)")]
    steps = [span for _, span in events.numbered(r"generate\.decode\.(\d+)")]
    found: list[Turn | None] = []
    at = 0
    for place, (start, end) in enumerate(prefills):
        before = prefills[place + 1][0] if place + 1 < len(prefills) else None
        mine = [end]
        while at < len(steps) and (before is None or steps[at][0] < before):
            mine.append(steps[at][1])
            at += 1
        found.append(Turn(start, (start, end), tuple(mine), len(mine), mine[-1]))
    return found


def _mlc_cli(events: Events) -> list[Turn | None]:
    """What is left of the last prompt, for each overwrote the one before."""
    prefills = events.numbered(r"chat\.(\d+)\.0\.prefill")
    steps = events.numbered(r"chat\.\d+\.0\.decode\.(\d+)")
    if not prefills:
        return []
    start, end = prefills[-1][1]
    last = max((span[1] for _, span in steps if span[0] >= end), default=end)
    return [Turn(start, (start, end), (end,), None, last, only_ends=True)]
