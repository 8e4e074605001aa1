"""/sys/class/power_supply as files and as uevents: two supplies of one phone, units, signs, and what is plugged in."""

import errno
from pathlib import Path

import numpy as np
import pytest
from unit.evidence_kit import ints, stream

from meltbench.errors import DefinitionError
from meltbench.readings import READERS, Source, read
from meltbench.readings.capture import captured

HERE = Path(__file__).parent
ROOT = "/sys/class/power_supply/"
MS = 1_000_000


def files(supply, **contents):
    """The files of a supply: a list is read often, 1.3 ms later each; a word once."""
    made = []
    for at, (name, content) in enumerate(contents.items()):
        often = isinstance(content, list)
        raw = content if often else [f"{content}\n".encode()]
        made.append(stream(f"{ROOT}{supply}/{name}", raw, t0_ns=at * 1_300_000 if often else 0))
    return made


def got(streams, reader="power_supply", **options):
    series, status = read("gauge", reader, streams, options)
    return {one.name: one for one in series}, status


def values(found):
    return {name: pytest.approx(float(one.value[0])) for name, one in found.items() if np.isfinite(one.value[0])}


BATTERY = {
    "type": "Battery",
    "current_now": ints([-812_500, -790_625]),
    "voltage_now": ints([3_901_250, 3_902_500]),
    "charge_counter": ints([2_514_000, 2_514_000]),
    "capacity": ints([57, 57]),
    "temp": ints([334, 335]),
    "status": [b"Discharging\n", b"Not charging\n"],
    "charge_full": "4410000",
}
USB = {"type": "USB", "online": ints([0, 1])}


def test_files_of_a_battery_in_si_units():
    found, status = got(files("battery", **BATTERY) + files("usb", **USB))
    assert {name: (one.unit, one.kind, one.scope) for name, one in found.items()} == {
        "battery.power": ("W", "gauge", "battery"),
        "battery.current_a": ("A", "gauge", "battery"),
        "battery.voltage_v": ("V", "gauge", "battery"),
        "battery.charge_c": ("C", "gauge", "battery"),
        "battery.full_c": ("C", "gauge", "battery"),
        "battery.soc_percent": ("%", "gauge", "battery"),
        "thermal.battery": ("degC", "gauge", "system"),
        "battery.status": ("1", "state", "battery"),
        "battery.plugged": ("1", "state", "battery"),
    }
    assert found["battery.power"].value.tolist() == pytest.approx([0.8125 * 3.90125, 0.790625 * 3.9025])
    assert found["battery.charge_c"].value.tolist() == pytest.approx([2.514 * 3600] * 2)
    assert found["battery.full_c"].value.tolist() == pytest.approx([4.41 * 3600])
    assert found["thermal.battery"].value.tolist() == pytest.approx([33.4, 33.5])
    assert found["battery.status"].value.tolist() == [3.0, 4.0]
    assert found["battery.plugged"].value.tolist() == [0.0, 1.0]
    power = found["battery.power"]
    assert (power.klass, power.window_s, power.calibration, status.status) == ("D", 1.0, "", "ok")


def test_trap_20_power_spans_the_reads_of_both_its_parts_and_none_is_made_of_distant_ones():
    found, _ = got(
        files("battery", type="Battery", current_now=ints([-100_000] * 3), voltage_now=ints([4_000_000] * 3))
    )
    power, current = found["battery.power"], found["battery.current_a"]
    assert (power.t0_ns == current.t0_ns).all()
    assert (power.t1_ns - current.t1_ns == 1_300_000).all()
    volts = stream(ROOT + "battery/voltage_now", ints([4_000_000]), t0_ns=900 * MS)
    late = [*files("battery", type="Battery", current_now=ints([-100_000] * 10)), volts]
    words = got(late)[0]["battery.power"].words
    assert words == ["again"] * 4 + ["ok"] * 6  # half a second before and after, at a reading in 100 ms
    assert np.isnan(got(late)[0]["battery.power"].value[:4]).all()


def test_a_voltage_that_cannot_be_read_gives_no_power():
    found, _ = got(files("battery", type="Battery", current_now=ints([1, 2]), voltage_now=[errno.EACCES, b"0\n"]))
    assert found["battery.power"].words == ["denied", "absent"]
    assert found["battery.current_a"].words == ["ok", "ok"]


def test_trap_1_two_supplies_of_one_phone_may_differ_in_sign():
    """A Pixel 5: `battery` reads below 0 when it is discharged and `bms` above it; a profile has a source of each."""
    both = files("battery", type="Battery", current_now=ints([-500_000]), voltage_now=ints([4_000_000]))
    both += files("bms", type="BMS", current_now=ints([500_000]), voltage_now=ints([4_000_000]))
    one = Source.of("a", "power_supply", {"supply": "battery"})
    other = Source.of("b", "power_supply", {"supply": "bms", "discharge_sign": 1})
    for source in (one, other):
        power = {s.name: s for s in source.read(both)[0]}["battery.power"]
        assert power.value.tolist() == [2.0]
    wrong = Source.of("c", "power_supply", {"supply": "bms"})
    assert {s.name: s for s in wrong.read(both)[0]}["battery.power"].value.tolist() == [-2.0]


def test_trap_2_a_vendor_that_counts_milliamperes_says_so_in_the_profile():
    phone = files("battery", type="Battery", current_now=ints([-634]), voltage_now=ints([3852]), temp=ints([34]))
    options = {"current_unit": "mA", "voltage_unit": "mV", "temp_unit": "C"}
    assert values(got(phone, **options)[0]) == {
        "battery.power": 0.634 * 3.852,
        "battery.current_a": -0.634,
        "battery.voltage_v": 3.852,
        "thermal.battery": 34.0,
    }
    assert got(phone)[0]["battery.voltage_v"].words == ["unparsed"]  # 3.9 mV is no battery


@pytest.mark.parametrize("microamperes", [0, 1, -1, 976, -976, 5000, 9999, -5000])
def test_trap_3_no_magnitude_changes_the_unit(microamperes):
    """A phone that is fed past its battery reads a few hundred uA: no count is small enough to be of mA."""
    found, _ = got(files("battery", type="Battery", current_now=ints([microamperes]), voltage_now=ints([3_815_000])))
    assert found["battery.current_a"].value.tolist() == pytest.approx([microamperes * 1e-6])
    assert abs(found["battery.power"].value[0]) < 0.04


@pytest.mark.parametrize(("word", "code"), [("Unknown", 1), ("Charging", 2), ("Not charging", 4), ("Full", 5)])
def test_trap_8_words_of_the_kernel_are_androids_codes_and_change_no_sign(word, code):
    phone = files("battery", type="Battery", status=word, current_now=ints([-250_000]), voltage_now=ints([4_000_000]))
    found, _ = got(phone)
    assert (found["battery.status"].value[0], found["battery.power"].value[0]) == (code, 1.0)
    assert got(files("battery", type="Battery", status="Dunno"))[0]["battery.status"].words == ["unparsed"]


def test_trap_7_what_usb_feeds_is_not_in_the_gauge_and_plugged_says_so():
    phone = files("battery", type="Battery", current_now=ints([1200]), voltage_now=ints([4_390_000]))
    found, _ = got(phone + files("usb", type="USB", online=ints([1])) + files("dc", type="Mains", online=ints([0])))
    assert found["battery.plugged"].value.tolist() == [1.0]
    assert abs(found["battery.power"].value[0]) < 0.01


def test_plugged_is_not_denied_by_a_supply_that_may_be_the_one():
    supplies = files("usb", type="USB", online=ints([0, 0])) + files("wireless", type="Wireless", online=[13, b"1\n"])
    found, _ = got(files("battery", type="Battery", capacity=ints([50, 50])) + supplies)
    assert found["battery.plugged"].words == ["denied", "ok"]
    assert found["battery.plugged"].value[1] == 1.0


@pytest.mark.parametrize(("count", "word"), [(0, "absent"), (11_700_000, "unparsed"), (4_500_000, "ok")])
def test_trap_9_a_counter_is_held_against_the_full_charge(count, word):
    found, status = got(files("battery", **BATTERY | {"charge_counter": ints([count])}))
    assert found["battery.charge_c"].words == [word]
    assert ("beyond what the battery can hold" in status.detail) == (word == "unparsed")


@pytest.mark.parametrize(
    ("text", "word"),
    [("4410000", "ok"), ("0", "absent"), ("-1", "absent"), ("4410", "unparsed"), ("4410000000", "unparsed")],
)
def test_trap_2_what_a_full_battery_holds_is_the_size_of_a_battery(text, word):
    """4410 is what a driver says that counts in mAh: then charge_unit has to say so."""
    found, _ = got(files("battery", **BATTERY | {"charge_full": text}))
    assert found["battery.full_c"].words == [word]
    inside, _ = got(files("battery", **BATTERY | {"charge_full": "4410"}), charge_unit="mAh")
    assert inside["battery.full_c"].value.tolist() == pytest.approx([4.41 * 3600])


def test_a_battery_of_a_mouse_is_not_the_machines():
    mouse = files("hid-battery", type="Battery", scope="Device", capacity=ints([80]))
    assert got(mouse)[1].status == "absent"
    found, _ = got(mouse + files("BAT0", type="Battery", scope="System", capacity=ints([40])))
    assert found["battery.soc_percent"].value.tolist() == [40.0]


def test_a_second_battery_is_told_apart():
    two = files("battery_ext", type="Battery", capacity=ints([20])) + files(
        "battery", type="Battery", capacity=ints([60])
    )
    assert values(got(two)[0]) == {"battery.soc_percent": 60.0, "battery.battery_ext.soc_percent": 20.0}


def test_denied_is_not_absent():
    closed = [stream(f"{ROOT}battery/{name}", [], status="denied") for name in ("current_now", "voltage_now", "uevent")]
    assert got([*closed, *files("battery", type="Battery")])[1].status == "denied"
    folder = stream("/sys/class/power_supply/*/current_now", [], status="denied")
    assert got([folder])[1].status == "denied"
    status = got(files("usb", **USB))[1]
    assert (status.status, status.detail) == ("absent", "no battery below /sys/class/power_supply")
    assert "no supply named bms" in got(files("battery", **BATTERY), supply="bms")[1].detail


def test_uevent_of_a_battery_and_of_its_charger():
    text = (HERE / "uevent_pixel.txt").read_bytes()
    usb = b"POWER_SUPPLY_NAME=usb\nPOWER_SUPPLY_TYPE=USB\nPOWER_SUPPLY_ONLINE=0\n"
    streams = [stream(ROOT + "battery/uevent", [text]), stream(ROOT + "usb/uevent", [usb])]
    expected = {
        "battery.power": 0.8125 * 3.90125,
        "battery.current_a": -0.8125,
        "battery.voltage_v": 3.90125,
        "battery.charge_c": 2.514 * 3600,
        "battery.full_c": 4.41 * 3600,
        "battery.full_design_c": 4.95 * 3600,
        "battery.soc_percent": 57.0,
        "thermal.battery": 33.4,
        "battery.status": 3.0,
        "battery.plugged": 0.0,
    }
    for reader in ("power_supply", "power_supply_uevent"):
        assert values(got(streams, reader)[0]) == expected
        assert values(got(captured(READERS[reader], text), reader)[0]).keys() == expected.keys() - {"battery.plugged"}


def test_trap_1_a_dump_without_prefix_and_type_of_a_phone_that_counts_the_other_way():
    text = (HERE / "uevent_snapdragon_old.txt").read_bytes().replace(b"\n", b"\r\n")
    found, _ = got(captured(READERS["power_supply"], text), discharge_sign=1)
    assert found["battery.power"].value.tolist() == pytest.approx([0.310974 * 4.066871])
    assert found["battery.charge_c"].words == ["absent"]


def test_a_tree_dumped_with_grep_is_read_as_files():
    dump = b"".join(
        b"/sys/class/power_supply/%s\n" % line
        for line in (b"bat/type:Battery", b"bat/current_now:-500000", b"bat/voltage_now: 4000000", b"ac/online:1")
    )
    found, _ = got(captured(READERS["power_supply"], dump))
    assert values(found) == {
        "battery.power": 2.0,
        "battery.current_a": -0.5,
        "battery.voltage_v": 4.0,
        "battery.plugged": 1.0,
    }


def test_what_a_calibration_found_is_applied_to_the_current_and_named():
    found, _ = got(files("battery", **BATTERY), scale=2.0, calibration="made")
    assert found["battery.power"].value[0] == pytest.approx(2 * 0.8125 * 3.90125)
    assert found["battery.power"].calibration == "made"
    assert found["battery.voltage_v"].value[0] == pytest.approx(3.90125)


@pytest.mark.parametrize("supply", ["", 3, "../battery"])
def test_a_wrong_supply_is_named(supply):
    with pytest.raises(DefinitionError, match="supply"):
        got([], supply=supply)


@pytest.mark.parametrize("at", [0, 1, 2, 4])
def test_a_run_read_in_two_parts_gives_the_series_of_the_whole(at):
    contents = BATTERY | {name: BATTERY[name] * 2 for name in ("current_now", "voltage_now", "status")}
    whole, _ = got(files("battery", **contents))
    source = Source.of("gauge", "power_supply", {})
    once = [s for s in files("battery", **contents) if len(s.readings) == 1]
    often = [s for s in files("battery", **contents) if len(s.readings) > 1]
    parts = {}
    for k, cut in enumerate((slice(None, at), slice(at, None))):
        some = [
            stream(s.path, s.readings.raw[cut], t0_ns=s.readings.t0_ns[0] + (at * 100 * MS if k else 0)) for s in often
        ]
        for one in source.read(some + once, again=k > 0)[0]:
            parts.setdefault(one.name, []).append(one)
    for name in ("battery.power", "battery.status"):
        assert np.concatenate([p.value for p in parts[name]]).tolist() == whole[name].value.tolist()
        assert np.concatenate([p.t1_ns for p in parts[name]]).tolist() == whole[name].t1_ns.tolist()


def test_lines_of_a_uevent_in_a_dump_of_a_folder_are_one_reading_until_its_first_comes_again():
    def dump(microamperes):
        words = ("NAME=battery", "TYPE=Battery", f"CURRENT_NOW={microamperes}", "VOLTAGE_NOW=4010000", "CAPACITY=64")
        return "".join(f"/sys/class/power_supply/battery/uevent:POWER_SUPPLY_{word}\n" for word in words)

    usb = "/sys/class/power_supply/usb/online:0\n"
    for text in (dump(-410_000) + dump(-420_000), dump(-410_000) + usb + dump(-420_000)):
        for reader in ("power_supply", "power_supply_uevent"):
            series, status = read("phone", reader, captured(READERS[reader], text.encode()), {})
            found = {one.name: one.value.tolist() for one in series}
            assert found["battery.power"] == pytest.approx([0.41 * 4.01, 0.42 * 4.01])
            assert found["battery.soc_percent"] == [64.0, 64.0]
            assert status.status == "ok"
