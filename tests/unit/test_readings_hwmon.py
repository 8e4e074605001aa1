"""Power and energy below /sys/class/hwmon: names, units, kinds, and what a driver says when it has no value."""

import errno

import numpy as np
import pytest
from evidence_kit import ints, stream

from meltbench.errors import DefinitionError
from meltbench.readings import read

PATH = "/sys/class/hwmon/hwmon{}/{}"


def chip(number, name, **files):
    """One hwmon folder: a list is a value read often, bytes a text read once."""
    streams = [stream(PATH.format(number, "name"), [name])] if name is not None else []
    for file, content in files.items():
        often = isinstance(content, list)
        streams.append(stream(PATH.format(number, file), content if often else [content]))
    return streams


def got(streams, **options):
    series, status = read("hwmon", "hwmon", streams, options)
    return {one.name: one for one in series}, status


def test_input_average_and_energy_of_one_chip_are_three_series_in_si_units():
    found, status = got(
        chip(
            3,
            b"amdgpu\n",
            power1_input=ints([42_000_000, 43_500_000]),
            power1_average=ints([40_000_000, 40_000_000]),
            power1_average_interval=b"1000\n",
            power1_label=b"PPT\n",
            energy1_input=ints([1_000_000, 5_000_000]),
        )
    )
    assert {name: (one.unit, one.kind, one.klass, one.scope) for name, one in found.items()} == {
        "hwmon.amdgpu.PPT.power": ("W", "gauge", "C", "rail"),
        "hwmon.amdgpu.PPT.power_average": ("W", "gauge", "C", "rail"),
        "hwmon.amdgpu.energy1": ("J", "counter", "B", "rail"),
    }
    assert found["hwmon.amdgpu.PPT.power"].value.tolist() == [42.0, 43.5]
    assert found["hwmon.amdgpu.energy1"].value.tolist() == [1.0, 5.0]
    assert found["hwmon.amdgpu.energy1"].wrap is None
    assert (status.status, status.detail) == ("ok", "")
    assert {name: one.window_s for name, one in found.items()} == {
        "hwmon.amdgpu.PPT.power": 0.0,
        "hwmon.amdgpu.PPT.power_average": 1.0,
        "hwmon.amdgpu.energy1": 0.0,
    }


def test_trap_36_a_driver_with_an_average_alone_gives_no_power_of_now():
    found, _ = got(chip(0, b"power_meter\n", power1_average=ints([7_000_000])))
    assert list(found) == ["hwmon.power_meter.power1_average"]
    assert found["hwmon.power_meter.power1_average"].window_s is None


@pytest.mark.parametrize(("said", "window_s"), [(b"50\n", 0.05), (b"0\n", None), (b"-5\n", None), (b"1 s\n", None)])
def test_trap_36_the_length_of_an_average_is_what_the_driver_says_or_unknown(said, window_s):
    found, _ = got(chip(0, b"amdgpu\n", power1_average=ints([7_000_000]), power1_average_interval=said))
    assert found["hwmon.amdgpu.power1_average"].window_s == window_s


def test_equal_names_are_counted_in_order_of_their_numbers_and_inputs_keep_their_averages():
    two = chip(10, b"amdgpu\n", power1_input=ints([2_000_000]), power1_average=ints([3_000_000]), power1_label=b"PPT\n")
    one = chip(9, b"amdgpu\n", power1_input=ints([1_000_000]), power1_label=b"PPT\n")
    found, _ = got(two + one)
    assert {name: one.value[0] for name, one in found.items()} == {
        "hwmon.amdgpu.PPT.power": 1.0,
        "hwmon.amdgpu.PPT#2.power": 2.0,
        "hwmon.amdgpu.PPT#2.power_average": 3.0,
    }


def test_power_and_energy_under_one_label_are_told_apart():
    files = {
        "power1_input": ints([1]),
        "power1_label": b"card\n",
        "energy1_input": ints([1]),
        "energy1_label": b"card\n",
    }
    assert sorted(got(chip(1, b"xe\n", **files))[0]) == ["hwmon.xe.card.energy", "hwmon.xe.card.power"]


def test_odd_labels_are_made_plain_and_a_chip_without_a_name_has_one():
    found, _ = got(chip(1, None, power2_input=ints([1]), power2_label=b"+12v rail#2\n"))
    assert list(found) == ["hwmon.chip.+12v_rail_2.power"]


def test_what_a_driver_says_without_a_value_is_a_status_and_a_zero_is_a_value():
    raw = [b"0\n", b"-1500000\n", errno.EACCES, errno.EAGAIN, errno.ENODATA, errno.ENODEV, errno.EIO, b"", b"N/A\n"]
    found, status = got(chip(0, b"ina238\n", power1_input=raw))
    one = found["hwmon.ina238.power1"]
    assert one.words == ["ok", "ok", "denied", "again", "gated", "absent", "error", "unparsed", "unparsed"]
    assert one.value[:2].tolist() == [0.0, -1.5]
    assert np.isnan(one.value[2:]).all()
    assert status.status == "ok"


def test_a_counter_below_zero_is_none():
    found, status = got(chip(0, b"i915\n", energy1_input=ints([-5, 5])))
    assert found["hwmon.i915.energy1"].words == ["unparsed", "ok"]
    assert status.detail == "1 unparsed"


def test_a_denied_energy_beside_a_readable_power_is_told():
    streams = chip(0, b"amd_energy\n", power1_input=ints([1]))
    streams.append(stream(PATH.format(0, "energy1_input"), [], status="denied"))
    found, status = got(streams)
    assert list(found) == ["hwmon.amd_energy.power1"]
    assert (status.status, status.detail) == ("ok", "1 denied")


def test_a_folder_that_may_not_be_looked_into_is_denied_and_one_that_is_not_there_is_named():
    closed = stream(PATH.format("*", "power*_input"), [], status="denied")
    assert got([closed])[1].status == "denied"
    nothing = [
        stream(PATH.format("*", file), [], status="absent") for file in ("power*_input", "energy*_input", "name")
    ]
    found, status = got(nothing)
    assert (found, status.status, status.detail) == ({}, "absent", "no power or energy input below /sys/class/hwmon")


def test_the_profile_says_place_class_and_chip():
    streams = chip(0, b"ina238\n", power1_input=ints([1])) + chip(1, b"nvme\n", power1_input=ints([1]))
    found, _ = got(streams, chip="ina238", scope="module", power_class="B")
    assert {name: (one.scope, one.klass) for name, one in found.items()} == {"hwmon.ina238.power1": ("module", "B")}
    nothing, status = got(streams, chip="ina239")
    assert (nothing, status.status) == ({}, "absent")
    assert "ina239" in status.detail


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ({"scope": "board"}, "scope"),
        ({"power_class": "F"}, "power_class"),
        ({"energy_class": 1}, "energy_class"),
        ({"chip": 3}, "chip"),
    ],
)
def test_a_wrong_option_is_named(option, words):
    with pytest.raises(DefinitionError, match=words):
        read("hwmon", "hwmon", [], option)
