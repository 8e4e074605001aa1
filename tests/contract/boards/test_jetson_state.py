"""What a Jetson says beside power: mode, clocks, load, cooling, over-current, and sensors of parts that are off."""

import errno

import numpy as np
from boards_kit import got, ints, of, poll, stream, values

COOLING = "/sys/class/thermal/cooling_device{}/{}"
MODE = "nvpmodel -q"


def cooling(number, kind, states):
    return [
        stream(COOLING.format(number, "type"), [kind.encode() + b"\n"]),
        stream(COOLING.format(number, "cur_state"), ints(states)),
    ]


def test_the_power_mode_is_a_number_with_its_name_beside():
    raw = [
        b"NVPM WARN: fan mode is not set!\nNV Power Mode: MODE_15W_6CORE\n2\n",
        b"NV Power Mode: MAXN_SUPER\r\n0\r\n",
    ]
    found, status = got("nvpmodel", [poll(MODE, raw)])
    assert values(found) == {"nvpmodel.mode": [2.0, 0.0]}
    assert found["nvpmodel.mode"].kind == "state"
    assert (status.status, status.detail) == ("ok", "mode MODE_15W_6CORE (2) > MAXN_SUPER (0)")
    assert of("nvpmodel", b"NV Fan Mode:quiet\nNV Power Mode: 30W\n3\n")[0]["nvpmodel.mode"].value[0] == 3


def test_a_mode_that_could_not_be_asked_is_no_mode_0():
    raw = [b"NV Power Mode: MAXN\n", b"NVPM ERROR: no permission\n", b"", (0x100 + 255, b"NV Power Mode: MAXN\n0\n")]
    found, status = got("nvpmodel", [poll(MODE, raw)])
    assert (found, status.status) == ({}, "error")
    assert got("nvpmodel", [])[1].detail == "no program nvpmodel"


def test_clocks_are_in_hertz_and_the_load_is_in_thousandths():
    gpu, emc = "/sys/class/devfreq/17000000.gpu/", "/sys/class/devfreq/bwmgr/"
    streams = [
        stream(gpu + "cur_freq", ints([306_000_000, 1_020_000_000])),
        stream(gpu + "max_freq", ints([1_020_000_000, 612_000_000])),
        stream(gpu + "min_freq", ints([306_000_000])),
        stream(emc + "cur_freq", ints([3_199_000_000, 3_199_000_000])),
        stream("/sys/devices/platform/gpu.0/load", ints([0, 987])),
        stream("/sys/devices/gpu.0/load", ints([0, 987])),
    ]
    found, status = got("devfreq", streams)
    assert values(found) == {
        "devfreq.17000000.gpu.hz": [306e6, 1020e6],
        "devfreq.bwmgr.hz": [3199e6, 3199e6],
        "devfreq.17000000.gpu.max_hz": [1020e6, 612e6],
        "devfreq.17000000.gpu.min_hz": 306e6,
        "gpu.busy": [0.0, 0.987],
    }
    assert status.status == "ok"


def test_trap_11_a_gated_gpu_answers_again_each_time_and_has_no_load_of_zero():
    load = stream("/sys/devices/platform/gpu.0/load", [errno.EAGAIN] * 3)
    found, status = got("devfreq", [load])
    assert found["gpu.busy"].words == ["again"] * 3
    assert np.isnan(found["gpu.busy"].value).all()
    assert status.status == "again"
    odd = got("devfreq", [stream("/sys/devices/gpu.0/load", [b"1001\n", b"-1\n"])])[0]["gpu.busy"]
    assert odd.words == ["unparsed", "unparsed"]


def test_trap_11_zones_of_parts_that_are_off_have_no_temperature_and_are_found_by_type():
    """300 of 300 readings of a gated GPU's zone answered EAGAIN on an Orin; other zones say -256000."""
    zone = "/sys/class/thermal/thermal_zone{}/{}"
    kinds = {0: "cpu-thermal", 1: "gpu-thermal", 2: "cv0-thermal", 10: "tj-thermal"}
    raw = {
        0: ints([48_500, 49_000, 49_250]),
        1: [errno.EAGAIN] * 3,
        2: ints([-256_000, -256_000, 0]),
        10: [b"49000\n", errno.EAGAIN, b"49500\n"],
    }
    streams = [stream(zone.format(n, "type"), [kind.encode() + b"\n"]) for n, kind in kinds.items()]
    streams += [stream(zone.format(n, "temp"), raw[n]) for n in kinds]
    found, status = got("thermal", streams)
    assert {name: one.words for name, one in found.items()} == {
        "thermal.cpu-thermal": ["ok"] * 3,
        "thermal.gpu-thermal": ["again"] * 3,
        "thermal.cv0-thermal": ["gated"] * 3,
        "thermal.tj-thermal": ["ok", "again", "ok"],
    }
    assert np.isnan(found["thermal.gpu-thermal"].value).all()
    assert (status.status, status.detail) == ("ok", "3 gated, 4 again")
    gated, status = got("thermal", [streams[1], streams[5]])
    assert (list(gated), status.status) == (["thermal.gpu-thermal"], "again")


def test_a_throttle_alert_is_a_flag_and_every_other_device_a_state_in_the_order_of_numbers():
    streams = [
        *cooling(10, "cpu-throttle-alert", [0, 2, 1]),
        *cooling(9, "gpu-throttle-alert", [0, 0, 0]),
        *cooling(11, "Processor", [5, 5, 5]),
        *cooling(2, "Processor", [0, 1, 0]),
        *cooling(0, "pwm-fan", [3, 3, 3]),
    ]
    found, status = got("throttle_alert", streams)
    assert values(found) == {
        "cooling.pwm-fan.state": [3, 3, 3],
        "cooling.Processor.state": [0, 1, 0],
        "cooling.gpu.thermal_slowdown": [0, 0, 0],
        "cooling.cpu.thermal_slowdown": [0, 1, 1],
        "cooling.Processor#2.state": [5, 5, 5],
    }
    assert {one.kind for one in found.values()} == {"state"}
    assert status.status == "ok"


def test_over_current_events_are_counters_of_their_own():
    folder = "/sys/class/hwmon/hwmon3/"
    streams = [stream(f"{folder}oc{n}_event_cnt", ints(counts)) for n, counts in ((3, [37, 41]), (1, [0, 0]))]
    found, _ = got("throttle_alert", [*streams, stream(folder + "oc2_event_cnt", [errno.EACCES])])
    assert {name: (one.kind, one.value.tolist()) for name, one in found.items() if "oc2" not in name} == {
        "soctherm.oc1.events": ("counter", [0, 0]),
        "soctherm.oc3.events": ("counter", [37, 41]),
    }
    assert found["soctherm.oc2.events"].words == ["denied"]


def test_a_state_that_cannot_be_read_is_not_a_cool_one():
    found, status = got("throttle_alert", [stream(COOLING.format(1, "cur_state"), [errno.EACCES, b"-1\n", b"on\n"])])
    assert found["cooling.untyped.state"].words == ["denied", "unparsed", "unparsed"]
    assert status.status == "denied"


def test_a_mode_that_was_asked_with_verbose_stands_in_a_longer_line():
    raw = b"NVPM VERB: parsing done for /etc/nvpmodel.conf\nNVPM VERB: Current mode: NV Power Mode: MAXP_CORE_ARM\n3\n"
    found, status = of("nvpmodel", raw + b"NVPM VERB: PARAM CPU_ONLINE: ARG CORE_1: REAL_VAL: 0 CONF_VAL: 0\n")
    assert (found["nvpmodel.mode"].value.tolist(), status.detail) == ([3.0], "mode MAXP_CORE_ARM (3)")
