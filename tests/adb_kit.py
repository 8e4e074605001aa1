"""A real adb server of the tests' own, and the real client of it, as adbutils brings them along.

It is on a free port, with a home of its own, and blind to phones on USB and to emulators: nobody's server, key or phone
is touched.
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import adbutils
from targets_kit import until


def listens(address: str, port: int) -> bool:
    with socket.socket() as one:
        one.settimeout(1)
        return one.connect_ex((address, port)) == 0


class Server:
    """An adb server of the tests, and the real client of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as one:
            one.bind(("127.0.0.1", 0))
            self.port = int(one.getsockname()[1])
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        """What tells a client of it; a server that a client starts looks for phones as little as this one.

        libusb would keep a server waiting for 3 s where it finds no USB at all.
        """
        blind = {"ADB_LOCAL_TRANSPORT_MAX_PORT": "5553", "ADB_MDNS": "0", "ADB_LIBUSB": "0"}
        return {"ANDROID_ADB_SERVER_PORT": str(self.port), **blind}

    @property
    def _own(self) -> dict[str, str]:
        """Keys and log lie in the home."""
        return {**os.environ, **self.environment, "HOME": str(self.folder), "TMPDIR": str(self.folder)}

    def start(self) -> None:
        words = ["--one-device", "none", "-P", str(self.port), "server", "nodaemon"]
        with (self.folder / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [adbutils.adb_path(), *words],
                env=self._own,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        until(self.listens, "an adb server to listen")

    def listens(self) -> bool:
        return listens("127.0.0.1", self.port)

    def kill(self) -> None:
        """Kill it as a crash does. A client may start another in its place."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, and the one that a client started in its place."""
        self.kill()
        if self.listens():
            self.adb("kill-server")

    def adb(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """What the real client says to these words."""
        return subprocess.run(
            [adbutils.adb_path(), *words],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=self._own,
            timeout=seconds,
        )


@contextmanager
def adb_server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()
