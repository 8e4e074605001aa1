"""A file of the kernel's own that shows a number, can vanish and can be denied while somebody holds it open.

What a made tree of plain files cannot do, files of a process below /proc can: its name shows any text of 15 bytes, and
is gone with it (ESRCH, as of a device that was unplugged); its personality shows a number, and once the process says
that nobody may look into it, reading an open file fails with EPERM, as a policy of SELinux does that is loaded
meanwhile.

    made_sensor.py comm|personality      each line of stdin: the number to show, gone, or deny
"""

from __future__ import annotations

import ctypes
import os
import sys

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_DUMPABLE, _PR_SET_NAME, _PR_SET_PTRACER = 4, 15, 0x59616D61
_ANYONE = ctypes.c_ulong(-1)


def show(kind: str, number: int) -> None:
    if kind == "comm":
        _LIBC.prctl(_PR_SET_NAME, b"%d" % number, 0, 0, 0)
    else:  # shown as eight hexadecimal digits: those of the decimal number
        _LIBC.personality(ctypes.c_ulong(int(f"{number:08d}"[-8:], 16)))


def main() -> None:
    kind = sys.argv[1]
    _LIBC.prctl(_PR_SET_PTRACER, _ANYONE, 0, 0, 0)  # where Yama would keep the probe from reading at all
    show(kind, 0)
    print(f"/proc/{os.getpid()}/{kind}", flush=True)
    for line in sys.stdin:
        word = line.strip()
        if word == "gone":
            return
        if word == "deny":
            _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
        else:
            show(kind, int(word))


if __name__ == "__main__":
    main()
