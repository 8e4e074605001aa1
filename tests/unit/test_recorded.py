"""Recorded logs without a run around them: what is in them, and what energy can be made of it."""

from __future__ import annotations

import itertools
import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meltbench import recorded
from meltbench.errors import UserError
from meltbench.readings import READERS, Source
from meltbench.targets import profile

ZONE = "/sys/class/powercap/intel-rapl:0"


def read(reader: str, raw: bytes, period_ms: float = 1000.0, **options: Any) -> list[dict[str, Any]]:
    found = recorded.recording(raw, [(Source.of(reader, reader, options), period_ms)])
    return [recorded.summary(one) for one in found.series]


def counter(joules: list[int]) -> bytes:
    head = f"{ZONE}/name: package-0\n{ZONE}/max_energy_range_uj: 262143328850\n"
    return (head + "".join(f"{ZONE}/energy_uj: {one * 1_000_000}\n" for one in joules)).encode()


def test_a_counter_gives_the_difference_over_its_updates() -> None:
    (row,) = read("rapl", counter(list(range(5, 26))))
    assert (row["name"], row["unit"], row["kind"], row["klass"]) == ("rapl.package-0", "J", "counter", "B")
    assert (row["n"], row["seconds"], row["first"], row["last"]) == (21, 20.0, 5.0, 25.0)
    assert row["energy_j"] == pytest.approx(20, rel=0.1)
    assert row["u_k2"] > 0


def test_trap_44_a_counter_that_stood_still_has_no_energy_and_no_zero() -> None:
    (row,) = read("rapl", counter([7] * 20))
    assert row["energy_j"] is None
    assert "never moved" in row["reason"]


def test_the_period_is_what_the_user_says_where_the_text_has_no_time() -> None:
    (slow,) = read("rapl", counter(list(range(20))), 500.0)
    assert slow["seconds"] == pytest.approx(9.5)


def test_a_series_that_is_no_power_has_neither_energy_nor_a_reason_for_none() -> None:
    (row,) = read(
        "thermal", b"/sys/class/thermal/thermal_zone0/type: x\n/sys/class/thermal/thermal_zone0/temp: 41000\n"
    )
    assert (row["last"], row["energy_j"], row["reason"]) == (41.0, None, None)


def test_readings_that_failed_are_counted_by_their_status() -> None:
    place = "/sys/class/thermal/thermal_zone0"
    (row,) = read(
        "thermal", f"{place}/type: x\n{place}/temp: 41000\n{place}/temp: -256000\n{place}/temp: ??\n".encode()
    )
    assert row["statuses"] == {"gated": 1, "ok": 1, "unparsed": 1}
    assert (row["n"], row["mean"]) == (1, 41.0)


def test_of_several_sources_those_that_find_nothing_are_left_out() -> None:
    one, _ = profile.load("local")
    found = recorded.recording(counter([1, 2, 3]), recorded.sources_of(one))
    assert {series.source for series in found.series} == {"rapl"}
    total = recorded.measured(found, one)
    assert (total["scope"], total["klass"], total["partial"]) == ("soc", "B", "")


def test_a_total_that_the_log_does_not_hold_is_a_reason() -> None:
    one, _ = profile.load("local")
    found = recorded.recording(b"MemTotal: 10 kB\n", recorded.sources_of(one, "meminfo"))
    assert recorded.measured(found, one)["energy_j"] is None
    found = recorded.recording(b"MemTotal: 10 kB\nMemAvailable: 4 kB\n", recorded.sources_of(one))
    reason = recorded.measured(found, one)["reason"]
    assert reason == "no_energy_source: the total is made of rapl, and this is none of it"


def test_why_there_is_no_total_is_said_of_the_source_that_wrote_the_log() -> None:
    one, _ = profile.load("macbook")
    header = "*** Sampled system activity (Sat Mar 14 10:00:00 2026 +0100) (1000.0ms elapsed) ***"
    found = recorded.recording(f"{header}\nGPU Power: 40 mW\n".encode(), recorded.sources_of(one))
    assert [series.name for series in found.series] == ["powermetrics.gpu.power"]
    assert "powermetrics.combined.power of powermetrics was not read" in recorded.measured(found, one)["reason"]


def test_a_reader_that_the_profile_lacks_is_told_with_those_it_has() -> None:
    with pytest.raises(UserError, match="its readers: amdsmi, cpufreq"):
        recorded.sources_of(profile.load("local")[0], "tegrastats")


def clean(value: Any) -> bool:
    if isinstance(value, dict):
        return all(clean(one) for one in value.values())
    return not isinstance(value, float) or math.isfinite(value)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=400), st.sampled_from([1e-3, 19.0, 86_400_000.0]), st.data())
def test_no_bytes_make_a_capture_fail_or_energy_of_nothing(raw: bytes, period_ms: float, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(READERS)))
    lines = data.draw(
        st.lists(st.sampled_from([raw, b"\n", b"0 0 0\n", b"{}\n", b"t=1\n", b"/sys/x: 1\n"]), max_size=6)
    )
    for row in read(name, b"".join(lines), period_ms):
        assert clean(row)
        json.dumps(row, allow_nan=False)
        assert row["energy_j"] is None


def test_a_gauge_whose_values_have_an_age_has_its_energy_from_the_first_sample_to_the_last() -> None:
    watts = [round(6000 + 2000 * math.sin(n / 3)) for n in range(40)]
    log = "\n".join(f"RAM 900/7620MB VDD_IN {one}mW/9mW VDD_SOC 700mW/700mW" for one in watts)
    rows = {row["name"]: row for row in read("tegrastats", log.encode())}
    moving, still = rows["tegrastats.VDD_IN.power"], rows["tegrastats.VDD_SOC.power"]
    exact = sum(one + other for one, other in itertools.pairwise(watts)) / 2000
    assert moving["energy_j"] == pytest.approx(exact, rel=1e-6)
    assert moving["u_k2"] > 0
    # Constant power keeps its energy; what a gauge that never moved can tell apart, and so its u, nobody knows.
    assert still["energy_j"] == pytest.approx(39 * 0.7)
    assert still["u_k2"] is None
    json.dumps(rows, allow_nan=False)


def test_a_total_that_was_read_once_is_not_told_as_never_read() -> None:
    one, _ = profile.load("jetson-orin-nano")
    found = recorded.recording(b"RAM 900/7620MB VDD_IN 5000mW/5000mW\n", recorded.sources_of(one))
    assert "VDD_IN.power of tegrastats has one value alone" in recorded.measured(found, one)["reason"]
