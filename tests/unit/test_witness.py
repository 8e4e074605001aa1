"""The witness, which tells what failed by meltbench from what failed by the machine that the tests run on."""

from __future__ import annotations

import signal
import time

from targets_kit import until
from witness import LATE_S, Witness


def test_what_stands_still_since_a_test_began_is_seen() -> None:
    witness = Witness()
    try:
        until(witness.late.exists, "the witness to watch")
        witness.running.send_signal(signal.SIGSTOP)
        witness.begin()
        with witness.late.open("a") as late:
            late.write(f"{time.monotonic() - 1:.3f} 0.500\n")  # of the test before
        assert not witness.stood_still()
        time.sleep(LATE_S)
        witness.running.send_signal(signal.SIGCONT)
        until(witness.stood_still, "the witness to have seen it")
    finally:
        witness.end()
    assert not witness.late.parent.exists()
