"""Packets of adb's shell protocol, whatever comes and in whatever pieces; and the words of an adb server."""

from __future__ import annotations

import random
import socket
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, LinkLost, UserError
from meltbench.targets.adb import words
from meltbench.targets.adb.server import listed
from meltbench.targets.adb.session import AdbSession, service
from meltbench.targets.shell.streams import Feeder, Head

OUT, ERR, EXIT, CLOSED = 1, 2, 3, 4


def packet(kind: int, data: bytes) -> bytes:
    return struct.pack("<BI", kind, len(data)) + data


class Adbd:
    """The device's end of a service: sends what it is told to, in pieces, and keeps what comes."""

    def __init__(self, said: Callable[[bytes], bytes], pieces: int = 1, *, stays: bool = False) -> None:
        self._said, self._pieces, self._stays = said, pieces, stays
        self.got = b""

    def open(self, name: str) -> socket.socket:
        mark = name.split("echo ")[1].split(";")[0].encode() + b"\n"
        here, there = socket.socketpair()
        self._thread = threading.Thread(target=self._speak, args=(there, self._said(mark)), daemon=True)
        self._thread.start()
        return here

    def _speak(self, link: socket.socket, said: bytes) -> None:
        with link, suppress(BrokenPipeError):  # it may be left in the middle
            for at in range(0, len(said), max(1, len(said) // self._pieces)):
                link.sendall(said[at : at + max(1, len(said) // self._pieces)])
            if self._stays:
                while data := link.recv(65536):
                    self.got += data


def session(adbd: Adbd, argv: Sequence[str] = ("true",), *, there: bool = True) -> AdbSession:
    return AdbSession("phone", argv, adbd.open, lambda _: there)


def soon() -> Deadline:
    return Deadline.after(20)


@given(
    st.lists(st.tuples(st.sampled_from([OUT, ERR]), st.binary(max_size=40)), max_size=20),
    st.binary(max_size=30),
    st.integers(0, 128),
    st.integers(1, 60),
)
def test_streams_come_as_they_were_sent_in_whatever_pieces(
    chunks: list[tuple[int, bytes]], prose: bytes, code: int, pieces: int
) -> None:
    def said(mark: bytes) -> bytes:
        return (
            packet(OUT, prose + b"\n" + mark)
            + b"".join(packet(kind, data) for kind, data in chunks)
            + packet(EXIT, bytes([code]))
        )

    out, err = Head(), Head()
    one = session(Adbd(said, pieces))
    one.into(out, err)
    assert one.converse(soon()) == code
    one.close(kill=True)
    assert bytes(out) == b"".join(data for kind, data in chunks if kind == OUT)
    assert bytes(err) == b"".join(data for kind, data in chunks if kind == ERR)


@given(st.binary(max_size=200))
def test_nonsense_is_an_error_of_ours(junk: bytes) -> None:
    one = session(Adbd(lambda _: junk))
    try:
        with pytest.raises(DeviceError):
            one.converse(Deadline.after(5))
    finally:
        one.close(kill=True)


def test_an_end_without_an_exit_status_is_a_lost_link() -> None:
    one = session(Adbd(lambda mark: packet(OUT, mark + b"half of it")))
    with pytest.raises(LinkLost, match="was lost while true was under way"):
        one.converse(soon())
    one.close(kill=True)


def test_a_packet_that_nobody_sends_is_refused() -> None:
    one = session(Adbd(lambda _: struct.pack("<BI", OUT, 1 << 31)))
    with pytest.raises(DeviceError, match="sends packets of 2147483648 bytes"):
        one.converse(soon())
    one.close(kill=True)


def test_a_signal_is_told_as_adbd_tells_it() -> None:
    one = session(Adbd(lambda mark: packet(OUT, mark) + packet(EXIT, b"\x89")))
    assert one.converse(soon()) == -9
    one.close(kill=True)


def test_a_shell_that_does_not_run_it_is_told() -> None:
    one = session(Adbd(lambda _: packet(OUT, b"no shell for you\n") + packet(EXIT, b"\x01")))
    with pytest.raises(DeviceError, match=r"the shell of phone did not run true: no shell for you"):
        one.converse(soon())
    one.close(kill=True)


def test_a_device_that_says_nothing_is_given_up_when_it_does_not_answer_another_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("meltbench.targets.adb.session._QUIET_S", 0.1)
    one = session(Adbd(lambda mark: packet(OUT, mark), stays=True), there=False)
    with pytest.raises(LinkLost, match="it is silent"):
        one.converse(soon())
    one.close(kill=True)
    other = session(Adbd(lambda mark: packet(OUT, mark), stays=True), there=True)
    with pytest.raises(DeadlineExceeded):
        other.converse(Deadline.after(1))
    other.close(kill=True)


def test_what_is_fed_arrives_in_packets_and_then_an_end(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3 << 20)
    (tmp_path / "file").write_bytes(data)
    adbd = Adbd(lambda mark: packet(OUT, mark), stays=True)
    one = session(adbd)
    with (tmp_path / "file").open("rb", buffering=0) as file, pytest.raises(DeadlineExceeded):
        one.converse(Deadline.after(2), Feeder(file, len(data), None))  # type: ignore[arg-type]
    one.close(kill=True)
    adbd._thread.join(10)
    got, at, kinds = b"", 0, []
    while at < len(adbd.got):
        kind, size = struct.unpack_from("<BI", adbd.got, at)
        kinds.append(kind)
        got += adbd.got[at + 5 : at + 5 + size]
        at += 5 + size
    assert got == data
    assert kinds == [0] * (len(kinds) - 1) + [CLOSED]


def test_a_command_too_long_for_adb_is_refused_before_it_is_sent() -> None:
    with pytest.raises(UserError, match="more than adb takes"):
        service(["echo", "x" * 40_000], "m")
    with pytest.raises(UserError, match="NUL"):
        service(["a\0b"], "m")


@pytest.mark.parametrize(
    ("said", "kind", "told"),
    [
        (
            "device unauthorized.\nThis adb server's $ADB_VENDOR_KEYS is not set", DeviceError,
            "P does not trust this computer yet; unlock its screen and tap Allow",
        ),
        ("device still authorizing", LinkLost, "making up its mind"),
        ("device offline", LinkLost, "adb says offline"),
        ("device 'P' not found", LinkLost, "P is not attached; check its cable"),
        (
            "insufficient permissions for device: user in plugdev group; are your udev rules wrong?", DeviceError,
            "udev rules",
        ),
        ("no permissions", DeviceError, "udev rules"),
        ("sideload", DeviceError, "waits for an update"),
        ("closed", LinkLost, "adb does not reach P: closed"),
        ("\x1b[31mred\n", LinkLost, "adb does not reach P: \ufffd[31mred"),
    ],
)  # fmt: skip
def test_what_a_server_refuses_is_told_with_what_to_do(said: str, kind: type[DeviceError], told: str) -> None:
    error = words.refused("P", said)
    assert type(error) is kind
    assert told in str(error)
    assert len(str(error).splitlines()) == 1


def test_a_network_address_is_told_how_to_pair() -> None:
    assert "adb pair HOST:PORT" in str(words.refused("10.0.0.7:41231", "device '10.0.0.7:41231' not found"))
    assert words.is_network("10.0.0.7:5555")
    assert words.is_network("[fe80::1%wlan0]:5555")
    assert not words.is_network("1A2B3C4D")
    assert not words.is_network("adb-1A2B-xYz._adb-tls-connect._tcp")


def test_a_servers_list_is_read_whatever_a_phone_is_called() -> None:
    text = (
        "1A2B3C4D5E6F7G         device usb:1-1.4 product:oriole model:Pixel_6 device:oriole transport_id:3\n"
        "10.0.0.7:41231         offline transport_id:4\n"
        "R58N                   unauthorized usb:1-2 transport_id:5\n"
        "X1                     no permissions (user in plugdev group; are your udev rules wrong?); see [x] usb:2-1\n"
        "adb-1A2B-abcdef (2)._adb-tls-connect._tcp device product:husky model:Pixel_8_Pro device:husky transport_id:9\n"
        "\n* daemon started successfully *\n"
    )
    assert [(one.serial, one.state, one.product) for one in listed(text)] == [
        ("1A2B3C4D5E6F7G", "device", "oriole"),
        ("10.0.0.7:41231", "offline", None),
        ("R58N", "unauthorized", None),
        ("X1", "no permissions", None),
        ("adb-1A2B-abcdef (2)._adb-tls-connect._tcp", "device", "husky"),
    ]


@given(st.text(max_size=200))
def test_any_list_is_read(text: str) -> None:
    assert all(one.serial.isprintable() and one.state for one in listed(text))


@pytest.mark.parametrize("serial", ["", "-s", "a\nb", "x" * 300, "host:transport\0", "ü"])
def test_what_is_no_serial_is_refused(serial: str) -> None:
    with pytest.raises(UserError, match="is no serial of an adb device; adb devices lists them"):
        words.check_serial(serial)
