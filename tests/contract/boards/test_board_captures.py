"""The founders' captures of Jetsons and Pis, to the digit; skipped where they are not beside the checkout."""

import pytest
from boards_kit import got, of, poll
from shared import shared

MIB = 2**20


def captured(reader, name, **options):
    return of(reader, shared(f"samples/{name}").read_bytes(), **options)


def watts(found):
    return {name.split(".")[1]: one.value.tolist() for name, one in found.items() if one.unit == "W"}


def heat(found):
    return {name.rpartition(".")[2]: one.value.tolist() for name, one in found.items() if one.unit == "degC"}


def cores(found, what):
    return [one.value.tolist() for name, one in found.items() if name.startswith(f"tegrastats.cpu_{what}.")]


def test_nano_jetpack_4():
    found, status = captured("tegrastats", "tegrastats_nano_jp461.txt")
    assert watts(found) == {"POM_5V_IN": [1.75], "POM_5V_GPU": [0.0], "POM_5V_CPU": [0.366]}
    assert heat(found) == {"PLL": [37], "CPU": [40], "PMIC": [50], "GPU": [40], "AO": [45], "thermal": [40]}
    assert cores(found, "busy") == [[0.05], [0.04], [0.03], [0.06]]
    assert cores(found, "hz") == [[1224e6]] * 4
    assert found["tegrastats.ram_used_bytes"].value[0] == 1923 * MIB
    assert found["tegrastats.ram_total_bytes"].value[0] == 3964 * MIB
    assert found["tegrastats.swap_used_bytes"].value[0] == 191 * MIB
    assert (found["tegrastats.emc.hz"].value[0], found["tegrastats.gr3d.hz"].value[0]) == (1600e6, 76e6)
    assert (found["tegrastats.POM_5V_IN.power"].scope, status.detail) == ("module", "")


def test_xavier_nx_jetpack_4():
    found, _ = captured("tegrastats", "tegrastats_xavier_nx_jp411.txt")
    assert watts(found) == {"VDD_IN": [6.14], "VDD_CPU_GPU_CV": [2.706], "VDD_SOC": [1.074]}
    assert heat(found) == {"AO": [29], "GPU": [31.5], "AUX": [30], "CPU": [33.5], "thermal": [31.35]}
    assert cores(found, "busy") == [[0.47], [0.23], [0.32], [0.22], [0.31], [0.96]]
    assert (found["tegrastats.gr3d.busy"].value[0], found["tegrastats.gr3d.hz"].value[0]) == (0, 1109e6)
    assert found["tegrastats.emc.busy"].value[0] == 0.02


def test_tx2_jetpack_4():
    found, _ = captured("tegrastats", "tegrastats_tx2_jp4.txt")
    rails = {"VDD_SYS_GPU": [0.182], "VDD_SYS_SOC": [0.73], "VDD_4V0_WIFI": [0], "VDD_SYS_CPU": [1.917]}
    assert watts(found) == rails | {"VDD_IN": [5.297], "VDD_SYS_DDR": [1.241]}
    assert [one.scope for name, one in found.items() if ".VDD_" in name] == ["rail"] * 3 + ["module"] + ["rail"] * 2
    assert cores(found, "hz") == [[1421e6], [2031e6], [2034e6], [1420e6], [1419e6], [1420e6]]
    assert heat(found)["Tdiode"] == [39.25]


def test_orin_nano_as_root_and_not():
    found, _ = captured("tegrastats", "tegrastats_orin_nano.txt")
    assert watts(found) == {"VDD_IN": [12.479, 4.824], "VDD_CPU_GPU_CV": [4.667, 0.518], "VDD_SOC": [2.817, 1.475]}
    assert found["tegrastats.gr3d.busy"].value.tolist() == [0.63, 0.0]
    assert found["tegrastats.gr3d.hz"].words == ["ok", "unparsed"]
    assert found["tegrastats.gr3d.hz"].value[0] == 621e6
    assert found["tegrastats.emc.busy"].words == ["ok", "unparsed"]
    assert (found["tegrastats.emc.busy"].value[0], found["tegrastats.emc.hz"].value[0]) == (0.43, 2133e6)
    assert found["tegrastats.ram_used_bytes"].value.tolist() == [6185 * MIB, 3452 * MIB]
    assert heat(found)["tj"] == [53.968, 50.25]


def test_orin_nano_by_the_files_of_its_chip():
    name = "jetson_orin_nano_ina3221_sysfs.txt"
    found, status = captured("ina3221", name)
    assert watts(found) == {"VDD_IN": [5.016 * 1.496], "VDD_CPU_GPU_CV": [2.724352], "VDD_SOC": [1.645248]}
    assert watts(found)["VDD_IN"] == [7.503936]
    assert [one.scope for one in found.values()] == ["module", "rail", "rail"]
    assert (status.status, status.paths) == ("ok", 6)
    raw = shared(f"samples/{name}").read_bytes().replace(b"/sys/devices/virtual/thermal", b"/sys/class/thermal")
    zones, status = of("thermal", raw)  # the class's folder is a link to it
    assert heat({n: z for n, z in zones.items() if "CV0" not in n}) == {
        "CPU-therm": [42.0],
        "GPU-therm": [41.218],
        "tj-therm": [42.031],
    }
    assert zones["thermal.CV0-therm"].words == ["gated"]


def test_xavier_by_an_old_jtop():
    found, _ = captured("jtop", "jtop_stats_xavier.txt")
    assert watts(found) == {"cur": [4.859]}
    assert heat(found) == {
        "AO": [44.5], "AUX": [44.5], "CPU": [46], "GPU": [46], "Tboard": [46], "Tdiode": [49.25], "thermal": [45.4],
    }  # fmt: skip
    assert found["jtop.ram_used_bytes"].value[0] == 1745160 * 1024
    assert [found[f"jtop.cpu_busy.cpu{n}"].value[0] for n in range(8)] == [
        0.05,
        0.03,
        0.03,
        0.07,
        0.05,
        0.05,
        0.14,
        0.01,
    ]
    assert found["jtop.cur.power"].t0_ns[0] == 82_072_710_000_000  # 22:47:52.71 after boot


def test_pi_5():
    found, _ = captured("pmic", "rpi5_pmic_read_adc.txt")
    assert len(watts(found)) == 13
    assert found["pmic.sum.power"].value[0] == pytest.approx(10.80, abs=1e-3)
    assert found["pmic.VDD_CORE.power"].value[0] == pytest.approx(10.87674 * 0.8974594)
    assert found["pmic.ext5v_v"].value[0] == 5.06788
    fitted, status = captured("pmic", "rpi5_pmic_read_adc.txt", gain=1.1451, offset_w=0.5879)
    assert fitted["pmic.sum.power"].value[0] == pytest.approx(12.95, abs=5e-3)
    assert "by the profile" in status.detail


def test_pi_that_is_throttled_for_want_of_voltage():
    raw = shared("samples/rpi_get_throttled.txt").read_bytes()
    found, _ = got("throttled", [poll("vcgencmd get_throttled", [raw])])
    assert {name.partition(".")[2] for name, one in found.items() if one.value[0]} == {
        "under_voltage",
        "under_voltage_since_boot",
        "thermal_slowdown",
        "thermal_slowdown_since_boot",
    }
    assert len(found) == 8
