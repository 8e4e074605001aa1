"""A Python package that is installed in this very Python: its libraries, and what pip calls it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Installed:
    """``name`` and ``version`` are pip's; ``libraries`` are the shared ones of the package's folder, sorted."""

    name: str
    version: str
    libraries: tuple[Path, ...]


def look(package: str, pip_name: str) -> Installed | None:
    """The package that is imported under this name, which is not done; None where there is none.

    One build of a package may have another name for pip than the one that it is asked for by, as
    onnxruntime-genai-cuda has.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    libraries = tuple(one for one in sorted(Path(spec.origin).parent.rglob("*.so*")) if one.is_file())
    if (version := version_of(pip_name)) is not None:
        return Installed(pip_name, version, libraries)
    name = importlib.metadata.packages_distributions().get(package, [pip_name])[0]
    return Installed(name, version_of(name) or "unknown", libraries)


def version_of(pip_name: str) -> str | None:
    """The installed version of what pip calls so, None where it is not installed."""
    try:
        return importlib.metadata.version(pip_name)
    except importlib.metadata.PackageNotFoundError:
        return None
