"""What the boards of the Jetson family have in common: their rails, and the power mode in force."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.readings.base import NAN, Column, Command, Reader, sighting
from meltbench.readings.signals import named_series, polled
from meltbench.readings.thermal import COLDEST_C, HOTTEST_C

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Scope, Series, Stream

# The rails that feed a whole module, and so contain the others beside them (NVIDIA's developer guide: TX1, TX2, Xavier
# NX and Orin NX and Nano; Nano; AGX Thor). AGX Xavier and AGX Orin have none: their rails add up to a part.
INPUT_RAILS = frozenset({"VDD_IN", "POM_5V_IN", "VIN"})
# INA3221 as Jetson runs it: three channels in turn, bus and shunt 1.1 ms each (datasheet SBOS576, table 4).
CONVERSION_S = 3 * 2 * 1.1e-3
_OFF_C = -200.0  # tools print -256 for a sensor whose domain is off, and 0 is no temperature of a running board
_DUMMY_C = 100.0  # of the zone PMIC in L4T R32: a fixed number and no measurement


def rail_scope(rail: str) -> Scope:
    """``module`` for a rail that feeds the module, else ``rail``.

    Even the module's leaves out what hangs on the carrier: NVMe, USB, fan, and the losses of its own supply.
    """
    return "module" if rail in INPUT_RAILS else "rail"


def temperature(name: str, celsius: float) -> float | None:
    """Degrees as a tool prints them: NaN for a sensor that is switched off, None for a number that is no reading."""
    if celsius <= _OFF_C or celsius == 0:
        return NAN
    dummy = name.upper().startswith("PMIC") and celsius == _DUMMY_C
    return celsius if COLDEST_C <= celsius <= HOTTEST_C and not dummy else None


_NVPMODEL = Command(("nvpmodel", "-q"))
# With --verbose the line begins with "NVPM VERB: Current mode: ".
_mode = re.compile(
    rb"^(?:NVPM VERB: Current mode: )?NV Power Mode:[ \t]*([^\r\n]{1,64}?)[ \t]*\r?\n[ \t]*(\d{1,3})[ \t]*\r?$",
    re.MULTILINE,
)
_MODE = Column("nvpmodel.mode", "1", "state")


def _mode_row(raw: bytes) -> dict[Column, float]:
    found = _mode.search(raw)
    return {} if found is None else {_MODE: float(found[2])}


def _parse_nvpmodel(
    source: str, streams: Sequence[Stream], options: Mapping[str, object]
) -> tuple[list[Series], Sighting]:
    """``nvpmodel.mode``, the number of the mode; its name stands in the detail.

    A mode caps clocks and cores: the watts in its name are no limit of power.
    """
    del options  # this reader knows none
    mine = polled(_NVPMODEL, streams)
    series = [one for stream in mine for one in named_series(source, stream, _mode_row)]
    said = dict.fromkeys(found[1] + b" (" + found[2] + b")" for s in mine for found in _mode.finditer(s.readings.data))
    names = [text.decode("ascii", "replace") for text in list(said)[:8]]
    note = "mode " + " > ".join(n for n in names if n.isprintable()) if names else ""
    return series, sighting(source, mine, series, absent="no program nvpmodel", note=note)


NVPMODEL = Reader("nvpmodel", (), _parse_nvpmodel, commands=(_NVPMODEL,))
