"""Conditions on numbers, as of ``--where "power_w<5 and ttft_s<1"``: read, never evaluated as code.

    condition = all {"or" all};  all = one {"and" one};  one = "not" one | "(" condition ")" | comparison
    comparison = NAME ("<" | "<=" | ">" | ">=" | "=" | "==" | "!=") NUMBER[UNIT], or the number first, or a chain
                 NUMBER < NAME < NUMBER

A number may have a prefix and the unit of its column: ``4GB``, ``500ms``, ``5W``, ``4GiB``, ``60%``, ``80degC``. What
is not known is neither true nor false (Kleene's logic): ``a<1 or b<1`` holds where b is below 1, whatever a is.
"""

from __future__ import annotations

import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from meltbench.analysis.axes import AXES, SHORT, Ref
from meltbench.errors import UnknownName, UserError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy.typing as npt

    Array = npt.NDArray[np.float64]

LONGEST = 1000  # characters
_DEEPEST = 40
_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)(?P<unit>%|[^\W\d]+(?:/[^\W\d]+)?)?"
    r"|(?P<name>[A-Za-z_]\w*(?:@[^\s()<>=!]+)?)|(?P<sign><=|>=|==|!=|<|>|=|\(|\)|-))"
)
_COMPARE: dict[str, Callable[[Array, float], npt.NDArray[np.bool_]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}
_TURNED = {"<": ">", "<=": ">=", ">": "<", ">=": "<=", "=": "=", "!=": "!="}
_DECIMAL = {"n": 1e-9, "u": 1e-6, "µ": 1e-6, "m": 1e-3, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40}
_SAID = {"degC": ("degC", "C", "°C"), "tok/s": ("tok/s", "tps")}


@dataclass(frozen=True)
class Condition:
    """A condition: ``refs`` are the axes it is about, ``told`` its words in one way of writing."""

    told: str
    refs: tuple[Ref, ...]
    _root: _Node

    def holds(self, values: Sequence[Array]) -> Array:
        """1 where it holds, 0 where it does not, NaN where a missing number (NaN) leaves it open.

        ``values``: of each of ``refs``, in their order.
        """
        return self._root.holds(values)


class _Node:
    def holds(self, values: Sequence[Array]) -> Array:
        raise NotImplementedError


@dataclass(frozen=True)
class _Compared(_Node):
    at: int
    sign: str
    number: float

    def holds(self, values: Sequence[Array]) -> Array:
        mine = values[self.at]
        return np.where(np.isnan(mine), np.nan, _COMPARE[self.sign](mine, self.number))


@dataclass(frozen=True)
class _Joined(_Node):
    """All of them (``least``), or any."""

    parts: tuple[_Node, ...]
    least: bool

    def holds(self, values: Sequence[Array]) -> Array:
        found = [part.holds(values) for part in self.parts]
        decided = 0.0 if self.least else 1.0
        out = np.where(np.any([np.isnan(one) for one in found], axis=0), np.nan, 1 - decided)
        return np.where(np.any([one == decided for one in found], axis=0), decided, out)


@dataclass(frozen=True)
class _Not(_Node):
    part: _Node

    def holds(self, values: Sequence[Array]) -> Array:
        return 1 - self.part.holds(values)


def parse(text: str) -> Condition:
    """Read a condition. Raises UserError, or UnknownName, with the place of what is wrong, counted from 1."""
    if len(text) > LONGEST:
        raise UserError(f"--where has {len(text)} characters", hint=f"{LONGEST} are the most")
    return _Reader(text).condition()


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int
    unit: str = ""


class _Reader:
    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.next = 0
        self.deep = 0
        self.refs: dict[str, Ref] = {}

    def condition(self) -> Condition:
        told, root = self.some()
        if self.peek().kind != "end":
            raise _wrong(self.peek(), "and, or, or the end")
        return Condition(told, tuple(self.refs.values()), root)

    def peek(self) -> _Token:
        return self.tokens[self.next]

    def take(self) -> _Token:
        self.next += 1
        return self.tokens[self.next - 1]

    def said(self, word: str) -> bool:
        """Take a word or sign if it is the next one."""
        here = self.peek()
        if here.kind in ("name", "sign") and here.text.lower() == word:
            self.next += 1
            return True
        return False

    def some(self) -> tuple[str, _Node]:
        return self.joined("or", self.every)

    def every(self) -> tuple[str, _Node]:
        return self.joined("and", self.one)

    def joined(self, word: str, part: Callable[[], tuple[str, _Node]]) -> tuple[str, _Node]:
        parts = [part()]
        while self.said(word):
            parts.append(part())
        if len(parts) == 1:
            return parts[0]
        return f" {word} ".join(told for told, _ in parts), _Joined(tuple(node for _, node in parts), word == "and")

    def one(self) -> tuple[str, _Node]:
        self.deep += 1
        if self.deep > _DEEPEST:
            raise UserError(
                f"--where, at {self.peek().at}: nested deeper than {_DEEPEST}", hint="say it in fewer steps"
            )
        try:
            if self.said("not"):
                told, node = self.one()
                return f"not {told}", _Not(node)
            if self.said("("):
                told, node = self.some()
                if not self.said(")"):
                    raise _wrong(self.peek(), "a closing parenthesis")
                return f"({told})", node
            return self.comparison()
        finally:
            self.deep -= 1

    def comparison(self) -> tuple[str, _Node]:
        if self.peek().kind == "name":
            axis = self.name()
            sign = self.sign()
            number = self.number(axis)
            return f"{axis} {sign} {number:.10g}", self.compared(axis, sign, number)
        start = self.next
        self.signed()  # its unit is known once the name is
        turned = self.sign()
        axis = self.name()
        after, self.next = self.next, start
        number, self.next = self.number(axis), after
        told, nodes = f"{number:.10g} {turned} {axis}", [self.compared(axis, _TURNED[turned], number)]
        if self.peek().kind == "sign" and self.peek().text in ("<", "<=", ">", ">="):
            sign = self.sign()
            number = self.number(axis)
            told, nodes = f"{told} {sign} {number:.10g}", [*nodes, self.compared(axis, sign, number)]
        return told, nodes[0] if len(nodes) == 1 else _Joined(tuple(nodes), least=True)

    def compared(self, axis: Ref, sign: str, number: float) -> _Node:
        self.refs.setdefault(str(axis), axis)
        return _Compared(list(self.refs).index(str(axis)), sign, number)

    def name(self) -> Ref:
        here = self.take()
        if here.kind != "name" or here.text.lower() in ("and", "or", "not"):
            raise _wrong(here, "a column")
        try:
            return Ref.parse(here.text)
        except UnknownName as error:
            known = f"columns: {', '.join(sorted(AXES))}" if not error.nearest else error.hint
            raise UserError(f"--where, at {here.at}: {error.message}", hint=known) from None

    def sign(self) -> str:
        here = self.take()
        if here.kind != "sign" or here.text in "()-":
            raise _wrong(here, "one of < <= > >= = !=")
        return "=" if here.text == "==" else here.text

    def signed(self) -> tuple[float, _Token]:
        minus = -1.0 if self.said("-") else 1.0
        here = self.take()
        if here.kind != "number":
            raise _wrong(here, "a number, or a column")
        return minus * float(here.text), here

    def number(self, ref: Ref) -> float:
        value, here = self.signed()
        scale = _scale(here.unit, ref.axis.unit)
        if scale is None:
            wanted = f"a number in {ref.axis.unit}" if ref.axis.unit != "1" else "a bare number or %"
            raise UserError(
                f"--where, at {here.at}: {here.unit!r} is no unit of {ref.axis.name}", hint=f"give {wanted}"
            )
        if not math.isfinite(value * scale):
            raise UserError(f"--where, at {here.at}: the number is too large", hint="give one that can be reached")
        return value * scale


def _tokens(text: str) -> list[_Token]:
    out, at = [], 0
    while text[at:].strip():
        found = _TOKEN.match(text, at)
        if found is None:
            place = at + len(text[at:]) - len(text[at:].lstrip())
            what = "a column, a number or a sign"
            raise _wrong(_Token("?", text[place], place + 1), what)
        kind = next(name for name in ("number", "name", "sign") if found[name])
        out.append(_Token(kind, found[kind], found.start(kind) + 1, found["unit"] or ""))
        at = found.end()
    return [*out, _Token("end", "", len(text) + 1)]


def _wrong(here: _Token, expected: str) -> UserError:
    found = "the end" if here.kind == "end" else repr(here.text[:40])
    short = ", ".join(sorted(SHORT)[:3])
    hint = f'such as "power_w<5 and ttft_s<1"; columns are those of the view results, and {short} ...'
    return UserError(f"--where, at {here.at}: {found} where {expected} was expected", hint=hint)


def _scale(said: str, unit: str) -> float | None:
    """What a number with this suffix is times in the column's unit; None for a unit of something else."""
    if not said:
        return 1.0
    if said == "%":
        return 0.01 if unit == "1" else None
    for name in _SAID.get(unit, ("" if unit == "1" else unit,)):
        if not said.endswith(name):
            continue
        prefix = said.removesuffix(name) if name else said
        prefixes = _DECIMAL | (_BINARY if unit == "B" else {})
        if not prefix:
            return 1.0
        if prefix in prefixes and unit != "degC":
            return prefixes[prefix]
    # 4G of bytes, 5k of tokens: a prefix alone
    bare = _DECIMAL | (_BINARY if unit == "B" else {})
    return bare.get(said) if unit in ("B", "1", "tok/s") and said in bare else None
