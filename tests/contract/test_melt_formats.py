"""MELT's files, one format after the other: fixtures of our own in the forms that its sources write, and its own two
examples, where they lie beside the checkout."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from shared import shared

from meltbench.errors import UnknownName, UserError
from meltbench.imports.foreign import File
from meltbench.imports.melt import app, events, gauge, operators, output, tables
from meltbench.imports.melt.merged import by_module, by_operator, by_work
from meltbench.imports.melt.power import parse_jetson, parse_monsoon
from meltbench.imports.melt.study import kind_of

HERE = Path(__file__).parent / "melt"
STEM = "measurements_iter0_conv0"
MEASURED = HERE / "phone" / "melt_measurements"


def raw(*parts: str) -> bytes:
    return HERE.joinpath(*parts).read_bytes()


def test_events_of_llamacpp_stand_in_the_order_of_a_hash_table():
    found = events.parse(raw("phone", "melt_measurements", f"{STEM}.tsv"), "x")
    assert (found.dialect, found.unread) == ("llama.cpp", 0)
    start, end = found.load or (0, 0)
    assert end - start == pytest.approx(2e9, abs=1000)
    # The turn after a prompt evaluates nothing where the answer before it was cut: it has an end alone.
    assert [n for n, _ in found.numbered(r"prompt\.(\d+)\.tokenize")] == [2, 7]
    assert found.span("generate.3.decode") is None
    assert found.stages["generate.3.decode"].end_ns is not None
    steps = found.numbered(r"generate\.(\d+)\.decode")
    assert steps == sorted(steps, key=lambda one: one[1])


def test_events_of_the_mlc_app_are_whole_milliseconds():
    found = events.parse(raw("app", "melt_measurements", f"{STEM}.csv"), "x")
    assert found.dialect == "mlc-app"
    assert all(ns % 1_000_000 == 0 for stage in found.stages.values() for ns in stage if ns is not None)
    assert found.load == (1_709_550_070_000_000_000, 1_709_550_073_000_000_000)
    assert len(found.numbered(r"generate\.decode\.(\d+)")) == 5


def test_events_of_mlcs_command_line_are_those_of_its_last_prompt():
    found = events.parse(raw("cli", "measurements_iter1_conv2.tsv"), "x")
    assert found.dialect == "mlc-cli"
    assert [n for n, _ in found.numbered(r"chat\.(\d+)\.0\.prefill")] == [0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "x is no event log: it has no line such as load_model.start"),
        (b"hello\n", "no line such as load_model.start"),
        (b"load_model.start soon\n", "no line such as"),
        (b"other.start 1709550000000000000\n", "no mark that MELT's engines make"),
        (b"prefill.0.start 99999999999999999999\n", "no line such as"),
    ],
)
def test_a_log_without_events_is_one_line(text, said):
    with pytest.raises(UserError, match=said) as caught:
        events.parse(text, "x")
    assert "\n" not in str(caught.value)


def test_lines_that_are_no_event_are_counted_and_the_first_of_two_stands():
    text = b"prefill.0.start,5000000000\nprefill.0.start,9000000000\nprefill.0.end,6000000000\n\nnonsense\r\n"
    found = events.parse(text, "x")
    assert found.span("prefill.0") == (5_000_000_000, 6_000_000_000)
    assert found.unread == 2
    assert events.parse(b"prefill.0.start,6\nprefill.0.end,5\n", "x").span("prefill.0") is None


def test_the_table_of_prompts():
    rows, lost = tables.parse_states(raw("phone", "melt_measurements", f"{STEM}.csv"), "x")
    assert lost == 0
    assert [row.text for row in rows] == ["load_model", "a prompt of 6 tokens, said 0", "a prompt of 9 tokens, said 1"]
    assert (rows[0].start_s, rows[0].duration_s) == (1_709_550_060.0, 5.11)
    rows, _ = tables.parse_states(raw("cli", "measurements_iter1_conv2.csv"), "x")
    assert rows[2].text == "And dogs, \\nwhat of them?"  # a comma within; a line's end as two characters


def test_quotes_in_a_prompt_are_its_own_for_nothing_escapes_them():
    rows, lost = tables.parse_states(b'start_date,duration,state\r\n1.5,2.25,"say "x", or y"\r\nrest of it\r\n', "x")
    assert rows == [tables.State('say "x", or y', 1.5, 2.25)]
    assert lost == 1
    with pytest.raises(UserError, match="no row of start_date"):
        tables.parse_states(b"start_date,duration,state\r\n,,\r\n", "x")


def test_the_table_of_stages():
    rows, lost = tables.parse_stages(raw("phone", "measurements_ts.csv"), "x")
    assert lost == 0
    assert rows[0] == ("Setup", 1_709_550_040.0, 1_709_550_048.5, 52110, 1830)
    with pytest.raises(UserError, match="no row of stage"):
        tables.parse_stages(b"stage,time_start,time_end,duration,rx,tx\n", "x")


def test_timings_of_llamacpp_and_which_of_them_melt_takes():
    found = output.parse_timings(raw("phone", "melt_measurements", "llm_output_iter0_conv0.txt"))
    assert found.lines == 10
    assert [(g.n_in, g.n_steps, g.n_drawn) for g in found.groups] == [(14, 3, 4), (9, 5, 5)]
    assert found.groups[0].prefill_tps == 100.0
    assert found.groups[1].tps == 9.09
    assert found.groups[1].decode_s == 0.55
    assert found.of_melt(2) == list(found.groups)
    assert found.of_melt(1) == [found.groups[1]]  # from behind
    assert found.of_melt(3) == [None, *found.groups]
    row = b"llama_print_timings: prompt eval time =   0.00 ms /     1 tokens (    0.00 ms per token,      inf tokens"
    endless = row + b" per second)\nllama_print_timings:       total time =   1.00 ms\n"
    (one,) = output.parse_timings(endless).groups
    assert (one.n_in, one.prefill_tps) == (1, None)


def test_statistics_of_mlc_are_the_twelve_lines_behind_the_command():
    found = output.parse_stats(raw("cli", "llm_output_iter1_conv2.txt"))
    assert [(one.n_in, one.n_steps, one.prefill_tps, one.tps) for one in found] == [
        (14, 11, 70.0, 10.0),
        (17, 16, 56.7, 10.0),
    ]
    assert output.stats_of(
        '{"prefill": {}, "decode": {"total_tokens": "3 tok", "throughput": "-nan tok/s"}}'
    ) == output.Counted(None, 3, None, None)
    for text in ("[]", "{", '{"prefill": 1, "decode": 2}', "[" * 100_000):
        assert output.stats_of(text) is None


def test_the_record_of_an_app():
    (session,) = app.parse(raw("app", "melt_measurements", "measurements_iter0.json"), "x")
    assert (session.model, session.load_s, session.unread) == ("TinyLlama-q4f16", (1_709_550_069.8, 3.2), 0)
    one = session.questions[1]
    assert (one.start_s, one.duration_s, one.n_in, one.n_steps) == (1_709_550_083.6, 0.71, 20, 3)
    assert one.stats is not None
    assert (one.stats.prefill_tps, one.stats.tps) == (50.0, 10.0)


def test_an_older_record_with_iso_times_and_another_name_is_read_and_what_has_no_time_is_counted():
    text = b"""[{"modelLoadTime": {"start": "2024-02-05T15:09:18.386Z", "duration": 2}, "chatRecords": [
        {"time": {"start": "2024-02-05T15:09:30.000Z", "duration": 1.5}, "input_tokens": -1, "output_tokens": true},
        {"time": {"start": null, "duration": 1.5}}, 7]}]"""
    (session,) = app.parse(text, "x")
    assert session.load_s == (1_707_145_758.386, 2.0)
    assert session.unread == 2
    assert session.questions == (app.Question(1_707_145_770.0, 1.5, None, None, None, ""),)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"{", "x is not JSON"),
        (b"[" * 100_000, "x is not JSON"),
        (b"{}", "no list of conversations"),
        (b"[]", "no list of conversations"),
        (b"[1]", "no list of conversations"),
        (b"[{}]", "without questionRecords"),
    ],
)
def test_what_is_no_record_of_an_app_is_one_line(text, said):
    with pytest.raises(UserError, match=said) as caught:
        app.parse(text, "x")
    assert "\n" not in str(caught.value)


def test_a_monsoons_csv_counts_from_the_hosts_start():
    text = raw("phone", "measurements_monsoon.csv")
    found = parse_monsoon(text, "x", 1_709_550_058.0, 50)
    power, volts, amps = found.series
    assert [one.name for one in found.series] == ["meter.power", "meter.voltage_v", "meter.current_a"]
    assert (power.scope, power.klass, found.clock, found.notes) == ("battery", "A", "host", ())
    rows = [line.split(",") for line in text.decode().splitlines()]
    assert len(power) == len(rows)
    assert power.value.tolist() == pytest.approx([float(ma) / 1e3 * float(v) for _, ma, v, _ in rows])
    assert amps.value[7] == pytest.approx(float(rows[7][1]) / 1e3)
    assert set(volts.value) == {4.0}
    # Three rows share a stamp; each has a time of its own, and none is later than its stamp.
    assert np.diff(power.t0_ns).min() > 0
    assert (power.t0_ns <= [round((float(t) + 1_709_550_058) * 1e9) for t, *_ in rows]).all()
    # MELT's own account has the stamps as they are.
    assert found.rails["main"].t_s[:4].tolist() == pytest.approx([1_709_550_058 + float(t) for t, *_ in rows[:4]])


def test_a_header_boxed_numbers_a_torn_end_and_lines_between_are_a_monsoons_too():
    head = b"Time(ms),Main(mA),Main Voltage(V),\n"
    rows = b"".join(b"np.float64(%.4f),np.float64(%d.5),np.float64(4.0),\n" % (n / 5000, 500 + n) for n in range(10))
    found = parse_monsoon(head + rows + b"0.1,50", "x", 1000.0)
    assert found.series[2].value.tolist() == [0.5005 + n / 1e3 for n in range(10)]
    plain = b"".join(b"%.4f,%d,4.0\n" % (n / 5000, 500 + n) for n in range(10))
    found = parse_monsoon(plain + b"ERROR\n0.01,600,4.0\n0.0102,inf,4.0\n", "x", 1000.0)
    assert len(found.series[0]) == 11
    assert found.notes == ("2 lines of x hold no sample",)


def test_times_that_start_anew_are_left_out_of_ours():
    text = b"".join(b"%.4f,500,4.0,\n" % (n / 5000) for n in (*range(5000), *range(10)))
    found = parse_monsoon(text, "x", 1000.0)
    assert len(found.series[0]) == 5000
    assert "start anew after 5000 samples" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "start", "said"),
    [
        (b"0.0,500,4.0,\n0.1,500,4.0,\n", None, "counts from its own start, and nothing says when that was"),
        (b"0.0,500,4.0,\n0.1,500,4.0,\n", -1.0, "nothing says when that was"),
        (b"", 1.0, "no row of seconds, mA and V"),
        (b"0.0,500,4.0,\n", 1.0, "fewer than two samples"),
        (b"a,b,c,\n", 1.0, "no row of seconds, mA and V"),
        (b"".join(b"%d,500,4.0,\n" % (n // 1000) for n in range(60_000)), 1.0, "60000 samples in 59 s"),
    ],
)
def test_what_is_no_monsoons_csv_is_one_line(text, start, said):
    with pytest.raises(UserError, match=said) as caught:
        parse_monsoon(text, "x", start, 5000.0 if b"500" in text and len(text) < 1000 else 100.0)
    assert "\n" not in str(caught.value)


TOLD = {"current_unit": "uA", "voltage_unit": "uV", "discharge_sign": -1, "columns": "current,voltage"}


@pytest.mark.parametrize("lacking", [None, *TOLD])
def test_trap_2_a_gauge_over_adb_gives_watts_only_where_unit_sign_and_columns_are_told(lacking):
    """The columns may have changed places, be a charger's, be in any unit and of any sign: none of it is guessed."""
    text = raw("phone", "measurements_adb.csv")
    found = gauge.parse(text, "x", {key: value for key, value in TOLD.items() if key != lacking})
    if lacking is not None:
        assert found.series == ()
        assert "nobody wrote them down" in found.notes[0]
        return
    power = next(one for one in found.series if one.name == "battery.power")
    assert (power.klass, power.calibration, len(power)) == ("D", "", 9)
    cells = [line.split(",") for line in text.decode().splitlines()[1:]]
    assert power.value.tolist() == pytest.approx([-float(c) * float(v) / 1e12 for _, c, v, _ in cells])
    assert power.t0_ns[0] == 1_709_550_058_000_000_000
    assert found.rails == {}  # MELT sums up nothing of it


def test_a_gauge_that_was_not_asked_or_has_no_row():
    head = b"timestamp,current,voltage,cpu_util\n"
    found = gauge.parse(head + b"1709550000.5,-1,-1,5\n1709550003.5,-1,-1,nan\n", "x", TOLD)
    assert found.series == ()
    assert "every row has -1" in found.notes[0]
    with pytest.raises(UserError, match="no row of timestamp"):
        gauge.parse(head, "x", {})
    with pytest.raises(UserError, match="columns is 'a'"):
        gauge.parse(raw("phone", "measurements_adb.csv"), "x", TOLD | {"columns": "a"})


JETSON = b"".join(
    b"%d current_%s: %d mA\n%d voltage_%s: 5000 mV\n"
    % (10**18 + n * 10**7, rail, 2000 + 8 * (n % 3), 10**18 + n * 10**7 + 9, rail)
    for n in range(40)
    for rail in (b"VDD_IN", b"VDD_SOC")
)


def test_a_jetsons_log_by_both_accounts_and_its_rail():
    found = parse_jetson(JETSON, "x")
    assert found.total is not None
    assert (found.total.rails, found.total.scope, found.clock) == (("melt_jetson.VDD_IN.power",), "module", "device")
    assert set(found.rails) == {"VDD_IN", "VDD_SOC"}
    assert found.rails["VDD_IN"].ma.tolist() == [2000 + 8 * (n % 3) for n in range(40)]
    other = parse_jetson(JETSON, "x", "VDD_SOC").total
    assert other is not None
    assert (other.rails, other.scope) == (("melt_jetson.VDD_SOC.power",), "rail")
    with pytest.raises(UnknownName, match="VDD_IN"):
        parse_jetson(JETSON, "x", "VDD_INN")
    with pytest.raises(UserError, match="no rail with a voltage and a current"):
        parse_jetson(b"1709550000000000000 CPU-therm: 47000 mC\n", "x")
    bare = parse_jetson(JETSON.replace(b"VDD_IN", b"VDD_GPU"), "x")
    assert bare.total is None
    assert "no input rail" in bare.notes[0]


def test_operators_of_ggml_by_melts_tables_and_by_what_was_done():
    found = operators.parse(raw("operators_llamacpp.log"), "x")
    assert found.tensors == {"q4_0": 2, "f32": 1}
    assert found.unread == 1  # the last graph was cut
    rows = {one.name: one for one in by_operator(found)}
    assert rows["MUL_MAT"].wall_ms == pytest.approx(10 * (2 + 1 + 3 + 1 + 1))
    assert rows["MUL_MAT"].cpu_ms == pytest.approx(3.5 * 10 * 8)
    assert rows["VIEW"].wall_ms == pytest.approx(
        0.002
    )  # rounded to microseconds, or counted as one: ggml's own two sums
    assert rows["VIEW"].total_ms == pytest.approx(0.005, abs=5e-4)
    done = {one.what: one for one in by_work(found)}
    assert {what: (one.n, one.tokens) for what, one in done.items()} == {
        "warm-up of the loading": (1, 2),
        "single tokens before the first prompt": (1, 1),
        "prompts": (1, 3),
        "tokens of answers": (2, 2),
    }
    answers = done["tokens of answers"]
    assert answers.per_s == pytest.approx(2 / answers.seconds)


@pytest.mark.parametrize("name", ["operators_mlc.log", "operators_mlc_chunked.log"])
def test_operators_of_tvm_whole_and_in_the_pieces_of_androids_log(name):
    found = operators.parse(raw(name), "x")
    assert (found.engine, found.unread, found.chunked) == ("MLC", 0, "chunked" in name)
    assert {one.name: (one.n, one.total_ms) for one in by_module(found)} == {
        "decode": (2, pytest.approx(29.05)),
        "prefill": (1, pytest.approx(41.05)),
    }
    rows = {(one.name, one.device): one.total_ms for one in by_operator(found)}
    assert rows["matmul", "opencl0"] == pytest.approx(70.0)
    assert rows["vm.builtin.match_shape", "cpu0"] == pytest.approx(0.01)
    done = {one.what: one for one in by_work(found)}
    assert (done["prefill"].tokens, done["prefill"].seconds) == (5, pytest.approx(0.052))  # of devices the longer
    assert done["decode"].per_s == pytest.approx(2 / 0.04)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"nothing", "neither ggml's perf_total_per_op_us nor a report of TVM"),
        (b"perf_total_per_op_us[  ADD] = 0.1 ms\n", "no whole graph"),
        (b"n_nodes = 3\nperf_total_per_op_us[  ADD] = 0.1 ms\n", "no whole graph"),
        (b"Report from function decode:\n{\n", "no whole report"),
        (b"Report from function decode:", "no whole report"),
        (b"Report from function decode [1/2]:\n{}\nReport from function decode [2/2]:\n}\n", "no whole report"),
    ],
)
def test_a_log_without_operators_is_one_line(text, said):
    with pytest.raises(UserError, match=said) as caught:
        operators.parse(text, "x")
    assert "\n" not in str(caught.value)


def test_every_fixture_is_told_by_what_is_in_it_whatever_it_is_called():
    found = Counter(
        kind_of(File("given.txt", path.read_bytes()))
        for path in HERE.rglob("*")
        if path.is_file() and path.name not in (".t_monsoon", "configuration.json")
    )
    assert found == {
        **dict.fromkeys(("monsoon", "adb", "stages", "app"), 1),
        **dict.fromkeys(("states", "output"), 2),
        **dict.fromkeys(("events", "operators"), 3),
    }
    assert kind_of(File("a/.t_monsoon", b"1")) == "start"
    assert kind_of(File("a\\configuration.json", b"{}")) == "configuration"
    assert kind_of(File("readme.md", b"# MELT\n")) is None


def test_melts_example_of_llamacpp_gives_what_its_own_parser_does():
    """The sums of MELT's src/parsers/parser.py --merge per_op, run on the same file: ms, to its last digit."""
    found = operators.parse(shared("samples/melt_llamacpp.log").read_bytes(), "x")
    theirs = {
        "ADD": (2497.980, 13.584, 13.584),
        "CONT": (3.978, 4.016, 4.016),
        "CPY": (1828.138, 67.379, 67.379),
        "GET_ROWS": (0.975, 0.475, 0.475),
        "MUL": (1051.458, 19.825, 19.825),
        "MUL_MAT": (18768.184, 6547.056, 6547.056),
        "PERMUTE": (1.284, 1.281, 1.913),
        "RESHAPE": (8.374, 2.049, 3.013),
        "RMS_NORM": (63.067, 12.152, 12.152),
        "ROPE": (1099.590, 19.547, 19.547),
        "SCALE": (1.951, 1.955, 1.955),
        "SOFT_MAX": (78.062, 3.672, 3.672),
        "TRANSPOSE": (0.592, 0.597, 0.955),
        "UNARY": (1001.970, 21.883, 21.883),
        "VIEW": (2.782, 2.808, 3.887),
    }
    ours = {one.name: (one.cpu_ms, one.wall_ms, one.total_ms) for one in by_operator(found)}
    assert ours == {name: pytest.approx(row, rel=1e-9) for name, row in theirs.items()}
    assert found.tensors == {"q4_0": 225, "f32": 65, "q6_K": 1}
    assert [(one.what, one.n, one.tokens) for one in by_work(found)] == [
        ("warm-up of the loading", 1, 2),
        ("single tokens before the first prompt", 1, 1),
        ("prompts", 1, 3),
        ("tokens of answers", 26, 26),
    ]
    assert by_work(found)[3].per_s == pytest.approx(4.703, abs=5e-4)


def test_melts_example_of_mlc_has_six_whole_reports_of_which_its_parser_reads_none():
    found = operators.parse(shared("samples/melt_mlc.log").read_bytes(), "x")
    assert (len(found.calls), found.chunked, found.unread) == (6, False, 0)
    assert [(one.name, one.n) for one in by_module(found)] == [("decode", 3), ("softmax_with_temperature", 3)]
    # The table that TVM prints behind each report has the same sums, rounded to 10 ns.
    assert by_module(found)[0].total_ms == pytest.approx(546.07425 + 160.51482 + 157.71280, abs=1e-4)
    assert [call.devices_s["metal0"] for call in found.calls][::2] == pytest.approx(
        [0.59979492, 0.21854475, 0.21326267]
    )
    decode = by_work(found)[0]
    assert (decode.tokens, decode.median_s) == (3, pytest.approx(0.21854475))
