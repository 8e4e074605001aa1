"""Traces say what was there: known powers, temperatures and rates come out, and what is not known is left out."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from evidence_kit import SECOND, phase, request, series
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import open_run, record_of, store_at

from meltbench.errors import StoreError
from meltbench.records import Measure, Regime
from meltbench.report.figure import figure, trace_figure
from meltbench.report.textplot import fits, text_plot
from meltbench.report.traces import read_traces
from meltbench.store import read_record, schema

T = np.arange(0, 30, 0.019)
PHASES = [phase("idle_before", 0, 4), phase("load", 4, 9), phase("run", 10, 25), phase("idle_after", 26, 30)]


def traced(tmp_path, buckets=100, **parts):
    """The traces of a stored run with these parts, by name."""
    return of_stored(stored(tmp_path, **parts), buckets)


def stored(tmp_path, **parts):
    """The folder of a run with these parts."""
    store = store_at(tmp_path)
    folder = open_run(store)
    whole = {"phases": PHASES, "requests": [], "measures": [], "series": []} | parts
    store.commit(folder, replace(record_of(folder.run_id), **whole))
    return folder


def of_stored(folder, buckets=100):
    traces = read_traces(folder.path, read_record(folder.path, signals=False), buckets)
    return traces, {one.name: one for one in traces.signals}


def joules(power_w):
    return np.cumsum(np.full(len(T), 0.019) * power_w)


def at(trace, second):
    """The mean of the bucket that a second falls into."""
    return trace.mean[int(np.argmin(np.abs(np.asarray(trace.t_s) - second)))]


def test_the_power_of_a_counter_is_right_across_its_wraps(tmp_path):
    power = 5.0 + 3.0 * ((T > 10) & (T < 25))
    counter = series("rapl.package-0", T, (joules(power) + 141) % 150, wrap=150.0)
    _, found = traced(tmp_path, series=[counter])
    trace = found["power"]
    assert trace.of == "rapl.package-0, soc"
    assert at(trace, 2) == pytest.approx(5, rel=0.01)
    assert at(trace, 20) == pytest.approx(8, rel=0.01)
    known = [value for value in trace.mean if value is not None]
    assert len(known) == len(trace.mean)
    assert all(low <= mean <= high for low, mean, high in zip(trace.low, trace.mean, trace.high, strict=True))


def test_parts_are_added_and_a_part_inside_another_is_not(tmp_path):
    parts = [series(f"rapl.{name}", T, joules(w)) for name, w in (("package-0", 5), ("package-0.core", 3))]
    dram = series("rapl.package-0.dram", T, joules(2), scope="rail")
    _, found = traced(tmp_path, series=[*parts, dram])
    assert at(found["power"], 15) == pytest.approx(7, rel=0.01)


def test_a_reset_leaves_its_bucket_out_and_no_power_is_negative(tmp_path):
    value = joules(5.0)
    value[T >= 15] -= 70
    _, found = traced(tmp_path, series=[series("rapl.package-0", T, value)])
    trace = found["power"]
    gone = [t for t, mean in zip(trace.t_s, trace.mean, strict=True) if mean is None]
    assert 1 <= len(gone) <= 3
    assert all(abs(t - 15) < 0.6 for t in gone)
    assert [mean for mean in trace.mean if mean is not None] == pytest.approx([5] * (len(trace.mean) - len(gone)), 0.02)


def test_an_absurd_power_is_left_out(tmp_path):
    value = joules(5.0)
    value[T >= 15] += 1e6
    _, found = traced(tmp_path, series=[series("rapl.package-0", T, value)])
    known = [mean for mean in found["power"].mean if mean is not None]
    assert len(known) < len(found["power"].mean)
    assert known == pytest.approx([5] * len(known), rel=0.02)


def test_a_register_slower_than_its_readings_has_a_steady_power(tmp_path):
    slow = np.floor(T / 0.25) * 0.25 * 6.0
    _, found = traced(tmp_path, series=[series("rapl.package-0", T, slow)])
    inner = [v for t, v in zip(found["power"].t_s, found["power"].mean, strict=True) if v is not None and 1 < t < 29]
    assert inner == pytest.approx([6] * len(inner), rel=0.1)


def test_a_gauge_stands_where_there_is_no_counter_and_the_widest_scope_wins(tmp_path):
    t = np.arange(0, 30, 0.097)
    gauges = [
        series("board.in_w", t, np.full(len(t), 9.0), kind="gauge", unit="W", klass="C", scope=scope)
        for scope in ("rail", "module")
    ]
    gauges[0] = replace(gauges[0], name="board.cpu_w", value=np.full(len(t), 4.0))
    gauges[1].value[100] = -3.0
    _, found = traced(tmp_path, series=gauges)
    assert found["power"].of == "board.in_w, module"
    assert at(found["power"], 20) == 9
    assert sum(mean is None for mean in found["power"].mean) == 1


def test_a_gauge_of_now_goes_before_a_trailing_mean_of_a_wider_scope(tmp_path):
    t = np.arange(0, 30, 0.097)
    mean = series("board.power_average", t, np.full(len(t), 9.0), kind="gauge", unit="W", klass="C", scope="module")
    now = series("soc.power", t, np.full(len(t), 4.0), kind="gauge", unit="W", klass="C", scope="soc")
    for window_s in (1.0, None):
        _, found = traced(tmp_path / str(window_s), series=[replace(mean, window_s=window_s), now])
        assert found["power"].of == "soc.power, soc"
    _, found = traced(tmp_path / "alone", series=[replace(mean, window_s=None)])
    assert found["power"].of == "board.power_average, module"


def test_a_run_stored_before_series_told_their_windows_has_its_traces(tmp_path, monkeypatch):
    t = np.arange(0, 30, 0.097)
    now = series("board.power", t, np.full(len(t), 4.0), kind="gauge", unit="W", klass="C", scope="module")
    columns = tuple(column for column in schema.SERIES.columns if not column.later)
    with monkeypatch.context() as earlier:
        earlier.setattr(schema, "SERIES", replace(schema.SERIES, columns=columns))
        folder = stored(tmp_path, series=[now])
    _, found = of_stored(folder)
    assert at(found["power"], 20) == 4


def test_the_hottest_zone_is_shown_and_a_gap_stays_one(tmp_path):
    t = np.arange(0, 30, 0.5)
    cool = series("thermal.cool", t, 30 + t / 3, kind="gauge", unit="degC")
    hot = series("thermal.hot", t, np.where((t > 12) & (t < 16), np.nan, 50 - t), kind="gauge", unit="degC")
    _, found = traced(tmp_path, series=[cool, hot], buckets=4096)
    trace = found["temperature"]
    assert trace.of == "thermal.hot"
    assert len(trace.t_s) <= 30
    assert at(trace, 14) is None
    assert at(trace, 5) == pytest.approx(45, abs=1)


def test_the_token_rate_counts_what_arrived_while_something_was_asked(tmp_path):
    def answer(index, start):
        times = tuple(round((start + 0.04 * k) * SECOND) for k in range(1, 101))
        return request(index, start, start + 4, n_out=100, token_t_ns=times, token_n=(1,) * 100)

    _, found = traced(tmp_path, requests=[answer(0, 10), answer(1, 14), answer(2, 20)])
    trace = found["token rate"]
    assert at(trace, 12) == pytest.approx(25, rel=0.15)
    assert at(trace, 2) is None
    assert at(trace, 19) is None
    known = [v for v in trace.mean if v is not None]
    assert sum(known) / len(known) == pytest.approx(25, rel=0.1)


def test_requests_side_by_side_share_the_time(tmp_path):
    times = tuple(round((10 + 0.1 * k) * SECOND) for k in range(1, 100))
    both = [request(i, 10, 20, n_out=99, token_t_ns=times, token_n=(1,) * 99) for i in (0, 1)]
    _, found = traced(tmp_path, requests=both)
    assert at(found["token rate"], 15) == pytest.approx(20, rel=0.25)


def test_chunks_that_nobody_counted_show_no_rate(tmp_path):
    times = tuple(range(11 * SECOND, 20 * SECOND, SECOND // 20))
    asked = [request(0, 10, 20, token_t_ns=times, token_n=(0,) * len(times))]
    _, found = traced(tmp_path, requests=asked)
    assert found["token rate"].reason == "no_reading: nobody says how many tokens each chunk carried"


def test_what_is_missing_has_the_reason_of_its_measure(tmp_path):
    why = "sensor_denied: rapl exists and may not be read"
    traces, found = traced(tmp_path, measures=[Measure("energy_j", None, "J", source="total", reason=why)])
    assert found["power"].reason == why
    assert found["temperature"].reason.startswith("no_reading")
    text = text_plot(traces, 80)
    assert f"power: {why}" in text
    assert len(text.splitlines()) == 3


def test_a_run_of_which_nothing_was_seen_has_traces_of_nothing(tmp_path):
    traces, found = traced(tmp_path, phases=[])
    assert traces.seconds == 0
    assert all(one.reason and not one.t_s for one in found.values())
    assert json.loads(figure(traces, "x").to_json())["data"] == []


def test_samples_that_changed_are_not_drawn(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    store.commit(folder, record_of(folder.run_id))
    path = folder.path / "samples.parquet"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match=r"samples\.parquet is not the file that was stored"):
        read_traces(folder.path, read_record(folder.path, signals=False))


moment = st.integers(-(1 << 63), (1 << 63) - 1)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    times=st.lists(moment, min_size=1, max_size=6),
    edges=st.lists(moment, min_size=2, max_size=2),
    values=st.lists(st.floats(), min_size=6, max_size=6),
)
def test_any_times_and_values_give_traces_or_reasons(tmp_path_factory, times, edges, values):
    t = np.array(times, np.int64)
    names = (("rapl.package-0", "counter", "J"), ("thermal.x", "gauge", "degC"), ("odd.w", "gauge", "W"))
    made = [
        replace(series(name, [], [], kind=kind, unit=unit), t0_ns=t, t1_ns=t[::-1], status=np.zeros(len(t), np.uint8))
        for name, kind, unit in names
    ]
    made = [replace(one, value=np.array(values[: len(t)])) for one in made]
    asked = replace(request(0, 0, 1), t_send_ns=min(edges), t_end_ns=max(edges), token_t_ns=(times[0],), token_n=(1,))
    traces, found = traced(
        tmp_path_factory.mktemp("t"), series=made, requests=[asked], phases=[replace(PHASES[0], t0_ns=edges[0])]
    )
    for one in found.values():
        assert bool(one.reason) != any(v is not None for v in one.mean)
        assert all(v is None or math.isfinite(v) for v in one.mean)
    assert all(v is None or v >= 0 for v in found["power"].low)
    text_plot(traces, 80)


def full(tmp_path):
    t = np.arange(0, 30, 0.2)
    times = tuple(round((10 + 0.04 * k) * SECOND) for k in range(1, 100))
    return traced(
        tmp_path,
        series=[
            series("rapl.package-0", T, joules(5.0 + (T > 10))),
            series("thermal.x<b>\x1b", t, 40 + t, kind="gauge", unit="degC"),
        ],
        requests=[request(0, 10, 14, n_out=99, token_t_ns=times, token_n=(1,) * 99)],
    )[0]


@pytest.mark.parametrize("width", [10, 60, 100, 400])
def test_a_text_plot_has_three_panels_of_bounded_width(tmp_path, width):
    text = text_plot(full(tmp_path), width)
    lines = text.splitlines()
    assert [line.partition(",")[0] for line in lines if "·" in line] == ["power", "temperature", "token rate"]
    assert max(map(len, lines)) <= max(40, min(width, 120))
    assert "upright lines: load from 4.00 s" in text
    assert "\x1b" not in text


def test_a_terminal_without_blocks_gets_ascii(tmp_path):
    text = text_plot(full(tmp_path), 80, ascii_only=True)
    assert text.isascii()
    assert "+++" in text
    assert (fits("utf-8"), fits("ascii"), fits("latin-1"), fits(None), fits("nonsense")) == (True, *[False] * 4)


def test_a_figure_has_a_panel_a_signal_and_its_phases_and_is_json(tmp_path):
    made = json.loads(figure(full(tmp_path), "a & b").to_json())
    lines = [trace for trace in made["data"] if trace.get("hoverinfo") != "skip"]
    names = [trace["name"].partition(" (")[0] for trace in lines]
    assert names == ["power", "temperature", "token rate", "requests", "first tokens"]
    texts = [note["text"] for note in made["layout"]["annotations"]]
    assert set(texts) >= {"idle_before", "load", "run", "idle_after"}
    assert "<b>" not in json.dumps(made)
    assert made["layout"]["title"]["text"] == "a &amp; b"


def test_a_figure_has_frequency_memory_and_throttling_where_they_are_known(tmp_path):
    traces, _ = traced(
        tmp_path,
        series=[
            series("cpu0.freq_hz", T, 1e9 + 0 * T, kind="gauge", unit="Hz"),
            series("cpu1.freq_hz", T, 2e9 + 0 * T, kind="gauge", unit="Hz"),
            series("process.rss_bytes", T, 2.0**30 + 0 * T, kind="gauge", unit="B"),
            series("memory.available_bytes", T, 2.0**20 + 0 * T, kind="gauge", unit="B"),
        ],
        regimes=[Regime("burst", 0, 5 * SECOND), Regime("throttled", 5 * SECOND, 7 * SECOND, "cpu0 <x>")],
    )
    beside = {one.name: one for one in traces.beside}
    assert set(beside) == {"frequency", "memory"}
    assert {v for v in beside["frequency"].mean if v is not None} == {2.0}
    assert {v for v in beside["memory"].mean if v is not None} == {1024.0}
    assert [(cause, end - start) for cause, start, end in traces.throttled] == [("cpu0 <x>", 2.0)]
    made = trace_figure(traces)
    assert any(note["text"] == "throttled: cpu0 &lt;x>" for note in made["layout"]["annotations"])


def test_a_figure_says_what_it_leaves_out(tmp_path):
    traces, _ = traced(tmp_path, series=[series("thermal.x", T, 40 + T, kind="gauge", unit="degC")])
    notes = [note.text for note in figure(traces, "x").layout.annotations]
    assert any("no power: " in text and "no token rate: " in text for text in notes)
