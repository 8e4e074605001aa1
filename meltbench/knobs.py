"""Settings of an engine, as its recipe declares them and ``--set`` gives them."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from meltbench.errors import UnknownName, UserError

_MAX_TEXT = 4096


@dataclass(frozen=True)
class Knob:
    """A setting of an engine. ``default`` "auto" is worked out from device and workload, "none" leaves it out.

    It is a number from ``low`` to ``high``, one of ``choices``, a ``file`` of this machine, or else any text.
    """

    default: int | str
    help: str
    low: int | None = None
    high: int | None = None
    choices: tuple[str, ...] = ()
    file: bool = False

    def __post_init__(self) -> None:
        kinds = (self.low is not None, bool(self.choices), self.file)
        if (self.low is None) != (self.high is None) or sum(kinds) > 1:
            raise ValueError("a knob has low and high, or choices, or file = true, or none of them: it is a text then")

    def read(self, name: str, text: str) -> int | str:
        """A value given by the user, checked."""
        if text == "none" or (text == "auto" and self.default == "auto"):
            return text
        if self.low is None or self.high is None:
            return self._read_text(name, text)
        if not re.fullmatch(r"-?\d{1,12}", text) or not self.low <= int(text) <= self.high:
            raise UserError(
                f"{name} = {text!r} is not a valid setting", hint=f"give {self.low} to {self.high}, or none"
            )
        return int(text)

    def _read_text(self, name: str, text: str) -> str:
        if self.choices:
            if text not in self.choices:
                raise UnknownName(f"value of {name}:", text, [*self.choices, "none"])
            return text
        if self.file:
            path = Path(text).expanduser().absolute()
            if not os.path.isfile(path):
                raise UserError(f"{name}: no file at {path}", hint="give its path, or none")
            return str(path)
        if not text or len(text) > _MAX_TEXT or not text.isprintable():
            raise UserError(f"{name} is no printable text of 1 to {_MAX_TEXT} characters", hint="give one, or none")
        return text
