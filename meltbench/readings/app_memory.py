"""Memory of a process as Android counts it: `dumpsys meminfo PID`, in kilobytes of 1024 bytes.

frameworks/base, ActivityThread.dumpMemInfoTable and Debug.MemoryInfo. The row TOTAL has eight numbers from Android 11
on (Pss, private dirty, private clean, swapped, Rss, heap size, allocated, free) and seven before, without Rss. Its Pss
contains what was swapped out where the head of the table says SwapPss, and does not where it says Swap or Swapped: only
the first is a share that adds up. The App Summary below counts otherwise by part and repeats the totals; graphics
memory is told there alone, and is 0 on devices whose driver does not account it.

The dump takes 0.3 to 3 s of a core and holds the process up meanwhile: a profile asks for one in 5 s or seldomer.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from meltbench.readings.base import Column, Command, Reader, make_series, sighting
from meltbench.readings.polls import answers, polled, table
from meltbench.records import OK, UNPARSED

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.readings.base import Sighting
    from meltbench.records import Series, Stream

_DUMP = Command(("dumpsys", "meminfo", "{pid:engine}"), deadline_s=5.0)
KIB = 1024.0
NAMES = ("pss_total_bytes", "pss_bytes", "swap_pss_bytes", "rss_bytes", "graphics_bytes")
_total = re.compile(r"^[ \t]{0,24}TOTAL((?:[ \t]{1,24}\d{1,12}){4,8})[ \t]*$", re.MULTILINE)
_swap_pss = re.compile(r"^[ \t]{0,40}Pss [^\n]{0,120}\bSwapPss\b", re.MULTILINE)
_summary = re.compile(r"\bTOTAL (PSS|RSS|SWAP PSS):[ \t]{1,24}(\d{1,12})")
_graphics = re.compile(r"^[ \t]{0,24}Graphics:[ \t]{1,24}(\d{1,12})", re.MULTILINE)
WITH_RSS = 8  # numbers of the row


def parse_dump(text: str) -> dict[str, float] | int:
    """Bytes by name; a status code where the text is no dump of a process."""
    row = _total.search(text)
    numbers = [int(word) for word in row[1].split()] if row else []
    told = {word: int(value) for word, value in reversed(_summary.findall(text))}
    out: dict[str, float] = {}
    pss = numbers[0] if numbers else told.get("PSS")
    swap = told.get("SWAP PSS")
    if swap is None and numbers and _swap_pss.search(text):
        swap = numbers[3]
    rss = numbers[4] if len(numbers) == WITH_RSS else told.get("RSS")
    if pss is not None:
        # With SwapPss the total holds it; without, nobody knows what was swapped out.
        out |= {"pss_bytes": pss * KIB} if swap is None else {"pss_total_bytes": pss * KIB}
    if pss is not None and swap is not None and swap <= pss:
        out |= {"pss_bytes": (pss - swap) * KIB, "swap_pss_bytes": swap * KIB}
    if rss is not None:
        out["rss_bytes"] = rss * KIB
    if graphics := _graphics.search(text):
        out["graphics_bytes"] = int(graphics[1]) * KIB
    return out if "pss_bytes" in out else UNPARSED


def parse(source: str, streams: Sequence[Stream], options: Mapping[str, object]) -> tuple[list[Series], Sighting]:
    """``app_memory.pss_total_bytes`` (with what was swapped out), ``.pss_bytes``, ``.swap_pss_bytes``, ``.rss_bytes``,
    ``.graphics_bytes``."""
    del options  # this reader knows none
    mine = polled(_DUMP, streams)
    series = []
    for stream in mine:
        found = table(
            stream,
            [parse_dump(text.decode("ascii", "replace")) if code == OK else code for code, text in answers(stream)],
        )
        for name in NAMES:
            if name in found.names or (found.failed and name == "pss_bytes"):
                raw = found.raw(name)
                column = Column(f"app_memory.{name}", "B", "gauge", "process")
                series.append(make_series(source, stream, column, raw.values, raw.codes))
    return series, sighting(source, mine, series, absent="no dumpsys on this target")


DUMPSYS_MEMINFO = Reader("dumpsys_meminfo", (), parse, commands=(_DUMP,))
