"""A real adb server of the tests' own, and the real client of it, as adbutils brings them along.

It is on a free port, with a home of its own, and blind to phones on USB and to emulators: nobody's server, key or phone
is touched.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import adbutils
from targets_kit import free_port, listens, until


class Client:
    """The real client of an adb server that listens on a port of this machine. ``folder``: its home."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port

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

    def listens(self) -> bool:
        return listens("127.0.0.1", self.port)

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


class Server(Client):
    """An adb server of the tests, and the real client of it."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, free_port())
        self.start()

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

    def kill(self) -> None:
        """Kill it as a crash does. A client may start another in its place."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it, and the one that a client started in its place."""
        self.kill()
        if self.listens():
            self.adb("kill-server")


class ByAdb:
    """A device that is reached by adb. ``serial``: its name to the server."""

    server: Client
    serial: str

    def try_adb(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """What the real client says to these words about this device."""
        return self.server.adb("-s", self.serial, *words, seconds=seconds)

    def adb(self, *words: str, seconds: float = 60) -> str:
        """What it printed; it must end well."""
        done = self.try_adb(*words, seconds=seconds)
        assert done.returncode == 0, f"adb {' '.join(words)}: {done.returncode}: {done.stderr or done.stdout}"
        return done.stdout.strip()

    def shell(self, command: str, seconds: float = 60) -> str:
        """What a command printed there; it must end well."""
        return self.adb("shell", command, seconds=seconds)

    def connect(self) -> None:
        """Have the server know it, and wait until it answers. A server that was started anew knows it not."""
        address, _, port = self.serial.rpartition(":")
        until(lambda: listens(address, int(port)), f"adbd of {self.serial} to listen")
        until(self._answers, f"{self.serial} to answer")

    def _answers(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            if "offline" in self.try_adb("get-state", seconds=10).stderr:
                self.server.adb("disconnect", self.serial)  # by itself it tries again every 3 s
            if "connected" in self.server.adb("connect", self.serial, seconds=10).stdout:
                return self.try_adb("shell", "echo ready", seconds=10).stdout.endswith("ready\n")
        return False


@contextmanager
def adb_server(folder: Path) -> Iterator[Server]:
    server = Server(folder)
    try:
        yield server
    finally:
        server.stop()
