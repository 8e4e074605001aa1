"""MELT's numbers by MELT's definitions, and ours from the same evidence, on made runs of known course."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from melt_kit import EPOCH_S, LlamaCpp, app, jetson, monsoon

from meltbench.errors import UnknownName, UserError
from meltbench.imports.foreign import File
from meltbench.imports.melt import differences, theirs
from meltbench.imports.melt.account import overall, tell
from meltbench.imports.melt.power import Recorded
from meltbench.imports.melt.study import read

STEM = "iter0_conv0"


def recorded(t, ma, volts=4.0):
    return Recorded(np.array(t, float), np.array(ma, float), np.full(len(t), volts))


def study(played, power=None, options=None, **more):
    files = [File(name, raw) for name, raw in (played.files | (power or {}) | more).items()]
    return read(files, None, options or {})


def told(played, power=None, options=None, bound=None, **more):
    (one,) = tell(study(played, power, options, **more), bound)
    return one


def around(played, **more):
    return monsoon(played.power, EPOCH_S + 50, played.prompts[-1].end_s + 8, **more)


SLOW = {"rate": 1000}, {"rate_hz": 1000}


def named(one, name, phase="run"):
    return next(m for m in one.ours.measures if (m.name, m.phase) == (name, phase) and m.source in ("total", ""))


def test_melts_energy_is_right_rectangles_of_the_samples_strictly_inside():
    rail = recorded([0, 1, 2, 3, 4], [100, 200, 400, 800, 1600])
    # Of [1, 4] the samples at 2 and 3 are inside; the first has no time, the second one second.
    assert rail.cost(1, 4) == pytest.approx((800 * 4 / 3600, 800 / 3600))
    assert rail.cost(1, 3) == (0.0, 0.0)
    assert rail.cost(9, 12) == (0.0, 0.0)
    # Of samples under one stamp the first alone has a time.
    shared = recorded([0, 1, 1, 1, 2, 2, 2], [9, 10, 500, 500, 20, 700, 700])
    assert shared.cost(-1, 3) == pytest.approx(((10 + 20) * 4 / 3600, 30 / 3600))
    assert recorded([0, 1, 2], [5, np.nan, 7]).cost(-1, 3) == pytest.approx((28 / 3600, 7 / 3600))


def test_a_jetsons_voltage_is_the_next_one_inside_the_window():
    rail = Recorded(np.array([0.0, 1, 2]), np.array([9.0, 10, 20]), np.full(3, 5.0), np.array([0.5, 1.5, 2.5]))
    assert rail.cost(-1, 3)[0] == pytest.approx((10 + 20) * 5 / 3600)
    assert rail.cost(-1, 2.2)[0] == pytest.approx(10 * 5 / 3600)


def notebook(rows):
    """The cells of parse_mobile_runs.ipynb that make its two tables."""
    df = pd.DataFrame(rows)
    df["again"] = df["mah"] / df["output_tokens"]

    def kept(frame, column):
        low, high = frame[column].quantile(1 - 0.95), frame[column].quantile(0.95)
        return frame[(frame[column] > low) & (frame[column] < high)]

    groups = [frame for _, frame in df.groupby("iteration")]
    rates = pd.concat([kept(frame, "tps") for frame in groups])
    sums = [kept(frame, "again")[["mwh", "mah", "again"]].sum() for frame in groups if len(kept(frame, "again"))]
    energy = pd.concat(sums, axis=1).mean(axis=1) if sums else pd.Series({"mwh": None, "mah": None, "again": None})
    return rates["tps"].mean(), rates["prefill_tps"].mean(), len(rates), *energy.tolist()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.floats(1, 50), st.floats(5, 500), st.integers(1, 99), st.floats(0.01, 9)),
        min_size=6,
        max_size=40,
    )
)
def test_over_all_melts_notebook_and_we_find_the_same(found):
    rows = [dict(zip(("iteration", "tps", "prefill_tps", "output_tokens", "mah"), one, strict=True)) for one in found]
    by_iteration: dict[int, list[theirs.Row]] = {}
    for row in rows:
        row["mwh"] = 4 * row["mah"]
        costs = {"main": (row["mwh"], row["mah"])}
        one = theirs.Row(1.0, 10, row["output_tokens"], row["prefill_tps"], row["tps"], costs)
        by_iteration.setdefault(row["iteration"], []).append(one)
    mine = theirs.overall(by_iteration)
    tps, prefill, n, *energy = notebook(rows)
    assert mine.n == n
    if n:
        assert (mine.tps, mine.prefill_tps) == (pytest.approx(tps), pytest.approx(prefill))
        ours = (mine.energy_pt_mwh, mine.discharge_pt_mah, mine.discharge_per_token_mah)
        assert ours == tuple(None if value is None else pytest.approx(value) for value in energy)
    else:
        assert "nothing lies strictly between" in mine.reason


def test_two_prompts_are_none_between_the_percentiles():
    row = theirs.Row(1.0, 10, 5, 100.0, 9.0, {})
    assert theirs.overall({0: [row, replace(row, tps=8.0)]}).reason.startswith("nothing lies strictly between")
    assert theirs.overall({0: [theirs.Row(reason="x")]}).reason == "no prompt has a rate"


def test_both_accounts_of_a_phone_beside_the_truth():
    plan = LlamaCpp(slower=0.1)
    played = plan.play()
    one = told(played, around(played))
    for row, request, truth, n_out in zip(one.rows, one.ours.requests, played.prompts, plan.answers, strict=True):
        assert row.reason == ""
        assert row.duration_s == pytest.approx(truth.end_s - truth.sent_s + 0.07, abs=2e-3)
        assert row.costs is not None
        # MELT's energy is that of a longer window, over other tokens, its edges cut by less than a stamp.
        window = truth.sent_s - 0.04, truth.end_s + 0.03
        whole = row.costs["main"][0] * 3.6 * (row.output_tokens or 0)
        assert whole == pytest.approx(played.power.joules(*window), rel=0.01)
        assert request.n_out == n_out
        assert request.ttft_s == pytest.approx(truth.token_s[0] - truth.sent_s, abs=1e-5)
        rate = (n_out - 1) / (truth.token_s[-1] - truth.token_s[0])
        assert request.decode_tps == pytest.approx(rate, rel=1e-4)
        assert request.energy_j is not None
        assert request.energy_u_k2_j is not None
        true_j = played.power.joules(truth.sent_s, request.t_end_ns / 1e9 - played.skew_s)
        assert abs(request.energy_j - true_j) <= request.energy_u_k2_j
    assert [row.output_tokens for row in one.rows] == [8, 14, 11]  # without the first token, with a leftover
    assert one.rows[0].input_tokens == 12 + 20  # with the system prompt
    assert [request.prefill_tps for request in one.ours.requests] == [None, 100.0, 100.0]
    assert [request.n_in for request in one.ours.requests] == [None] * 3
    assert one.load is not None
    assert one.load.duration_s == pytest.approx(5.23)
    assert named(one, "inprocess_load_s").value == pytest.approx(2.0, abs=1e-5)
    assert {reason.code for reason in one.ours.reasons} == {"imported", "no_thermal_sensor"}
    assert one.ours.validity == "degraded"


def test_what_stands_in_no_file_is_none_with_a_reason_and_never_zero():
    one = told(LlamaCpp().play())
    assert named(one, "energy_j").reason == "no_energy_source: no power file was given"
    assert [row.costs for row in one.rows] == [None] * 3
    assert all(m.value is not None or m.reason for m in one.ours.measures)
    assert named(one, "net_energy_j").value is None
    bare = told(replace_files(LlamaCpp().play(), "measurements_iter0_conv0.tsv"))
    assert [row.reason[:20] for row in bare.rows] == ["no table of prompts:"] * 3
    assert bare.rows[0].duration_s is None
    assert [request.decode_tps is not None for request in bare.ours.requests] == [True] * 3
    assert bare.ours.requests[-1].n_out is None


def replace_files(played, *names):
    played.files = {name: raw for name, raw in played.files.items() if name in names}
    return played


def test_without_marks_the_hosts_table_tells_of_windows_alone():
    played = replace_files(LlamaCpp().play(), f"measurements_{STEM}.csv", f"llm_output_{STEM}.txt")
    one = told(played, around(played, **SLOW[0]), SLOW[1])
    assert [(r.ttft_s, r.decode_tps, r.e2e_s) for r in one.ours.requests] == [(None, None, None)] * 3
    assert [r.n_out for r in one.ours.requests] == [9, 14, 11]
    assert [r.engine_decode_tps for r in one.ours.requests] == [10.0] * 3
    assert one.ours.tie.how == "prompts and meter by the host's clock"
    for request, truth in zip(one.ours.requests, played.prompts, strict=True):
        assert request.energy_j == pytest.approx(played.power.joules(truth.sent_s - 0.04, truth.end_s + 0.03), rel=0.02)


@settings(max_examples=40, deadline=None)
@given(st.floats(-3600, 3600), st.floats(0.001, 0.3), st.floats(0.001, 0.3))
def test_what_the_host_saw_of_each_prompt_bounds_the_clocks_offset(skew_s, typed_s, seen_s):
    one = told(LlamaCpp(skew_s=skew_s, typed_s=typed_s, seen_s=seen_s).play())
    tie = one.ours.tie
    assert tie.why == ""
    assert abs(tie.offset_ns / 1e9 - skew_s) <= tie.bound_s + 1e-3  # the table is in milliseconds
    assert tie.bound_s <= (typed_s + seen_s) / 2 + 1e-3


def test_a_clock_that_was_stepped_in_the_run_ties_nothing():
    played = LlamaCpp().play()
    name = f"measurements_{STEM}.csv"
    lines = played.files[name].decode().splitlines(keepends=True)
    stepped = [*lines[:-1], lines[-1].replace("1709550083.", "1709550053.")]
    played.files[name] = "".join(stepped).encode()
    one = told(played, around(played, **SLOW[0]), SLOW[1])
    assert one.ours.tie.why == "the program's marks do not lie in the host's windows: one of their clocks was stepped"
    assert named(one, "energy_j").reason.startswith("clock_unsynced")
    assert "clock_unsynced" in {reason.code for reason in one.ours.reasons}
    assert one.rows[0].costs is not None  # MELT's report does not ask


def test_an_apps_clock_is_not_the_meters_unless_the_user_vouches_for_it():
    played = app()
    meter = around(played, **SLOW[0])
    one = told(played, meter, SLOW[1])
    assert named(one, "energy_j").reason.startswith("clock_unsynced")
    assert one.ours.series == []
    one = told(played, meter, SLOW[1] | {"clock_bound_s": 0.05}, bound=0.05)
    for request, truth in zip(one.ours.requests, played.prompts, strict=True):
        true_j = played.power.joules(truth.sent_s, truth.end_s)
        assert abs(request.energy_j - true_j) <= request.energy_u_k2_j
    assert one.ours.series[0].clock_bound_s == 0.05


def ten_watts(played):
    played.power.spans = [(EPOCH_S, EPOCH_S + 1000, 10.0)]
    return jetson(played.power, EPOCH_S + 50, played.prompts[-1].end_s + 8)


def test_ten_watts_of_a_jetson_are_ten_watts_times_every_stage_where_melts_report_has_zero():
    """MELT's report keeps of a stage the lines of the current alone: their column of the voltage is empty, and so is
    the sum. Of whole prompts of llama.cpp it keeps all lines, and comes to 10 W as well."""
    played = LlamaCpp(skew_s=0.0).play()
    one = told(played, {"energy_iter0.log": ten_watts(played)})
    assert {(stage.kind, *stage.costs["VDD_IN"]) for stage in one.stages} == {
        (stage.kind, 0.0, 0.0) for stage in one.stages
    }
    assert len(one.stages) >= 4
    lasts = {
        "load": played.load_s[1] - played.load_s[0],
        "prefill": sum(t.token_s[0] - t.sent_s for t in played.prompts),
        "decode": sum(t.token_s[-1] - t.token_s[0] for t in played.prompts),
        "run": played.prompts[-1].end_s - played.prompts[0].sent_s,
    }
    for phase, seconds in lasts.items():
        found = named(one, "energy_j", phase)
        if phase != "prefill":  # seven hundredths of a second are too few samples at 100 Hz, and that is said
            assert found.value == pytest.approx(10 * seconds, rel=0.02), phase
        else:
            assert found.value is None
            assert found.reason.startswith("stale_sensor")
    for row, request in zip(one.rows, one.ours.requests, strict=True):
        assert row.costs is not None
        assert row.costs["VDD_IN"][0] * 3.6 * (row.output_tokens or 0) == pytest.approx(10 * row.duration_s, rel=0.05)
        assert request.energy_j == pytest.approx(10 * (request.t_end_ns - request.t_send_ns) / 1e9, rel=0.02)
    assert differences.STAGES_JETSON in differences.differences([one])


def test_of_mlc_on_a_jetson_melts_report_has_zero_for_prompts_too():
    text = b"".join(
        b"%s %d\n" % (name, t * 10**9)
        for name, t in (
            (b"load_model.start", 1709550001),
            (b"load_model.end", 1709550004),
            (b"chat.0.0.prefill.start", 1709550010),
            (b"chat.0.0.prefill.end", 1709550011),
            (b"chat.0.0.decode.0.start", 1709550014),
            (b"chat.0.0.decode.0.end", 1709550015),
        )
    )
    stats = json.dumps(
        {
            part: {"throughput": "9.5 tok/s", "total tokens": "40 tok", "total time": "4.2 s"}
            for part in ("prefill", "decode")
        },
        indent=4,
    )
    played = LlamaCpp().play()
    power = jetson(replace(played.power, spans=[(0, 2e9, 10.0)]), 1709550000, 1709550020)
    files = [
        File(f"measurements_{STEM}.tsv", text),
        File(
            f"measurements_{STEM}.csv",
            b'start_date,duration,state\r\n1709550000.5,5.5,"load_model"\r\n1709550009.9,5.2,"hello"\r\n',
        ),
        File(f"llm_output_{STEM}.txt", b"x: /stats\n" + stats.encode() + b"\n"),
        File("energy_iter0.log", power),
    ]
    (one,) = tell(read(files, None, {}))
    (row,), (request,) = one.rows, one.ours.requests
    assert row.costs == {"VDD_IN": (0.0, 0.0)}
    assert (row.tps, row.prefill_tps) == (9.5, None)
    assert request.energy_j == pytest.approx(50, rel=0.01)
    assert (request.ttft_s, request.n_out, request.decode_tps) == (1.0, 41, pytest.approx(10.0))


def test_a_named_power_file_stands_in_place_of_any_among_the_files():
    played = LlamaCpp(skew_s=0.0).play()
    files = [File(name, raw) for name, raw in (played.files | around(played, **SLOW[0])).items()]
    found = read(files, File("mine.log", ten_watts(played)), {})
    assert [power.kind for power in found.power.values()] == ["jetson"]
    with pytest.raises(UserError, match=r"x\.csv is no power file of MELT's"):
        read(files, File("x.csv", b"1"), {})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"start_s": "soon"}, "start_s is 'soon'; give 0 to 4e"),
        ({"clock_bound_s": -1}, "clock_bound_s is -1"),
        ({"rate_hz": True}, "rate_hz is True"),
        ({"rate_hz": float("nan")}, "rate_hz is nan"),
        ({"rail": "VDD_IN"}, "--option rail is for a power file of kind jetson"),
        ({"current_unit": "uA"}, "--option current_unit is for a power file of kind adb"),
    ],
)
def test_an_option_that_nobody_takes_or_that_is_wrong_is_one_line(options, said):
    played = LlamaCpp().play()
    with pytest.raises(UserError, match=said) as caught:
        study(played, around(played, rate=50), options)
    assert "\n" not in str(caught.value)


def test_files_of_two_runs_are_told():
    played = LlamaCpp().play()
    files = [File(f"{folder}/{name}", raw) for folder in "ab" for name, raw in played.files.items()]
    with pytest.raises(UserError, match="a second event log of its conversation"):
        read(files, None, {})
    meter = around(played, rate=50)
    with pytest.raises(UserError, match="a second power file of one run"):
        read(
            [
                *[File(name, raw) for name, raw in (played.files | meter).items()],
                File("b.csv", meter["measurements_monsoon.csv"]),
            ],
            None,
            {},
        )
    with pytest.raises(UserError, match="none of these files holds a prompt"):
        read([File("measurements_ts.csv", b"stage,time_start,time_end,duration,rx,tx\na,1,2,1,0,0\n")], None, {})
    with pytest.raises(UnknownName, match="VDD_IN"):
        study(played, {"energy_iter0.log": ten_watts(played)}, {"rail": "VDD"})


def test_several_iterations_have_a_meter_each_on_a_jetson_and_one_on_a_phone():
    first, second = LlamaCpp(skew_s=0).play(0, 0), LlamaCpp(skew_s=0).play(1, 0)
    first.files |= second.files
    logs = {f"energy_iter{n}.log": ten_watts(played) for n, played in enumerate((first, second))}
    found = tell(study(first, logs))
    assert [(one.conversation.iteration, one.power and one.power.name) for one in found] == [
        (0, "energy_iter0.log"),
        (1, "energy_iter1.log"),
    ]
    assert overall(found).n == 0


def test_the_words_that_say_where_the_accounts_differ_are_those_that_apply():
    phone = differences.differences([told(LlamaCpp(late_words=True).play())])
    assert phone == [
        differences.LOAD_HOST,
        differences.DURATION_HOST,
        differences.TOKENS_LLAMA,
        differences.RATE_LLAMA,
        differences.PREFILL_FIRST,
        differences.PREFILL_TIME,
        differences.SHIFTED,
        differences.OVERALL,
    ]
    played = app()
    assert differences.differences([told(played, around(played, **SLOW[0]), SLOW[1])]) == [
        differences.LOAD_APP,
        differences.TOKENS_MLC,
        differences.RATE_MLC,
        differences.PREFILL_TIME,
        differences.MILLISECONDS,
        differences.ENERGY,
        differences.OVERALL,
    ]
