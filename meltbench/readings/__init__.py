"""Recorded bytes become typed samples: one reader a kind of source, none of which touches a device or a file."""

from __future__ import annotations

from typing import TYPE_CHECKING

from meltbench.errors import UnknownName
from meltbench.readings.base import Helper, PathSpec, Reader
from meltbench.readings.cpufreq import CPUFREQ
from meltbench.readings.hwmon import HWMON
from meltbench.readings.nvml import NVML
from meltbench.readings.proc import CPUSTAT, LOADAVG, MEMINFO, PROCMEM, PROCSTAT, PSI, SMAPS, VMSTAT
from meltbench.readings.pyrapl import PYRAPL
from meltbench.readings.rapl import RAPL
from meltbench.readings.thermal import THERMAL
from meltbench.readings.timeinstate import TIME_IN_STATE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.records import Series, SourceStatus, Stream

__all__ = ["READERS", "Helper", "PathSpec", "Reader", "read"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        *(CPUFREQ, CPUSTAT, HWMON, LOADAVG, MEMINFO, NVML, PROCMEM, PROCSTAT, PSI, PYRAPL, RAPL, SMAPS, THERMAL),
        *(TIME_IN_STATE, VMSTAT),
    )
}


def read(
    source_name: str, reader_name: str, streams: Sequence[Stream], options: Mapping[str, object]
) -> tuple[list[Series], SourceStatus]:
    """The series of one source, and why it gave what it gave.

    ``streams`` may hold those of other sources: a reader takes what matches its paths. Whatever the bytes say, the
    result is samples or a status. Raises UnknownName for a reader or an option that does not exist and
    DefinitionError for an option's value: both come from a definition, not from the target.
    """
    reader = READERS.get(reader_name)
    if reader is None:
        raise UnknownName("reader", reader_name, READERS)
    for option in options:
        if option not in reader.options:
            raise UnknownName(f"option of reader {reader_name}", option, reader.options)
    return reader.parse(source_name, streams, options)
