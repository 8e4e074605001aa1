"""Energy of a Pixel's rails: two PMICs with two clocks, names as told, counters that are off, wide or started anew."""

import errno
from pathlib import Path

import numpy as np
import pytest
from unit.evidence_kit import SECOND, digests, phase, stream

from meltbench.measure.energy import energy, rail_of
from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.records import Readings, Stream

HERE = Path(__file__).parent
DEVICE = "/sys/bus/iio/devices/iio:device{}/{}"
MS = 1_000_000


def got(streams, **options):
    series, status = read("rails", "odpm", streams, options)
    return {one.name: one for one in series}, status


def text(ms, **rails):
    lines = [b"CH%d(T=%d)[%s], %d" % (i, ms, name.encode(), uws) for i, (name, uws) in enumerate(rails.items())]
    return b"\n".join([b"t=%d" % ms, *lines]) + b"\n"


def device(number, readings):
    """energy_value of a device: what was printed, and when it was read (t0, t1 in ns)."""
    t0, t1 = (np.array([r[i] for r in readings], dtype=np.int64) for i in (1, 2))
    raw = [r[0] for r in readings]
    readings_ = Readings.of(t0, t1, np.zeros(len(raw), np.int32), raw)
    return Stream(number, "c", "file", DEVICE.format(number, "energy_value"), "ok", 0, readings_)


def test_rails_of_both_devices_in_joules_and_their_parts_in_words():
    names = stream(DEVICE.format(1, "enabled_rails"), [b"CH1[S2S_VDD_G3D]:GPU\nCH2[S1S_VDD_CAM]:Multimedia\n"])
    main, sub = ((HERE / name).read_bytes() for name in ("odpm_main.txt", "odpm_sub.txt"))
    streams = [stream(DEVICE.format(0, "energy_value"), [main]), stream(DEVICE.format(1, "energy_value"), [sub]), names]
    found, status = got(streams)
    assert {name: one.value[0] for name, one in found.items()} == pytest.approx(
        {
            "odpm.VSYS_PWR_DISPLAY.energy": 91822.734001,
            "odpm.VSYS_PWR_MODEM.energy": 20771.009456,
            "odpm.S2M_VDD_CPUCL1.energy": 18844.120007,
            "odpm.S3M_VDD_CPUCL2.energy": 7310.044129,
            "odpm.S4M_VDD_CPUCL0.energy": 30992.71834,
            "odpm.S10M_VDD_TPU.energy": 0.0,
            "odpm.L15M_VDD_SLC_M.energy": 912.340871,
            "odpm.VSYS_PWR_WLAN_BT.energy": 8121.33479,
            "odpm.S2S_VDD_G3D.energy": 4410.293388,
            "odpm.S1S_VDD_CAM.energy": 0.000051,
        }
    )
    one = found["odpm.S2S_VDD_G3D.energy"]
    assert (one.unit, one.kind, one.scope, one.klass, one.wrap) == ("J", "counter", "rail", "B", None)
    assert status.detail == "rails: S2S_VDD_G3D GPU, S1S_VDD_CAM Multimedia"


def test_trap_12_a_rail_that_is_off_counts_zero_and_a_missing_one_none():
    found, _ = got([stream(DEVICE.format(0, "energy_value"), [text(1000, A=0, B=5), text(1100, A=0), b"garbage\n"])])
    assert found["odpm.A.energy"].value[:2].tolist() == [0.0, 0.0]
    assert found["odpm.B.energy"].words == ["ok", "absent", "unparsed"]


def test_trap_12_each_device_is_timed_by_its_own_clock():
    """Two PMICs read every 100 ms, each 3 W. One snapshots at once, the other answers from a copy up to 80 ms old."""
    rng = np.random.default_rng(7)
    first, second = [], []
    for i in range(200):
        at = 10 * SECOND + i * 100 * MS + int(rng.integers(0, 9 * MS))
        now = at + 2 * MS
        first.append((text(now // MS + 50_000, A=int(3e6 * now / SECOND)), at, at + 3 * MS))
        then = now - int(rng.integers(0, 80)) * MS
        second.append((text(then // MS + 7_000_000, B=int(3e6 * then / SECOND)), at + 4 * MS, at + 7 * MS))
    found, _ = got([device(0, first), device(1, second)])
    for name, bound_w in (("odpm.A.energy", 0.05), ("odpm.B.energy", 0.3)):
        one = found[name]
        t = (one.t0_ns + one.t1_ns) // 2
        power = np.diff(one.value) / np.diff(t) * SECOND
        assert np.abs(power[np.isfinite(power)] - 3.0).max() < bound_w, name
    # By the times of the reads the second device's power would be off by up to the age of its copy.
    arrival = np.array([r[2] for r in second])
    assert np.abs(np.diff(found["odpm.B.energy"].value) / np.diff(arrival) * SECOND - 3.0).max() > 1.0


def test_trap_12_the_offset_of_the_clocks_is_the_tightest_that_the_reads_allow():
    rows = [(text(10_000 + 100 * i, A=i), i * 100 * MS, i * 100 * MS + (20 if i != 3 else 2) * MS) for i in range(6)]
    one = got([device(0, rows)])[0]["odpm.A.energy"]
    # A millisecond of the clock after the tightest read's end, and that read's length before it.
    assert one.t1_ns.tolist() == [i * 100 * MS + 3 * MS for i in range(6)]
    assert one.t0_ns.tolist() == [i * 100 * MS for i in range(6)]


def test_a_copy_that_was_read_twice_is_one_sample_for_the_energy():
    rows = [(text(1000 + 200 * (i // 2), A=10**6 * (i // 2)), i * 100 * MS, i * 100 * MS + MS) for i in range(40)]
    series, run = got([device(0, rows)])[0]["odpm.A.energy"], phase("run", 1, 3)
    signal = digests([series], run)[0]
    assert (signal.readings, signal.updates) == (20, 19)
    assert energy(rail_of(signal), run).value == pytest.approx(10.0, rel=0.01)  # 1 J in 200 ms


def test_trap_12_a_counter_past_41_bits_goes_on_and_one_that_fell_was_started_anew():
    """The driver empties the registers of 41 bits and adds up in 64."""
    wide = [(text(100 * i, A=2**41 - 10**6 + 10**6 * i), i * 100 * MS, i * 100 * MS + MS) for i in range(30)]
    assert got([device(0, wide)])[0]["odpm.A.energy"].value[-1] > 2**41 * 1e-6
    anew = [(text(100 * i, A=2**41 - 10**6 if i < 15 else i), i * 100 * MS, i * 100 * MS + MS) for i in range(30)]
    run = phase("run", 0.5, 2.5)
    signal = digests([got([device(0, anew)])[0]["odpm.A.energy"]], run)[0]
    assert len(signal.resets) == 1
    assert energy(rail_of(signal), run).value is None


def test_how_old_a_value_can_be_is_what_the_meter_says_or_its_slowest():
    energies = stream(DEVICE.format(0, "energy_value"), [text(1000, A=1)])
    rates = [stream(DEVICE.format(0, "sampling_rate"), [b"250.000000\n"])]
    rates += [stream(DEVICE.format(0, "ext_sampling_rate"), [b"122.050000\n"])]
    assert got([energies, *rates])[0]["odpm.A.energy"].update_s == pytest.approx(1 / 122.05)
    assert got([energies])[0]["odpm.A.energy"].update_s == pytest.approx(0.131, abs=0.001)


def test_two_devices_that_name_a_rail_alike_have_two_rails():
    found, _ = got([stream(DEVICE.format(n, "energy_value"), [text(1000, VDD=n)]) for n in (2, 10)])
    assert {name: one.path for name, one in found.items()} == {
        "odpm.VDD.energy": DEVICE.format(2, "energy_value"),
        "odpm.VDD#2.energy": DEVICE.format(10, "energy_value"),
    }


def test_older_drivers_and_both_devices_in_one_text():
    old = captured(READERS["odpm"], (HERE / "odpm_pac1934.txt").read_bytes())
    assert {name: one.value[0] for name, one in got(old)[0].items()} == pytest.approx(
        {"odpm.PPVAR_VPH_PWR_S1C.energy": 40.128833, "odpm.VPH_PWR_DISP.energy": 7722.190012}
    )
    both = b"".join((HERE / name).read_bytes() for name in ("odpm_main.txt", "odpm_sub.txt")).replace(b"\n", b"\r\n")
    assert len(got(captured(READERS["odpm"], both))[0]) == 10
    bare = b"5120334\nCH0[S2M_VDD_CPUCL2], 77\n"
    assert got(captured(READERS["odpm"], bare))[0]["odpm.S2M_VDD_CPUCL2.energy"].value.tolist() == [0.000077]


def test_trap_12_without_root_it_is_denied_and_on_another_phone_absent():
    path = DEVICE.format(0, "energy_value")
    assert got([stream(path, [], status="denied")])[1].status == "denied"
    assert got([stream(path, [errno.EACCES])])[1].status == "denied"
    status = got([stream(DEVICE.format("*", "energy_value"), [], status="absent")])[1]
    assert (status.status, "energy_value" in status.detail) == ("absent", True)


def test_a_calibration_is_named():
    streams = [stream(DEVICE.format(0, "energy_value"), [text(1000, A=1)])]
    assert got(streams, calibration="bench")[0]["odpm.A.energy"].calibration == "bench"


def test_trap_12_a_dump_of_both_meters_line_by_line_is_a_reading_of_each():
    def dump(device, t, *rails):
        lines = (f"t={t}", *(f"CH{n}(T={t})[{name}], {uws}" for n, (name, uws) in enumerate(rails)))
        return "".join(f"/sys/bus/iio/devices/iio:device{device}/energy_value:{line}\n" for line in lines)

    text = dump(0, 1000, ("S2M_VDD_CPUCL2", 5_000_000), ("L9M_VDD", 7)) + dump(1, 990, ("S1S_VDD_CAM", 30_000_000))
    text += dump(0, 1100, ("S2M_VDD_CPUCL2", 5_250_000), ("L9M_VDD", 7)) + dump(1, 1090, ("S1S_VDD_CAM", 31_000_000))
    series, status = read("phone", "odpm", captured(READERS["odpm"], text.encode()), {})
    found = {one.name: one.value.tolist() for one in series}
    assert found == {
        "odpm.S2M_VDD_CPUCL2.energy": pytest.approx([5.0, 5.25]),
        "odpm.L9M_VDD.energy": pytest.approx([7e-6, 7e-6]),
        "odpm.S1S_VDD_CAM.energy": pytest.approx([30.0, 31.0]),
    }
    assert status.status == "ok"
