"""Our helper programs, of Python: how they are started on a target, and where there is something for them to read."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from meltbench import catalog

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.readings import Helper
    from meltbench.targets.facts import Facts
    from meltbench.targets.profile import Profile


@dataclass(frozen=True)
class Scripts:
    """How our helper programs are started on a target: by its ``python``, from ``folder``, which ``packages`` it has.

    ``packages`` None: those of this very Python. ``options``: of the interpreter.
    """

    python: str
    folder: str
    packages: frozenset[str] | None = None
    options: tuple[str, ...] = ("-B",)

    @classmethod
    def here(cls) -> Scripts:
        """Those of this machine. -P: the folder of a script is no place to import from."""
        folder = catalog.builtin_root() / "runners" / "helpers"
        return cls(sys.executable, str(folder), options=("-B", "-P"))

    @staticmethod
    def name(helper: Helper) -> str:
        """The file of a helper on another target."""
        return f"helper_{helper.script}.py"

    def has(self, package: str | None) -> bool:
        """Whether a package can be imported there."""
        if package is None:
            return True
        return importlib.util.find_spec(package) is not None if self.packages is None else package in self.packages

    def argv(self, helper: Helper, words: Sequence[str]) -> list[str]:
        """The command line of a helper."""
        name = f"{helper.script}.py" if self.packages is None else self.name(helper)
        return [self.python, *self.options, f"{self.folder}/{name}", *words]


def wanted(helper: Helper, profile: Profile, facts: Facts, scripts: Scripts, *, host: bool = False) -> bool:
    """Whether the target, or the ``host``, has what a helper reads: for what is not there no process is started."""
    real = host or not helper.own_sys or profile.roots.sys.rstrip("/") == "/sys"
    return real and helper.there(facts) and scripts.has(helper.package)
