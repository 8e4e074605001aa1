"""A USB hub whose ports can be switched: while a phone is measured it runs from its battery, whatever its cable is for.

Two programs do it: uhubctl, for hubs that can switch the power of a port (github.com/mvp/uhubctl lists them), and
ykushcmd, for Yepkit's YKUSH boards. Data go with the power: a phone that is on that cable alone is out of reach.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from typing import Literal

from meltbench.errors import UserError
from meltbench.targets.profile import Setting

NAME = "usb_power"
# uhubctl: LOCATION of the hub, such as 1-1.4; ykush: the board's serial number, which may be left out.
_SHAPE = re.compile(
    r"(uhubctl):([0-9]{1,3}(?:-[0-9.]{1,40})?):([0-9]{1,2})|(ykush):(?:([A-Za-z0-9]{1,20}):)?([1-3])", re.ASCII
)
_TELLS = """said=$("$@") || exit 1
case $said in {off}) echo off ;; {on}) echo on ;; *) echo "it tells nothing of that port" >&2; exit 1 ;; esac"""


@dataclass(frozen=True)
class Hub:
    """A port of a hub. ``place``: which hub, in the words of ``tool``."""

    tool: Literal["uhubctl", "ykush"]
    place: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Hub:
        """Read ``uhubctl:LOCATION:PORT`` or ``ykush:[SERIAL:]PORT``. Raises ValueError for anything else."""
        found = _SHAPE.fullmatch(text)
        if found is None:
            raise ValueError(f"hub {text[:60]!r} is not uhubctl:LOCATION:PORT (uhubctl:1-1.4:2) or ykush:[SERIAL:]PORT")
        if found[1]:
            return cls("uhubctl", found[2], int(found[3]))
        return cls("ykush", found[5] or "", int(found[6]))

    @property
    def program(self) -> str:
        """What switches it."""
        return "uhubctl" if self.tool == "uhubctl" else "ykushcmd"

    def setting(self) -> Setting:
        """Its power, off from the start of a run until its end. Raises UserError where its program is not here."""
        if shutil.which(self.program) is None:
            hint = "install it (Debian: apt install uhubctl; Yepkit has ykushcmd), or pull the cable by hand"
            raise UserError(f"--unplug hub needs {self.program}, which is not on this machine", hint=hint)
        if self.tool == "uhubctl":
            words = ["uhubctl", "-l", self.place, "-p", str(self.port)]
            get, off, on = words, [*words, "-a", "off"], [*words, "-a", "on"]
            line = f'*"Port {self.port}: "????" '  # and four digits: the state of the port as the USB standard has it
            tells = _TELLS.format(off=f'{line}off"*', on=f'{line}power"*')
        else:
            words = ["ykushcmd", *(["-s", self.place] if self.place else [])]
            get, off, on = ([*words, flag, str(self.port)] for flag in ("-g", "-d", "-u"))
            tells = _TELLS.format(off="*OFF*", on="*ON*")
        return Setting(
            NAME, "off", get=("sh", "-c", tells, "sh", *get), set=tuple(off), undo=tuple(on), on="controller",
            once_started=True,
        )  # fmt: skip
