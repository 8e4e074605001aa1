"""What Android's low-memory killer logs of a process that it killed.

system/memory/lmkd/lmkd.cpp logs to the tag ``lowmemorykiller``, vendors' builds to ``lmkd``: "Kill 'NAME' (PID), uid N,
oom_score_adj N to free NkB rss, NkB swap; reason: ...", newer ones "Reclaim 'NAME' (PID), ...", older ones and the
driver that came before "Killing 'NAME' (PID), adj N". Since Android 10 it also writes the event ``killinfo``
[pid, uid, oom_score_adj, least oom_score_adj, kB, ...]. logcat prints both in its formats brief and threadtime.

A native process of the shell is no app's: nobody asked the killer to spare it, and nobody else tells of its end.
"""

from __future__ import annotations

import re

TAGS = ("lmkd", "lowmemorykiller", "killinfo")
_BUFFERS = ("main", "system", "events")
_MAX_BYTES = 8 << 20  # of a log
_MAX_LINES = 16  # that name one process
_MAX_CHARS = 400


def _tagged(tag: bytes) -> bytes:
    """A tag behind the time of its line or its letter, with the pid of who logged it or without."""
    return rb"(?:^|[ /])" + tag + rb"[ \t]{0,32}(?:\([ \t]{0,8}\d{1,10}\))?[ \t]{0,4}: "


_said = re.compile(
    _tagged(rb"(lmkd|lowmemorykiller)") + rb"((?:Kill|Killing|Reclaim) '[^'\n]{0,256}' \((\d{1,10})\)[^\n]{0,1024})"
)
_event = re.compile(_tagged(rb"(killinfo)") + rb"(\[(\d{1,10}),[^\]\n]{0,2048}\])")


def words(since_s: float) -> list[str]:
    """The command that prints what it logged since a wall-clock time, s. Only its tags: a log may be full of others."""
    buffers = [word for name in _BUFFERS for word in ("-b", name)]
    return ["logcat", "-d", *buffers, "-v", "threadtime", "-t", f"{since_s:.3f}", "-s", *(f"{tag}:V" for tag in TAGS)]


def naming(log: bytes, pid: int) -> bytes:
    """The lines of a log that name a process: what of it is kept as evidence."""
    mine = re.compile(rb"\(%d\)|\[%d," % (pid, pid))
    lines = [line[:1024] for line in log[:_MAX_BYTES].splitlines() if mine.search(line)]
    return b"".join(line + b"\n" for line in lines[:_MAX_LINES])


def killed(log: bytes, pid: int) -> str | None:
    """What the killer said of that process, in its own words where there are any; None where it killed it not."""
    lines = log[:_MAX_BYTES].splitlines()
    for pattern in (_said, _event):
        for line in lines:
            found = pattern.search(line)
            if found is not None and int(found[3]) == pid:
                return _text(found[1] + b": " + found[2])
    return None


def _text(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").strip()[:_MAX_CHARS]
    return "".join(c if c.isprintable() else "\ufffd" for c in text)
