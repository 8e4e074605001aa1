"""Every profile that is shipped: it loads, it recognises something, and its totals fit what its readers really make.

What the profiles say is held against made outputs of the devices (device_kit.py), and not against itself.
"""

from __future__ import annotations

import re
import textwrap
from fnmatch import fnmatchcase
from math import gcd
from typing import Any

import pytest
from device_kit import PMIC, RAILS, WATTS, found, ina3221, jtop, made, power_supply, tegrastats

from meltbench import catalog, recorded
from meltbench.errors import DefinitionError
from meltbench.measure.digest import digest
from meltbench.measure.total import Designation, designated
from meltbench.readings import READERS
from meltbench.targets import profile
from meltbench.targets.profile import Profile

NAMES = (
    *("galaxy-s23", "generic-android", "oneplus-12", "pixel6", "pixel8pro", "xiaomi-13t-pro"),
    *("generic-jetson", "jetson-agx-orin", "jetson-nano", "jetson-orin-nano", "jetson-thor", "jetson-xavier-nx"),
    *("rpi4", "rpi5", "linux-desktop", "local", "macbook"),
)
PROFILES = {name: profile.load(name)[0] for name in NAMES}
each = pytest.mark.parametrize("name", NAMES)


def test_the_list_above_is_all_that_is_shipped() -> None:
    shipped = {path.stem for path in (catalog.builtin_root() / "devices").glob("*.toml")}
    assert shipped == set(NAMES)


@each
def test_a_profile_says_all_that_a_person_needs(name: str) -> None:
    one = PROFILES[name]
    assert one.title
    assert one.source
    assert one.target == {"pixel6": "adb", "rpi5": "ssh", "jetson-thor": "ssh", "macbook": "log"}.get(name, one.target)
    assert one.checked == "device" or one.unverified, "what of it has nobody seen?"
    if one.target in ("adb", "ssh") and not name.startswith("generic"):
        assert one.match.product or one.match.compatible
        assert one.max_power_w is not None
    assert set(one.permissions) <= {source.name for source in one.source}
    for setting in one.setting:
        assert setting.optional, "no setting is needed for a phone to be measured"


@each
def test_totals_name_rails_that_do_not_contain_each_other(name: str) -> None:
    one = PROFILES[name]
    inside = {part for parts in one.contains.values() for part in parts}
    for total in one.total:
        assert total.scope is not None or not total.rails
        assert not inside & set(total.rails) or total.partial, f"{total.rails} holds a part of something"
    for whole, parts in one.contains.items():
        assert whole not in parts
        assert not {grand for part in parts for grand in one.contains.get(part, ())} & {whole}
        prefix = whole.partition(".")[0]
        assert prefix in {source.reader for source in one.source}


def ratio(one: float, other: float) -> tuple[int, int]:
    """Two periods as the smallest whole numbers of that ratio."""
    a, b = round(one * 10), round(other * 10)
    return a // gcd(a, b), b // gcd(a, b)


@each
def test_trap_35_no_two_periods_and_no_round_one_keep_in_step(name: str) -> None:
    periods = sorted({source.period_ms for source in PROFILES[name].source})
    for n, one in enumerate(periods):
        for other in periods[n + 1 :]:
            assert min(ratio(one, other)) >= 19, f"{one:g} and {other:g} ms meet too often"
        for beat in (10.0, 100.0, 1000.0):
            assert max(ratio(one, beat)) >= 19
            assert min(ratio(one, beat)) > 1, f"{one:g} ms keeps in step with {beat:g} ms"


@each
def test_sources_of_power_have_each_a_period_of_its_own(name: str) -> None:
    """Two of them that were read at one rhythm would see the same ripple at the same phase."""
    energetic = {total.source for total in PROFILES[name].total}
    periods = [source.period_ms for source in PROFILES[name].source if source.name in energetic]
    assert len(set(periods)) == len(periods)


TOTALS = [(name, n) for name in NAMES for n in range(len(PROFILES[name].total))]


@pytest.mark.parametrize(("name", "n"), TOTALS, ids=[f"{name}-{n + 1}" for name, n in TOTALS])
def test_every_total_is_one_that_its_reader_can_give(name: str, n: int) -> None:
    one = PROFILES[name]
    total = one.total[n]
    source = next(source for source in one.source if source.name == total.source)
    if source.reader == "cmd_battery":  # two commands, of which a capture holds one: tests/contract/android
        assert total.rails == ("cmd_battery.power",)
        return
    outputs = made(name, source)
    assert outputs, f"no made output for {source.reader}"
    reasons = []
    for raw in outputs:
        series, seen = found(source, raw)
        named = Designation(total.source, total.rails, total.scope, total.partial)
        given = designated([named], [seen.told()], [digest(s) for s in series])
        if given.rail is not None:
            assert {part.head.source for part in given.rail.parts} == {total.source}
            assert given.partial == total.partial
            return
        reasons.append(given.reason)
    pytest.fail(f"{total.rails}: {reasons}")


def watts(name: str, board: str, reader: str, raw: bytes) -> tuple[float, str]:
    """Mean power of the total that a profile names by one reader alone, and what it leaves out."""
    one = PROFILES[name]
    source = next(source for source in one.source if source.reader == reader)
    series, seen = found(source, raw)
    named = [Designation(t.source, t.rails, t.scope, t.partial) for t in one.total]
    given = designated(named, [seen.told()], [digest(s) for s in series])
    assert given.rail is not None, (board, given.reason)
    return sum(float(part.kept["v"].mean()) for part in given.rail.parts), given.partial


@pytest.mark.parametrize("reader", ["ina3221", "tegrastats", "jtop"])
@pytest.mark.parametrize("name", ["jetson-xavier-nx", "jetson-orin-nano", "generic-jetson"])
def test_trap_18_vdd_in_is_the_total_and_its_parts_are_not_added(name: str, reader: str) -> None:
    if (name, reader) == ("generic-jetson", "jtop"):
        return
    board = "orin-nx" if name == "generic-jetson" else name
    make = {"ina3221": ina3221, "tegrastats": tegrastats, "jtop": jtop}[reader]
    assert watts(name, board, reader, make(board)) == (pytest.approx(WATTS["VDD_IN"]), "")
    if name != "generic-jetson":
        assert set(PROFILES[name].contains[f"{reader}.VDD_IN.power"]) == {
            f"{reader}.VDD_CPU_GPU_CV.power",
            f"{reader}.VDD_SOC.power",
        }


@pytest.mark.parametrize("name", ["jetson-agx-orin", "generic-jetson"])
@pytest.mark.parametrize("reader", ["ina3221", "tegrastats"])
def test_trap_18_agx_orin_has_no_input_rail_so_its_sum_is_partial_and_holds_the_memory_once(
    name: str, reader: str
) -> None:
    make = {"ina3221": ina3221, "tegrastats": tegrastats}[reader]
    power, partial = watts(name, "jetson-agx-orin", reader, make("jetson-agx-orin"))
    # VDDQ_VDD2_1V8AO lies inside of VIN_SYS_5V0, and NC is connected to nothing.
    assert power == pytest.approx(WATTS["VDD_GPU_SOC"] + WATTS["VDD_CPU_CV"] + WATTS["VIN_SYS_5V0"])
    assert partial
    assert "ina3221.VDDQ_VDD2_1V8AO.power" in PROFILES["jetson-agx-orin"].contains["ina3221.VIN_SYS_5V0.power"]


def test_trap_18_agx_xavier_and_nano_and_tx2_have_totals_of_their_own() -> None:
    six = sum(WATTS[rail] for rail in RAILS["agx-xavier"])
    power, partial = watts("generic-jetson", "agx-xavier", "ina3221", ina3221("agx-xavier"))
    assert (power, bool(partial)) == (pytest.approx(six), True)
    assert watts("jetson-nano", "jetson-nano", "tegrastats", tegrastats("jetson-nano"))[0] == WATTS["POM_5V_IN"]
    assert watts("generic-jetson", "tx2", "tegrastats", tegrastats("tx2")) == (WATTS["VDD_IN"], "")


def test_trap_18_the_input_of_thor_is_its_total_and_its_rails_alone_are_partial() -> None:
    power, partial = watts("jetson-thor", "jetson-thor", "tegrastats", tegrastats("jetson-thor"))
    assert (power, partial) == (WATTS["VIN"], "")
    without = re.sub(rb" VIN \d+mW/999mW", b"", tegrastats("jetson-thor"))
    assert "28 %" in watts("jetson-thor", "jetson-thor", "tegrastats", without)[1]


@pytest.mark.parametrize(
    "rails", ['["ina3221.VIN_SYS_5V0.power", "ina3221.VDDQ_VDD2_1V8AO.power"]', '["ina3221.V*.power"]']
)
def test_rule_8_a_total_that_adds_what_it_contains_is_refused(
    rails: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    doubled = f'[[total]]\nsource = "ina3221"\nrails = {rails}\n'
    (tmp_path / "devices" / "mine.toml").write_text(f'inherits = "jetson-agx-orin"\n{doubled}')
    with pytest.raises(DefinitionError, match="lies inside of it"):
        profile.load("mine")


def battery_w(name: str, raw: int) -> float:
    """Watts that a profile makes of a raw current_now at 4 V."""
    source = next(source for source in PROFILES[name].source if source.reader == "power_supply")
    series, _ = found(source, power_supply(raw))
    (power,) = [one for one in series if one.name == "battery.power"]
    return float(power.value[0])


def test_a_folder_of_a_device_over_ssh_is_none_of_its_profile(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "mine.toml").write_text('inherits = "rpi5"\nworkdir = "/data/mb"\n')
    with pytest.raises(DefinitionError, match=r"workdir is of a device.*--workdir DIR"):
        profile.load("mine")


def test_trap_1_two_phones_that_count_with_opposite_signs_draw_the_same_power() -> None:
    assert battery_w("pixel6", -500_000) == pytest.approx(2.0)
    assert battery_w("oneplus-12", 500) == pytest.approx(2.0)
    assert battery_w("pixel6", 500_000) == pytest.approx(-2.0)
    assert battery_w("oneplus-12", -500) == pytest.approx(-2.0)


def test_trap_2_milliamperes_and_microamperes_are_the_profiles_to_say() -> None:
    assert battery_w("galaxy-s23", -500) == pytest.approx(2.0)
    # What an idle Pixel draws is never taken for mA because it is small.
    assert battery_w("pixel6", -976) == pytest.approx(0.0039, rel=0.01)
    assert battery_w("galaxy-s23", -976) == pytest.approx(3.904, rel=0.01)


def loads_outside(one: Profile) -> list[str]:
    return [total.partial for total in one.total]


def test_trap_22_what_hangs_outside_of_the_sensor_is_told_or_its_scope_is_no_whole_device() -> None:
    for name in NAMES:
        for total in PROFILES[name].total:
            # A scope that leaves out a carrier or a screen says so itself; a sum of rails must say it in words.
            assert total.scope in ("wall", "battery", "module", "soc", "rail", None)
            if total.scope == "rail" or len(total.rails) > 1:
                assert total.partial, f"{name}: {total.rails} leaves something out and does not say what"
            assert total.scope != "wall", "no source of a device sees its plug"
    (pi,) = loads_outside(PROFILES["rpi5"])
    assert "USB" in pi
    assert "NVMe" in pi
    assert PROFILES["rpi4"].total == ()


def test_trap_23_the_sum_of_a_pi_5_is_not_corrected_by_another_boards_fit() -> None:
    (source,) = [source for source in PROFILES["rpi5"].source if source.reader == "pmic"]
    assert source.options == {}
    series, _ = found(source, PMIC)
    (total,) = [one for one in series if one.name == "pmic.sum.power"]
    assert float(total.value[0]) == pytest.approx(12.0)
    rails = {one.name for one in series if one.unit == "W"} - {"pmic.sum.power"}
    assert set(PROFILES["rpi5"].contains["pmic.sum.power"]) == rails


def test_the_gate_looks_at_zones_that_devices_have_and_at_no_constant() -> None:
    def looks(name: str, zone: str) -> bool:
        return any(fnmatchcase(f"thermal.{zone}", glob) for glob in PROFILES[name].gate.zones)

    assert all(looks("jetson-nano", zone) for zone in ("CPU-therm", "GPU-therm"))
    assert all(looks("jetson-orin-nano", zone) for zone in ("cpu-thermal", "gpu-thermal", "tj-thermal", "soc0-thermal"))
    assert not any(looks("generic-jetson", zone) for zone in ("PMIC-Die", "thermal-fan-est"))
    assert all(looks("rpi5", zone) for zone in ("cpu-thermal", "cpu_thermal"))
    assert all(looks("pixel6", zone) for zone in ("battery", "thermalservice.SKIN.VIRTUAL-SKIN", "skin-msm-therm"))


def test_the_local_profile_measures_what_it_measured() -> None:
    before = {"rapl": 19, "thermal": 197, "cpufreq": 97, "cpu": 97, "loadavg": 997, "pressure": 197, "memory": 197}
    before |= {"vmstat": 997, "engine_memory": 97, "engine_cpu": 97, "engine_pss": 997, "hwmon": 53, "clocks": 997}
    before |= {"nvml": 97, "pyrapl": 211}
    for name in ("local", "linux-desktop"):
        periods = {source.name: source.period_ms for source in PROFILES[name].source}
        assert {key: periods[key] for key in before} == before
        assert [total.source for total in PROFILES[name].total] == ["rapl"]


def mac(n: int, text: str) -> bytes:
    """A log of a Mac with ``n`` samples a second apart, whose power ripples around 3 W by the chip and 9 W in all."""
    out = []
    for at in range(n):
        ripple = at % 5 * 100 - 200
        out.append(text.format(f"{at // 60:02d}:{at % 60:02d}", mw=3000 + ripple, w=9 + ripple / 1000))
    return "".join(out).encode()


def test_a_mac_is_measured_from_either_log_with_what_each_can_tell() -> None:
    header = "*** Sampled system activity (Sat Mar 14 10:{0} 2026 +0100) (1000.0ms elapsed) ***\n"
    chip = mac(60, header + "CPU Power: {mw} mW\nCombined Power (CPU + GPU + ANE): {mw} mW\n\n")
    line = '{{"timestamp":"2026-03-14T10:{0}.0+00:00","all_power":3.0,"cpu_power":3.0,"sys_power":{w}}}\n'
    for raw, power, scope, klass in ((chip, 3.0, "soc", "E"), (mac(60, line), 9.0, "module", "E")):
        seen = recorded.recording(raw, recorded.sources_of(PROFILES["macbook"]))
        total = recorded.measured(seen, PROFILES["macbook"])
        assert (total["scope"], total["klass"]) == (scope, klass)
        assert total["energy_j"] == pytest.approx(power * 59, rel=0.02)
        assert (total["partial"] == "") == (scope == "module")


def page() -> str:
    """The table of profiles in docs/verified.md, as the profiles themselves say it."""
    lines = ["| profile | checked | what of it nobody has seen |", "|---|---|---|"]
    for name in sorted(NAMES):
        one = PROFILES[name]
        lines.append(f"| {name} | {one.checked} | {' '.join(one.unverified) or 'nothing is known to be'} |")
    return "\n".join(lines)


def test_the_page_of_what_was_checked_says_what_the_profiles_say() -> None:
    docs = catalog.builtin_root() / "docs" / "verified.md"
    assert page() in docs.read_text(encoding="utf-8"), f"write this into {docs}:\n{page()}"


def test_the_profiles_that_the_page_on_devices_shows_load(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (catalog.builtin_root() / "docs" / "devices.md").read_text(encoding="utf-8")
    blocks = [textwrap.dedent(block) for block in re.findall(r"(?m)(?:^    .*\n|^\n(?=    ))+", text)]
    pi, meter = (block for block in blocks if "[[source]]" in block)
    (tmp_path / "devices").mkdir()
    (tmp_path / "devices" / "shelf.toml").write_text(pi)
    (tmp_path / "devices" / "plugged.toml").write_text(f'inherits = "rpi4"\ntarget = "local"\n{meter}')
    shelf, _ = profile.load("shelf")
    (source,) = [source for source in shelf.source if source.name == "pmic"]
    assert (source.period_ms, source.options["gain"]) == (89, 1.1451)
    plugged, _ = profile.load("plugged")
    assert [(total.source, total.rails) for total in plugged.total] == [("plug", ())]
    assert plugged.source[-1].host


def test_every_reader_that_a_profile_names_is_there() -> None:
    assert {source.reader for one in PROFILES.values() for source in one.source} <= set(READERS)


@pytest.mark.parametrize("name", sorted(READERS))
def test_every_reader_is_explained_and_says_how_it_was_checked(name: str) -> None:
    docs = catalog.builtin_root() / "docs"
    assert re.search(rf"`{re.escape(name)}`", (docs / "measuring.md").read_text(encoding="utf-8"))
    rows = [
        row.split("|")
        for row in (docs / "verified.md").read_text(encoding="utf-8").splitlines()
        if re.match(rf"\| source .*\b{re.escape(name)}\b", row)
    ]
    assert rows, f"docs/verified.md has no row for {name}"
    assert {row[2].strip() for row in rows} <= {"device", "capture", "emulated", "unverified"}
