"""What other Python packages bring: folders of runners, and engine protocols, by entry point.

A package names in its pyproject.toml

    [project.entry-points."meltbench.runners"]
    acme = "acme_meltbench.runners"           # a package whose folder holds runners, NAME/runner.toml each

    [project.entry-points."meltbench.protocols"]
    acme = "acme_meltbench.protocol:Acme"     # called with (dialect, model), gives a ServerEngine or ProgramEngine
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from meltbench.errors import DefinitionError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

RUNNERS, PROTOCOLS = "meltbench.runners", "meltbench.protocols"


@cache
def _found(group: str) -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    return {one.name: one for one in sorted(entry_points(group=group), key=lambda one: (one.name, one.value))}


def runner_folders() -> list[Path]:
    """The folders of runners of installed packages, by the names of their entry points. DefinitionError names the one
    that is not there."""
    import importlib.util

    folders: list[Path] = []
    for name, one in _found(RUNNERS).items():
        try:
            spec = importlib.util.find_spec(one.value)
        except Exception as error:  # noqa: BLE001  to find a package within another runs the other's own code
            raise _broken(name, one, f"{type(error).__name__}: {error}") from None
        if spec is None or not spec.submodule_search_locations:
            raise _broken(name, one, f"{one.value} is no package that is installed")
        folders += [Path(place) for place in spec.submodule_search_locations]
    return folders


def protocol_names() -> list[str]:
    """The engine protocols of installed packages."""
    return list(_found(PROTOCOLS))


def protocol(name: str) -> Any:
    """What makes the engine protocol of that name, None where no package has one. DefinitionError where it cannot be
    imported."""
    one = _found(PROTOCOLS).get(name)
    if one is None:
        return None
    try:
        return one.load()
    except Exception as error:
        raise _broken(name, one, f"{type(error).__name__}: {error}") from error


def _broken(name: str, one: EntryPoint, why: str) -> DefinitionError:
    package = one.dist.name if one.dist is not None else "unknown"
    return DefinitionError(
        f"the entry point {one.group}:{name} of the package {package} leads nowhere: {why}",
        hint=f"pip uninstall {package}, or mend it",
    )
