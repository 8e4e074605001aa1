"""A made device whose settings can be changed: governors below a made /sys, and programs on the PATH that remember.

The programs stand at the edge of the world for nvpmodel, Android's settings and uhubctl; they answer in their dialects.
"""

from __future__ import annotations

from pathlib import Path

from cli import Bench

# $KNOBS holds a file a setting; every change is a line of $KNOBS/log.
_NVPMODEL = """#!/bin/sh
case "$1" in
  -q) echo "NVPM WARN: fan mode is not set!"; echo "NV Power Mode: MODE_$(cat $KNOBS/mode)W"; cat $KNOBS/mode ;;
  -m) echo "nvpmodel $2" >> $KNOBS/log; printf %s "$2" > $KNOBS/mode ;;
esac
"""
_SETTINGS = """#!/bin/sh
case "$1" in
  get) cat "$KNOBS/$3"; echo ;;
  put) echo "settings $3 $4" >> $KNOBS/log; printf %s "$4" > "$KNOBS/$3" ;;
esac
"""
_UHUBCTL = """#!/bin/sh
for word; do last=$word; done
case "$*" in
  *-a*) echo "uhubctl $last" >> $KNOBS/log; printf %s "$last" > $KNOBS/port ;;
  *) echo "Current status for hub 1-1.4 [2109:2817 USB2.0 Hub, USB 2.10, 4 ports, ppps]"
     [ "$(cat $KNOBS/port)" = on ] && echo "  Port 2: 0103 power enable connect [18d1:4ee7 Made Phone 8A1X]" \\
       || echo "  Port 2: 0000 off" ;;
esac
"""
PROGRAMS = {"nvpmodel": _NVPMODEL, "settings": _SETTINGS, "uhubctl": _UHUBCTL}

GOVERNOR = """
[[setting]]
name = "governor"
path = "/sys/devices/system/cpu/cpufreq/policy*/scaling_governor"
value = "performance"
"""
MODE = """
[[setting]]
name = "mode"
value = "0"
get = ["nvpmodel", "-q"]
set = ["nvpmodel", "-m", "0"]
undo = ["nvpmodel", "-m", "{old}"]
"""
LOW_POWER = """
[[setting]]
name = "low_power"
value = "0"
get = ["settings", "get", "global", "low_power"]
set = ["settings", "put", "global", "low_power", "0"]
undo = ["settings", "put", "global", "low_power", "{old}"]
"""
HUB = """
[[setting]]
name = "hub"
on = "controller"
value = "off"
expect = "Port 2: 0000 off"
get = ["uhubctl", "-l", "1-1.4", "-p", "2"]
set = ["uhubctl", "-l", "1-1.4", "-p", "2", "-a", "off"]
undo = ["uhubctl", "-l", "1-1.4", "-p", "2", "-a", "on"]
"""


class Device:
    """The made device ``made`` of a bench: its knobs stand in a folder, its governors in a tree."""

    def __init__(self, bench: Bench, *settings: str) -> None:
        self.home, self.bench = bench.home, bench
        self.knobs = bench.home / "knobs"
        self.knobs.mkdir()
        programs = bench.home / "bin"
        programs.mkdir()
        for name, text in PROGRAMS.items():
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        bench.env |= {"KNOBS": str(self.knobs), "PATH": f"{programs}:/usr/local/bin:/usr/bin:/bin"}
        for name, value in (("mode", "2"), ("low_power", "1"), ("port", "on")):
            (self.knobs / name).write_text(value)
        for policy, value in enumerate(("powersave", "schedutil")):
            self.governor(policy).parent.mkdir(parents=True)
            self.governor(policy).write_text(value)
        self.profile(*settings)

    def profile(self, *settings: str) -> None:
        (self.home / "devices").mkdir(exist_ok=True)
        head = f'title = "a made device"\ntarget = "local"\nroots.sys = "{self.home / "sys"}"\n'
        (self.home / "devices" / "made.toml").write_text(head + "".join(settings))

    def governor(self, policy: int) -> Path:
        return self.home / "sys" / f"devices/system/cpu/cpufreq/policy{policy}/scaling_governor"

    @property
    def governors(self) -> list[str]:
        return [self.governor(policy).read_text().strip() for policy in (0, 1)]

    def knob(self, name: str) -> str:
        return (self.knobs / name).read_text()

    @property
    def log(self) -> list[str]:
        path = self.knobs / "log"
        return path.read_text().splitlines() if path.exists() else []

    @property
    def untouched(self) -> bool:
        """Whether everything is as it was found."""
        found = (self.governors, self.knob("mode"), self.knob("low_power"), self.knob("port"))
        return found == (["powersave", "schedutil"], "2", "1", "on")

    def start(self, seconds: str = "0.3", *more: str) -> tuple[str, ...]:
        """The words that meter a sleep on it."""
        return ("exec", "--device", "made", "--set", "idle_s=0.2", *more, "--", "sleep", seconds)
