"""Which rows a selection means."""

from __future__ import annotations

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.errors import UnknownName, UserError
from meltbench.selecting import WORDS, Selection, unknown_value

ROWS = [
    # run_id, device, model, engine, version, validity, outcome, origin, night, plan
    ("a1", "pi", "m", "llama.cpp", "b1", "valid", "done", "meltbench", "2026-11-20", "p1"),
    ("a2", "pi", "m", "llama.cpp", "b2", "degraded", "done", "meltbench", "2026-11-21", "p1"),
    ("a3", "desk", "m", "onnx", "1", "invalid", "done", "meltbench", "2026-11-21", "p2"),
    ("a4", "desk", "n", "onnx", "1", "valid", "failed", "meltbench", "2026-11-21", "p2"),
    ("a5", "desk", "n", "mlc", "1", "valid", "done", "MELT", "2026-11-21", None),
]
NAMES = "run_id, device, model, engine, engine_version, validity, outcome, origin, night, plan_hash"


def made() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect(":memory:")
    connection.execute(f"CREATE TABLE results ({', '.join(f'{name} VARCHAR' for name in NAMES.split(', '))})")
    connection.executemany(f"INSERT INTO results VALUES ({', '.join('?' * 10)})", ROWS)
    return connection


def chosen(text: str, *, pooled: bool = True) -> list[str]:
    where, params = Selection.parse(text).sql(pooled=pooled)
    connection = made()
    return [
        row[0] for row in connection.execute(f"SELECT run_id FROM results WHERE {where} ORDER BY 1", params).fetchall()
    ]


def test_without_words_what_no_aggregate_may_take_in_is_left_out() -> None:
    assert chosen("") == ["a1", "a2"]
    assert chosen("", pooled=False) == ["a1", "a2", "a3", "a4", "a5"]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("device=pi,engine=llama.cpp b2", ["a2"]),
        ("engine=llama.cpp", ["a1", "a2"]),
        ("night=2026-11-20,night=2026-11-21", ["a1", "a2"]),
        ("validity=invalid", ["a3"]),
        ("origin=MELT", ["a5"]),
        ("origin=MELT,origin=meltbench", ["a1", "a2", "a5"]),
        ("plan=p", ["a1", "a2"]),
        ("run=a2", ["a2"]),
        ("model=n", []),
    ],
)
def test_words_choose(text: str, ids: list[str]) -> None:
    assert chosen(text) == ids


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("device=pi,model=nn", "unknown model 'nn'; did you mean n?"),
        ("engine=llama.cpp b3", "unknown engine 'llama.cpp b3'; did you mean llama.cpp b2, llama.cpp b1, llama.cpp?"),
        ("night=2026-11-22", "unknown night '2026-11-22'; did you mean 2026-11-21, 2026-11-20?"),
        ("engine=llama.cpp b2,device=desk", None),  # each is there, only not together
        ("plan=zz,run=zz", None),  # starts of names
    ],
)
def test_a_value_that_no_run_has_is_told_with_the_nearest(text: str, told: str | None) -> None:
    found = unknown_value(made(), Selection.parse(text))
    assert (found and f"{found.message}; {found.hint}") == told


def test_bad_words_are_one_line() -> None:
    with pytest.raises(UnknownName, match="device"):
        Selection.parse("devise=pi")
    with pytest.raises(UserError, match="'model' selects nothing"):
        Selection.parse("model")
    with pytest.raises(UserError, match="'model=' selects nothing"):
        Selection.parse("model=")


@given(st.lists(st.tuples(st.sampled_from(WORDS), st.text(min_size=1))))
def test_a_value_is_never_sql(pairs: list[tuple[str, str]]) -> None:
    where, params = Selection.of(pairs).sql()
    assert where.count("?") == len(params)
    assert all(word in WORDS for word, _ in Selection.of(pairs).values)
