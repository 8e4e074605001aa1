"""Made boards: rooms with the /sys, device tree and programs of a Jetson, a Raspberry Pi 5 or a desktop.

What stands there is what board_simulator.py and tests/made_programs say, in the forms of the captures in
tests/contract/boards. The processor is this machine's: a made board says what it is, and computes as what it is not.
"""

from __future__ import annotations

import _ctypes
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import board_simulator as simulator
import lab_images
from made_tree import Files, policies, tree, write, zones
from rooms_kit import Plan, RoomTarget, started
from targets_kit import HERE, Keys, artefact, layer


@dataclass
class Truth:
    """What a made board drew, by the room's CLOCK_BOOTTIME."""

    path: Path

    def rows(self) -> list[tuple[int, float, float, int, float]]:
        """ns, watts, degrees, throttled, busy cores; each holds until the next."""
        rows = []
        for line in self.path.read_text().splitlines(keepends=True):
            if line.endswith("\n"):
                ns, watts, celsius, throttled, busy = line.split()
                rows.append((int(ns), float(watts), float(celsius), int(throttled), float(busy)))
        return rows

    def joules(self, first_ns: int, last_ns: int) -> float:
        """Energy drawn between two times."""
        out = 0.0
        for (begin, watts, *_), (end, *_) in pairwise(self.rows()):
            out += watts * max(0, min(end, last_ns) - max(begin, first_ns)) / 1e9
        return out


@dataclass
class Board(RoomTarget):
    """A made board. ``made``: the folder of its made files as this machine sees it."""

    folder: Path = field(kw_only=True)

    @property
    def made(self) -> Path:
        return self.folder / "made"

    @property
    def truth(self) -> Truth:
        return Truth(self.folder / "truth")

    def reboot(self) -> None:
        super().reboot()
        self.tell_pid()

    def tell_pid(self) -> None:
        """Tell the simulator which processes are the board's."""
        (self.folder / "pid").write_text(f"{self.room.pid}\n")

    def sys(self, name: str) -> Path:
        return self.made / "sys" / name

    def brown_out(self, *, now: bool) -> None:
        """Let the 5 V of a Pi be too low, or good again."""
        (self.folder / "under_voltage").write_text(f"{now:d}\n")

    def warm_to(self, ambient_c: float) -> None:
        """Put the board where it is that warm; its own heat comes on top."""
        (self.folder / "ambient_c").write_text(f"{ambient_c}\n")


def _device_tree(made: Path, model: str, serial: str, *compatible: str) -> Files:
    """The device tree's names, each text ended by NUL; /proc/device-tree is a link to them, as on any board."""
    (made / "proc").mkdir(parents=True, exist_ok=True)
    (made / "proc/device-tree").symlink_to("/sys/firmware/devicetree/base")
    texts = {"model": model, "serial-number": serial, "compatible": "\0".join(compatible)}
    return {f"firmware/devicetree/base/{name}": f"{text}\0" for name, text in texts.items()}


def _programs(*names: str) -> Files:
    return {f"usr/bin/{name}": (HERE / "made_programs" / name).read_text() for name in names}


def _jetson(made: Path, serial: str) -> tuple[Files, str]:
    chip = simulator.INA.removeprefix("sys/")
    files = _device_tree(
        made,
        *("NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super", serial),
        *("nvidia,p3768-0000+p3767-0005-super", "nvidia,p3767-0005", "nvidia,tegra234"),
    )
    rails = ("VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC")
    for n, rail in enumerate(rails, 1):
        values = {f"in{n}_label": rail, f"in{n}_input": 5040, f"curr{n}_input": 960, f"in{n + 3}_input": 4690}
        files |= {f"{chip}/{name}": f"{value}\n" for name, value in values.items()}
    files |= {f"{chip}/{name}": f"{value}\n" for name, value in _INA_REST.items()}
    files |= zones(_JETSON_ZONES, cold="cv0-thermal")
    files |= {"class/thermal/cooling_device0/type": "cpu-throttle-alert\n"}
    files |= {"class/thermal/cooling_device0/cur_state": "0\n"}
    gpu = {"cur_freq": 306_000_000, "min_freq": 306_000_000, "max_freq": 624_750_000}
    files |= {f"class/devfreq/17000000.gpu/{name}": f"{hertz}\n" for name, hertz in gpu.items()}
    files |= {"class/devfreq/17000000.gpu/governor": "nvhost_podgov\n", "devices/platform/gpu.0/load": "0\n"}
    files |= policies(simulator.JETSON_POLICIES, lambda p: "0 1 2 3" if p == 0 else "4 5", "schedutil", "tegra194")
    device = str(Path(chip).parents[1])
    tree(made, files, {"bus/i2c/drivers/ina3221/1-0040": device, "class/hwmon/hwmon1": chip})
    write(made, {"nvpmodel/status": "pmode:0000\n"})
    return _programs("tegrastats", "nvpmodel", "jetson_clocks") | _JETSON_FILES, "/var/lib/nvpmodel"


_INA_REST = {
    "name": "ina3221",
    "in7_label": "sum of shunt voltages",
    "in7_input": 8000,
    "update_interval": 7,
    "samples": 1,
}
_JETSON_ZONES = [f"{n}-thermal" for n in ("cpu", "gpu", "soc0", "soc1", "soc2", "cv0", "tj")]
_MODES = ("15W", "25W", "MAXN_SUPER", "7W")
_JETSON_FILES = {
    "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64\n",
    "etc/nvpmodel.conf": "".join(f"< POWER_MODEL ID={n} NAME={name} >\n" for n, name in enumerate(_MODES)),
}


def _pi5(made: Path, serial: str) -> tuple[Files, str]:
    files = _device_tree(made, "Raspberry Pi 5 Model B Rev 1.0", serial, "raspberrypi,5-model-b", "brcm,bcm2712")
    files |= zones(["cpu-thermal"])
    files |= {"class/thermal/cooling_device0/type": "pwm-fan\n", "class/thermal/cooling_device0/cur_state": "1\n"}
    chips = {"cpu_thermal": {"temp1_input": 45000}, "rp1_adc": {"in1_input": 1600}, "pwmfan": {"fan1_input": 2900}}
    chips |= {"rpi_volt": {"in0_lcrit_alarm": 0}}
    for n, (name, inputs) in enumerate(chips.items()):
        files |= {f"class/hwmon/hwmon{n}/{key}": f"{value}\n" for key, value in {"name": name, **inputs}.items()}
    files |= policies(simulator.PI_POLICIES, lambda _: "0 1 2 3", "ondemand", "cpufreq-dt")
    tree(made, files, {})
    write(made, {"firmware/volts_core": "0.7200\n"})
    vcio = "#!/bin/sh\n: > /dev/vcio; chgrp video /dev/vcio; chmod 660 /dev/vcio\n"
    return _programs("vcgencmd") | {"etc/rc.board": vcio}, ""


def _desktop(made: Path, serial: str) -> tuple[Files, str]:
    rapl = simulator.RAPL.removeprefix("sys/")
    files = {"class/dmi/id/sys_vendor": "Lab\n", "class/dmi/id/product_name": "Made Desktop\n"}
    links: Files = {}
    energy = []
    for zone, name in (("0", "package-0"), ("0:0", "core"), ("0:1", "dram")):
        place = f"{rapl}/intel-rapl:0" + (f"/intel-rapl:{zone}" if ":" in zone else "")
        texts = {"name": name, "energy_uj": 0, "max_energy_range_uj": simulator.FULL_RANGE_UJ, "enabled": 1}
        files |= {f"{place}/{key}": f"{text}\n" for key, text in texts.items()}
        links[f"class/powercap/intel-rapl:{zone}"] = place
        energy.append(f"{place}/energy_uj")
    files |= zones(["x86_pkg_temp"])
    chip = {"name": "coretemp", "temp1_label": "Package id 0", "temp1_input": 42000}
    files |= {f"class/hwmon/hwmon0/{key}": f"{text}\n" for key, text in chip.items()}
    files |= policies(simulator.DESKTOP_POLICIES, str, "powersave", "intel_pstate")
    tree(made, files, links, secret=tuple(energy))
    return {"etc/machine-id": f"{serial:>032}\n"}, ""


KINDS = {"jetson": (_jetson, "nvidia"), "pi5": (_pi5, "pi"), "desktop": (_desktop, "lab")}


@dataclass(frozen=True)
class Python:
    """A Python on a made board: that of this very test. ``modules``: a folder of what else can be imported there;
    ``driver``: one with a libnvidia-ml.so.1, of a made NVIDIA GPU."""

    modules: Path
    driver: Path | None = None

    def files(self, made: Path) -> Files:
        for folder in filter(None, (self.modules, self.driver)):
            folder.chmod(0o755)  # pytest's own are root's alone
        if self.driver is not None:
            information = "Model: \t NVIDIA GeForce RTX 3060\nIRQ:   \t 24\n"
            write(made, {"proc/driver/nvidia/gpus/0000:01:00.0/information": information})
        program = f"/opt/python/bin/python{sys.version_info.major}.{sys.version_info.minor}"
        # What ctypes, which looks for the driver, is linked with: no part of Python, and not in the rooms.
        for line in subprocess.check_output(["ldd", _ctypes.__file__], text=True).splitlines():
            if "libffi" in line:
                shutil.copy(line.split()[2], self.modules)
        libraries = "export LD_LIBRARY_PATH=/opt/python/lib:/opt/modules:/opt/driver"
        return {"usr/bin/python3": f'#!/bin/sh\n{libraries}\nexec {program} "$@"\n'}

    @property
    def binds(self) -> list[tuple[str, str]]:
        found = [(sys.base_prefix, "/opt/python"), (str(self.modules), "/opt/modules")]
        return [*found, (str(self.driver), "/opt/driver")] if self.driver is not None else found


@contextmanager
def made_board(kind: str, folder: Path, keys: Keys, serial: str = "1", python: Python | None = None) -> Iterator[Board]:
    """A made board that is on and answers; it is gone afterwards. One of another serial number is another board."""
    root = artefact(lambda lab: lab_images.rootfs(lab, lab_images.native()))
    make, user = KINDS[kind]
    made = folder / "made"
    (made / "firmware").mkdir(parents=True)
    files, state = make(made, f"{serial:>08}{kind.encode().hex():.8}")
    # A login of these distributions sees the programs for administration too.
    path = "SetEnv PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    if python is not None:
        files |= python.files(made)
        path += " PYTHONPATH=/opt/modules"
    above = layer(folder / "layer", user, keys, files, f"{path}\n")
    binds = [(str(made / "firmware"), "/.made/firmware")]
    binds += [(str(made / Path(state).name), state)] if state else []
    binds += python.binds if python is not None else []
    plan = Plan(str(folder / "stage"), [str(above), str(root)], str(made), f"made-{kind}", binds=binds)
    with started(plan, user, keys, f"lab-{kind}", above / "etc/ssh/host_key") as target:
        board = Board(target.name, user, target.home, keys, room=target.room, wire=target.wire, folder=folder)
        with _simulated(kind, board):
            yield board


@contextmanager
def _simulated(kind: str, board: Board) -> Iterator[None]:
    board.tell_pid()
    argv = [sys.executable, str(HERE / "board_simulator.py"), kind, str(board.folder)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == "ready\n"
            yield
            assert running.poll() is None, f"the simulator of the board ended: {running.poll()}"
        finally:
            running.kill()
