"""What panels draw, on runs whose numbers are known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date, timedelta

import pytest
from contrast_kit import START, MadeIndex
from pages_kit import HOSTILE, draw_panel, page_of, texts

from meltbench.pages.drawn import COLOURS, Drawn, grid_of, safe, shown
from meltbench.pages.page import Choice, Panel, pages
from meltbench.pages.published import Answer

HEAT = Panel(
    "h", "heat", "SELECT * FROM selected WHERE decode_tps IS NOT NULL", x="device", y="model", value="decode_tps"
)
DAY_S = 86_400.0


@pytest.fixture
def made() -> Iterator[MadeIndex]:
    index = MadeIndex()
    yield index
    index.connection.close()


def of_rows(sql: str, kind: str = "lines", **more: str) -> Panel:
    return Panel("p", kind, sql, **{"x": "x", "y": "y", **more})  # type: ignore[arg-type]


def series(made: MadeIndex, values: list[float], **about: object) -> None:
    """A run a night, the last in the newest of them."""
    for night, value in enumerate(values):
        made.add({"decode_tps": value}, at_s=night * DAY_S, **about)


# heat


def test_a_cell_is_the_median_with_its_interval(made: MadeIndex) -> None:
    for value in (10.0, 11.0, 12.0, 13.0):
        made.add({"decode_tps": value}, device="pi")
    made.add({"decode_tps": 40.0}, device="desk")
    made.add({"decode_tps": 7.0}, device="desk", model="small")
    drawn = draw_panel(made, HEAT)
    assert drawn.figure is not None
    (data,) = drawn.figure["data"]
    assert (data["x"], data["y"]) == (["desk", "pi"], ["small", "tiny"])
    assert data["z"] == [[7.0, None], [40.0, 11.5]]
    # t on logs with 3 degrees of freedom: the sd of the logs is 0.1125, of their median 0.0705, times 3.182.
    assert data["customdata"][1][1] == "11.5 tok/s, 95 % 9.18 tok/s to 14.4 tok/s, 4 runs"
    assert data["customdata"][1][0] == "40.0 tok/s, 1 run: nobody knows how runs differ"
    assert data["customdata"][0][1] == ""
    assert drawn.says == "Median decode rate of 2 by 2, 6 runs; best 40.0 tok/s, tiny on desk."
    assert drawn.notes == ("Of quick, server, meltbench.",)
    assert drawn.told is not None
    assert drawn.told.texts == [
        {"row": "small", "c0": "7.00 tok/s", "c1": ""},
        {"row": "tiny", "c0": "40.0 tok/s", "c1": "11.5 tok/s"},
    ]


def test_what_an_aggregate_may_not_take_in_is_left_out(made: MadeIndex) -> None:
    made.add({"decode_tps": 10.0})
    made.add({"decode_tps": 1000.0}, validity="invalid")
    made.add({"decode_tps": 2000.0}, outcome="failed")
    made.add({"decode_tps": 3000.0}, origin="MELT")
    drawn = draw_panel(made, HEAT)
    assert drawn.figure is not None
    assert drawn.figure["data"][0]["z"] == [[10.0]]
    assert drawn.says.startswith("Median decode rate of 1 by 1, 1 run;")
    assert draw_panel(made, HEAT, "validity=invalid").says.startswith("Median decode rate of 1 by 1, 1 run; best 1000")
    # They are listed all the same, with what they are.
    listed = page_of(made, "overview")["Newest runs"].grid
    assert listed is not None
    assert sorted((r["validity"], r["outcome"], r["origin"]) for r in listed.rows) == [
        ("invalid", "done", "meltbench"),
        ("valid", "done", "MELT"),
        ("valid", "done", "meltbench"),
        ("valid", "failed", "meltbench"),
    ]


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"workload": "long"}, "Cells pool several of workload: long, quick. Choose one in the filter."),
        ({"mode": "in-process"}, "Cells pool several of mode: in-process, server. Choose one in the filter."),
    ],
)
def test_cells_of_several_kinds_are_warned_of(made: MadeIndex, other: dict[str, str], said: str) -> None:
    made.add({"decode_tps": 10.0})
    made.add({"decode_tps": 20.0}, **other)
    assert draw_panel(made, HEAT).notes == (said,)


def test_cells_of_one_kind_each_are_not(made: MadeIndex) -> None:
    made.add({"decode_tps": 10.0}, device="pi")
    made.add({"decode_tps": 20.0}, device="desk", workload="long")
    assert draw_panel(made, HEAT).notes == ("Of server, meltbench.",)


def test_the_overview_takes_the_workload_that_most_runs_have(made: MadeIndex) -> None:
    for value in (10.0, 12.0):
        made.add({"decode_tps": value})
    made.add({"decode_tps": 99.0}, workload="long")
    made.add(points={"tg128": {"decode_tps": 50.0}}, workload="grid", mode="bench")
    drawn = page_of(made, "overview")["Models on devices"]
    assert drawn.says == "Median decode rate of 1 by 1, 2 runs; best 11.0 tok/s, tiny on desk."
    assert drawn.notes == ("Of quick, server.",)
    drawn = page_of(made, "overview", "workload=grid")["Models on devices"]
    assert drawn.notes == ("Of grid, bench, tg128.",)


def test_energies_of_several_meters_have_no_best(made: MadeIndex) -> None:
    values = {"j_per_output_token": 0.2, "energy_j": 3.0}
    made.add(values, device="pi")
    made.add(values, device="desk", scope="wall", klass="A")
    drawn = page_of(made, "overview", query="metric=j_per_output_token")["Models on devices"]
    assert drawn.says == "Median energy per token of 1 by 2, 2 runs."
    assert drawn.notes[-1] == (
        "Energy of several scopes or classes, soc (class B), wall (class A): cells are not to be ranked across them."
    )
    assert "best" in page_of(made, "overview", "device=pi", "metric=j_per_output_token")["Models on devices"].says


def test_what_is_less_is_better_where_it_is(made: MadeIndex) -> None:
    made.add({"ttft_s": 0.5}, device="pi")
    made.add({"ttft_s": 0.1}, device="desk")
    drawn = page_of(made, "overview", query="metric=ttft_s")["Models on devices"]
    assert drawn.says.endswith("best 100 ms, tiny on desk.")
    assert drawn.figure is not None
    assert drawn.figure["data"][0]["reversescale"] is True


def test_a_metric_that_nobody_knows_names_the_nearest(made: MadeIndex) -> None:
    made.add({"decode_tps": 1.0})
    drawn = page_of(made, "overview", query="metric=decode_tsp")["Models on devices"]
    assert drawn.troubled
    assert drawn.says.endswith("unknown metric 'decode_tsp'; did you mean decode_tps?")
    assert "overview.toml, panel in line 20: " in drawn.says


def test_a_value_that_is_missing_is_no_zero(made: MadeIndex) -> None:
    made.add({"decode_tps": 10.0})
    made.add({"ttft_s": 1.0})
    panel = Panel("h", "heat", "SELECT * FROM selected", x="device", y="model", value="decode_tps")
    drawn = draw_panel(made, panel)
    assert drawn.figure is not None
    assert drawn.figure["data"][0]["z"] == [[10.0]]
    grid = draw_panel(made, Panel("t", "table", "SELECT decode_tps FROM listed ORDER BY ALL")).grid
    assert grid is not None
    assert [row["decode_tps"] for row in grid.rows] == [10.0, None]
    assert [row["decode_tps"] for row in grid.texts] == ["10.0 tok/s", "—"]


def test_accuracies_of_two_workloads_never_share_a_cell(made: MadeIndex) -> None:
    made.add({"accuracy": 1.0}, scores=[("a", "match", 1.0), ("b", "match", 1.0)], workload="gsm8k")
    made.add({"accuracy": 0.5}, scores=[("a", "match", 0.0), ("b", "match", 1.0)], workload="hellaswag")
    made.add({"accuracy": 0.0}, scores=[("a", "match", 0.0)], workload="hellaswag", validity="invalid")
    drawn = page_of(made, "accuracy")["Accuracy by domain"]
    assert drawn.figure is not None
    (data,) = drawn.figure["data"]
    assert (data["x"], data["z"]) == (["gsm8k", "hellaswag"], [[1.0, 0.5]])
    assert drawn.notes == ("Of server.",)


# lines, bars, scatter


def test_lines_have_their_intervals_and_gaps(made: MadeIndex) -> None:
    sql = """SELECT * FROM (VALUES ('a', 1, 2.0, 1.5, 3.0), ('a', 2, NULL, NULL, NULL), ('b', 1, 5.5, NULL, NULL))
        t(g, x, y, lo, hi)"""
    drawn = draw_panel(made, of_rows(sql, group="g", unit="W"))
    assert drawn.figure is not None
    first, second = drawn.figure["data"]
    assert (first["name"], first["x"], first["y"]) == ("a", [1, 2], [2.0, None])
    assert first["text"] == ["2.00 W", "—"]
    assert (first["error_y"]["array"], first["error_y"]["arrayminus"]) == ([1.0, None], [0.5, None])
    assert (second["name"], second["y"], second["error_y"]["array"]) == ("b", [5.5], [None])
    assert drawn.figure["layout"]["yaxis"]["title"]["text"] == "y, W"
    assert drawn.says == "y, W by x: 3 points in 2 groups."


def test_a_number_that_is_none_is_a_gap(made: MadeIndex) -> None:
    sql = "SELECT * FROM (VALUES (1.5, 'nan'::DOUBLE), (2.5, 'inf'::DOUBLE), (3.5, 1.25)) t(x, y)"
    for kind in ("lines", "bars", "scatter"):
        drawn = draw_panel(made, of_rows(sql, kind))
        assert drawn.figure is not None
        assert drawn.figure["data"][0]["x"] == [1.5, 2.5, 3.5]
        assert drawn.figure["data"][0]["y"] == [None, None, 1.25]


def test_points_know_their_runs(made: MadeIndex) -> None:
    run = made.add({"decode_tps": 3.0})
    drawn = draw_panel(made, of_rows("SELECT run_id, 1 AS x, decode_tps AS y FROM selected", "scatter"))
    assert drawn.figure is not None
    assert drawn.figure["data"][0]["customdata"] == [run]
    assert drawn.figure["data"][0]["name"] == "all"


def test_groups_that_are_not_drawn_are_counted(made: MadeIndex) -> None:
    drawn = draw_panel(made, of_rows("SELECT range AS g, 1 AS x, 2 AS y FROM range(20)", group="g"))
    assert drawn.figure is not None
    assert len(drawn.figure["data"]) == 16
    assert drawn.notes == ("4 more of g are not drawn; a filter narrows.",)


@pytest.mark.parametrize(
    ("panel", "said"),
    [
        (
            of_rows("SELECT 1 AS x, 'a' AS y"),
            "t.toml, panel in line 1: column 'y' has no figures: 'a'; name another column",
        ),
        (of_rows("SELECT 1 AS x, [1] AS y", "bars"), "column 'y' has no figures: '[1]'"),
        (of_rows("SELECT 1 AS x, 2 AS y, 'a' AS lo, 'b' AS hi"), "column 'hi' has no figures: 'b'"),
        (of_rows("SELECT 1 AS x, 2 AS z"), "the query gives no column 'y'; it gives x, z"),
        (of_rows("SELECT 1 AS x,\nnope AS y"), "t.toml, line 2: Binder Error: "),
        (
            Panel("h", "heat", "SELECT 1 AS a, 2 AS b, 'c' AS v", x="a", y="b", value="v"),
            "column 'v' has no figures: 'c'",
        ),
        (Panel("c", "changes", "SELECT 1 AS a, 2 AS b, 3 AS v", x="a", group="b", value="v"), "no column 'night'"),
        (Panel("a", "alerts", "SELECT 'n' AS night"), "the query gives no column 'device'"),
        (
            Panel("n", "noise", "SELECT 'd' AS d, 's' AS mode, 'c' AS cell, 'n' AS night, 'a' AS v", x="d", value="v"),
            "no fig",
        ),
        (
            of_rows("SELECT range AS x, 1 AS y FROM range(200001)"),
            "the query gives more than 200,000 rows; choose fewer",
        ),
    ],
)
def test_what_cannot_be_drawn_is_told_in_its_place(made: MadeIndex, panel: Panel, said: str) -> None:
    drawn = draw_panel(made, panel)
    assert drawn.troubled
    assert said in drawn.says
    assert drawn.figure is None


def test_columns_of_any_type_make_names(made: MadeIndex) -> None:
    sql = "SELECT [1, 2] AS a, {'k': NULL} AS b, 3 AS v, NULL AS n, DATE '2026-11-20' AS d, '\\x00'::BLOB AS o"
    drawn = draw_panel(made, Panel("h", "heat", sql, x="a", y="n", value="v"))
    assert drawn.figure is not None
    assert (drawn.figure["data"][0]["x"], drawn.figure["data"][0]["y"]) == (["[1, 2]"], ["—"])
    grid = draw_panel(made, Panel("t", "table", sql)).grid
    assert grid is not None
    assert {*grid.texts[0]} == {"a", "b", "v", "n", "d", "o"}


# tables


def test_a_table_says_what_it_left_out(made: MadeIndex) -> None:
    drawn = draw_panel(made, Panel("t", "table", "SELECT range AS a FROM range(5)", limit=3))
    assert (drawn.says, drawn.notes) == ("3 rows.", ("The first 3 rows; the CSV has them all.",))
    assert draw_panel(made, Panel("t", "table", "SELECT 1 AS a WHERE false")).says == "There is nothing to list."


def test_cells_read_as_people_write(made: MadeIndex) -> None:
    sql = "SELECT 0.5 AS accuracy, 0.012 AS ttft_s, 1048576 AS peak_rss_bytes, 7 AS n, 1.5 AS d, true AS b, NULL AS e"
    grid = draw_panel(made, Panel("t", "table", sql)).grid
    assert grid is not None
    assert grid.texts == [
        {
            "accuracy": "50 %",
            "ttft_s": "12.0 ms",
            "peak_rss_bytes": "1.00 MiB",
            "n": "7",
            "d": "1.50",
            "b": "yes",
            "e": "—",
        }
    ]
    assert grid.rows[0]["d"] == 1.5
    assert [column.right for column in grid.columns] == [True, True, True, True, True, False, False]


def test_numbers_that_are_none_are_no_text(made: MadeIndex) -> None:
    answer = Answer(("a",), [(float("nan"),), (float("inf"),), (1.0,)])
    assert [row["a"] for row in grid_of(answer).rows] == [None, None, 1.0]
    assert [row["a"] for row in grid_of(answer).texts] == ["—", "—", "1.00"]
    assert shown(None) == "—"


# changes and alerts


def test_a_night_that_moved_is_marked(made: MadeIndex) -> None:
    series(made, [100.0, 101.0, 99.0, 100.5, 99.5, 100.0, 101.0, 99.0, 80.0, 80.5, 79.5, 80.0, 80.2], device="pi")
    drawn = page_of(made, "trends")["Night by night"]
    moved = date(2026, 11, 20) + timedelta(days=8)
    assert drawn.says == "decode rate of 1 series on 1 device: 1 change point on those drawn."
    assert drawn.figure is not None
    line, marks = drawn.figure["data"]
    assert line["y"][:2] == [100.0, 101.0]
    assert (marks["x"], marks["y"]) == ([f"{moved}"], [80.0])
    assert drawn.told is not None
    (row,) = drawn.told.rows
    assert (row["before"], row["after"]) == (100.0, 80.0)
    (alert,) = (page_of(made, "overview")["What needs a look"].grid or grid_of(Answer((), []))).rows
    assert (alert["night"], alert["what"]) == (str(moved), "decode rate worse, alone")


def test_a_night_is_the_median_of_its_runs_and_invalid_ones_are_none(made: MadeIndex) -> None:
    for value in (10.0, 12.0, 20.0):
        made.add({"decode_tps": value})
    made.add({"decode_tps": 9000.0}, validity="invalid")
    made.add({"decode_tps": 9000.0}, outcome="failed")
    drawn = page_of(made, "trends")["Night by night"]
    assert drawn.figure is not None
    assert [line["y"] for line in drawn.figure["data"]] == [[12.0]]
    assert drawn.figure["data"][0]["text"] == ["12.0 tok/s, 3 runs"]


def test_a_series_looks_the_same_on_every_device(made: MadeIndex) -> None:
    for _ in range(2):
        made.add({"decode_tps": 1.0}, device="pi", model="a")
    made.add({"decode_tps": 1.0}, device="pi", model="b")
    made.add({"decode_tps": 1.0}, device="desk", model="b")
    made.add({"decode_tps": 1.0}, device="desk", model="c")
    drawn = page_of(made, "trends")["Night by night"]
    assert drawn.figure is not None
    lines = [(one["name"][0], one["line"]["color"], one["showlegend"]) for one in drawn.figure["data"]]
    assert lines == [
        ("a", COLOURS[0], True),
        ("b", COLOURS[1], True),
        ("b", COLOURS[1], False),
        ("c", COLOURS[2], True),
    ]


def test_no_alert_comes_of_runs_that_nobody_trusts(made: MadeIndex) -> None:
    series(made, [100.0 + night % 3 for night in range(9)])
    for night in (6, 7, 8):
        for _ in range(5):
            made.add({"decode_tps": 50.0}, at_s=night * DAY_S, outcome="failed")
            made.add({"decode_tps": 50.0}, at_s=night * DAY_S, validity="invalid")
    grid = page_of(made, "overview")["What needs a look"].grid
    assert grid is not None
    assert [(row["what"], row["detail"]) for row in grid.rows] == [
        ("invalid or failed runs", "10 of its 11 runs of that night")
    ]


def test_runs_are_counted_once_however_many_points_they_have(made: MadeIndex) -> None:
    made.add(points={"pp512": {"decode_tps": 1.0}, "tg128": {"decode_tps": 1.0}}, validity="invalid", workload="grid")
    grid = page_of(made, "overview")["What needs a look"].grid
    assert grid is not None
    assert [row["detail"] for row in grid.rows] == ["1 of its 1 runs of that night"]


def test_a_device_that_is_gone_is_told(made: MadeIndex) -> None:
    made.add({"decode_tps": 1.0}, device="gone", at_s=0)
    series(made, [1.0, 1.0, 1.0, 1.0])
    grid = page_of(made, "overview")["What needs a look"].grid
    assert grid is not None
    assert [(row["night"], row["what"], row["device"]) for row in grid.rows] == [("2026-11-20", "not seen", "gone")]


# compare


def two_nights(made: MadeIndex, factor: float) -> None:
    for night, times in ((0, 1.0), (1, factor), (2, factor)):
        for k in range(6):
            made.add({"decode_tps": times * (100 + k)}, at_s=night * DAY_S + 600 * k)


def test_without_words_the_newest_two_nights_are_compared(made: MadeIndex) -> None:
    two_nights(made, 0.5)
    drawn = page_of(made, "compare")["B against A"]
    assert drawn.says == "night=2026-11-22 against night=2026-11-21: 0 of 1 figures differ."
    drawn = page_of(made, "compare", query="a=night%3D2026-11-20&b=night%3D2026-11-21")["B against A"]
    assert drawn.says.endswith(": 1 of 1 figures differ.")
    assert drawn.figure is not None
    assert drawn.figure["data"][0]["x"] == [pytest.approx(0.5)]


def test_a_word_that_is_compared_is_not_the_filters(made: MadeIndex) -> None:
    # A filter by several nights would else be added to both arms, and the same runs stand on both sides.
    two_nights(made, 0.5)
    nights = "night=2026-11-20,night=2026-11-21"
    drawn = page_of(made, "compare", f"device=desk,{nights}")["B against A"]
    assert drawn.says == "night=2026-11-21 against night=2026-11-20: 1 of 1 figures differ."
    assert drawn.answer is not None
    assert [drawn.answer.column("n_a"), drawn.answer.column("n_b")] == [[6], [6]]


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("a=devise%3Dpi&b=device%3Ddesk", "unknown word of a selection 'devise'; did you mean device"),
        ("a=pi&b=desk", "'pi' selects nothing; write WORD=VALUE"),
        ("a=device%3Dnone&b=device%3Ddesk", "unknown device 'none'; known: desk"),
        ("a=device%3Ddesk", "18 runs are in both"),
    ],
)
def test_what_cannot_be_compared_is_told(made: MadeIndex, query: str, said: str) -> None:
    two_nights(made, 1.0)
    drawn = page_of(made, "compare", query=query)["B against A"]
    assert drawn.troubled
    assert said in drawn.says
    assert ".toml" not in drawn.says  # it is what was chosen, not the page


# pareto


def arms(made: MadeIndex) -> None:
    for model, rate, energy in (("a", 100.0, 2.0), ("b", 50.0, 1.0), ("c", 40.0, 3.0)):
        for k in range(5):
            made.add({"decode_tps": rate + k, "j_per_output_token": energy + k / 100, "energy_j": 5.0}, model=model)


def test_the_front_is_what_nothing_beats(made: MadeIndex) -> None:
    arms(made)
    drawn = page_of(made, "pareto")["Front"]
    assert ": 2 on the front." in drawn.says
    assert drawn.answer is not None
    on = dict(zip(drawn.answer.column("model"), drawn.answer.column("on_front"), strict=True))
    assert on == {"a": True, "b": True, "c": False}


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("x=decode_tsp", "decode_tsp"),
        ("x=decode_tps&y=decode_tps", "an axis is given twice"),
        ("where=power_w<", "power_w<"),
        ("where=__import__('os')", "--where, at 12: "),
        ("x=decode_tps", "a front over 1 axes; give 2 to 4"),
        ("x=accuracy&y=decode_tps", "accuracy"),
        ("where=decode_tps>1e9", ""),
    ],
)
def test_an_axis_or_a_condition_that_is_none_is_told(made: MadeIndex, query: str, said: str) -> None:
    arms(made)
    drawn = page_of(made, "pareto", query=query)["Front"]
    assert said in drawn.says
    assert drawn.troubled or not said


# everything, everywhere


def runs_without(made: MadeIndex, what: str) -> None:
    values = {"decode_tps": 10.0, "ttft_s": 0.2, "e2e_s": 1.0, "load_s": 1.0, "peak_rss_bytes": 1e8}
    energy = {
        "energy_j": 5.0,
        "j_per_output_token": 0.5,
        "j_per_request": 2.0,
        "j_per_question": 1.0,
        "mean_power_w": 4.0,
    }
    if what != "energy":
        values |= energy
    if what != "accuracy":
        values |= {"accuracy": 0.5}
    scores = [] if what == "accuracy" else [("a", "match", 1.0)]
    for night in range(2):
        made.add(values, scores=scores, at_s=night * DAY_S)


@pytest.mark.parametrize("what", ["empty", "one", "energy", "accuracy", "everything", "figures", "imported"])
@pytest.mark.parametrize("name", [*pages()])
def test_every_page_draws_what_there_is(made: MadeIndex, name: str, what: str) -> None:
    if what == "one":
        made.add({"decode_tps": 10.0})
    elif what == "figures":
        made.add()
    elif what == "imported":
        made.add({"decode_tps": 10.0}, origin="MELT", device=None, engine_version=None, engine_sha256=None)
    elif what != "empty":
        runs_without(made, what)
    for words in ("", "origin=MELT"):
        for drawn in page_of(made, name, words).values():
            assert drawn.says
            assert not drawn.troubled, drawn.says


@pytest.mark.parametrize("name", [*pages()])
def test_names_are_text_wherever_they_stand(made: MadeIndex, name: str) -> None:
    for n, one in enumerate(HOSTILE):
        about = {"device": one, "model": one, "engine": one, "workload": one, "quantisation": one}
        for night in range(2):
            made.add(
                {
                    "decode_tps": 10.0 + n,
                    "accuracy": 0.5,
                    "j_per_question": 1.0,
                    "j_per_output_token": 1.0,
                    "energy_j": 1.0,
                },
                scores=[("a", "match", 1.0)],
                at_s=night * DAY_S + 60 * n,
                validity="invalid" if n == 1 else "valid",
                reasons=[one],
                **about,
            )
    for drawn in page_of(made, name).values():
        for text in texts(drawn.figure):
            for part in ("<script", "<img", "\x1b", "\u202e", "\r"):
                assert part not in text
            assert "&amp;amp;" in text or "$x^2$ &amp; " not in text  # as it is named, not as it would be read
        grid = drawn.told or drawn.grid
        for row in grid.texts if grid else ():
            assert all(text.isprintable() for text in row.values())


def test_names_of_any_kind_are_told_apart(made: MadeIndex) -> None:
    for one in HOSTILE:
        made.add({"decode_tps": 1.0}, model=one)
    drawn = draw_panel(made, HEAT)
    assert drawn.figure is not None
    assert {*drawn.figure["data"][0]["y"]} == {safe(one) for one in HOSTILE}
    assert len({safe(one) for one in HOSTILE}) == len(HOSTILE)


def test_a_choice_stands_in_a_query_as_a_parameter_alone(made: MadeIndex) -> None:
    made.add({"decode_tps": 1.0})
    panel = Panel("t", "table", "SELECT $word AS said, {metric} AS value FROM selected")
    choices = (Choice("word", "w", "text"), Choice("metric", "m", "metric", "decode_tps"))
    grid = draw_panel(made, panel, query="word=')%3B DROP VIEW results--", choice=choices).grid
    assert grid is not None
    assert grid.texts == [{"said": "'); DROP VIEW results--", "value": "1.00"}]
    drawn = draw_panel(made, panel, query='metric=decode_tps" FROM runs--', choice=choices)
    assert drawn.troubled
    assert "unknown metric" in drawn.says


def test_a_drawing_without_an_answer_is_one(made: MadeIndex) -> None:
    assert START.year == 2026
    assert isinstance(draw_panel(made, Panel("t", "head")), Drawn)
