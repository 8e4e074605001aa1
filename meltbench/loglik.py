"""From choices and texts to the single tokens whose probabilities are asked for, and which of them is whose.

An item is many requests then, one a token. They are not told one by one in a run's ticket: what it keeps of an item is
where its requests begin and how many they are (``Span``), from which their files are known.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from meltbench.engines.prompts import Ask
from meltbench.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Tokens = Mapping[str, tuple[int, ...]]
    Item = Mapping[str, Any]

MAX_ASKED = 90_000  # requests of one run: five digits name them


@dataclass(frozen=True)
class Span:
    """The requests of one choice, or of one chunk of a text: ``n`` files from number ``first`` on.

    ``start``: the tokens before the first one that is scored. ``common``: how many of its first tokens are those of
    every other choice too; ``characters``: of its text, without the space around it.
    """

    first: int
    n: int
    start: int
    common: int
    characters: int


@dataclass(frozen=True)
class Scored:
    """One item: its id, group, right answer (of choices a number from 0, and ``true`` where several are), its spans."""

    item: str
    group: str
    answer: int | None
    true: tuple[int, ...]
    spans: tuple[Span, ...]

    def told(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @classmethod
    def of(cls, told: Mapping[str, Any]) -> Scored:
        """Read what ``told`` wrote."""
        spans = tuple(Span(**span) for span in told["spans"])
        return cls(told["item"], told["group"], told["answer"], tuple(told["true"]), spans)


def file_name(number: int) -> str:
    """The file of a request."""
    return f"{number:05d}"


def texts(items: Sequence[Item]) -> list[str]:
    """Every text that must be known in tokens, each once."""
    found: dict[str, None] = {}
    for item in items:
        if "text" in item:
            found[item["text"]] = None
        for prompt, choice in _pairs(item):
            found[prompt] = found[prompt + choice] = None
    return list(found)


def _pairs(item: Item) -> list[tuple[str, str]]:
    """Prompt and continuation of each choice."""
    choices = item.get("choices", ())
    prompts = item["prompts"] if "prompts" in item else [item["prompt"]] * len(choices) if choices else []
    return list(zip(prompts, choices, strict=True))


def choices(items: Sequence[Item], tokens: Tokens, seed: int) -> tuple[list[Ask], list[Scored]]:
    """The requests of multiple-choice items, and what each item is made of.

    A choice's tokens are those of prompt and choice together without the longest beginning they share with those of the
    prompt alone: what lm-evaluation-harness and llama.cpp score, also where the two are joined in one token.
    """
    asks: list[Ask] = []
    scored = []
    for item in items:
        whole = [tokens[prompt + choice] for prompt, choice in _pairs(item)]
        shared = [_shared([tokens[prompt], one]) for (prompt, _), one in zip(_pairs(item), whole, strict=True)]
        together = "prompts" not in item
        # Of one prompt all choices are scored from the same token on, also where one is joined to the prompt's end.
        starts = [min(shared)] * len(whole) if together else shared
        alike = _shared(whole) if together else 0
        spans = []
        for one, begun, (_, choice) in zip(whole, starts, _pairs(item), strict=True):
            start = max(min(begun, len(one) - 1), 1)  # something must stand before what is scored, and be scored
            first = len(asks)
            asks += _one_by_one(one, start, len(one), str(item["id"]), first, seed)
            common = min(max(alike - start, 0), len(one) - start - 1)
            spans.append(Span(first, len(asks) - first, start, common, len(choice.strip())))
        answer = item.get("answer")
        scored.append(
            Scored(
                str(item["id"]), str(item.get("group", "")),
                None if answer is None else int(answer), tuple(item.get("true", ())), tuple(spans),
            )
        )  # fmt: skip
    _check(asks)
    return asks, scored


def chunks(
    text: str, tokens: Tokens, n_ctx: int, most: int | None, seed: int, bos: int | None
) -> tuple[list[Ask], list[Scored]]:
    """The requests that score a text as llama.cpp's llama-perplexity does: chunks of ``n_ctx`` tokens one after the
    other, of each the second half scored, so that all scored tokens have at least half a chunk before them.

    ``bos``: the token that begins a text of this model, where its tokenizer puts one; it stands at each chunk's start.
    """
    every = tokens[text]
    count = min(len(every) // n_ctx, most or len(every))
    if not count:
        raise UserError(
            f"the text has {len(every)} tokens, less than one chunk of {n_ctx}", hint="give a longer text, or chunk=256"
        )
    asks: list[Ask] = []
    scored = []
    for number in range(count):
        chunk = every[number * n_ctx : (number + 1) * n_ctx]
        if bos is not None:
            chunk = (bos, *chunk[1:])
        first, name = len(asks), f"chunk{number + 1}"
        asks += _one_by_one(chunk, n_ctx // 2 + 1, n_ctx, name, first, seed)
        scored.append(Scored(name, "", None, (), (Span(first, len(asks) - first, n_ctx // 2 + 1, 0, 0),)))
    _check(asks)
    return asks, scored


def _one_by_one(tokens: Sequence[int], start: int, end: int, item: str, number: int, seed: int) -> list[Ask]:
    """A request for each token from ``start`` to ``end``, what is before it as its prompt."""
    return [
        Ask(
            file=file_name(number + at - start),
            item=item,
            role="timed",
            n_out=1,
            seed=seed,
            ignore_eos=False,
            keep_cache=True,
            tokens=tuple(tokens[:at]),
            n_in=at,
            target=tokens[at],
        )
        for at in range(start, end)
    ]


def warmups(asks: Sequence[Ask], count: int) -> list[Ask]:
    """Requests to be made before these, which nobody scores: the first one's prompt from back to front, so that what is
    left of it in the engine's cache is no beginning of any other, and a token after it, whichever that is."""
    back = (asks[0].tokens or ())[::-1]
    one = replace(asks[0], role="warmup", tokens=back, n_in=None, target=None, ignore_eos=True, keep_cache=False)
    return [replace(one, file=file_name(len(asks) + at)) for at in range(count)]


def _shared(sequences: Sequence[Sequence[int]]) -> int:
    """How many tokens all of these begin with together."""
    n = 0
    for column in zip(*sequences, strict=False):
        if len(set(column)) > 1:
            break
        n += 1
    return n


def _check(asks: Sequence[Ask]) -> None:
    if len(asks) > MAX_ASKED:
        raise UserError(
            f"{len(asks)} tokens are to be scored, at most {MAX_ASKED} can be in one run",
            hint="--resume --piece 500 asks 500 items a run; of a text --set chunks=12 takes the first twelve chunks",
        )


def expanded(scored: Sequence[Scored], targets: Sequence[int]) -> list[Ask]:
    """The requests of these items again, without their prompts: what is needed to read the answers. ``targets``: the
    tokens that were asked about, in the order of their files."""
    return [
        Ask(
            file=file_name(span.first + at),
            item=one.item,
            role="timed",
            n_out=1,
            seed=0,
            ignore_eos=False,
            n_in=span.start + at,
            target=targets[span.first + at],
        )
        for one in scored
        for span in one.spans
        for at in range(span.n)
    ]
