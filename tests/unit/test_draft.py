"""Drafts of profiles: made from looks at devices that nobody has described, and never wiser than the look."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench import survey
from meltbench.errors import UserError
from meltbench.targets import matching, profile
from meltbench.targets.draft import Seen, Signal, Survey, draft, known, name_of
from meltbench.targets.facts import Facts, parse
from meltbench.targets.profile import Source

CANDIDATES, _BROKEN = profile.candidates()


@cache
def loads(name: str) -> profile.Profile:
    return profile.load(name)[0]


JOULES = Signal("rapl.package-0", "counter", "J", "soc")
WATTS = Signal("hwmon.chip.power1", "gauge", "W", "rail")


def facts(board: str = "Some Board Rev 2") -> Facts:
    return parse({"files": {"/proc/device-tree/model": {"status": "ok", "text": board}}})


def source(name: str, reader: str = "hwmon", **options: Any) -> Source:
    return Source(name, reader, 97.0, options)


def seen_by(*others: Seen, base: str = "linux-desktop", about: Facts | None = None, **status: Any) -> Survey:
    """A look at a device that fits ``base``: each of its sources absent but for ``status``, by name."""
    loaded = loads(base)
    looked = []
    for one in loaded.source:
        word, signals = status.get(one.name, ("absent", ()))
        looked.append(Seen(one, word, "", signals))
    reached = loads("local")
    about = about or facts()
    fits = matching.fits(about, CANDIDATES)
    return Survey("mine", reached, about, [f for f in fits if f.name == base] or fits, loaded, tuple(looked), others)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Loads a draft as a user's own profile."""
    monkeypatch.chdir(tmp_path)

    def load(text: str) -> profile.Profile:
        survey.write("mine", text, force=True)
        return profile.load("mine")[0]

    return load


def test_a_draft_loads_with_all_that_it_inherits(written: Any) -> None:
    found = written(draft(seen_by(rapl=("ok", (JOULES,)))))
    base, _ = profile.load("linux-desktop")
    assert found.title == "Some Board Rev 2"
    assert (found.target, found.checked) == ("local", "unverified")
    assert found.source == base.source
    assert found.total == base.total
    assert found.match.board == ("Some Board Rev 2",)
    assert found.unverified


def test_a_counter_goes_before_a_gauge_and_one_alone_is_the_total(written: Any) -> None:
    energy = Signal("hwmon.chip.power1.energy", "counter", "J", "rail")
    text = draft(seen_by(Seen(source("chip"), "ok", "", (WATTS, energy))))
    (total,) = written(text).total
    assert (total.source, total.rails) == ("chip", ("hwmon.chip.power1.energy",))


def test_several_rails_are_listed_and_none_is_chosen(written: Any) -> None:
    rails = tuple(replace(WATTS, name=f"hwmon.chip.power{n}") for n in (1, 2))
    text = draft(seen_by(Seen(source("chip"), "ok", "", rails)))
    assert "[[total]]" not in "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    assert "#   chip: hwmon.chip.power1, hwmon.chip.power2" in text
    assert [total.source for total in written(text).total] == ["rapl"]


def test_trap_1_and_2_nothing_is_guessed_of_a_battery_and_it_is_no_total(written: Any) -> None:
    power = Signal("battery.power", "gauge", "W", "battery")
    text = draft(seen_by(Seen(source("battery", "power_supply", supply="BAT1"), "ok", "", (power,))))
    (gauge,) = [one for one in written(text).source if one.name == "battery"]
    assert gauge.options == {"supply": "BAT1"}
    assert "meltbench devices calibrate" in text
    assert "battery: battery.power" in text
    assert not any(total.source == "battery" for total in written(text).total)


def test_what_is_denied_is_told_with_what_it_needs() -> None:
    text = draft(seen_by(rapl=("denied", ()), cpu=("ok", ())))
    assert "# Is there and may not be read: rapl." in text
    assert "#   rapl needs root, or a udev rule" in text
    assert "# Can be read: cpu." in text
    assert "nvml" in next(line for line in text.splitlines() if line.startswith("# Is not there:"))


def test_a_total_whose_rails_are_not_there_is_not_promised() -> None:
    other = Signal("ina3221.NC.power", "gauge", "W", "rail")
    jetson = parse({"files": {"/proc/device-tree/compatible": {"status": "ok", "text": "nvidia,tegra194\0"}}})
    text = draft(seen_by(base="generic-jetson", about=jetson, ina3221=("ok", (other,))))
    assert "Its total is inherited" not in text
    assert 'rails = ["ina3221.NC.power"]' in text
    promised = draft(seen_by(base="generic-jetson", about=jetson, tegrastats=("ok", None)))
    assert "Its total is inherited: tegrastats (tegrastats.VDD_IN.power)." in promised


def test_a_tie_is_told(written: Any) -> None:
    look = seen_by()
    twin = replace(look.fits[0], name="other")
    assert "# fits as well: other" in draft(replace(look, fits=[look.fits[0], twin]))


def test_a_gauge_of_another_device_lends_its_place_and_not_its_unit() -> None:
    shipped = [
        source("a", "power_supply", supply="battery", current_unit="mA"),
        source("b", "rapl"),
        source("c", "rapl"),
    ]
    shipped.append(replace(source("d", "tasmota"), host=True))
    assert [one.name for one in known([source("x", "hwmon")], shipped)] == ["a", "b"]
    assert known([source("x", "power_supply"), source("y", "rapl")], shipped) == []


@pytest.mark.parametrize(
    ("board", "name"),
    [
        ("Raspberry Pi 5 Model B Rev 1.0", "raspberry-pi-5-model-b-rev-1-0"),
        ("../../etc", "etc"),
        ("\u2026", "this-machine"),
        ("x" * 90, "x" * 40),
    ],
)
def test_a_name_is_made_of_the_board(board: str, name: str) -> None:
    assert name_of(facts(board)) == name
    survey.check_name(name)


@pytest.mark.parametrize("name", ["", "../x", "a b", ".hidden", "x" * 65])
def test_a_bad_name_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="is no name for a profile"):
        survey.check_name(name)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").write_text("a file")
    with pytest.raises(UserError, match="devices"):
        survey.write("mine", "", force=False)


@settings(max_examples=80, deadline=None)
@given(
    st.text(max_size=60),
    st.lists(st.text(max_size=40), max_size=4),
    st.dictionaries(st.just("ro.product.device"), st.text(min_size=1, max_size=30)),
    st.text(max_size=30),
)
def test_whatever_a_device_calls_itself_the_draft_is_toml(
    board: str, compatible: list[str], said: dict[str, str], rail: str
) -> None:
    files: dict[str, Any] = {
        "/proc/device-tree/model": {"status": "ok", "text": board},
        "/proc/device-tree/compatible": {"status": "ok", "text": "\0".join(compatible)},
    }
    from meltbench.targets import printable

    clean = {key: printable(value) for key, value in said.items()}
    about = parse({"files": files}, said=clean)
    signal = replace(WATTS, name=f"hwmon.{printable(rail)}")
    text = draft(replace(seen_by(Seen(source("chip"), "ok", "", (signal,)), about=about), facts=about))
    table = tomllib.loads(text)
    assert table["inherits"]
    assert fnmatchcase(signal.name, table["total"][0]["rails"][0])
    for key in ("board", "compatible", "product"):
        for glob in table.get("match", {}).get(key, ()):
            assert matching.fits(about, {"it": matching.Candidate(profile.Match(**{key: (glob,)}))})
