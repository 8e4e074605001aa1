"""The inventory as people edit it and as commands write it, and what is remembered of its devices."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from meltbench.errors import DefinitionError, MeltbenchError, UnknownName, UserError, WrongDevice
from meltbench.paths import config_dir
from meltbench.targets import Place, inventory, notes
from meltbench.targets.facts import parse
from meltbench.targets.inventory import Entry, Known

PI = Entry("rpi5", "pi@10.0.0.7", "0123456789abcdef", "/proc/device-tree/serial-number", "Raspberry Pi 5", None, "2026")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("MELTBENCH_INVENTORY", str(tmp_path / "shelf" / "inventory.toml"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "shelf" / "inventory.toml"


def write(file: Path, text: str) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)


def facts(serial: str = "a1b2c3d4") -> Any:
    return parse({"files": {"/proc/device-tree/serial-number": {"status": "ok", "text": serial}}})


def test_where_it_is(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inventory.path() == file
    monkeypatch.delenv("MELTBENCH_INVENTORY")
    assert inventory.path() == config_dir() / "inventory.toml"


def test_without_a_file_there_are_no_devices(file: Path) -> None:
    assert inventory.load() == {}
    assert inventory.by_identity("0123456789abcdef") is None


def test_what_is_written_is_read_again_and_nothing_else_is_left_behind(file: Path) -> None:
    orin = Entry("jetson-orin-nano", "orin", board='Jetson "Orin" \\ Ünïcode', workdir="/data/mb")
    inventory.put("pi5", PI)
    inventory.put("orin.shelf", orin)
    assert inventory.load() == {"pi5": PI, "orin.shelf": orin}
    assert [one.name for one in file.parent.iterdir()] == [file.name]
    assert "None" not in file.read_text()


HAND = """# my boards
# kept in git

[pi5]   # the one on the shelf
ssh = "pi@10.0.0.7"
# by its maker
profile = "rpi5"

# this one is at work
["orin.a"]
profile = "jetson-orin-nano"
ssh = "orin"
"""


def test_an_edit_keeps_remarks_order_and_all_other_devices(file: Path) -> None:
    write(file, HAND)
    inventory.put("pi5", replace(PI, ssh="pi@10.0.0.8"))
    text = file.read_text()
    for line in HAND.splitlines():
        assert line in text.splitlines() or line.startswith('ssh = "pi@')
    assert text.index("pi@10.0.0.8") < text.index("# by its maker") < text.index("# this one is at work")
    assert inventory.load()["pi5"] == replace(PI, ssh="pi@10.0.0.8")
    inventory.drop("pi5")
    assert file.read_text().startswith("# my boards")
    assert file.read_text().endswith(HAND[HAND.index("# this one is at work") :])
    assert [*inventory.load()] == ["orin.a"]
    inventory.drop("orin.a")
    assert inventory.load() == {}


def test_a_key_that_is_gone_leaves_the_file(file: Path) -> None:
    inventory.put("pi5", replace(PI, workdir="/data/mb"))
    inventory.put("pi5", PI)
    assert "workdir" not in file.read_text()


def test_what_is_written_in_another_way_is_left_to_its_author(file: Path) -> None:
    odd = 'pi5 = { profile = "rpi5", ssh = "pi@10.0.0.7" }\n'
    write(file, odd)
    with pytest.raises(UserError, match=r"pi5 is not written as a table \[pi5\] in .*; edit it there by hand"):
        inventory.put("pi5", PI)
    with pytest.raises(UserError, match="edit it there by hand"):
        inventory.drop("pi5")
    assert file.read_text() == odd
    inventory.put("orin", Entry("jetson-orin-nano", "orin"))
    assert [*inventory.load()] == ["pi5", "orin"]


def test_a_link_stays_a_link(file: Path) -> None:
    real = file.parent.parent / "dotfiles.toml"
    real.write_text(HAND)
    file.parent.mkdir()
    file.symlink_to(real)
    inventory.put("pi5", PI)
    assert file.is_symlink()
    assert "10.0.0.7" in real.read_text()


TWICE = '[{}]\nprofile = "rpi5"\nssh = "a"\nidentity = "0123456789abcdef"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[pi5\n", "line 1"),
        ("pi5 = 3\n", "pi5: expected a table, got the integer 3"),
        ('[pi5]\nprofile = "rpi5"\n', "pi5: needs either ssh = ADDRESS or adb = SERIAL"),
        ('[pi5]\nprofile = "rpi5"\nssh = 7\n', "pi5: ssh: expected a string, got the integer 7"),
        ('[pi5]\nprofile = "rpi5"\nssh = "a"\nadress = "b"\n', "pi5: unknown key 'adress'"),
        ('[pi5]\nprofile = "rpi5"\nssh = "a"\nworkdirs = "b"\n', "did you mean 'workdir'?"),
        ('[pi5]\nprofile = "rpi5"\nssh = "a"\nidentity = "zz"\n', "identity 'zz' is not 16 hexadecimal digits"),
        ('[pi5]\nprofile = "rpi5"\nssh = "a"\nworkdir = "mb"\n', "workdir 'mb' is no absolute path"),
        ('[pi5]\nprofile = "rpi5"\nssh = "a"\nworkdir = "/home"\n', "is a folder of the system"),
        ('[pi5]\nprofile = "rpi5"\nssh = "a"\nworkdir = "/a/../b"\n', "is no absolute path"),
        ('[pi5]\nprofile = "rpi5"\nssh = "-oProxyCommand=x"\n', "pi5: ssh: '-oProxyCommand=x' is no address"),
        ('[pi5]\nprofile = "rpi5"\nssh = "a b"\n', "pi5: ssh: 'a b' is no address of a device"),
        ('[pi5]\nprofile = "../x"\nssh = "a"\n', "profile '../x' is no name of a profile"),
        ('[local]\nprofile = "rpi5"\nssh = "a"\n', "local is the machine meltbench runs on"),
        ('["a b"]\nprofile = "rpi5"\nssh = "a"\n', "'a b' is no name for a device"),
        (
            f"{TWICE.format('a')}{TWICE.format('b')}",
            "b: identity is that of a; leave one of the two out",
        ),
    ],
)
def test_an_odd_file_is_one_line_with_file_and_key(file: Path, text: str, said: str) -> None:
    write(file, text)
    with pytest.raises(DefinitionError) as caught:
        inventory.load()
    assert str(file) in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(DefinitionError):
        inventory.put("other", PI)
    assert file.read_text() == text


def test_a_password_is_refused_and_not_repeated(file: Path) -> None:
    write(file, '[pi5]\nprofile = "rpi5"\nssh = "pi:hunter2@10.0.0.7"\n')
    with pytest.raises(DefinitionError, match="pi5: ssh: the address of a device holds no password") as caught:
        inventory.load()
    assert "hunter2" not in str(caught.value)


@given(st.binary(max_size=200) | st.text(alphabet='[]"=\n abcpi5rofilesh.:@', max_size=120).map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
def test_any_bytes_are_devices_or_one_line(file: Path, content: bytes) -> None:
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content)
    said = ""
    try:
        inventory.load()
    except MeltbenchError as error:
        said = str(error)
    assert not said or (str(file) in said and len(said.splitlines()) == 1)


def test_a_name_is_a_device_of_the_inventory_first(file: Path) -> None:
    inventory.put("rpi4", PI)
    assert inventory.resolve("rpi4") == Known("rpi4", "rpi5", Place("ssh", "pi@10.0.0.7"), PI.identity, None)
    inventory.put("adb", Entry("rpi5", "pi@10.0.0.9"))
    assert inventory.resolve("adb") == Known("adb", "rpi5", Place("ssh", "pi@10.0.0.9"), None, None)


def test_a_profile_stands_for_its_only_device(file: Path) -> None:
    assert inventory.resolve("local") == Known("local", "local", Place(), None, None)
    with pytest.raises(UserError, match="meltbench devices add rpi5 --ssh USER@HOST"):
        inventory.resolve("rpi5")
    inventory.put("pi5", PI)
    assert inventory.resolve("rpi5") == inventory.resolve("pi5")
    inventory.put("other", Entry("rpi5", "pi@10.0.0.9"))
    with pytest.raises(UserError, match="rpi5 is the profile of 2 devices: pi5, other; name one of them"):
        inventory.resolve("rpi5")


def test_the_kind_of_a_device_is_known_without_looking_for_it(file: Path) -> None:
    inventory.put("pi5", PI)
    inventory.put("phone", Entry("pixel6", adb="SERIAL"))
    inventory.put("mac", Entry("macbook", "me@10.0.0.5"))
    names = ("local", "pi5", "rpi5", "phone", "pixel6", "pixel6@OTHER", "adb:OTHER", "macbook", "mac")
    kinds = ["local", "ssh", "ssh", "adb", "adb", "adb", "adb", "log", "log"]
    assert [inventory.kind_of(name) for name in names] == kinds
    with pytest.raises(UnknownName, match="unknown device 'pixle6'"):
        inventory.kind_of("pixle6")


def test_what_nobody_knows_names_the_nearest_of_both(file: Path) -> None:
    inventory.put("bench-pi", PI)
    with pytest.raises(UnknownName, match="did you mean bench-pi"):
        inventory.resolve("bnech-pi")
    with pytest.raises(UnknownName, match="did you mean rpi"):
        inventory.resolve("rpi55")


def test_an_entry_whose_profile_is_gone_says_where_it_stands(file: Path) -> None:
    inventory.put("pi5", replace(PI, profile="rpi55"))
    with pytest.raises(UnknownName, match=r"unknown profile of pi5 in .*inventory.toml: 'rpi55'; did you mean rpi5"):
        inventory.resolve("pi5")


def test_a_board_is_its_identity_wherever_it_is(file: Path) -> None:
    here = facts()
    inventory.put("pi5", replace(PI, identity=here.identity))
    found = inventory.by_identity(here.identity)
    assert found is not None
    inventory.check_board(found, here)
    with pytest.raises(WrongDevice, match=r"another board answers at pi@10\.0\.0\.7.*meltbench devices remove pi5"):
        inventory.check_board(found, facts("ffee"))
    inventory.check_board(replace(found, identity=None), facts("ffee"))


def _add(n: int) -> None:
    inventory.put(f"pi{n}", Entry("rpi5", f"pi@10.0.0.{n}"))


def test_devices_that_are_added_at_once_are_all_there(file: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        pool.map(_add, range(12))
    assert {*inventory.load()} == {f"pi{n}" for n in range(12)}


def test_notes_are_of_a_board_and_follow_its_name(file: Path) -> None:
    assert notes.noted("pi5") is None
    notes.note_verdict("pi5", facts(), "advice")
    notes.note_seen("pi5", facts())
    found = notes.noted("pi5", facts().identity)
    assert found is not None
    assert found.verdict == "advice"
    assert 0 <= time.time() - found.seen_s < 60
    assert notes.noted("pi5", facts("ffee").identity) is None
    notes.note_seen("pi5", facts("ffee"))
    again = notes.noted("pi5")
    assert again is not None
    assert again.verdict is None, "what the doctor said was of another board"
    notes.rename("pi5", "shelf")
    assert notes.noted("pi5") is None
    assert notes.noted("shelf") == again
    notes.forget("shelf")
    notes.forget("shelf")
    assert notes.noted("shelf") is None


@pytest.mark.parametrize("said", [b"", b"[]", b"{", b'{"identity": 3}', b'{"identity": "a", "seen_s": 1, "facts": []}'])
def test_a_damaged_note_is_as_if_nobody_had_looked(file: Path, said: bytes, tmp_path: Path) -> None:
    notes.note_seen("pi5", facts())
    (only,) = (tmp_path / "state" / "meltbench" / "devices").iterdir()
    only.write_bytes(said)
    assert notes.noted("pi5") is None
