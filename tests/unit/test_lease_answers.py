"""What the controller takes for a lease, whatever a target answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from meltbench.errors import DeviceError, LeaseLost, TargetBusy
from meltbench.probe.client import Probe
from meltbench.targets import Completed
from meltbench.targets.local import LocalTransport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from meltbench.deadline import Deadline
    from meltbench.targets import Feed

FREE = b'{"token":7,"holder":null,"left_ms":0,"held_ms":0,"stolen":null,"running":null}\n'
HELD = FREE.replace(b"null", b'"b"', 1)


class Answers(LocalTransport):
    """A target that answers every command so: the edge of the world."""

    def __init__(self, code: int, stdout: bytes, stderr: bytes) -> None:
        self.done = Completed(code, stdout, stderr)

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        assert argv[:3] == ["p", "lease", "r"]
        return self.done


def answered(code: int, stdout: bytes, stderr: bytes = b"meltprobe: it is so\n") -> Probe:
    return Probe(Answers(code, stdout, stderr), "p", "r")


def test_a_lease() -> None:
    assert answered(0, HELD).lease_show()["holder"] == "b"
    with pytest.raises(TargetBusy, match="leased: b, for 0 s now"):
        answered(75, HELD).lease_take("a", 1000)
    with pytest.raises(LeaseLost, match="taken over: b"):
        answered(77, HELD).lease_renew(6, 1000)
    with pytest.raises(LeaseLost, match="has run out"):
        answered(77, FREE).lease_drop(7)


@pytest.mark.parametrize("code", [0, 75, 77])
@pytest.mark.parametrize(
    "text",
    [
        b"[]",
        b"x",
        b"{}",
        b"[" * 100000,
        HELD.replace(b"7", b"-7"),
        HELD.replace(b"7", b"1e3"),
        HELD.replace(b"7", b"true"),
        HELD.replace(b'"b"', b"3"),
        HELD.replace(b'"left_ms":0', b'"left_ms":"0"'),
        HELD.replace(b'"b"', b'"' + b"b" * 256 + b'"'),
        HELD.replace(b'"running":null', b'"running":["a"]'),
        HELD.replace(b'"stolen":null', b'"stolen":"c"'),
        HELD.replace(b'"stolen":null', b'"stolen":{"holder":3,"reason":"x"}'),
        b"\xff\xfe",
    ],
)
def test_anything_else_is_an_error_of_the_target(code: int, text: bytes) -> None:
    with pytest.raises(DeviceError) as told:
        answered(code, text).lease_show()
    assert type(told.value) is DeviceError


def test_another_status_is_told_in_the_probes_words() -> None:
    for code, text in ((73, HELD), (64, b""), (75, b""), (-9, b"")):
        with pytest.raises(DeviceError, match=r"^the lease on the target could not be read: it is so$"):
            answered(code, text).lease_show()


def test_a_full_disk_says_what_to_do() -> None:
    full = answered(73, b"", b"meltprobe: /home/lab/.meltbench/runs: No space left on device\n")
    with pytest.raises(DeviceError) as told:
        full.lease_take("a", 1000)
    assert str(told.value) == (
        "the lease on the target could not be written: /home/lab/.meltbench/runs: No space left on device; "
        "free space there, or see and drop what is cached: meltbench devices cache NAME"
    )
