"""What goes into the Parquet files comes out again, and hostile text comes out harmless."""

from __future__ import annotations

import math
import subprocess
import sys
import tempfile
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import add_run, open_run, record_of, store_at

from meltbench.errors import InternalError, StoreError
from meltbench.records import STATUSES, Measure, Phase, Reason, Regime, Request, RunRecord, Score, Series, SourceStatus
from meltbench.store import manifest, read_record, schema, tables
from meltbench.store.index import rebuild
from meltbench.store.verifying import verify

anything = st.text(alphabet=st.characters(codec=None), max_size=30)
int64 = st.integers(-(1 << 63), (1 << 63) - 1)
int32 = st.integers(-(1 << 31), (1 << 31) - 1)
number = st.none() | st.floats() | st.just(0.0)
count = st.none() | int64
status = st.sampled_from(["ok", "denied", "absent", "again", "error", "unparsed"])


@st.composite
def series(draw):
    n = draw(st.integers(0, 5))

    def array(of, dtype):
        return np.array(draw(st.lists(of, min_size=n, max_size=n)), dtype)

    return Series(
        draw(anything),
        draw(anything),
        "gauge",
        draw(anything),
        "soc",
        array(int64, np.int64),
        array(int64, np.int64),
        array(st.floats(), np.float64),
        array(st.integers(0, len(STATUSES) - 1), np.uint8),
        draw(anything),
        draw(st.none() | anything),
        draw(number),
    )


@st.composite
def requests(draw):
    made = []
    for index in draw(st.lists(int32, unique=True, max_size=3)):
        tokens = draw(st.lists(st.tuples(int64, int32), max_size=4))
        optional = {}
        for field in fields(Request):
            if field.name in ("index", "item", "role", "status", "t_send_ns", "t_end_ns", "token_t_ns", "token_n"):
                continue
            of = {"int | None": count, "float | None": number, "str": anything, "str | None": st.none() | anything}
            optional[field.name] = draw(of[str(field.type)])
        times, counts = tuple(t for t, _ in tokens), tuple(n for _, n in tokens)
        made.append(
            Request(
                index, draw(anything), "timed", draw(anything), draw(int64), draw(int64), **optional,
                token_t_ns=times, token_n=counts,
            )
        )  # fmt: skip
    return made


measures = st.builds(
    Measure, anything, number, anything, anything, anything, st.just("soc"), anything, count, number, anything,
    st.none() | anything, st.none() | anything, number,
)  # fmt: skip
json_like = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | anything,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(anything, inner, max_size=3),
    max_leaves=8,
)
records = st.builds(
    RunRecord,
    st.just("x"),
    st.dictionaries(anything, json_like, max_size=4),
    st.lists(series(), max_size=3),
    st.lists(st.builds(SourceStatus, anything, status, int32, int64, anything), max_size=2),
    st.lists(st.builds(Phase, anything, int64, int64, st.none() | int32), max_size=2),
    requests(),
    st.lists(measures, max_size=3),
    st.lists(st.builds(Reason, anything, st.just("invalid"), anything, anything), max_size=2),
    scores=st.lists(
        st.builds(
            Score, anything, anything, number, st.booleans(), anything, anything, anything, anything, number, count,
            anything, anything, number, number, number, number, anything,
        ),
        max_size=3,
    ),
)  # fmt: skip


def expected(value):
    """A record's row as the store promises to give it back."""
    changes = {}
    for field in fields(value):
        held = getattr(value, field.name)
        if isinstance(held, str):
            changes[field.name] = manifest.harmless(held)
        elif isinstance(held, float) and not math.isfinite(held):
            changes[field.name] = None
    if isinstance(value, Request):
        changes["logprob"] = None  # of one token: what they come to is a score
    if isinstance(value, Measure) and changes.get("value", 1) is None and not value.reason:
        changes["reason"] = "not_finite"
    return replace(value, **changes)


def assert_series_equal(ours: Series, theirs: Series) -> None:
    arrays = ("t0_ns", "t1_ns", "value", "status")
    assert replace(ours, **dict.fromkeys(arrays, 0)) == replace(theirs, **dict.fromkeys(arrays, 0))
    for name in arrays:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name), strict=True)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(records)
def test_any_record_comes_back_as_promised(record):
    with tempfile.TemporaryDirectory() as place:
        store = store_at(Path(place))
        folder = open_run(store)
        record = replace(record, run_id=folder.run_id)
        store.commit(folder, record)
        back = read_record(folder.path)
        for name in ("sources", "phases", "requests", "measures", "reasons", "scores"):
            assert getattr(back, name) == [expected(row) for row in getattr(record, name)]
        assert len(back.series) == len(record.series)
        for ours, theirs in zip(record.series, back.series, strict=True):
            assert_series_equal(expected(ours), theirs)
        own = {"run_id": folder.run_id}
        assert back.manifest == manifest.of_record(manifest.clean({**record.manifest, **own}))
        assert store.ingest(folder.run_id).added == (folder.run_id,)


@given(anything)
def test_harmless_text_is_printable_encodable_and_settled(text):
    made = manifest.harmless(text)
    made.encode("utf-8")
    assert not any((ord(c) < 32 and c not in "\t\n\r") or 127 <= ord(c) < 160 for c in made)
    assert manifest.harmless(made) == made


def test_escapes_show_what_was_there():
    assert manifest.harmless("a\x00\x1b[2J\x9b\udc80") == r"a\x00\x1b[2J\x9b\udc80"
    assert manifest.harmless("é\t\r\n漢") == "é\t\r\n漢"


def test_long_text_is_cut_and_says_so():
    made = manifest.harmless("x" * (manifest.MAX_TEXT + 7))
    assert made.endswith("... [7 more characters]")


@pytest.mark.parametrize(
    ("value", "kind", "held"),
    [
        (None, "DOUBLE", None),
        (0, "DOUBLE", 0.0),
        (10**400, "DOUBLE", None),
        (math.inf, "DOUBLE", None),
        (math.nan, "DOUBLE", None),
        (True, "BIGINT", None),
        ("7", "BIGINT", None),
        (1 << 63, "BIGINT", None),
        (1 << 31, "INTEGER", None),
        (1.5e8, "BIGINT", 150000000),
        (1.5, "BIGINT", None),
        (math.inf, "BIGINT", None),
        (np.int64(7), "BIGINT", 7),
        ({"b": 1, "a": math.nan}, "VARCHAR", '{"a":null,"b":1}'),
        (1, "VARCHAR", "1"),
    ],
)
def test_a_cell_holds_the_value_or_nothing(value, kind, held):
    assert tables.cell(value, kind) == held


def test_times_are_delta_encoded_and_small(tmp_path):

    folder = add_run(store_at(tmp_path))
    meta = pq.ParquetFile(folder.path / "samples.parquet").metadata
    group = meta.row_group(0)
    assert "DELTA_BINARY_PACKED" in group.column(1).encodings
    assert all(group.column(place).compression == "ZSTD" for place in range(group.num_columns))


def test_a_record_that_contradicts_itself_is_our_bug_and_stores_nothing(tmp_path):
    store = store_at(tmp_path)
    folder = open_run(store)
    record = record_of(folder.run_id)
    torn = replace(record.requests[0], token_n=(1,))
    for wrong in (
        replace(record, requests=[torn]),
        replace(record, requests=[record.requests[0]] * 2),
        replace(record, series=[replace(record.series[0], status=np.zeros(1, np.uint8))]),
        replace(record, manifest={"path": Path("/")}),
    ):
        with pytest.raises(InternalError):
            store.commit(folder, wrong)
    assert store.open_ids() == [folder.run_id]
    store.commit(folder, record)


def test_a_number_is_never_read_from_a_changed_file(tmp_path):
    folder = add_run(store_at(tmp_path))
    path = folder.path / "measures.parquet"
    raw = bytearray(path.read_bytes())
    raw[100] ^= 1
    path.write_bytes(raw)
    with pytest.raises(StoreError, match=r"measures.parquet is not the file that was stored; meltbench verify"):
        read_record(folder.path)
    path.unlink()
    with pytest.raises(StoreError, match="No such file"):
        read_record(folder.path)


def test_reading_a_run_starts_no_thread(tmp_path):
    # A thread of Arrow's that lets go of Python's bytes while the interpreter ends aborts the process, now and then.
    folder = add_run(store_at(tmp_path))
    script = f"""
import os, pyarrow.parquet
from pathlib import Path
from meltbench.store import read_record
pyarrow.allocate_buffer(1 << 16)
before = os.listdir("/proc/self/task")
read_record(Path({str(folder.path)!r}))
assert os.listdir("/proc/self/task") == before
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


def test_a_run_stored_before_requests_had_points_is_read_and_indexed(tmp_path, monkeypatch):
    store = store_at(tmp_path)
    with monkeypatch.context() as earlier:
        columns = tuple(column for column in schema.REQUESTS.columns if not column.later)
        earlier.setattr(schema, "REQUESTS", replace(schema.REQUESTS, columns=columns))
        folder = add_run(store)
    assert "point" not in pq.read_schema(folder.path / "requests.parquet").names
    assert {request.point for request in read_record(folder.path).requests} == {""}
    assert rebuild(store).notes == ()


def test_a_run_stored_before_there_were_regimes_is_read_and_indexed(tmp_path, monkeypatch):
    store = store_at(tmp_path)
    with monkeypatch.context() as earlier:
        write = tables._write
        earlier.setattr(tables, "_write", lambda where, table, made: None if table.later else write(where, table, made))
        folder = add_run(store)
    assert not (folder.path / "regimes.parquet").exists()
    assert read_record(folder.path).regimes == []
    assert rebuild(store).notes == ()
    assert verify(store) == []
    # A run that had some, and lost the file, is damaged.
    later = add_run(store, 1)
    (later.path / "regimes.parquet").unlink()
    with pytest.raises(StoreError, match=r"regimes\.parquet"):
        read_record(later.path)


def test_every_field_of_a_record_has_a_column():
    for table, kind, apart in (
        (schema.REQUESTS, Request, {"token_t_ns", "token_n", "logprob"}),
        (schema.SCORES, Score, set()),
        (schema.PHASES, Phase, set()),
        (schema.REGIMES, Regime, set()),
        (schema.MEASURES, Measure, set()),
        (schema.REASONS, Reason, set()),
        (schema.SOURCES, SourceStatus, set()),
        (schema.SERIES, Series, {"t0_ns", "t1_ns", "value", "status", "update_s"}),
    ):
        assert {c.field for c in table.columns if c.field} == {f.name for f in fields(kind)} - apart


def test_the_manifest_seal_finds_every_changed_byte():
    raw = manifest.seal({"run_id": "x", "note": "a\x00"}, {"a": {"sha256": "0", "bytes": 1}})
    assert manifest.of_record(manifest.open_sealed(raw, "m")) == {"run_id": "x", "note": "a\\x00"}
    for place in range(len(raw)):
        for bit in (1, 32, 128):
            changed = bytearray(raw)
            changed[place] ^= bit
            with pytest.raises(StoreError, match="seal"):
                manifest.open_sealed(bytes(changed), "m")
    assert manifest.of_record(manifest.open_sealed(manifest.seal({}, {}), "m")) == {}
