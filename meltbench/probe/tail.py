"""Reads a journal while it grows: the frames that have come since, and no more of it in memory than one look's bytes.

A frame that is torn may be whole at the next look, so nothing of it is kept and it is read again then. Like every
reader of a journal this one stops for good at a frame that does not check.
"""

from __future__ import annotations

from meltbench.probe.journal import HEADER, MAGIC, SYNC, checks

LONGEST_BYTES = 1 << 20  # of a frame that is taken in: the probe's own have 64 KiB of readings; longer ones are passed
_PATIENCE = 3  # looks at one frame that does not check: its bytes may be on their way to the disk still


class Tail:
    """``at``: the place in the journal from which on nothing was taken in yet, where the next look begins."""

    def __init__(self) -> None:
        self.at = 0
        self._failed = 0

    @property
    def lost(self) -> bool:
        """Whether nothing more can be read: what stands at ``at`` is no frame, and stays none."""
        return self._failed >= _PATIENCE

    def take(self, data: bytes) -> list[tuple[int, bytes]]:
        """Kind and payload of the whole frames in ``data``, which is what the journal holds from ``at`` on."""
        if self.lost:
            return []
        out: list[tuple[int, bytes]] = []
        at, sound = 0, True
        if self.at == 0:
            at, sound = (len(MAGIC), True) if data.startswith(MAGIC) else (0, MAGIC.startswith(data))
        while sound and (self.at or at) and len(data) - at >= HEADER.size:
            sync, kind, _, length, crc = HEADER.unpack_from(data, at)
            start, end = at + HEADER.size, at + HEADER.size + length
            sound = sync == SYNC
            if not sound:
                break
            if length <= LONGEST_BYTES:
                if end > len(data):
                    break
                payload = data[start:end]
                sound = checks(data[at + 4 : at + 12], payload, crc)
                if not sound:
                    break
                out.append((kind, payload))
            at = end
        self.at += at
        self._failed = 0 if sound else 1 if at else self._failed + 1
        return out
