"""External meters: what stands between a device and its supply. One module a kind, all with series named ``meter.``."""

from meltbench.readings.meters.fnb58 import FNB58
from meltbench.readings.meters.historian import HISTORIAN
from meltbench.readings.meters.joulescope import JOULESCOPE
from meltbench.readings.meters.kasa import KASA
from meltbench.readings.meters.monsoon import MONSOON
from meltbench.readings.meters.ptdaemon import PTDAEMON
from meltbench.readings.meters.shelly import SHELLY
from meltbench.readings.meters.tasmota import TASMOTA
from meltbench.readings.meters.um25c import UM25C

__all__ = ["METERS"]

METERS = (FNB58, HISTORIAN, JOULESCOPE, KASA, MONSOON, PTDAEMON, SHELLY, TASMOTA, UM25C)
