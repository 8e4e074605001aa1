"""A phone that has not yet been told to trust this computer: what stands before adbd until somebody taps "Allow".

Debian's adbd asks nobody. The gate speaks the first words of adb's protocol (packages/modules/adb/protocol.txt) in its
place: it answers CONNECT with AUTH until the phone is tapped, and from then on it hands every byte through.
"""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from adb_kit import Server
from phones_kit import Phone

_AUTH, _TOKEN, _PUBLIC_KEY = 0x48545541, 1, 3


def _receive(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (more := link.recv(size - len(data))):
            raise ConnectionError("the server has gone")
        data += more
    return data


def _packet(link: socket.socket) -> tuple[int, int, bytes]:
    """Command, first argument, and the whole packet."""
    head = _receive(link, 24)
    command, first, _, length, _, _ = struct.unpack("<6I", head)
    return command, first, head + _receive(link, length)


def _pass(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            sink.sendall(data)
    for one in (source, sink):
        with suppress(OSError):
            one.shutdown(socket.SHUT_RDWR)


class Gate:
    """``serial``: what the phone is called by the server while it stands behind this."""

    def __init__(self, phone: Phone) -> None:
        self._target = (phone.wire.address, phone.port)
        self._tapped = threading.Event()
        self._over = False
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def tap(self) -> None:
        """Somebody allows it, for always."""
        self._tapped.set()

    def close(self) -> None:
        self._over = True
        self._tapped.set()
        for one in (self._listener, *self._open):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                link, _ = self._listener.accept()
                self._open.append(link)
                threading.Thread(target=self._greet, args=(link,), daemon=True).start()

    def _greet(self, link: socket.socket) -> None:
        with suppress(OSError):
            _, _, connect = _packet(link)
            while not self._tapped.is_set():
                token = os.urandom(20)
                head = struct.pack("<6I", _AUTH, _TOKEN, 0, len(token), sum(token), _AUTH ^ 0xFFFFFFFF)
                link.sendall(head + token)
                command, kind, _ = _packet(link)
                if (command, kind) == (_AUTH, _PUBLIC_KEY):  # it has shown all keys it has: now the phone asks
                    self._tapped.wait()
            if self._over:
                return
            through = socket.create_connection(self._target, 10)
            through.settimeout(None)
            self._open.append(through)
            through.sendall(connect)
            threading.Thread(target=_pass, args=(through, link), daemon=True).start()
            _pass(link, through)


@contextmanager
def unauthorized(phone: Phone, server: Server) -> Iterator[Gate]:
    """The phone as it is before its owner allowed this computer; the server is connected to it."""
    server.adb("disconnect", phone.serial)
    gate = Gate(phone)
    try:
        server.adb("connect", gate.serial)
        yield gate
    finally:
        server.adb("disconnect", gate.serial)
        gate.close()
        phone.connect()
