"""Which port of which hub: its words, and the commands that they become."""

from __future__ import annotations

from pathlib import Path

import pytest

from meltbench.errors import DefinitionError, UserError
from meltbench.hub import NAME, Hub
from meltbench.settings import ask, planned
from meltbench.targets import inventory
from meltbench.targets.local import LocalTransport

# What the two print, by their own documentation.
UHUBCTL = """Current status for hub 1-1.4 [05e3:0610 USB2.0 Hub, USB 2.10, 4 ports, ppps]
  Port 2: {state}
"""
YKUSH = "Downstream port 3 is {state}\n"
ON = "0503 power highspeed enable connect [18d1:4ee7 Pixel]"


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for programs, the first of PATH."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return tmp_path


def program(folder: Path, name: str, said: str) -> None:
    (folder / name).write_text(f"#!/bin/sh\ncat << 'END'\n{said}END\n")
    (folder / name).chmod(0o755)


@pytest.mark.parametrize(
    ("text", "hub"),
    [
        ("uhubctl:1-1.4:2", Hub("uhubctl", "1-1.4", 2)),
        ("uhubctl:2:11", Hub("uhubctl", "2", 11)),
        ("ykush:3", Hub("ykush", "", 3)),
        ("ykush:YK25236:1", Hub("ykush", "YK25236", 1)),
    ],
)
def test_a_port_is_read_from_its_words(text: str, hub: Hub) -> None:
    assert Hub.parse(text) == hub


@pytest.mark.parametrize("text", ["", "uhubctl", "uhubctl:1-1", "uhubctl:1-1;id:2", "ykush:4", "ykush:a b:1", "hub:1"])
def test_what_is_no_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not uhubctl:LOCATION:PORT"):
        Hub.parse(text)


def test_an_entry_of_the_inventory_with_an_odd_port_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "inventory.toml"
    monkeypatch.setenv("MELTBENCH_INVENTORY", str(file))
    file.write_text('[px]\nprofile = "pixel6"\nadb = "SERIAL"\nhub = "uhubctl"\n')
    with pytest.raises(DefinitionError, match=r"px: hub 'uhubctl' is not uhubctl:LOCATION:PORT"):
        inventory.load()


def test_without_its_program_it_is_told_what_to_install(programs: Path) -> None:
    with pytest.raises(UserError, match="--unplug hub needs ykushcmd, which is not on this machine; install it"):
        Hub.parse("ykush:3").setting()


@pytest.mark.parametrize(
    ("text", "name", "said", "state"),
    [
        ("uhubctl:1-1.4:2", "uhubctl", UHUBCTL.format(state=ON), "on"),
        ("uhubctl:1-1.4:2", "uhubctl", UHUBCTL.format(state="0000 off"), "off"),
        ("uhubctl:1-1.4:2", "uhubctl", "No compatible devices detected!\n", None),
        ("ykush:3", "ykushcmd", YKUSH.format(state="ON"), "on"),
        ("ykush:3", "ykushcmd", YKUSH.format(state="OFF"), "off"),
        ("ykush:3", "ykushcmd", "Unable to open device\n", None),
    ],
)
def test_what_the_program_says_is_on_or_off_or_unknown(
    programs: Path, text: str, name: str, said: str, state: str | None
) -> None:
    program(programs, name, said)
    setting = Hub.parse(text).setting()
    assert (setting.name, setting.on, setting.once_started) == (NAME, "controller", True)
    assert setting.set[0] == setting.undo[0] == name
    told = ask(LocalTransport(), setting.get)
    assert told.value == state
    assert planned(setting, told).todo == {"on": "set", "off": "look", None: "nothing"}[state]
