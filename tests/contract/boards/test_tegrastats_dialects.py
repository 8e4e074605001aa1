"""tegrastats of L4T R32 to R39, as root and not, on boards with an input rail and without."""

import numpy as np
import pytest
from boards_kit import HERE, SECOND, got, lines, of, stream

from meltbench.measure.digest import digest
from meltbench.measure.energy import energy, prepare
from meltbench.measure.total import Designation, total
from meltbench.records import Phase

MIB = 2**20


def cells(file, line=0):
    found, status = of("tegrastats", file)
    assert status.status == "ok"
    return {name: one.value[line] for name, one in found.items()}, {
        name: one.words[line] for name, one in found.items()
    }


def part(found, prefix):
    return {name.removeprefix(prefix): value for name, value in found.items() if name.startswith(prefix)}


def powers(found):
    return {name.split(".")[1]: value for name, value in found.items() if name.endswith(".power")}


def test_trap_16_r32_has_no_date_and_bare_milliwatts():
    found, words = cells("tegrastats_r32_agx_xavier.txt")
    assert powers(found) == {"GPU": 2.173, "CPU": 0.724, "SOC": 1.449, "CV": 0.0, "VDDRQ": 0.289, "SYS5V": 2.244}
    heat = {
        "AO": 33.5,
        "GPU": 36,
        "iwlwifi": 44,
        "Tdiode": 37.75,
        "AUX": 33,
        "CPU": 35.5,
        "thermal": 34.75,
        "Tboard": 35,
    }
    assert part(found, "thermal.tegrastats.") == heat  # PMIC@100C is a dummy
    assert found["tegrastats.ram_used_bytes"] == 2811 * MIB
    assert found["tegrastats.ram_total_bytes"] == 31920 * MIB
    assert found["tegrastats.swap_used_bytes"] == 12 * MIB
    assert (found["tegrastats.emc.busy"], found["tegrastats.emc.hz"]) == (0.03, 2133e6)
    assert (found["tegrastats.gr3d.busy"], found["tegrastats.gr3d.hz"]) == (0.41, 675e6)
    assert (found["tegrastats.cpu_busy.cpu4"], found["tegrastats.cpu_hz.cpu4"]) == (0.31, 2265e6)
    off = [name for name, word in words.items() if word == "gated"]
    assert sorted(off) == sorted(f"tegrastats.cpu_{what}.cpu{n}" for what in ("busy", "hz") for n in (2, 3, 6, 7))
    assert all(np.isnan(found[name]) for name in off)


def test_trap_16_r32_root_has_iram_and_an_old_nano_has_an_input_rail_of_another_name():
    found, _ = of("tegrastats", "tegrastats_r32_nano_root.txt")
    assert {n: (one.value[0], one.scope, one.klass) for n, one in found.items() if one.unit == "W"} == {
        "tegrastats.POM_5V_IN.power": (5.12, "module", "C"),
        "tegrastats.POM_5V_GPU.power": (1.893, "rail", "C"),
        "tegrastats.POM_5V_CPU.power": (0.802, "rail", "C"),
    }
    assert found["tegrastats.ram_used_bytes"].value[0] == 911 * MIB
    assert "tegrastats.swap_used_bytes" not in found


def test_trap_16_r35_has_a_date_suffixes_and_sensors_that_are_off():
    found, words = cells("tegrastats_r35_agx_orin_root.txt")
    assert [name for name in words if "thermal" in name and words[name] == "gated"] == [
        "thermal.tegrastats.CV0",
        "thermal.tegrastats.CV1",
        "thermal.tegrastats.CV2",
    ]
    assert found["thermal.tegrastats.tj"] == 49.031
    assert found["tegrastats.gr3d.hz"] == 1275e6
    assert words["tegrastats.cpu_busy.cpu11"] == "gated"


def test_trap_18_two_rails_of_one_name_are_told_apart_and_agx_orin_has_no_input_rail():
    found, _ = of("tegrastats", "tegrastats_r35_agx_orin_root.txt")
    rails = {name: (one.value[0], one.scope) for name, one in found.items() if one.unit == "W"}
    assert rails == {
        "tegrastats.VDD_GPU_SOC.power": (6.37, "rail"),
        "tegrastats.VDD_CPU_CV.power": (1.592, "rail"),
        "tegrastats.VIN_SYS_5V0.power": (4.129, "rail"),
        "tegrastats.NC.power": (0.04, "rail"),
        "tegrastats.VDDQ_VDD2_1V8AO.power": (0.704, "rail"),
        "tegrastats.NC#2.power": (0.0, "rail"),
    }


def test_trap_16_r36_without_root_lacks_clock_and_memory_controller_and_here_swap():
    plain, words = cells("tegrastats_r36_orin_nx.txt", 0)
    root, _ = cells("tegrastats_r36_orin_nx.txt", 1)
    assert plain["tegrastats.gr3d.busy"] == 0.94
    for missing in ("tegrastats.gr3d.hz", "tegrastats.emc.busy", "tegrastats.emc.hz"):
        assert (words[missing], np.isnan(plain[missing])) == ("unparsed", True)
    assert (root["tegrastats.gr3d.busy"], root["tegrastats.gr3d.hz"]) == (0.97, 914e6)
    assert (root["tegrastats.emc.busy"], root["tegrastats.emc.hz"]) == (0.71, 3199e6)
    assert not [name for name in plain if "swap" in name]
    assert powers(plain) == {"VDD_IN": 17.204, "VDD_CPU_GPU_CV": 8.218, "VDD_SOC": 2.958}


def test_trap_16_thor_on_r38_has_no_gpu_word_and_its_input_is_called_vin():
    found, _ = cells("tegrastats_r38_thor.txt")
    assert powers(found) == {"VDD_GPU": 2.802, "VDD_CPU_SOC_MSS": 9.604, "VIN_SYS_5V0": 5.231, "VIN": 24.95}
    assert not [name for name in found if "gr3d" in name or "emc" in name]
    assert len(part(found, "tegrastats.cpu_busy.")) == 14
    scopes = {name: one.scope for name, one in of("tegrastats", "tegrastats_r38_thor.txt")[0].items()}
    assert (scopes["tegrastats.VIN.power"], scopes["tegrastats.VIN_SYS_5V0.power"]) == ("module", "rail")


def test_trap_16_r39_has_three_values_a_rail_two_a_temperature_and_a_clock_a_cluster():
    found, _ = cells("tegrastats_r39_agx_orin.txt")
    assert powers(found) == {"VDD_GPU_SOC": 15.823, "VDD_CPU_CV": 4.379, "VIN_SYS_5V0": 6.311}
    assert part(found, "thermal.tegrastats.") == {"cpu": 57.343, "soc2": 52.656, "soc0": 53.062, "gpu": 51.875}
    assert (found["tegrastats.gr3d.busy"], found["tegrastats.gr3d.hz"]) == (0.88, 1300e6)
    idle, words = cells("tegrastats_r39_thor.txt", 0)
    loaded, _ = cells("tegrastats_r39_thor.txt", 1)
    assert (words["tegrastats.gr3d.busy"], idle["tegrastats.gr3d.hz"]) == ("unparsed", 1574e6)
    assert (words["tegrastats.emc.busy"], idle["tegrastats.emc.hz"]) == ("unparsed", 4266e6)
    assert (idle["tegrastats.cpu_busy.cpu1"], idle["tegrastats.cpu_hz.cpu1"]) == (0.05, 2601e6)
    assert words["tegrastats.cpu_hz.cpu2"] == "gated"
    assert (loaded["tegrastats.gr3d.busy"], loaded["tegrastats.VIN.power"]) == (0.87, 124.486)


@pytest.mark.parametrize(
    ("words", "watts"),
    [
        ("VDD_IN 5297mW", 5.297),
        ("VDD_IN 5297/5100", 5.297),
        ("VDD_IN 5297mW/5100mW", 5.297),
        ("VDD_IN 5297mW/5100mW/9000mW", 5.297),
        ("VDD_IN -40mW/0mW", -0.04),
        ("VDD_IN 5297", None),  # a bare number alone is a clock: APE 150
        ("VDD_IN 5297mW/5100mW/9000mW/1mW", None),
        ("VDD_IN 5297mB/7620MB", None),
        ("xVDD_IN 5297mW", None),
    ],
)
def test_trap_16_a_rail_is_one_to_three_values_with_the_first_as_the_sample(words, watts):
    found, _ = got("tegrastats", [lines([b"RAM 1/2MB " + words.encode() + b"\r\n"])])
    one = found.get("tegrastats.VDD_IN.power")
    assert (None if one is None else one.value[0]) == watts


def test_trap_17_the_average_since_the_start_of_the_tool_is_never_a_sample():
    """After an hour of idling the average hardly moves when work begins; the first number does at once."""
    raw = [
        b"VDD_IN %dmW/%dmW VDD_SOC 1000mW/1000mW\n" % (mw, 4000 + i) for i, mw in enumerate([4000] * 5 + [21000] * 5)
    ]
    found, _ = got("tegrastats", [lines(raw)])
    assert found["tegrastats.VDD_IN.power"].value.tolist() == [4.0] * 5 + [21.0] * 5
    assert [name for name in found if "avg" in name or "average" in name] == []


def test_lines_count_when_they_arrive_and_those_of_a_log_by_their_place():
    """Both lines of the capture carry one date, of a second's resolution."""
    raw = (HERE / "tegrastats_r36_orin_nx.txt").read_bytes()
    live = lines(raw.splitlines(keepends=True), t0_ns=7 * SECOND, period_ns=SECOND // 10)
    found, _ = got("tegrastats", [live])
    assert found["tegrastats.VDD_IN.power"].t0_ns.tolist() == [7 * SECOND, 7 * SECOND + SECOND // 10]
    logged, _ = of("tegrastats", raw, period_ms=97)
    assert logged["tegrastats.VDD_IN.power"].t0_ns.tolist() == [0, 97_000_000]


def test_trap_22_a_sum_of_parts_stays_a_sum_of_parts():
    """AGX Orin has no rail that holds the others: what a profile adds up is a part, and says what is left out."""
    raw = (HERE / "tegrastats_r39_agx_orin.txt").read_bytes()
    found, _ = of("tegrastats", raw * 3)
    rails = tuple(f"tegrastats.{name}.power" for name in ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"))
    summed = total([digest(one) for one in found.values()], Designation("tegrastats", rails, partial="DDR, NVMe, USB"))
    assert (summed.rail.scope, summed.partial) == ("rail", "DDR, NVMe, USB")
    assert [p.name for p in summed.rail.parts] == list(rails)
    unnamed = total([digest(one) for one in found.values()], Designation("tegrastats"))
    assert unnamed.rail is None
    assert "its profile must single one out" in unnamed.reason


def test_trap_18_the_input_rail_alone_is_the_total_of_an_orin_nx():
    raw = [
        b"VDD_IN %dmW/1mW VDD_CPU_GPU_CV 9000mW/1mW VDD_SOC 3000mW/1mW\n" % (20_000 + 40 * (i % 3)) for i in range(200)
    ]
    found, _ = got("tegrastats", [lines(raw)])
    rail = total([digest(one) for one in found.values()], Designation("tegrastats", ("tegrastats.VDD_IN.power",))).rail
    assert (rail.scope, [p.name for p in rail.parts]) == ("module", ["tegrastats.VDD_IN.power"])
    joules = energy(rail, Phase("run", 2 * SECOND, 12 * SECOND)).value
    assert joules == pytest.approx(10 * 20.04, rel=0.001)
    assert (
        joules < energy(prepare(found["tegrastats.VDD_IN.power"]), Phase("run", 2 * SECOND, 12 * SECOND)).value * 1.001
    )


def test_a_tool_that_died_says_why_and_one_that_is_not_there_is_absent():
    complaint = stream("", [b"tegrastats: another instance is running\n"], kind="err")
    found, status = got("tegrastats", [lines([]), complaint])
    assert (found, status.status) == ({}, "absent")
    assert "another instance" in status.detail
    assert got("tegrastats", [])[1].detail == "no program tegrastats"
    found, status = got("tegrastats", [lines([b"usage: tegrastats\n"])])
    assert (found, status.status) == ({}, "unparsed")


def test_trap_16_r28_writes_cpu_small_and_one_clock_for_all_cores():
    line = b"RAM 2210/3983MB (lfb 31x4MB) cpu [21%,off,7%,0%]@1428 EMC 4%@1600 APE 25 GR3D 61%@844\n"
    found, _ = got("tegrastats", [lines([line])])
    busy, clocks = (part(found, f"tegrastats.cpu_{what}.") for what in ("busy", "hz"))
    assert [busy[f"cpu{n}"].value[0] for n in (0, 2, 3)] == [0.21, 0.07, 0.0]
    assert [clocks[f"cpu{n}"].value[0] for n in (0, 2, 3)] == [1428e6] * 3
    assert busy["cpu1"].words == clocks["cpu1"].words == ["gated"]
    assert (found["tegrastats.gr3d.busy"].value[0], found["tegrastats.gr3d.hz"].value[0]) == (0.61, 844e6)
