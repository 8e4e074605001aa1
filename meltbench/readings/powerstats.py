"""Which power rails a phone's energy meter has, by name: `dumpsys powerstats`.

frameworks/base, PowerStatsService.java and ProtoStreamUtils.ChannelUtils: the text lists channels, and no energies at
all; those stand in a protocol buffer of the service's log only, minutes apart. So this reader tells names and makes no
energy, and never a zero of one. Vendors without a meter list nothing.

The same service's PowerMonitor API (SystemHealthManager.getPowerMonitorReadings, Android 15) is no source here: for
any app but the system's it adds random noise of up to 10 J and repeats its answers for 20 to 30 s, so that a phase of a
few seconds would be noise alone. The rails themselves are read from the kernel (`odpm`) or by perfetto.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.readings.base import Column, Command, Reader, make_series, sighting
from meltbench.readings.polls import Table, answers, polled
from meltbench.records import ABSENT, OK

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_DUMP = Command(("dumpsys", "powerstats"))
MAX_CHANNELS = 128
_channel = re.compile(
    r"^[ \t]{0,16}Channel(?:Id|Index): \d{1,4}, ChannelName: ([^,\n]{1,64})"
    r"(?:, ChannelSubsystem: ([^,\n]{1,64}))?[ \t]*$",
    re.MULTILINE,
)
_heading = re.compile(r"^[ \t]{0,16}PowerStatsService dumpsys:|^[ \t]{0,16}On battery measured charge", re.MULTILINE)


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``powerstats.channels``: how many channels are listed; their names are in the source's detail."""
    del options  # this reader knows none
    mine = polled(_DUMP, streams)
    series = []
    names: dict[str, None] = {}
    for stream in mine:
        table = Table(len(stream.readings))
        for at, (code, text) in enumerate(answers(stream)):
            words = text.decode("ascii", "replace")
            found = _channel.findall(words)[:MAX_CHANNELS]
            names |= {f"{name} ({part})" if part else name: None for name, part in found if name.isprintable()}
            if found:
                table.put(at, "channels", float(len(found)))
            elif code != OK or not _heading.search(words):
                table.fail(at, *([code] if code != OK else []))
            else:
                table.put(at, "channels", float("nan"), ABSENT)
        raw = table.raw("channels")
        series.append(make_series(source, stream, Column("powerstats.channels", "1", "state"), raw.values, raw.codes))
    note = f"channels: {', '.join(names)}" if names else ""
    return series, sighting(source, mine, series, absent="no dumpsys on this target", note=note)


POWERSTATS = Reader("powerstats", (), parse, commands=(_DUMP,))
