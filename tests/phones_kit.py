"""Made phones: rooms with Android's own adbd, mksh as their shell and toybox as their userland, and a real adb server.

The daemon and its protocol are real, and so are client and server, those that adbutils brings along. A phone is on a
wire of its own and reached by network, as with wireless debugging. What its other programs say is made:
tests/made_android.

The server is the tests' own: on a free port, with a home of its own, and blind to phones on USB and to emulators, so
that nobody's server, key or phone is touched.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import adbutils
import lab_images
from rooms_kit import Plan, Room
from targets_kit import HERE, artefact, need, until
from wire_kit import Wire

PORT = 6555  # of adbd: a server looks for emulators at 5555 to 5585
SHELL = 2000  # Android's user and group "shell"
# Where Android's shell looks for programs. Only /system/bin is there.
PATH = ":".join(
    [
        *("/product/bin", "/apex/com.android.runtime/bin", "/apex/com.android.art/bin", "/system_ext/bin"),
        *("/system/bin", "/system/xbin", "/odm/bin", "/vendor/bin", "/vendor/xbin"),
    ]
)
# The groups that Android's adbd gives its shell (packages/modules/adb/daemon/main.cpp, drop_privileges).
_GROUPS = {"input": 1004, "log": 1007, "adb": 1011, "sdcard_rw": 1015, "inet": 3003, "readproc": 3009, "uhid": 3011}
_INITTAB = "::sysinit:/lab/rc\n::respawn:/lab/start\n"
_RC = """#!/lab/busybox sh
/lab/busybox ip link set lo up
/lab/busybox hostname localhost
"""
_START = f"""#!/lab/busybox sh
while [ -e /lab/off ]; do /lab/busybox sleep 0.05; done
export PATH={PATH} ADBD_PORT={PORT} ANDROID_ROOT=/system ANDROID_DATA=/data EXTERNAL_STORAGE=/sdcard
exec /lab/busybox start-stop-daemon -S -c shell:shell -x /{lab_images.ADBD}
"""


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


PIXEL_6 = {
    "ro.product.manufacturer": "Google",
    "ro.product.model": "Pixel 6",
    "ro.product.device": "oriole",
    "ro.product.name": "oriole",
    "ro.product.brand": "google",
    "ro.product.cpu.abi": "arm64-v8a",
    "ro.soc.model": "GS101",
    "ro.board.platform": "gs101",
    "ro.build.version.release": "15",
    "ro.build.version.sdk": "35",
    "ro.build.id": "AP4A.250205.002",
    "ro.build.version.incremental": "12821496",
    "ro.build.type": "user",
    "ro.build.fingerprint": "google/oriole/oriole:15/AP4A.250205.002/12821496:user/release-keys",
    "ro.debuggable": "0",
    "sys.boot_completed": "1",
}


@dataclass
class Phone:
    """A made phone that is on. ``serial``: its name to adb. A server that was started anew has to ``connect`` to it."""

    room: Room
    wire: Wire
    server: Server
    folder: Path
    port: int = PORT

    @property
    def serial(self) -> str:
        return f"{self.wire.address}:{self.port}"

    @property
    def server_port(self) -> int:
        return self.server.port

    @property
    def environment(self) -> dict[str, str]:
        """What tells meltbench of its server."""
        return self.server.environment

    def try_adb(self, *words: str, seconds: float = 60) -> subprocess.CompletedProcess[str]:
        """What the real client says to these words about this phone."""
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
        """Have the server know it, and wait until it answers."""
        until(lambda: listens(self.wire.address, self.port), f"adbd of {self.serial} to listen")
        until(self._answers, f"{self.serial} to answer")

    def _answers(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            if "offline" in self.try_adb("get-state", seconds=10).stderr:
                self.server.adb("disconnect", self.serial)  # by itself it tries again every 3 s
            if "connected" in self.server.adb("connect", self.serial, seconds=10).stdout:
                return self.try_adb("shell", "echo ready", seconds=10).stdout.strip() == "ready"
        return False

    def kill_server(self) -> None:
        self.server.kill()

    def start_server(self) -> None:
        self.server.start()

    def kill_adbd(self) -> None:
        """Kill it and what serves its connections. It is started again a second after."""
        killed = self._adbds()
        for pid in killed:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        until(lambda: not killed & self._adbds(), "adbd to end")

    def _adbds(self) -> set[int]:
        return {pid for pid, command in self.room.processes().items() if command.split(" ")[0].endswith("/adbd")}

    def stop_adbd(self) -> None:
        """Kill it for good, until ``start_adbd``."""
        self.room.path("/lab/off").touch()
        self.kill_adbd()

    def start_adbd(self) -> None:
        self.room.path("/lab/off").unlink()

    def boot_id(self) -> str:
        """As this machine sees it, with or without adb."""
        return self.room.path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def reboot(self) -> None:
        """Cut its power and start it again; it answers when this returns."""
        self.room.boot()
        self.connect()

    def fill_disk(self, leave_bytes: int) -> None:
        """Let its disk be full but for so many bytes."""
        self.room.fill_disk(leave_bytes)

    def free_disk(self) -> None:
        self.room.free_disk()


def _layer(folder: Path) -> Path:
    """The files that make the root file system a phone of its own."""
    users = f"root:x:0:0:root:/:/system/bin/sh\nshell:x:{SHELL}:{SHELL}::/:/system/bin/sh\n"
    groups = "".join(f"{name}:x:{number}:shell\n" for name, number in _GROUPS.items())
    texts = {
        "etc/passwd": users,
        "etc/group": f"root:x:0:\nshell:x:{SHELL}:\n{groups}",
        "etc/inittab": _INITTAB,
        "lab/rc": _RC,
        "lab/start": _START,
        **{f"system/bin/{path.name}": path.read_text() for path in (HERE / "made_android").iterdir()},
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o755 if text.startswith("#!") else 0o644)
    (folder / "lab").chmod(0o700)
    (folder / "data/local/tmp").mkdir(parents=True)
    for place, owner, mode in (("data", 1000, 0o771), ("data/local", 0, 0o751), ("data/local/tmp", SHELL, 0o771)):
        os.chown(folder / place, owner, owner)
        (folder / place).chmod(mode)
    return folder


@contextmanager
def made_phone(
    folder: Path,
    server: Server,
    serial: str = "1A2B3C4D5E6F7G",
    properties: Mapping[str, str] | None = None,
    disk_bytes: int = 2 << 30,
) -> Iterator[Phone]:
    """A phone that is on, and that the server is connected to; it is gone afterwards.

    ``serial``: that of its hardware, ro.serialno: one of another is another phone. ``properties``: beside those of a
    Pixel 6.
    """
    need("ip", "nft", "nsenter")
    root = artefact(lambda lab: lab_images.phone(lab, lab_images.native()))
    above = _layer(folder / "layer")
    state = folder / "state"
    state.mkdir()
    told = PIXEL_6 | {"ro.serialno": serial, "ro.boot.serialno": serial} | dict(properties or {})
    (state / "properties").write_text("".join(f"{name}={value}\n" for name, value in told.items()))
    layers, binds = [str(above), str(root)], [(str(state), "/.made")]
    made = str(folder / "made")
    room = Room(Plan(str(folder / "stage"), layers, made, "localhost", disk_bytes, "", binds, "/lab/busybox"))
    try:
        wire = Wire(room)
        try:
            phone = Phone(room, wire, server, folder)
            phone.connect()
            yield phone
        finally:
            server.adb("disconnect", f"{wire.address}:{PORT}")
            wire.close()
    finally:
        room.stop()
