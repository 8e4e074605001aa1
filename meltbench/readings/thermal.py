"""Thermal zones of the Linux kernel, named by type: their numbers change from boot to boot.

Documentation/driver-api/thermal/sysfs-api.rst: millidegrees Celsius. A sensor whose power domain is off answers
-256000, 0 or EAGAIN (Jetson, Snapdragon); none of them is a temperature. Nor are the 50 and 100 degC of PMIC-Die in
L4T R32: its driver knows alarms only, and says so while there is none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from meltbench.errors import DefinitionError
from meltbench.readings.base import (
    NAN,
    Column,
    PathSpec,
    Reader,
    folder,
    int_values,
    last_text,
    make_series,
    matching,
    sighting,
    unique_names,
)
from meltbench.records import GATED, OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_TEMP = PathSpec("/sys/class/thermal/thermal_zone*/temp")
_TYPE = PathSpec("/sys/class/thermal/thermal_zone*/type", periodic=False)
COLDEST_C, HOTTEST_C = -40.0, 150.0  # the range of automotive silicon; a reading outside is not one
_QUIET_C = {"PMIC-Die": (50.0, 100.0)}
_OFF = -200_000  # -256000 and -274000 are in use: colder than any place, so a mark and not a value


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """Temperatures in degrees Celsius, one series a zone: ``thermal.TYPE``, ``thermal.TYPE#2`` ..."""
    scale = options.get("celsius_per_count", 0.001)
    if not isinstance(scale, (int, float)) or isinstance(scale, bool) or scale not in (0.001, 0.1, 1):
        raise DefinitionError(f"celsius_per_count is {scale!r}", hint="0.001 (the kernel's unit), 0.1 or 1")
    mine = [stream for _, stream in matching(_TEMP, streams)]
    types = {folder(stream.path): last_text(stream) for _, stream in matching(_TYPE, streams)}
    names = unique_names(types.get(folder(stream.path)) or "untyped" for stream in mine)
    series = []
    for name, stream in zip(names, mine, strict=True):
        if len(stream.readings) == 0:
            continue
        counts, codes = int_values(stream.readings)
        values = counts * float(scale)
        off = (codes == OK) & ((counts == 0) | (counts <= _OFF) | np.isin(values, _QUIET_C.get(name, ())))
        odd = (codes == OK) & ~off & ((values < COLDEST_C) | (values > HOTTEST_C))
        codes[off], codes[odd] = GATED, UNPARSED
        values = np.where(codes == OK, values, NAN)
        series.append(make_series(source, stream, Column(f"thermal.{name}", "degC", "gauge"), values, codes))
    absent = f"no {_TEMP.glob} on this target"
    return series, sighting(source, mine, series, absent=absent)


THERMAL = Reader("thermal", (_TEMP, _TYPE), parse, frozenset({"celsius_per_count"}), asked=("heat",))
