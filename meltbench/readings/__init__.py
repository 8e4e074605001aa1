"""Recorded bytes become typed samples: one reader a kind of source, none of which touches a device or a file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from meltbench.errors import UnknownName
from meltbench.readings.amdsmi import AMDSMI
from meltbench.readings.app_memory import DUMPSYS_MEMINFO
from meltbench.readings.base import Command, Helper, PathSpec, Reader, Sighting
from meltbench.readings.cooling import THROTTLE_ALERT
from meltbench.readings.cpufreq import CPUFREQ
from meltbench.readings.devfreq import DEVFREQ
from meltbench.readings.dumpsys_battery import CMD_BATTERY, DUMPSYS_BATTERY
from meltbench.readings.hwmon import HWMON
from meltbench.readings.ina3221 import INA3221
from meltbench.readings.jetson import NVPMODEL
from meltbench.readings.jtop import JTOP
from meltbench.readings.macmon import MACMON
from meltbench.readings.melt import MELT_JETSON
from meltbench.readings.meters import METERS
from meltbench.readings.mobile_gpu import KGSL, MALI
from meltbench.readings.nvml import NVML
from meltbench.readings.odpm import ODPM
from meltbench.readings.opprofile import GGML_PROFILE, TVM_PROFILE
from meltbench.readings.perfetto import PERFETTO
from meltbench.readings.power_supply import POWER_SUPPLY, POWER_SUPPLY_UEVENT
from meltbench.readings.powermetrics import POWERMETRICS
from meltbench.readings.powerstats import POWERSTATS
from meltbench.readings.proc import CPUSTAT, LOADAVG, MEMINFO, PROCMEM, PROCSTAT, PSI, SMAPS, VMSTAT
from meltbench.readings.pyrapl import PYRAPL
from meltbench.readings.rapl import RAPL
from meltbench.readings.tegrastats import TEGRASTATS
from meltbench.readings.thermal import THERMAL
from meltbench.readings.thermalservice import PIXEL_THERMAL, THERMAL_HAL, THERMALSERVICE
from meltbench.readings.timeinstate import TIME_IN_STATE
from meltbench.readings.vcgencmd import MEASURE_TEMP, PMIC, THROTTLED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.records import Series, SourceStatus, Stream

__all__ = ["READERS", "Command", "Helper", "PathSpec", "Reader", "Sighting", "Source", "read"]

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        *(CPUFREQ, CPUSTAT, HWMON, LOADAVG, MEMINFO, NVML, PROCMEM, PROCSTAT, PSI, PYRAPL, RAPL, SMAPS, THERMAL),
        *(TIME_IN_STATE, VMSTAT),
        *(GGML_PROFILE, TVM_PROFILE),
        *(DEVFREQ, INA3221, JTOP, MEASURE_TEMP, MELT_JETSON, NVPMODEL, PMIC, TEGRASTATS, THROTTLED, THROTTLE_ALERT),
        *(CMD_BATTERY, DUMPSYS_BATTERY, DUMPSYS_MEMINFO, KGSL, MALI, ODPM, PERFETTO, PIXEL_THERMAL, POWERSTATS),
        *(POWER_SUPPLY, POWER_SUPPLY_UEVENT, THERMALSERVICE, THERMAL_HAL),
        *(AMDSMI, MACMON, POWERMETRICS, *METERS),
    )
}


@dataclass(frozen=True)
class Source:
    """One source of a run: its reader with the options of the device profile, checked.

    ``gain_limit``: relative limit of the gain error of its energies and powers, where the profile knows one better
    founded than its class's. ``calibration``: the record behind its unit, sign and scale, by the option of that name,
    which every source may have.
    Raises UnknownName for a reader or an option that does not exist: both come from a definition, not from the target.
    """

    name: str
    reader: Reader
    options: Mapping[str, object]
    gain_limit: float | None = None
    calibration: str = ""

    @classmethod
    def of(
        cls, name: str, reader_name: str, options: Mapping[str, object], *, gain_limit: float | None = None
    ) -> Source:
        """The source of that name, read by the reader of that name."""
        reader = READERS.get(reader_name)
        if reader is None:
            raise UnknownName("reader", reader_name, READERS)
        own = {key: value for key, value in options.items() if key != "calibration" or key in reader.options}
        for option in own:
            if option not in reader.options:
                raise UnknownName(f"option of reader {reader_name}", option, [*reader.options, "calibration"])
        return cls(name, reader, own, gain_limit, str(options.get("calibration", "")))

    def whole(self, stream: Stream) -> bool:
        """Whether a stream is given whole with each slice: it is read at transitions alone."""
        return any(not spec.periodic and spec.match(stream.path) for spec in self.reader.paths)

    def read(self, streams: Sequence[Stream], *, again: bool = False) -> tuple[list[Series], Sighting]:
        """The series in a slice of the streams, and what was seen of the source.

        ``again``: not the first slice, so that what is given whole each time was told before.
        ``streams`` may hold those of other sources: a reader takes what matches its paths. Whatever the bytes say, the
        result is samples or a status. Raises DefinitionError for an option's value.
        """
        series, seen = self.reader.parse(self.name, streams, self.options)
        series = [self._known(one) for one in series]
        if not again:
            return series, seen
        told = {stream.path for stream in streams if self.whole(stream)}
        old = [one for one in series if one.path in told]
        paths = {one.path for one in old}  # one text may hold several signals, or many samples
        readings = sum(len(stream.readings) for stream in streams if stream.path in paths)
        return [one for one in series if one.path not in told], seen.without(old, readings)

    def _known(self, one: Series) -> Series:
        """With what the profile and a calibration know of the source."""
        if one.unit not in ("J", "W", "A"):
            return one
        limit = one.gain_limit if self.gain_limit is None else self.gain_limit
        return replace(one, gain_limit=limit, calibration=one.calibration or self.calibration)


def read(
    source_name: str, reader_name: str, streams: Sequence[Stream], options: Mapping[str, object]
) -> tuple[list[Series], SourceStatus]:
    """The series of one source from streams that are held whole, and why it gave what it gave."""
    series, seen = Source.of(source_name, reader_name, options).read(streams)
    return series, seen.told()
