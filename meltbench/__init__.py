"""meltbench: what a language model costs on a device.

    import meltbench
    runs = meltbench.run("smollm2-135m-q4", reps=3)
    runs.frame[["ttft_s", "decode_tps", "energy_j"]]

``meltbench.run`` measures, ``meltbench.Store`` reads what was measured before, both in pandas frames.
"""

import typing as _typing

if _typing.TYPE_CHECKING:
    from meltbench.api import Run, Runs, Store, run
    from meltbench.errors import MeltbenchError

__version__ = "0.1.0"
__all__ = ["MeltbenchError", "Run", "Runs", "Store", "__version__", "run"]

_HOMES = {"MeltbenchError": "errors", "Run": "api", "Runs": "api", "Store": "api", "run": "api"}


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for, so that ``import meltbench`` costs nothing."""
    if name not in _HOMES:
        raise AttributeError(f"module 'meltbench' has no attribute {name!r}")
    import importlib

    value = getattr(importlib.import_module(f"meltbench.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
