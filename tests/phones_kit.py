"""Made phones: rooms with Android's own adbd, mksh as their shell and toybox as their userland.

The daemon and its protocol are real, and so are client and server (adb_kit.py). A phone is on a wire of its own and
reached by network, as with wireless debugging. Its other programs are made (tests/made_android): they answer as its
maker has them answer (phone_makers.py) from what a simulator of its battery writes (phone_simulator.py).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import lab_images
from adb_kit import ByAdb, Server
from made_boards import Truth
from phone_files import PORT, layer, made_sys, shared_state
from phone_makers import MAKERS
from phone_simulator import CHARGERS
from rooms_kit import Plan, Room
from targets_kit import HERE, artefact, need, until
from wire_kit import Wire


@dataclass
class Phone(ByAdb):
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

    @property
    def truth(self) -> Truth:
        return Truth(self.folder / "truth")

    @property
    def state(self) -> Path:
        """What its made programs share, as this machine sees it."""
        return self.folder / "state"

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
        """As this machine sees it, with or without adb; empty while it boots."""
        try:
            return self.room.path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""

    def reboot(self) -> None:
        """Cut its power and start it again; it answers when this returns."""
        self.boot()
        self.connect()

    def boot(self) -> None:
        self.room.boot()
        (self.folder / "pid").write_text(f"{self.room.pid}\n")

    def plug(self, on: bool = True, kind: str = "charging") -> None:
        """Put it at a charger, or take it off. ``kind``: a word of phone_simulator.CHARGERS."""
        assert kind in CHARGERS
        (self.folder / "charger").write_text(f"{kind}\n" if on else "\n")

    def charge_to(self, percent: float) -> None:
        """Let its battery have so much from now on."""
        (self.folder / "level").write_text(f"{percent}\n")

    def warm_to(self, ambient_c: float) -> None:
        """Put it where it is that warm; its own heat comes on top."""
        (self.folder / "ambient_c").write_text(f"{ambient_c}\n")

    def steady(self) -> None:
        """From now on the probe's own burn alone loads it, by as much as it is told to: this machine may be busy."""
        (self.folder / "steady").touch()

    def set_pin(self) -> None:
        """Have its lock ask for a PIN that nobody gives it."""
        (self.state / "pin").touch()

    @contextmanager
    def flood(self) -> Iterator[None]:
        """Meanwhile something fills its log as fast as it can: `logcat` does not come to an end, and a core is busy."""
        (self.state / "flood").touch()
        loop = "while [ -e /.made/flood ]; do print -r 'E Vendor: unexpected event'; done > /dev/null"
        words = ["nsenter", f"--target={self.room.pid}", "--mount", "--pid", "--root", "/apex/lab/sh", "-c", loop]
        with subprocess.Popen(words):
            try:
                yield
            finally:
                (self.state / "flood").unlink()

    def fill_disk(self, leave_bytes: int) -> None:
        """Let its disk be full but for so many bytes."""
        self.room.fill_disk(leave_bytes)

    def free_disk(self) -> None:
        self.room.free_disk()


@contextmanager
def made_phone(
    folder: Path,
    server: Server,
    maker: str = "pixel6",
    serial: str = "1A2B3C4D5E6F7G",
    properties: Mapping[str, str] | None = None,
    disk_bytes: int = 2 << 30,
    *,
    prose: bool = False,
    root: bool = False,
) -> Iterator[Phone]:
    """A phone of a maker (phone_makers.MAKERS) that is on and connected to; it is gone afterwards.

    ``serial``: that of its hardware, ro.serialno: one of another is another phone. ``properties``: beside its maker's.
    ``prose``: its shell prints a line of its own before every answer. ``root``: the shell's user may read all of /sys,
    as after a phone was rooted.
    """
    need("ip", "nft", "nsenter")
    image = artefact(lambda lab: lab_images.phone(lab, lab_images.native()))
    made, made_by = folder / "made", MAKERS[maker]
    above = layer(folder / "layer", made_by, prose=prose)
    made_sys(made, made_by, root=root)
    own = {"ro.serialno": serial, "ro.boot.serialno": serial, **(properties or {})}
    binds = [(str(shared_state(folder / "state", made_by, own)), "/.made")]
    layers = [str(above), str(image)]
    room = Room(Plan(str(folder / "stage"), layers, str(made), "localhost", disk_bytes, "", binds, "/lab/busybox"))
    try:
        wire = Wire(room)
        try:
            phone = Phone(room, wire, server, folder)
            (folder / "pid").write_text(f"{room.pid}\n")
            phone.plug(on=False)
            with _simulated(maker, phone), _restarted(phone):
                phone.connect()
                yield phone
        finally:
            server.adb("disconnect", f"{wire.address}:{PORT}")
            wire.close()
    finally:
        room.stop()


@contextmanager
def _simulated(maker: str, phone: Phone) -> Iterator[None]:
    argv = [sys.executable, str(HERE / "phone_simulator.py"), maker, str(phone.folder), str(os.cpu_count() or 1)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield
            assert running.poll() is None, f"the simulator of the phone ended: {running.poll()}"
        finally:
            running.kill()


@contextmanager
def _restarted(phone: Phone) -> Iterator[None]:
    """Its `reboot` is heard of."""
    over, asked = threading.Event(), phone.state / "run/reboot"

    def listen() -> None:
        while not over.wait(0.05):
            if asked.exists():
                asked.unlink()
                phone.boot()

    thread = threading.Thread(target=listen)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
