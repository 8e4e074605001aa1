"""What was answered against what is right. Pure; an answer is data: it is never run, and only read by fixed patterns.

Each method takes an answer apart (``extract``) and compares what it found with the right one. Nothing found is wrong,
and told apart as unparsed. Sources: GSM8K, the filters strict-match and flexible-extract of lm-evaluation-harness
(tasks/gsm8k); "the answer is", BBH's chain of thought (Suzgun et al. 2022); calls of tools, TinyAgent (Erdogan et al.
2024, arXiv:2409.00608): the name and every argument exact; a line of a program, CodeXGLUE's exact match (Lu et
al. 2021, arXiv:2102.04664), spaces aside.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Literal

from meltbench.engines.checks import THINK, THOUGHT
from meltbench.records import Score

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from meltbench.engines.prompts import Ask
    from meltbench.records import Request

Method = Literal["exact", "match", "number", "number-strict", "letter", "answer-is", "call", "line"]

NO_GOLD = "no right answer is known"
_MAX_CHARS = 65536
_MAX_SHOWN = 200
_NUMBER = re.compile(r"-?[$0-9.,]{2,200}|-?[0-9]", re.ASCII)
_STRICT = re.compile(r"#### ?(-?[0-9.,]{1,200})", re.ASCII)
_LETTER = re.compile(r"(?<![A-Za-z0-9])\(?([A-Ja-j])(?![A-Za-z0-9'])")
_ANSWER_IS = re.compile(r"answer is:?[ \t]{0,20}([^\n]{1,400})", re.IGNORECASE)
_MAX_DIGITS = 200


def scores(requests: Sequence[Request], asks: Mapping[int, Ask], method: Method) -> list[Score]:
    """A score of every timed request, or of all that answer one question together. ``asks``: what was asked, by the
    request's index; its ``answer`` is what is right. Of a request that failed nobody answered."""
    timed = [(one, asks[one.index]) for one in requests if one.role == "timed" and one.index in asks]
    votes: dict[int, list[Request]] = {}
    for one, ask in timed:
        if ask.vote is not None:
            votes.setdefault(ask.vote, []).append(one)
    out = []
    for one, ask in timed:
        if ask.vote is None:
            out.append(_score(one, ask, method))
        elif votes[ask.vote][0] is one:
            out.append(_vote(votes[ask.vote], ask, method))
    return out


def _blank(first: Request, ask: Ask, method: str, requests: Sequence[Request]) -> Score:
    return Score(
        item=first.item,
        method=method,
        correct=None,
        parsed=False,
        gold=(ask.answer or "")[:_MAX_SHOWN],
        point=first.point,
        group=ask.group,
        requests=",".join(str(one.index) for one in requests),
    )


def _score(request: Request, ask: Ask, method: Method) -> Score:
    blank = _blank(request, ask, method, [request])
    if request.status != "ok":
        return replace(blank, detail=request.status)
    found = extract(method, request.answer)
    return _judged(blank, found, [found], ask.answer, method)


def _vote(requests: Sequence[Request], ask: Ask, method: Method) -> Score:
    """Of several answers to one question the commonest, of equally common ones the first; what cannot be read has no
    vote. Where a request failed, the vote is of the rest."""
    blank = _blank(requests[0], ask, f"{method}/vote", requests)
    good = [one for one in requests if one.status == "ok"]
    if not good:
        return replace(blank, detail=requests[0].status)
    lost = len(requests) - len(good)
    blank = replace(blank, detail=f"{lost} of {len(requests)} answers failed" if lost else "")
    found = [extract(method, one.answer) for one in good]
    read = [one for one in found if one is not None]
    counts = [sum(alike(method, one, other) for other in read) for one in read]
    return _judged(blank, read[counts.index(max(counts))] if read else None, found, ask.answer, method)


def _judged(blank: Score, taken: str | None, every: Sequence[str | None], gold: str | None, method: Method) -> Score:
    score = replace(blank, parsed=taken is not None, extracted=(taken or "")[:_MAX_SHOWN])
    if gold is None:
        return replace(score, detail=NO_GOLD)
    right = [one is not None and is_right(method, one, gold) for one in every]
    return replace(score, correct=float(taken is not None and is_right(method, taken, gold)), best=float(any(right)))


def alike(method: str, one: str, other: str) -> bool:
    """Whether what was read out of two answers is the same, by the method that a score names."""
    name = method.partition("/")[0]
    if one == other or name not in _EXTRACT:
        return one == other
    if name in ("number", "number-strict"):
        return _same_number(one, other)
    if name == "call":
        call = _call(one)
        return call is not None and call == _call(other)
    if name == "line":
        return _tight(one) == _tight(other)
    return _plain(one) == _plain(other)


def extract(method: Method, answer: str) -> str | None:
    """What of an answer counts, None where there is nothing of the kind. What was thought before it does not, nor what
    was only thought, where the answer was cut off before it began."""
    _, ended, said = answer.rpartition(THOUGHT)
    if not ended and answer.lstrip().startswith(THINK):
        return None
    return _EXTRACT[method](said[:_MAX_CHARS])


def is_right(method: Method, found: str, gold: str) -> bool:
    """Whether what was found is what is right."""
    if method in ("number", "number-strict"):
        return _same_number(found, gold)
    if method == "letter":
        return found.casefold() == (extract("letter", gold) or gold).casefold()
    if method == "call":
        return _call(found) == _call(gold) and _call(gold) is not None
    if method == "match":
        return _matches(found, gold)
    if method == "line":
        return _tight(found) == _tight(gold)
    return _plain(found) == _plain(gold)


def _last_number(text: str) -> str | None:
    found = [one for one in _NUMBER.findall(text) if any(c.isdigit() for c in one)]
    return str(found[-1]).rstrip(".,") if found else None


def _strict_number(text: str) -> str | None:
    found = _STRICT.search(text)
    return found[1] if found and any(c.isdigit() for c in found[1]) else None


def _letter(text: str) -> str | None:
    found = _LETTER.search(text)
    return found[1].upper() if found else None


def _answer_is(text: str) -> str | None:
    found = _ANSWER_IS.findall(text)
    return str(found[-1]).strip().rstrip(".").strip() or None if found else None


def _whole(text: str) -> str | None:
    return text.strip() or None


def _first_line(text: str) -> str | None:
    return next((line.strip() for line in text.split("\n") if line.strip()), None)


def _tight(line: str) -> str:
    """Without the spaces that part no two words: ``a+b`` is ``a + b``, case and signs count."""
    return re.sub(r"(?<!\w)\s+|\s+(?!\w)", "", line.strip())


def _decimal(text: str) -> Decimal | None:
    kept = re.sub(r"[$,\s]", "", text).rstrip(".")
    if not kept or len(kept) > _MAX_DIGITS:
        return None
    try:
        found = Decimal(kept)
    except InvalidOperation:
        return None
    return found if found.is_finite() else None


def _same_number(found: str, gold: str) -> bool:
    one, other = _decimal(found), _decimal(gold)
    return one is not None and one == other


def _matches(found: str, gold: str) -> bool:
    """A number where it is the last one; words where they stand in the answer in a row."""
    if _decimal(gold) is not None:
        last = _last_number(found)
        return last is not None and _same_number(last, gold)
    words, answer = _plain(gold).split(), _plain(found).split()
    return bool(words) and any(answer[at : at + len(words)] == words for at in range(len(answer) - len(words) + 1))


def _plain(text: str) -> str:
    """Without case, accents, punctuation and articles, as SQuAD compares answers (Rajpurkar et al. 2016)."""
    bare = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    kept = re.sub(r"[^\w\s]", " ", bare)
    return " ".join(word for word in kept.split() if word not in ("a", "an", "the")) or " ".join(bare.split())


def _call_text(text: str) -> str | None:
    """The first JSON object of an answer that has a name: {"name": ..., "arguments": {...}}."""
    decoder = json.JSONDecoder()
    at = text.find("{")
    for _ in range(100):
        if at < 0:
            return None
        try:
            found, _end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and isinstance(found.get("name"), str):
            return text[at:_end]
        at = text.find("{", at + 1)
    return None


def _call(text: str) -> tuple[str, str] | None:
    """Name and arguments, in one spelling; None for what is no call."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict) or not isinstance(found.get("name"), str):
        return None
    given = found.get("arguments", found.get("parameters", {}))
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return None
    return found["name"], json.dumps(_numbers(given), sort_keys=True)


def _numbers(value: Any) -> Any:
    """2.0 and 2 are one number; what is no number is none."""
    if isinstance(value, dict):
        return {key: _numbers(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_numbers(one) for one in value]
    return int(value) if isinstance(value, float) and math.isfinite(value) and value.is_integer() else value


_EXTRACT: dict[Method, Callable[[str], str | None]] = {
    "exact": _whole,
    "match": _whole,
    "number": _last_number,
    "number-strict": _strict_number,
    "letter": _letter,
    "answer-is": _answer_is,
    "call": _call_text,
    "line": _first_line,
}
