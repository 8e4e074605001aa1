"""Lines of helper programs: NVML's and pyRAPL's."""

import json
from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import said
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench.measure.energy import energy, prepare
from meltbench.readings import READERS, read
from meltbench.readings.helper import MAX_AGE_NS
from meltbench.records import Phase, Readings

GPU = {
    "gpu": 0,
    "uuid": "GPU-1",
    "energy_mj": 5000,
    "power_mw": 61000,
    "power_average_mw": 60000,
    "temp_c": 54,
    "memory_bytes": 2**30,
    "sm_mhz": 1410,
    "throttle": 0x40,
    "processes": 2,
}


def nvml(raw, **more):
    series, status = read("nvml", "nvml", [said(raw, **more)], {})
    return {one.name: one for one in series}, status


def test_one_line_gives_every_signal_of_a_gpu_in_si_units():
    found, status = nvml([GPU])
    assert {name: (one.value[0], one.unit, one.kind, one.scope, one.klass) for name, one in found.items()} == {
        "nvml.gpu0.energy": (5.0, "J", "counter", "module", "B"),
        "nvml.gpu0.power": (61.0, "W", "gauge", "module", "C"),
        "nvml.gpu0.power_average": (60.0, "W", "gauge", "module", "C"),
        "thermal.gpu0": (54.0, "degC", "gauge", "system", None),
        "nvml.gpu0.memory_bytes": (2.0**30, "B", "gauge", "system", None),
        "nvml.gpu0.sm_hz": (1.41e9, "Hz", "gauge", "system", None),
        "nvml.gpu0.throttle": (64.0, "1", "state", "system", None),
        "nvml.gpu0.thermal_slowdown": (1.0, "1", "state", "system", None),
        "nvml.gpu0.processes": (2.0, "1", "gauge", "system", None),
    }
    assert found["nvml.gpu0.energy"].path == "nvml:0"
    assert found["nvml.gpu0.energy"].wrap is None
    assert (status.status, status.paths, status.readings) == ("ok", 1, 1)


def test_gpus_are_told_apart_by_their_number():
    found, _ = nvml([GPU, GPU | {"gpu": 1, "energy_mj": 7000}, GPU | {"energy_mj": 6000}])
    assert found["nvml.gpu0.energy"].value.tolist() == [5.0, 6.0]
    assert found["nvml.gpu1.energy"].value.tolist() == [7.0]


def test_a_value_that_is_null_has_the_status_of_its_error_and_takes_no_other_with_it():
    names = ["NOT_SUPPORTED", "NO_PERMISSION", "TIMEOUT", "GPU_IS_LOST", "17", None, ["x"]]
    raw = [GPU | {"energy_mj": None, "nulls": {"energy_mj": name}} for name in names]
    found, status = nvml([*raw, GPU | {"energy_mj": None}, GPU | {"energy_mj": None, "nulls": 3}])
    words = ["absent", "denied", "again", "error", "error", "error", "error", "error", "error"]
    assert found["nvml.gpu0.energy"].words == words
    assert np.isnan(found["nvml.gpu0.energy"].value).all()
    assert found["nvml.gpu0.power"].words == ["ok"] * 9
    assert status.status == "ok"


def test_trap_27_power_of_an_older_driver_is_kept_apart_and_never_passes_for_power_of_now():
    old = {key: value for key, value in GPU.items() if key != "power_mw"} | {"usage_mw": 70000}
    found, _ = nvml([old])
    assert "nvml.gpu0.power" not in found
    assert found["nvml.gpu0.usage_average"].value.tolist() == [70.0]
    assert found["nvml.gpu0.usage_average"].window_s is None


@pytest.mark.parametrize(
    ("compute", "window_s"), [(75, 0.0), (80, 0.0), (86, 1.0), (90, 1.0), (None, None), ("9", None)]
)
def test_trap_27_what_power_usage_is_a_mean_of_depends_on_the_gpu(compute, window_s):
    found, _ = nvml([GPU | {"power_mw": None, "usage_mw": 70000, "compute": compute}])
    assert found["nvml.gpu0.usage_average"].window_s == window_s
    assert found["nvml.gpu0.power_average"].window_s == 1.0
    assert found["nvml.gpu0.power"].window_s == 0.0


def test_trap_27_energy_is_how_far_a_counter_rose_that_ran_since_the_driver_was_loaded():
    lines = [GPU | {"energy_mj": 7_000_000_000 + 6_000 * n, "processes": 3} for n in range(40)]
    found, _ = nvml(lines)
    span = Phase("run", 500_000_000, 3_500_000_000)
    assert energy(prepare(found["nvml.gpu0.energy"]), span).value == pytest.approx(60.0 * 3.0)
    # Whoever else computes there is in it: that they are there is told.
    assert set(found["nvml.gpu0.processes"].value.tolist()) == {3.0}


def test_trap_27_a_mean_of_a_second_gives_a_phase_of_a_second_no_energy():
    lines = [GPU | {"power_average_mw": 60_000 + 10 * n, "power_mw": None} for n in range(40)]
    found, _ = nvml(lines)
    joules = energy(prepare(found["nvml.gpu0.power_average"]), Phase("run", 1_500_000_000, 2_500_000_000))
    assert joules.value is None
    assert joules.reason is not None


AMD = {"gpu": 0, "energy_counts": 3_300_000_000, "resolution_uj": 15.3, "average_w": 150, "vram_mib": 512}


def amd(lines, **more):
    series, status = read("amd", "amdsmi", [said(lines, **more)], {})
    return {one.name: one for one in series}, status


def test_trap_28_a_counter_of_amds_that_stands_still_falls_or_says_nothing():
    span = Phase("run", 550_000_000, 2_950_000_000)
    still, _ = amd([AMD] * 40)
    assert str(energy(prepare(still["amd.gpu0.energy"]), span).reason).startswith("stale_sensor")
    fell, _ = amd([AMD | {"energy_counts": 3_300_000_000 + n * 10**6 - (n > 20) * 5 * 10**7} for n in range(40)])
    assert str(energy(prepare(fell["amd.gpu0.energy"]), span).reason).startswith("counter_reset")
    rose, _ = amd([AMD | {"energy_counts": 3_300_000_000 + n * 10**6} for n in range(40)])
    assert energy(prepare(rose["amd.gpu0.energy"]), span).value == pytest.approx(15.3 * 24)
    odd = [AMD | {"energy_counts": value} for value in (0, -1, 1.5, "x", None, True)]
    assert amd(odd)[0]["amd.gpu0.energy"].words == ["absent", *["unparsed"] * 3, "error", "unparsed"]
    for step in (0, -15.3, None, "15.3", 1e9, float("nan")):
        assert amd([AMD | {"resolution_uj": step}])[0]["amd.gpu0.energy"].words == ["unparsed"]


@pytest.mark.parametrize("value", [-1, 1.5, "9", True, 2**60, [], {}])
def test_a_value_of_another_kind_is_none(value):
    found, _ = nvml([GPU | {"energy_mj": value}])
    assert found["nvml.gpu0.energy"].words == ["unparsed"]


def test_a_temperature_no_chip_survives_is_none():
    assert nvml([GPU | {"temp_c": 511}])[0]["thermal.gpu0"].words == ["unparsed"]


def test_the_helpers_own_stamps_are_taken_where_they_can_be_true():
    own = nvml([GPU], delay_ns=40_000_000, t0_ns=10**9)[0]
    energy, power = own["nvml.gpu0.energy"], own["nvml.gpu0.power"]
    assert (energy.t0_ns[0], energy.t1_ns[0]) == (960_000_000, 960_001_000)
    assert (power.t0_ns[0], power.t1_ns[0]) == (960_001_000, 960_003_000)
    arrival = (10**9, 10**9 + 20_000)
    for wrong in (
        {"t0_ns": 10**9 + 1},
        {"end_ns": 10**9 + 1},
        {"t1_ns": 0},
        {"t0_ns": 10**9 - MAX_AGE_NS - 1},
        {"t0_ns": None},
        {"t0_ns": True},
        {"t0_ns": 0.5},
    ):
        one = nvml([GPU | wrong], t0_ns=10**9)[0]["nvml.gpu0.energy"]
        assert (one.t0_ns[0], one.t1_ns[0]) == arrival, wrong


@pytest.mark.parametrize(
    ("word", "status"),
    [("denied", "denied"), ("absent", "absent"), ("error", "error"), ("gone fishing", "error"), (7, "error")],
)
def test_a_helper_that_can_read_nothing_says_why(word, status):
    found, got = nvml([{"cannot": word, "detail": "NVML: Insufficient Permissions\x1b[31m"}])
    assert list(found) == ["nvml.lost"]
    assert got.status == status
    assert got.detail == f"1 {status}; NVML: Insufficient Permissions [31m"


def test_a_lost_gpu_beside_a_good_one_is_told_and_hides_nothing():
    found, status = nvml([{"gpu": 1, "cannot": "error", "detail": "NVML: GPU is lost"}, GPU])
    assert found["nvml.gpu0.energy"].value.tolist() == [5.0]
    assert (status.status, status.detail) == ("ok", "1 error; NVML: GPU is lost")


def test_lines_that_hold_no_reading_are_counted_and_not_swallowed():
    raw = [b"", b"{}", b"[1]", b"nonsense", b'{"gpu":64}', b'{"gpu":true}', b'{"gpu":0}', b"[" * 4000, b"9" * 4000]
    found, status = nvml([*raw, GPU])
    assert found["nvml.lost"].words == ["unparsed"] * len(raw)
    assert status.detail == f"{len(raw)} unparsed"


def test_a_helper_that_never_started_or_died_without_a_word():
    assert read("nvml", "nvml", [], {})[1].detail.startswith("no NVIDIA GPU")
    never = replace(said([]), path="/no/python", status="absent")
    assert read("nvml", "nvml", [never], {})[1].status == "absent"
    err = replace(said([b"Traceback", b"ValueError: odd"]), kind="err")
    series, status = read("nvml", "nvml", [said([]), err], {})
    assert (series, status.status, status.detail) == ([], "absent", "opened, never read; ValueError: odd")


def test_pyrapl_counts_by_socket_and_its_missing_domains_are_no_series():
    lines = [{"pkg_uj": [n * 1_000_000, 2_000_000], "dram_uj": [500_000, None]} for n in (1, 2)]
    series, status = read("pyrapl", "pyrapl", [said(lines)], {})
    assert {one.name: (one.value.tolist(), one.scope) for one in series} == {
        "pyrapl.package-0": ([1.0, 2.0], "soc"),
        "pyrapl.package-1": ([2.0, 2.0], "soc"),
        "pyrapl.package-0.dram": ([0.5, 0.5], "rail"),
    }
    assert all(one.wrap is None and one.klass == "B" for one in series)
    assert status.status == "ok"


def test_pyrapl_lines_of_another_shape_are_lost_and_told():
    lines = [b'{"pkg_uj":5}', b'{"pkg_uj":[]}', {"pkg_uj": [0] * 65}, {"pkg_uj": [-4]}]
    series, status = read("pyrapl", "pyrapl", [said(lines)], {})
    assert {one.name: one.words for one in series} == {
        "pyrapl.lost": ["unparsed"] * 3,
        "pyrapl.package-0": ["unparsed"],
    }
    assert status.status == "unparsed"
    assert "meltbench[rapl]" in read("pyrapl", "pyrapl", [], {})[1].detail


def cut(stream, at):
    """The stream before and after its reading number ``at``."""
    r = stream.readings
    for part in (slice(None, at), slice(at, None)):
        yield replace(stream, readings=Readings.of(r.t0_ns[part], r.t1_ns[part], r.err[part], r.raw[part]))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
KEYS = [*GPU, "pkg_uj", "dram_uj", "nulls", "cannot", "detail", "t0_ns", "t1_ns", "end_ns", "usage_mw"]
LINE = st.one_of(
    st.just(json.dumps(GPU).encode()),
    st.binary(max_size=60),
    st.dictionaries(st.sampled_from(KEYS), JSON | st.integers(0, 5), max_size=8).map(lambda d: json.dumps(d).encode()),
)


@pytest.mark.parametrize("name", ["nvml", "pyrapl"])
@settings(max_examples=150, deadline=None)
@given(st.lists(LINE, max_size=6), st.integers(0, 6))
def test_any_lines_give_samples_or_a_status_and_the_same_in_two_parts(name, raw, at):
    series, status = read("src", name, [said(raw)], {})
    assert (status.status == "ok") == any("ok" in one.words for one in series)
    for one in series:
        assert len(one.t0_ns) == len(one.t1_ns) == len(one.value) == len(one.status) > 0
        assert [word == "ok" for word in one.words] == np.isfinite(one.value).tolist()
    parts = [one for part in cut(said(raw), min(at, len(raw))) for one in read("src", name, [part], {})[0]]
    for one in series:
        same = [part for part in parts if part.name == one.name]
        assert np.array_equal(np.concatenate([part.value for part in same]), one.value, equal_nan=True)
        assert np.concatenate([part.t0_ns for part in same]).tolist() == one.t0_ns.tolist()
        assert {(part.unit, part.kind, part.scope) for part in same} == {(one.unit, one.kind, one.scope)}
    assert {part.name for part in parts} == {one.name for one in series}


def test_helpers_are_named_by_facts_that_exist():
    from dataclasses import fields

    from meltbench.catalog import builtin_root
    from meltbench.targets.facts import Facts

    helpers = [reader.helper for reader in READERS.values() if reader.helper is not None]
    assert {"nvml", "pyrapl", "amdsmi", "jtop", "meter", "instrument"} <= {helper.script for helper in helpers}
    for helper in helpers:
        assert helper.fact in {field.name for field in fields(Facts)} | {""}
        assert (builtin_root() / "runners" / "helpers" / f"{helper.script}.py").is_file()
