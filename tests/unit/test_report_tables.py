"""Tables people paste: one a mode, only what may be summed up, and Markdown that says what the text says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console
from store_kit import add_run, open_run, record_of, store_at

from meltbench.errors import StoreError
from meltbench.records import Measure, Phase, Regime
from meltbench.report import listing
from meltbench.report.console import markdown_run, regimes_line, run_sheet
from meltbench.report.jsondoc import render_docs
from meltbench.report.listing import listing_sheets, read_rows
from meltbench.report.sheet import MISSING, Column, Sheet, markdown, plain_table, print_sheet, rich_table
from meltbench.report.summary import summary_sheet


def stored(store, **changes):
    """A stored run of which manifest or measures are others."""
    folder = open_run(store)
    record = record_of(folder.run_id)
    manifest = record.manifest | changes.pop("manifest", {})
    store.commit(folder, replace(record, manifest=manifest, **changes))
    store.ingest(folder.run_id)
    return folder.run_id


def in_mode(mode, **more):
    return {"runner": {"name": "r", "engine": "e", "version": "1", "accelerator": "CPU", "mode": mode}} | more


def rate(name, value, phase="run", stat="median"):
    return Measure(name, value, "tok/s", stat, phase, n=3)


def drawn(sheet: Sheet) -> str:
    out = Console(width=200)
    with out.capture() as caught:
        out.print(rich_table(sheet))
    return caught.get()


def test_figures_of_two_modes_never_share_a_table(tmp_path):
    store = store_at(tmp_path)
    stored(store, manifest=in_mode("server"), measures=[rate("decode_tps", 11.0)])
    stored(store, manifest=in_mode("in-process"), measures=[rate("inprocess_decode_tps", 22.0)])
    points = [rate("bench_prefill_tps", 300.0, "pp512"), rate("bench_decode_tps", 33.0, "tg128")]
    stored(store, manifest=in_mode("bench"), measures=points)
    stored(store, manifest={"runner": None, "spec": {"command": ["sleep", "2"]}, "workload": {"name": "exec"}})
    rows, notes = read_rows(store)
    sheets = {sheet.title: sheet for sheet in listing_sheets(rows)}
    assert not notes
    assert list(sheets) == ["mode bench, by point", "mode in-process", "mode server", "without an engine"]
    for title, own, others in (
        ("mode server", "11.0", ("22.0", "33.0")),
        ("mode in-process", "22.0", ("11.0", "33.0")),
    ):
        text = drawn(sheets[title])
        assert own in text
        assert not any(other in text for other in others)
    assert [row[4] for row in sheets["mode bench, by point"].rows] == ["pp512", "tg128"]
    assert [row[5:7] for row in sheets["mode bench, by point"].rows] == [
        ("300 tok/s", MISSING),
        (MISSING, "33.0 tok/s"),
    ]
    assert sheets["without an engine"].rows[0][1] == "exec sleep 2"
    assert rows[2]["measures"] == {}
    assert rows[2]["points"][0] == {"point": "pp512", "measures": {"bench_prefill_tps": 300.0}}


def test_the_index_and_the_folders_tell_the_same_of_a_run(tmp_path, monkeypatch):
    store = store_at(tmp_path, runs=2)
    stored(store, manifest={"imported": {"from": "localscore"}})
    indexed, _ = read_rows(store)
    assert [row["origin"] for row in indexed] == ["meltbench", "meltbench", "localscore"]

    def locked(_store):
        raise StoreError("the index is open for writing in another program")

    monkeypatch.setattr(listing.index, "refresh", locked)
    assert read_rows(store) == (indexed, ["the index is open for writing in another program"])
    store.index.unlink()
    plain, notes = read_rows(store)
    assert notes
    for with_numbers, without in zip(indexed, plain, strict=True):
        # The manifest's own spelling of a time of day stands where there is no index.
        differing = {key for key, value in with_numbers.items() if without[key] != value}
        assert differing == {"measures", "started_at"}


def test_open_and_unreadable_runs_are_listed_without_numbers(tmp_path):
    store = store_at(tmp_path, runs=1)
    bad = add_run(store).run_id
    late = open_run(store).run_id
    (store.runs_dir / bad / "manifest.json").write_text("{}")
    rows, notes = read_rows(store)
    assert sorted(row["state"] for row in rows) == ["detached", "done", "unreadable"]
    assert [row["origin"] for row in rows if row["state"] == "unreadable"] == [None]
    assert any(bad in note for note in notes)
    assert {row["run_id"] for row in rows if not row["measures"]} == {late, bad}


def test_runs_are_chosen_by_model_workload_and_age(tmp_path):
    store = store_at(tmp_path)
    ids = [stored(store, manifest={"model": {"name": name}}) for name in ("Qwen-1.5b", "smol", "qwen-7b")]

    def found(**asked):
        return [row["run_id"] for row in read_rows(store, **asked)[0]]

    assert found(model="qwen") == [ids[0], ids[2]]
    assert found(model="qwen", last=1) == [ids[2]]
    assert found(last=2) == ids[1:]
    assert found(workload="rid") == ids
    assert found(workload="quick") == []


def test_a_device_has_a_column_where_there_are_several(tmp_path):
    store = store_at(tmp_path, runs=1)
    one = listing_sheets(read_rows(store)[0])[0]
    stored(store, manifest={"device": {"name": "phone"}})
    two = listing_sheets(read_rows(store)[0])[0]
    assert "device" not in [column.heading for column in one.columns]
    assert [row[1] for row in two.rows] == ["desk", "phone"]


def test_failed_and_invalid_runs_are_listed_and_never_summed_up(tmp_path):
    records = [record_of(f"r{k}", k) for k in range(5)]
    values = []
    for k, record in enumerate(records):
        records[k] = replace(record, measures=[rate("decode_tps", 10.0 + k), rate("decode_tps", 5.0 + k, "tg8")])
        values.append(10.0 + k)
    records[0].manifest["outcome"] = "failed"
    records[4].manifest["validity"] = "invalid"
    sheet = summary_sheet(records)
    assert sheet is not None
    assert sheet.title == "3 runs; 2 failed or invalid, left out"
    assert sheet.rows == [
        ("", "decode_tps", "12.0 tok/s", "11.0 tok/s", "13.0 tok/s", "3"),
        ("tg8", "decode_tps", "7.00 tok/s", "6.00 tok/s", "8.00 tok/s", "3"),
    ]
    for record in records:
        record.manifest["validity"] = "invalid"
    assert summary_sheet(records) is None


def test_a_sweep_has_a_row_for_each_number_of_threads_and_each_point() -> None:
    records = []
    for k, threads in enumerate((4, 1, 1, 4, 16, 4)):
        record = record_of(f"r{k}", k)
        record.manifest["knobs"] = {"threads": threads, "batch": 64}
        measures = [rate("decode_tps", 10.0 * threads + k)]
        records.append(replace(record, measures=[*measures, rate("decode_tps", 5.0 * threads, "tg8")]))
    records[5].manifest["outcome"] = "failed"
    sheet = summary_sheet(records)
    assert sheet is not None
    assert sheet.title == "5 runs; 1 failed or invalid, left out; medians"
    assert [column.heading for column in sheet.columns] == ["threads", "", "decode", "n"]
    assert sheet.rows == [
        ("1", "", "11.5 tok/s", "2"),
        ("1", "tg8", "5.00 tok/s", "2"),
        ("4", "", "41.5 tok/s", "2"),
        ("4", "tg8", "20.0 tok/s", "2"),
        ("16", "", "164 tok/s", "1"),
        ("16", "tg8", "80.0 tok/s", "1"),
    ]


def test_markdown_says_what_the_table_says_and_nothing_breaks_out_of_a_cell():
    sheet = Sheet("a|b", (Column("x"), Column("n", right=True)), [("a|b\n`c` <img>", "1 \x1b[31m"), ("", MISSING)])
    text = markdown(sheet)
    lines = text.splitlines()
    assert lines[0] == "**a\\|b**"
    assert lines[3] == "|---|---:|"
    assert lines[4] == "| a\\|b\ufffd\\`c\\` &lt;img> | 1 \ufffd\\[31m |"
    assert len(lines) == 6
    assert "\x1b" not in plain_table(sheet) + drawn(sheet)


def test_a_long_table_is_lines_of_text(tmp_path):
    sheet = Sheet("many", (Column("x"), Column("n", right=True)), [(str(k), "1") for k in range(1000)])
    with (tmp_path / "out").open("w+") as file:
        print_sheet(Console(file=file, width=80), sheet, as_markdown=False)
        file.seek(0)
        lines = file.read().splitlines()
    assert lines[:3] == ["many", "x    n", "0    1"]
    assert len(lines) == 1003


@pytest.mark.parametrize("width", [20, 60, 200])
def test_no_table_is_cut_however_narrow_the_terminal(tmp_path, width):
    columns = (Column("engine"), *(Column(f"rate {place}", right=True, whole=True) for place in range(9)))
    sheet = Sheet("", columns, [("llama.cpp of today", *(f"{place}23.45 tok/s" for place in range(9)))])
    with (tmp_path / "out").open("w+") as file:
        print_sheet(Console(file=file, width=width), sheet, as_markdown=False)
        file.seek(0)
        text = file.read()
    for place in range(9):
        assert f"rate {place}" in text
        assert f"{place}23.45 tok/s" in text
    assert all(word in text for word in ("llama.cpp", "today"))


def test_a_run_in_markdown_has_its_numbers_and_its_reasons_but_no_folder_of_mine():
    record = record_of("20261121T103105Z-3f9c2a")
    text = markdown_run(record)
    assert "| --- |" not in text
    for words in ("tiny", "ttft_s", "sensor_denied", "validity: degraded", "run 20261121T103105Z-3f9c2a"):
        assert words in text
    assert "stored in" not in text


def test_a_run_of_another_mode_has_its_rows_under_their_own_names():
    record = replace(record_of("r"), measures=[rate("inprocess_decode_tps", 9.0), rate("bench_decode_tps", 8.0, "tg8")])
    assert [row[:3] for row in run_sheet(record).rows] == [
        ("tg8", "bench_decode_tps", "8.00 tok/s"),
        ("time", "inprocess_decode_tps", "9.00 tok/s"),
    ]


def test_docs_json_md_is_what_the_code_says(pytestconfig: pytest.Config):
    path = pytestconfig.rootpath / "docs" / "json.md"
    assert path.read_text(encoding="utf-8") == render_docs(), "write render_docs() of meltbench.report.jsondoc to it"


def test_the_states_under_load_are_one_line_in_seconds_of_the_run():
    second = 10**9
    spans = [("idle", 0, 10), ("burst", 10, 130), ("throttled", 130, 190), ("sustained", 190, 610), ("idle", 610, 620)]
    regimes = [Regime(name, a * second, b * second, "why") for name, a, b in spans]
    record = replace(record_of("r"), phases=[Phase("run", 10 * second, 610 * second)], regimes=regimes)
    told = "burst 0-120 s, throttled 120-180 s, sustained 180-600 s"
    assert regimes_line(record) == told
    assert f"regimes: {told}\n" in markdown_run(record)
    assert regimes_line(replace(record, regimes=regimes[:2])) is None
    assert regimes_line(replace(record, phases=[])) is None
    flapping = [Regime("burst" if n % 2 else "throttled", (10 + n) * second, (11 + n) * second) for n in range(20)]
    assert str(regimes_line(replace(record, regimes=flapping))).endswith("and 12 more")
