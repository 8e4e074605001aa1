"""A Raspberry Pi by its firmware, and hats of one shunt by the kernel's hwmon."""

import errno

import numpy as np
import pytest
from boards_kit import HERE, SECOND, got, ints, of, poll, stream, values

from meltbench.errors import DefinitionError
from meltbench.measure.digest import Edges, digest
from meltbench.measure.energy import energy, prepare
from meltbench.measure.total import Designation, total
from meltbench.records import Phase

ADC, FLAGS, TEMP = "vcgencmd pmic_read_adc", "vcgencmd get_throttled", "vcgencmd measure_temp"
HEALTHY = (HERE / "pi5_pmic_healthy.txt").read_bytes()
WEAK = (HERE / "pi5_pmic_undervoltage.txt").read_bytes()


def test_trap_23_the_sum_is_over_twelve_rails_and_the_5_v_input_and_the_battery_are_none():
    found, status = of("pmic", HEALTHY)
    rails = {name: one.value[0] for name, one in found.items() if one.unit == "W" and "sum" not in name}
    assert len(rails) == 12
    assert rails["pmic.VDD_CORE.power"] == pytest.approx(1.4517 * 0.7209781)
    assert rails["pmic.3V7_WL_SW.power"] == pytest.approx(0.0975872 * 3.715524)
    assert found["pmic.sum.power"].value[0] == pytest.approx(sum(rails.values()))
    assert found["pmic.sum.power"].value[0] == pytest.approx(2.58989, abs=1e-5)
    assert (found["pmic.ext5v_v"].value[0], found["pmic.ext5v_v"].unit) == (5.10964, "V")
    assert not [name for name in found if "EXT5V" in name or "BATT" in name]
    assert {(one.scope, one.klass) for one in found.values() if one.unit == "W"} == {("rail", "D")}
    assert (status.status, status.detail) == ("ok", "")


def test_trap_23_the_fit_of_one_board_is_the_profiles_choice_and_is_told():
    plain, fitted = of("pmic", WEAK)[0], of("pmic", WEAK, gain=1.1451, offset_w=0.5879)
    raw = plain["pmic.sum.power"].value[0]
    assert fitted[0]["pmic.sum.power"].value[0] == pytest.approx(1.1451 * raw + 0.5879)
    assert fitted[0]["pmic.VDD_CORE.power"].value[0] == plain["pmic.VDD_CORE.power"].value[0]
    assert fitted[1].detail == "pmic.sum.power is 1.1451 x the sum + 0.5879 W, by the profile"


def test_trap_22_the_sum_of_a_pi_is_of_rails_and_not_of_the_board():
    """What draws 5 V directly lies outside of every rail: a profile calls the sum partial, and its scope stays rail."""
    found, _ = got("pmic", [poll(ADC, [HEALTHY, WEAK] * 40)])
    signals = [digest(one) for one in found.values()]
    named = total(signals, Designation("pmic", ("pmic.sum.power",), partial="USB, HATs, NVMe, fan"))
    assert (named.rail.scope, named.rail.klass, named.partial) == ("rail", "D", "USB, HATs, NVMe, fan")
    named_none = total(signals, Designation("pmic"))
    assert named_none.rail is None  # thirteen rails, of which one is the sum of the others


def test_a_text_that_was_cut_has_no_sum():
    cut = HEALTHY[: HEALTHY.index(b"VDD_CORE_V")]
    found, _ = got("pmic", [poll(ADC, [HEALTHY, cut, b""])])
    assert found["pmic.sum.power"].words == ["ok", "unparsed", "unparsed"]
    assert found["pmic.VDD_CORE.power"].words == ["ok", "unparsed", "unparsed"]
    assert found["pmic.3V3_SYS.power"].words == ["ok", "ok", "unparsed"]


@pytest.mark.parametrize(
    "line",
    [
        b"X_A current(0)=1.0V\nX_V volt(1)=1.0V",
        b"X_A volt(0)=1.0A\nX_V volt(1)=1.0V",
        b"X_A current(0)=1.0A\nY_V volt(1)=1.0V",
    ],
)
def test_a_unit_that_contradicts_its_name_is_no_power(line):
    assert of("pmic", line)[0] == {}


def test_other_orders_line_ends_and_rails_are_read():
    raw = b"NEW_RAIL_V volt(3)=2.50000000V\r\nNEW_RAIL_A current(1)=0.50000000A\r\n"
    assert values(of("pmic", raw)[0]) == {"pmic.NEW_RAIL.power": 1.25, "pmic.sum.power": 1.25}


@pytest.mark.parametrize(
    "option", [{"gain": 0}, {"gain": "1.1"}, {"gain": True}, {"offset_w": 1e9}, {"offset_w": None}]
)
def test_a_wrong_option_is_named(option):
    with pytest.raises(DefinitionError, match=next(iter(option))):
        of("pmic", HEALTHY, **option)


FLAG_NAMES = ("under_voltage", "frequency_capped", "thermal_slowdown", "soft_temp_limit")


@pytest.mark.parametrize(
    ("raw", "now", "since"),
    [
        (b"throttled=0x0\n", (0, 0, 0, 0), (0, 0, 0, 0)),
        (b"throttled=0x50005\n", (1, 0, 1, 0), (1, 0, 1, 0)),
        (b"throttled=0xE0008\r\n", (0, 0, 0, 1), (0, 1, 1, 1)),
        (b"throttled=0XE0002", (0, 1, 0, 0), (0, 1, 1, 1)),
        (b"0x80000\n", (0, 0, 0, 0), (0, 0, 0, 1)),
        (b"throttled=20000\n", (0, 0, 0, 0), (0, 1, 0, 0)),
    ],
)
def test_trap_24_bits_0_to_3_are_now_and_16_to_19_since_boot(raw, now, since):
    found = values(of("throttled", raw)[0])
    assert tuple(found[f"throttled.{flag}"] for flag in FLAG_NAMES) == now
    assert tuple(found[f"throttled.{flag}_since_boot"] for flag in FLAG_NAMES) == since


def test_trap_24_sticky_bits_set_before_the_run_make_its_end_blind_and_the_flags_of_now_do_not_sleep():
    raw = [b"throttled=0x50000\n"] * 4 + [b"throttled=0x50005\n"] + [b"throttled=0x50000\n"] * 5
    found, _ = got("throttled", [poll(FLAGS, raw, period_ns=SECOND)])
    run = Phase("run", 2 * SECOND, 8 * SECOND)
    seen = {name: digest(one, Edges.of([(run.t0_ns, run.t1_ns)], run)) for name, one in found.items()}
    sticky, now = seen["throttled.under_voltage_since_boot"], seen["throttled.under_voltage"]
    assert (sticky.before, sticky.run.low, sticky.run.high) == (1, 1, 1)  # start and end are equal: nothing to see
    assert (now.before, now.run.high) == (0, 1)
    assert seen["throttled.frequency_capped"].run.high == 0


def test_trap_24_a_sticky_bit_that_rises_within_the_run_tells_what_no_poll_saw():
    raw = [b"throttled=0x0\n"] * 5 + [b"throttled=0x20000\n"] * 5
    found, _ = got("throttled", [poll(FLAGS, raw, period_ns=SECOND)])
    run = Phase("run", 2 * SECOND, 8 * SECOND)
    seen = {name: digest(one, Edges.of([(run.t0_ns, run.t1_ns)], run)) for name, one in found.items()}
    assert seen["throttled.frequency_capped"].run.high == 0
    sticky = seen["throttled.frequency_capped_since_boot"]
    assert (sticky.before, sticky.run.high) == (0, 1)


def test_the_kernels_alarm_counts_of_its_own_chip_alone():
    folder = "/sys/class/hwmon/hwmon{}/{}"
    streams = [
        stream(folder.format(1, "name"), [b"rpi_volt\n"]),
        stream(folder.format(1, "in0_lcrit_alarm"), ints([0, 1, 0])),
        stream(folder.format(2, "name"), [b"nct6775\n"]),
        stream(folder.format(2, "in0_lcrit_alarm"), ints([1, 1, 1])),
    ]
    found, status = got("throttled", streams)
    assert values(found) == {"rpi_volt.under_voltage": [0, 1, 0]}
    assert found["rpi_volt.under_voltage"].update_s == 2.0
    assert status.status == "ok"


def test_the_temperature_of_the_firmware():
    found, _ = got("measure_temp", [poll(TEMP, [b"temp=48.3'C\n", b"temp=-5.0'C\n", b"temp=900.0'C\n", b"temp='C\n"])])
    one = found["thermal.vcgencmd.soc"]
    assert (one.words, one.value[:2].tolist()) == (["ok", "ok", "unparsed", "unparsed"], [48.3, -5.0])


@pytest.mark.parametrize(("reader", "command"), [("pmic", ADC), ("throttled", FLAGS), ("measure_temp", TEMP)])
@pytest.mark.parametrize("exit_status", [0, 0x100 + 255, 0x100 + 1])
@pytest.mark.parametrize(
    ("prose", "word"),
    [
        (b"VCHI initialization failed\n", "denied"),
        (
            b"Can't open device file: /dev/vcio\nTry creating a device file with: sudo mknod /dev/vcio c 100 0\n",
            "denied",
        ),
        (b'error=1 error_msg="Command not registered"\n', "absent"),
        (b'vc_gencmd_read_response returned -1\nerror=2 error_msg="Invalid arguments"\n', "error"),
    ],
)
def test_prose_instead_of_an_answer_is_a_status_and_never_a_zero(reader, command, exit_status, prose, word):
    found, status = got(reader, [poll(command, [(exit_status, prose)] * 3)])
    assert found == {}
    assert status.status == word
    assert prose.splitlines()[0].decode() in status.detail


def test_a_poll_that_failed_or_was_killed_is_an_error_and_one_that_is_not_there_is_absent():
    late = [(errno.ETIMEDOUT, b"throttled=0x0\n"), (0x200 + 9, b"throttled=0x0\n"), (errno.E2BIG, b"throttled=0x0\n")]
    found, status = got("throttled", [poll(FLAGS, late)])
    assert (found, status.status) == ({}, "error")
    mixed, _ = got("throttled", [poll(FLAGS, [*late, b"throttled=0x0\n"])])
    assert mixed["throttled.under_voltage"].words == ["error", "error", "error", "ok"]
    assert got("pmic", [])[1].detail == "no program vcgencmd"
    assert got("pmic", [poll(TEMP, [HEALTHY])])[1].status == "absent"  # another command's output is not this one's


def hat(name, watts, number=4, **files):
    folder = f"/sys/class/hwmon/hwmon{number}/"
    micro = [round(w * 1e6) for w in watts]
    return [
        stream(folder + "name", [name.encode() + b"\n"]),
        stream(folder + "power1_input", ints(micro)),
        *(stream(folder + file, [text]) for file, text in files.items()),
    ]


@pytest.mark.parametrize("chip", ["ina219", "ina226", "ina228", "ina260", "ina238"])
def test_hats_and_thors_carrier_are_read_by_hwmon(chip):
    """Their drivers give power1_input in microwatts; a place and a class are the profile's to say."""
    streams = hat(chip, [5.25, 5.3, -0.125], in0_input=b"12\n", in1_input=b"5100\n", curr1_input=b"1029\n")
    found, status = got("hwmon", [*streams, *hat("nvme", [3.0], 5)], chip=chip, scope="module", power_class="C")
    assert values(found) == {f"hwmon.{chip}.power1": [5.25, 5.3, -0.125]}
    one = found[f"hwmon.{chip}.power1"]
    assert (one.unit, one.scope, one.klass, status.status) == ("W", "module", "C", "ok")


def test_thors_input_with_a_label_is_called_by_it():
    found, _ = got("hwmon", hat("ina238", [28.906], power1_label=b"VIN\n"))
    assert values(found) == {"hwmon.ina238.VIN.power": 28.906}


def test_a_hat_that_is_off_or_closed_says_so():
    folder = "/sys/class/hwmon/hwmon4/"
    raw = [errno.ENODATA, errno.EACCES, errno.EAGAIN, errno.EIO]
    streams = [stream(folder + "name", [b"ina260\n"]), stream(folder + "power1_input", raw)]
    one = got("hwmon", streams)[0]["hwmon.ina260.power1"]
    assert one.words == ["gated", "denied", "again", "error"]
    assert np.isnan(one.value).all()


def test_a_hat_gives_joules():
    steps = 5 + 0.01 * (np.arange(400) % 3)
    streams = [*hat("ina226", steps)]
    found, _ = got("hwmon", streams)
    joules = energy(prepare(found["hwmon.ina226.power1"]), Phase("run", SECOND, 31 * SECOND)).value
    assert joules == pytest.approx(30 * 5.01, rel=0.001)
