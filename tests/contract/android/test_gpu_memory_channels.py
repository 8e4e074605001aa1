"""GPUs of phones, memory of an app, channels of an energy meter; and which Android sources are not read at all."""

import errno
from pathlib import Path

import numpy as np
import pytest
from unit.evidence_kit import ints, ran, stream

from meltbench.errors import DefinitionError
from meltbench.readings import READERS, read

HERE = Path(__file__).parent
ROOT = Path(__file__).parents[3]
KGSL = "/sys/class/kgsl/kgsl-3d0/"
MALI = "/sys/class/misc/mali0/device/"
KIB = 1024


def got(reader, streams, **options):
    series, status = read("x", reader, streams, options)
    return {one.name: one for one in series}, status


def polled(reader, *texts):
    return got(reader, [ran(READERS[reader].commands[0], texts)])


def test_adreno_load_clock_and_heat():
    found, status = got(
        "kgsl",
        [
            stream(KGSL + "gpubusy", [b" 250000 1000000\n", b"      0       0\n", b"1000001 1000000\n", b"12\n"]),
            stream(KGSL + "gpu_busy_percentage", [b"99 %\n"] * 4),
            stream(KGSL + "gpuclk", ints([585_000_000, 0])),
            stream(KGSL + "devfreq/cur_freq", ints([1])),
            stream(KGSL + "temp", ints([41_500, 0, 415])),
        ],
    )
    assert found["gpu.busy"].value[0] == 0.25
    assert found["gpu.busy"].words == ["ok", "gated", "unparsed", "unparsed"]  # 0 of 0 is a GPU that was off
    assert (found["gpu.busy"].unit, found["gpu.busy"].window_s) == ("1", 1.0)
    assert (found["gpu.hz"].value[0], found["gpu.hz"].words) == (585e6, ["ok", "gated"])
    assert found["thermal.kgsl"].value[[0, 2]].tolist() == [41.5, 0.415]
    assert found["thermal.kgsl"].words[1] == "gated"
    assert status.status == "ok"


def test_adreno_without_the_pair_has_its_quotient():
    closed = stream(KGSL + "gpubusy", [], status="denied")
    open_ = [
        stream(KGSL + "gpu_busy_percentage", [b"37 %\n", b"0 %\n", b"101 %\n"]),
        stream(KGSL + "devfreq/cur_freq", ints([3e8])),
    ]
    found, _ = got("kgsl", [closed, stream(KGSL + "gpuclk", [], status="denied"), *open_])
    assert found["gpu.busy"].value[:2].tolist() == [0.37, 0.0]
    assert found["gpu.busy"].words[2] == "unparsed"
    assert found["gpu.hz"].value.tolist() == [3e8]
    assert got("kgsl", [closed])[1].status == "denied"
    assert got("kgsl", [])[1].status == "absent"


@pytest.mark.parametrize(
    ("path", "text", "share"),
    [
        (MALI + "utilization", b"42\n", 0.42),
        ("/sys/devices/platform/1c500000.mali/utilization", b"utilization=42\n", 0.42),
        ("/sys/kernel/gpu/gpu_busy", b"42%\n", 0.42),
        ("/sys/module/ged/parameters/gpu_loading", b"42\n", 0.42),
        ("/sys/kernel/ged/hal/gpu_utilization", b"42 3 55\n", 0.42),
    ],
)
def test_mali_load_by_vendor(path, text, share):
    found, _ = got("mali", [stream(path, [text, b"300\n", errno.EACCES])])
    assert found["gpu.busy"].value[0] == share
    assert found["gpu.busy"].words == ["ok", "unparsed", "denied"]


@pytest.mark.parametrize(
    ("path", "text", "unit", "hertz"),
    [
        (MALI + "cur_freq", b"848000\n", None, 848e6),
        ("/sys/devices/platform/1f000000.mali/cur_freq", b"151000\n", None, 151e6),
        ("/sys/kernel/ged/hal/current_freqency", b"12 390000\n", None, 390e6),
        (MALI + "clock", b"572\n", "MHz", 572e6),
        (MALI + "clock", b"600000000\n", "Hz", 600e6),
        (MALI + "clock", b"Current sclk_g3d[G3D_BLK] = 266Mhz\nPossible settings : 533, 266Mhz\n", None, 266e6),
        ("/sys/kernel/gpu/gpu_clock", b"702\n", "MHz", 702e6),
        (MALI + "clock", b"572\n", None, None),
    ],
)
def test_trap_2_the_clock_of_a_mali_has_the_unit_of_its_node_or_of_the_profile(path, text, unit, hertz):
    found, _ = got("mali", [stream(path, [text])], **({"clock_unit": unit} if unit else {}))
    value = found["gpu.hz"].value[0]
    assert np.isnan(value) if hertz is None else value == hertz
    with pytest.raises(DefinitionError, match="clock_unit"):
        got("mali", [], clock_unit="mhz")


def test_two_nodes_of_one_gpu_are_one_signal():
    both = [stream("/sys/devices/platform/a.mali/utilization", [b"9\n"]), stream(MALI + "utilization", [b"8\n"])]
    assert [one.value[0] for one in read("x", "mali", both, {})[0]] == [0.08]


def test_memory_of_an_app_by_the_total_row_and_the_summary():
    found, status = polled("dumpsys_meminfo", (HERE / "meminfo_android13.txt").read_bytes())
    assert {name: one.value[0] / KIB for name, one in found.items()} == {
        "app_memory.pss_total_bytes": 1275635,
        "app_memory.pss_bytes": 1275635 - 4131,
        "app_memory.swap_pss_bytes": 4131,
        "app_memory.rss_bytes": 1319744,
        "app_memory.graphics_bytes": 445944,
    }
    assert {(one.unit, one.kind, one.scope) for one in found.values()} == {("B", "gauge", "process")}
    assert status.status == "ok"


def test_an_older_dump_without_rss_and_without_shares_of_swap():
    """Seven numbers: what was swapped out is not a share there, and no resident size is told."""
    found, _ = polled("dumpsys_meminfo", (HERE / "meminfo_android9.txt").read_bytes().replace(b"\n", b"\r\n"))
    assert {name: one.value[0] / KIB for name, one in found.items()} == {
        "app_memory.pss_bytes": 120480,
        "app_memory.graphics_bytes": 1024,
    }


def test_a_summary_alone_and_a_process_that_is_gone():
    text = b" App Summary\n   TOTAL PSS:    5000            TOTAL RSS:   9000       TOTAL SWAP (KB):      700\n"
    found, _ = polled("dumpsys_meminfo", text, b"No process found for: 4120\n", 110)
    assert found["app_memory.pss_bytes"].value[0] == 5000 * KIB
    assert found["app_memory.pss_bytes"].words == ["ok", "unparsed", "error"]
    assert "app_memory.swap_pss_bytes" not in found


def test_powerstats_lists_channels_and_never_an_energy():
    found, status = polled("powerstats", (HERE / "powerstats.txt").read_bytes())
    assert {name: (one.unit, one.kind, one.value[0]) for name, one in found.items()} == {
        "powerstats.channels": ("1", "state", 3.0)
    }
    assert status.detail == "channels: S4M_VDD_CPUCL0 (CPU(LITTLE)), S2S_VDD_G3D (GPU), VSYS_PWR_DISPLAY (Display)"


def test_trap_44_a_phone_without_a_meter_has_no_channels_and_no_zero():
    found, status = polled("powerstats", (HERE / "powerstats_without_meter.txt").read_bytes(), b"\n", b"nonsense\n")
    assert found["powerstats.channels"].words == ["absent", "unparsed", "unparsed"]
    assert status.status != "ok"


def test_trap_13_no_reader_takes_the_power_monitor_api_or_energies_of_powerstats():
    """Up to 10 J of noise and answers 20 to 30 s old: a phase of seconds would be noise. The documents say why."""
    commands = [" ".join(command.argv).lower() for reader in READERS.values() for command in reader.commands]
    assert any(line.startswith("dumpsys powerstats") for line in commands)
    assert not any("--proto" in line or "monitor" in line for line in commands)
    dump = (HERE / "powerstats.txt").read_bytes() + b"Energy: 123456 uWs\n"
    assert {one.unit for one in polled("powerstats", dump)[0].values()} == {"1"}
    assert "PowerMonitor" in (ROOT / "docs" / "measuring.md").read_text()
