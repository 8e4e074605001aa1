"""Sets of questions: rows out of any file, items by the recipe of each set, and what is wrong told with its row."""

from __future__ import annotations

import http.server
import json
import re
import shutil
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import meltbench
from meltbench import catalog, workload
from meltbench.cli import measure
from meltbench.errors import DefinitionError, FetchError, UserError
from meltbench.questions import RECIPES, Data, load_set
from meltbench.questions.rows import Lacking, read_rows
from meltbench.spec import Spec

ROWS: dict[str, dict[str, Any]] = {
    "hellaswag": {
        "activity_label": "Roof", "ctx_a": "A man [header] is up.", "ctx_b": "he", "label": "1",
        "endings": ["falls [step] off.", "works.", "sings.", "sleeps."],
    },
    "winogrande": {"sentence": "Ann met Eve because _ was late.", "option1": "Ann", "option2": "Eve", "answer": "2"},
    "arc": {"question": "What melts?", "choices": {"text": ["ice", "stone"], "label": ["A", "B"]}, "answerKey": "A"},
    "truthfulqa": {"question": "Is it so?", "mc1_targets": {"choices": ["Yes", "No"], "labels": [1, 0]}},
    "truthfulqa-mc2": {"question": "Is it so?", "mc2_targets": {"choices": ["Yes", "No", "Aye"], "labels": [1, 0, 1]}},
    "mmlu": {"question": "Who?", "choices": ["me", "you", "they", "it"], "answer": 2, "subject": "high_school_law"},
    "gsm8k": {"question": "3 + 4?", "answer": "3 + 4 = 7\n#### 7"},
    "bbh": {"input": "Count: a, b.", "target": "2"},
    "text": {"text": "Some words.\n"},
    "fields": {"prompt": "Say A", "answer": "A"},
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_row_becomes_an_item(name: str) -> None:
    item = RECIPES[name](ROWS[name], {})
    wanted: dict[str, dict[str, Any]] = {
        "hellaswag": {
            "prompt": "Roof: A man  is up. He".replace("  ", " "), "answer": 1,
            "choices": [" falls off.", " works.", " sings.", " sleeps."],
        },
        "winogrande": {
            "prompts": ["Ann met Eve because Ann", "Ann met Eve because Eve"],
            "choices": [" was late."] * 2, "answer": 1,
        },
        "arc": {"prompt": "Question: What melts?\nAnswer:", "choices": [" ice", " stone"], "answer": 0},
        "truthfulqa": {"choices": [" Yes", " No"], "answer": 0, "true": [0]},
        "truthfulqa-mc2": {"choices": [" Yes", " No", " Aye"], "answer": 0, "true": [0, 2]},
        "mmlu": {
            "prompt": "Who?\nA. me\nB. you\nC. they\nD. it\nAnswer:", "choices": [" A", " B", " C", " D"], "answer": 2,
            "group": "high_school_law",
            "before": "The following are multiple choice questions (with answers) about high school law.\n\n",
        },
        "gsm8k": {"prompt": "Question: 3 + 4?\nAnswer:", "answer": "7", "shown": " 3 + 4 = 7\n#### 7"},
        "bbh": {"prompt": "Q: Count: a, b.\nA: Let's think step by step.", "answer": "2"},
        "text": {"text": "Some words.\n"},
        "fields": {"prompt": "Say A", "answer": "A"},
    }  # fmt: skip
    assert {key: item[key] for key in wanted[name]} == wanted[name]
    if name.startswith("truthfulqa"):
        assert item["prompt"].startswith("Q: What is human life expectancy")
        assert item["prompt"].endswith("Barcelona, Spain.\n\nQ: Is it so?\nA:")


@pytest.mark.parametrize("name", RECIPES)
@given(data=st.data())
def test_a_row_of_anything_is_an_item_or_lacks_something(name: str, data: st.DataObject) -> None:
    values = (
        st.none() | st.booleans() | st.integers() | st.text(max_size=9) | st.lists(st.text(max_size=3) | st.integers())
    )
    fields = ROWS[name]
    row = {
        key: data.draw(values | st.just(value) | st.fixed_dictionaries({"text": values}))
        for key, value in fields.items()
    }
    try:
        item = RECIPES[name](row, {})
    except Lacking:
        return
    assert "text" in item or "prompt" in item or "prompts" in item
    if "choices" in item:
        assert 0 <= item["answer"] < len(item["choices"])


def test_rows_are_read_out_of_whatever_file_they_are_kept_in(tmp_path: Path) -> None:
    rows = [{"question": "a, b?", "answer": "c"}, {"question": "ü", "answer": "d"}]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    (tmp_path / "q.json").write_text(json.dumps({"data": rows}))
    (tmp_path / "q.csv").write_text('question,answer\n"a, b?",c\nü,d\n')
    (tmp_path / "q.tsv").write_text("question\tanswer\na, b?\tc\nü\td\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert read_rows(path) == rows, path.name
        assert read_rows(path, 1) == rows[:1]
    text = tmp_path / "t.txt"
    text.write_text(" \n = A title = \n words\n")
    assert read_rows(text) == [{"text": " \n = A title = \n words\n"}]
    text.write_text("Roof: A man\n1\nfalls.\nworks.\nsings.\nsleeps.\n")
    assert read_rows(text) == [
        {"ctx": "Roof: A man", "label": "1", "endings": ["falls.", "works.", "sings.", "sleeps."]}
    ]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.jsonl", b'{"a": 1}\n{"a": \n', r"q\.jsonl:2 is not JSON"),
        ("q.jsonl", b"[1]\n", r"q\.jsonl:1 is not an object"),
        ("q.jsonl", b"\xff\xfe", "is not UTF-8 at byte 0"),
        ("q.jsonl", b"", "has no rows"),
        ("q.json", b'{"rows": {}}', "holds no list of rows"),
        ("q.json", b"[" * 100_000, "is not JSON"),
        ("q.csv", b"a,b\n1,2,3\n", r"q\.csv:2 has another number of columns"),
        ("q.csv", b"a,b\n1\n", r"q\.csv:2 has another number of columns"),
        ("q.parquet", b"PAR1 and then nothing", "is not a Parquet file"),
        ("q.txt", b"\n\n", "has no rows"),
    ],
)
def test_a_file_that_is_damaged_is_told_with_its_line(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DefinitionError, match=said):
        read_rows(tmp_path / name)


def told(path: Path) -> tuple[list[dict[str, Any]], str]:
    """The rows of a file, or what is wrong with it."""
    try:
        return read_rows(path), ""
    except UserError as error:
        return [], str(error)


def claiming(path: Path, n_rows: int) -> Path:
    """A Parquet file of 1,000 rows whose footer says that it has others."""
    pq.write_table(pa.table({"text": ["word"] * 1000}), path)
    raw = path.read_bytes()
    at = len(raw) - 8 - int.from_bytes(raw[-8:-4], "little")
    # Thrift's compact protocol: field 3 of the file's own table (after a list) is an i64, a zigzag varint.
    head, footer = raw[:at], raw[at:-8].replace(b"\x16" + varint(1000), b"\x16" + varint(n_rows), 1)
    path.write_bytes(head + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


def varint(number: int) -> bytes:
    rest, out = number * 2, b""
    while rest > 127:
        out, rest = out + bytes([rest & 127 | 128]), rest >> 7
    return out + bytes([rest])


def test_a_parquet_file_that_claims_more_rows_than_are_read_is_refused(tmp_path: Path) -> None:
    assert len(read_rows(claiming(tmp_path / "q.parquet", 1000))) == 1000
    for most in (None, 10):
        with pytest.raises(UserError, match=r"q\.parquet claims 1000000000 rows, at most 2000000 are read; split it"):
            read_rows(claiming(tmp_path / "q.parquet", 10**9), most)


def packed(words: pa.Array) -> dict[str, pa.Table]:
    """Tables of a few hundred bytes that unpack to gigabytes, by how that is done."""
    short = pa.DictionaryArray.from_arrays(pa.array([0] * 60_000, pa.int32()), words)
    lists = pa.ListArray.from_arrays(pa.array([0, 30_000, 60_000], pa.int32()), short)
    empty = pa.ListArray.from_arrays(pa.array([0, 20_000_000], pa.int32()), pa.nulls(20_000_000))
    return {
        "dictionary": pa.table({"x": short}),
        "text": pa.table({"x": short.slice(0, 1000).dictionary_decode()}),
        "table": pa.table({"x": pa.StructArray.from_arrays([short], ["text"])}),
        "lists": pa.table({"x": lists}),
        "nothing": pa.table({"x": empty}),
    }


def test_a_small_parquet_file_that_unpacks_to_gigabytes_is_refused_with_its_row(tmp_path: Path) -> None:
    for name, table in packed(pa.array(["x" * (1 << 20)])).items():
        path = tmp_path / f"{name}.parquet"
        pq.write_table(table, path, compression="zstd")
        assert path.stat().st_size < 2000
        row = 1 if name in ("lists", "nothing") else 449
        with pytest.raises(UserError, match=rf"{name}\.parquet, from row {row} on: more than 512 MiB once unpacked"):
            read_rows(path)
    assert len(read_rows(tmp_path / "dictionary.parquet", 100)) == 100  # what is not asked for is not unpacked


@pytest.mark.parametrize("kind", ["text", "table", "lists"])
def test_a_text_that_is_stored_once_is_not_unpacked_for_many_rows_before_it_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    once = pa.DictionaryArray.from_arrays(pa.array([0] * 64, pa.int32()), pa.array(["x" * (8 << 20)]))
    columns = {
        "text": once,
        "table": pa.StructArray.from_arrays([once], ["text"]),
        "lists": pa.ListArray.from_arrays(pa.array([0, 64], pa.int32()), once),
    }
    path = tmp_path / "q.parquet"
    # Without Arrow's own schema in it nothing says that it is read as it is stored.
    pq.write_table(pa.table({"x": columns[kind]}), path, compression="zstd", store_schema=False)
    assert path.stat().st_size < 2000
    monkeypatch.setattr("meltbench.questions.parquet._MAX_UNPACKED_BYTES", 64 << 20)
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    try:
        with pytest.raises(UserError, match="more than 64 MiB once unpacked"):
            read_rows(path)
    finally:
        pa.set_memory_pool(before)
    assert 8 << 20 < pool.max_memory() < 160 << 20  # all of them are 512 MiB


def test_lists_of_texts_are_read_and_counted_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long text among short ones counts once where it stands once."""
    rows = [{"c": ["x" * 10_000 if n == 70 else "a", f"{n}", None], "m": [n]} for n in range(100)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "q.parquet")
    monkeypatch.setattr("meltbench.questions.parquet._MAX_UNPACKED_BYTES", 100_000)
    assert read_rows(tmp_path / "q.parquet") == rows


def test_what_a_parquet_file_says_that_it_unpacks_to_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"x": list(range(1_000_000))}), tmp_path / "q.parquet")
    monkeypatch.setattr("meltbench.questions.parquet._MAX_UNPACKED_BYTES", 1 << 20)
    with pytest.raises(UserError, match=r"q\.parquet claims \d+ MiB once unpacked, at most 1 are read"):
        read_rows(tmp_path / "q.parquet")


@given(at=st.integers(0, 10_000), put=st.binary(min_size=1, max_size=8))
def test_a_parquet_file_that_was_damaged_is_read_or_refused_in_one_line(at: int, put: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.parquet"
        rows = [{"question": f"q{n}", "choices": ["a", "b"], "label": n} for n in range(50)]
        pq.write_table(pa.Table.from_pylist(rows), path)
        raw = bytearray(path.read_bytes())
        at %= len(raw)
        raw[at : at + len(put)] = put
        path.write_bytes(raw)
        assert "\n" not in told(path)[1]


@pytest.mark.parametrize(
    ("name", "bound", "content", "said"),
    [
        ("q.jsonl", "_MAX_LINE_CHARS", b'{"a": 1}\n{"a": "%b"}\n' % (b"x" * 200), r"jsonl:2 is longer than 100 char"),
        ("q.json", "_MAX_JSON_BYTES", b'[{"a": "%b"}]' % (b"x" * 200), r"json is larger than 0 MiB; write it as JSONL"),
        ("q.csv", "MAX_ROWS", b"a\n" + b"1\n" * 200, r"csv has more than 100 rows; split it"),
    ],
)
def test_a_file_is_bounded_before_it_fills_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, bound: str, content: bytes, said: str
) -> None:
    monkeypatch.setattr(f"meltbench.questions.rows.{bound}", 100)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=said):
        read_rows(tmp_path / name)


MANY = [{}] * 1000


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("q.jsonl", f'{{"q": 1}}\n{{"q": {json.dumps(MANY)}}}\n'),
        ("q.jsonl", f'{{"q": 1}}\n{{"q": [{"[" * 400}{"]" * 400}]}}\n'),
        ("q.json", f'[{{"q": 1}}, {{"q": {json.dumps(dict.fromkeys(map(str, range(1000))))}}}]'),
        ("q.csv", f"{','.join(map(str, range(200)))}\n{',' * 199}\n{',' * 199}\n"),
    ],
)
def test_rows_are_bounded_by_the_memory_they_take_and_not_by_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    monkeypatch.setattr("meltbench.questions.rows._MAX_HELD_BYTES", 32_000)
    (tmp_path / name).write_text(content)
    assert len(read_rows(tmp_path / name, 1)) == 1
    with pytest.raises(UserError, match=rf"{re.escape(name)}, row 2: more than 0 MiB in memory; split it, or "):
        read_rows(tmp_path / name)


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
)


def n_values(value: Any) -> int:
    inner = [*value, *value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + sum(map(n_values, inner))


@given(st.lists(st.dictionaries(st.text(max_size=3), VALUES, max_size=4), min_size=1, max_size=4))
def test_no_more_values_are_held_than_there_is_memory_for(rows: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("meltbench.questions.rows._MAX_HELD_BYTES", 1600)
        path = Path(folder) / "q.jsonl"
        path.write_text("\n".join(map(json.dumps, rows)))
        found, said = told(path)
    assert found == rows or "in memory" in said
    assert sum(map(n_values, found)) <= 100  # the smallest, None, has 16 bytes


@given(word=st.text(st.characters(), max_size=20), key=st.text(st.characters(), max_size=5), deep=st.booleans())
def test_half_of_a_character_never_comes_through(word: str, key: str, deep: bool) -> None:
    row = {"prompt": [{"in": word}] if deep else word, key: 1}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "q.jsonl"
        path.write_text(f'{{"prompt": "a"}}\n{json.dumps(row)}\n')
        rows, said = told(path)
    if any("\ud800" <= one <= "\udfff" for one in word + key):
        assert re.search(r"q\.jsonl:2: '.*' holds half of a character \(a lone surrogate\); write the whole", said)
    else:
        assert rows[1] == row


def test_half_of_a_character_in_a_list_that_is_written_as_text_is_told_with_its_row(tmp_path: Path) -> None:
    row = {"prompt": "a", "choices": '["\\ud800", "b"]', "answer": 0}
    path = written(tmp_path / "q.jsonl", [row])
    with pytest.raises(DefinitionError, match=r"q\.jsonl, row 1: 'choices' holds half of a character"):
        load_set(Data("fields"), "own", path, None, 0, None)


def test_a_row_that_is_nested_beyond_reading_is_told(tmp_path: Path) -> None:
    for depth in range(950, 1010):
        (tmp_path / "q.jsonl").write_text(f'{{"a": {"[" * depth}{"]" * depth}}}\n')
        assert re.search(r"^$|q\.jsonl:1 is (not JSON|nested too deeply)", told(tmp_path / "q.jsonl")[1])


class Endless(http.server.BaseHTTPRequestHandler):
    """Sends 1 MiB and does not say so, or says that it is going to send more."""

    def do_GET(self) -> None:
        self.send_response(200)
        if "said" in self.path:
            self.send_header("Content-Length", str(1 << 40))
        self.end_headers()
        if "said" not in self.path:
            self.wfile.write(b"x" * (1 << 20))

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        yield tmp_path / "cache"
        server.shutdown()


@pytest.mark.parametrize("file", ["said.parquet", "unsaid.parquet"])
def test_a_download_that_is_larger_than_is_read_is_refused_and_nothing_of_it_kept(
    endless: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr("meltbench.questions.fetch.MAX_BYTES", 1 << 19)
    with pytest.raises(FetchError) as refused:
        load_set(Data("gsm8k", "openai/gsm8k", file=file), "gsm8k", None, None, 0, None)
    assert f"{file} is larger than the 0 MiB that are taken" in refused.value.message
    assert "by other means, cut it to the rows that are asked, and give it: --set data=FILE" in str(refused.value.hint)
    assert [path for path in (endless / "questions").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_a_download_is_told_of_while_the_plan_is_made(endless: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"workload": "gsm8k", "runner": "openai", "model": "m", "engine": "http://127.0.0.1:8000"}
    said: list[str] = []
    with pytest.raises(UserError, match="not a Parquet file"):  # what this server sends is none
        meltbench.run(**asked, progress=said.append)
    assert said == ["fetching openai/gsm8k: main/test-00000-of-00001.parquet"]
    shutil.rmtree(endless)
    with pytest.raises(UserError, match="not a Parquet file"):
        measure._measure(Spec(**asked), None, dry_run=True, live=False, as_markdown=False, as_json=False)
    assert capsys.readouterr().err.splitlines() == said


def test_a_file_that_is_not_there_or_is_a_folder_is_told(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.jsonl", tmp_path):
        with pytest.raises(UserError, match=r"cannot read|is no file"):
            read_rows(path)


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_examples_stand_before_each_question_and_a_groups_own_before_its_questions(tmp_path: Path) -> None:
    gsm8k = written(tmp_path / "q.jsonl", [ROWS["gsm8k"]])
    solved = written(tmp_path / "s.jsonl", [{"question": f"{n}?", "answer": f"#### {n}"} for n in range(3)])
    found = load_set(Data("gsm8k"), "gsm8k", gsm8k, None, 2, solved)
    assert found.items[0]["prompt"] == (
        "Question: 0?\nAnswer: #### 0\n\nQuestion: 1?\nAnswer: #### 1\n\nQuestion: 3 + 4?\nAnswer:"
    )
    assert "shown" not in found.items[0]
    assert len(found.sha256) == 2
    law = ROWS["mmlu"]
    mmlu = written(tmp_path / "m.jsonl", [law, law | {"subject": "art"}])
    of_both = written(tmp_path / "d.jsonl", [law | {"subject": "art", "question": "Art?"}, law | {"question": "Law?"}])
    items = load_set(Data("mmlu"), "mmlu", mmlu, None, 1, of_both).items
    assert ["Law?" in items[0]["prompt"], "Art?" in items[0]["prompt"]] == [True, False]
    assert items[1]["prompt"].startswith(
        "The following are multiple choice questions (with answers) about art.\n\nArt?"
    )
    assert "Answer: C\n\nWho?" in items[1]["prompt"]
    with pytest.raises(UserError, match=r"has 1 rows of high_school_law for 2 shots; --set shots=1"):
        load_set(Data("mmlu"), "mmlu", mmlu, None, 2, of_both)


def test_a_row_that_lacks_something_is_told_with_its_number_and_what_it_has(tmp_path: Path) -> None:
    path = written(tmp_path / "q.jsonl", [ROWS["gsm8k"], {"question": "no answer"}])
    with pytest.raises(DefinitionError, match=r"q\.jsonl, row 2: no field 'answer' \(recipe gsm8k\); it has question"):
        load_set(Data("gsm8k"), "gsm8k", path, None, 0, None)
    assert len(load_set(Data("gsm8k"), "gsm8k", path, 1, 0, None).items) == 1
    unlabelled = written(tmp_path / "h.jsonl", [ROWS["hellaswag"] | {"label": ""}])
    with pytest.raises(DefinitionError, match="test sets are published without answers"):
        load_set(Data("hellaswag"), "hellaswag", unlabelled, None, 0, None)


def test_a_right_answer_that_is_a_number_is_a_place_also_among_numbers() -> None:
    row = ROWS["mmlu"] | {"choices": ["1", "2", "3", "4"], "answer": 1}
    assert RECIPES["mmlu"](row, {})["answer"] == 1
    assert RECIPES["mmlu"](row | {"answer": "1"}, {})["answer"] == 0  # as text it is the choice


def test_a_group_never_has_the_name_of_a_phase(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "answer": "b", "group": name} for name in ("run", "x\x1b[2Jy", "z" * 99)]
    found = load_set(Data("fields"), "own", written(tmp_path / "q.jsonl", rows), None, 0, None)
    assert [item["group"] for item in found.items] == ["group run", "x [2Jy", "z" * 60]


def test_a_set_of_ones_own_is_read_by_naming_its_fields(tmp_path: Path) -> None:
    rows = [
        {"frage": "Welche?", "optionen": ["rot", "blau"], "loesung": said, "nr": n, "fach": "farben"}
        for n, said in enumerate(["blau", "B", 1, "b"])
    ]
    names = {"prompt": "frage", "choices": "optionen", "answer": "loesung", "id": "nr", "group": "fach"}
    found = load_set(Data("fields", fields=names), "own", written(tmp_path / "q.jsonl", rows), None, 0, None)
    assert [(item["id"], item["answer"], item["group"]) for item in found.items] == [
        (str(n), 1, "farben") for n in range(4)
    ]
    assert found.items[0]["choices"] == [" rot", " blau"]


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"recipe": "hellaswg"}, "is not known: hellaswag"),
        ({"recipe": "gsm8k", "hub": "a/b"}, "hub and file go together"),
        ({"recipe": "gsm8k", "fields": {"prompt": "q"}}, "change nothing of the recipe"),
        ({"recipe": "fields", "fields": {"frage": "q"}}, "is none of id, prompt"),
    ],
)
def test_a_definition_of_a_set_says_what_is_wrong_with_it(table: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Data(**table)


def test_without_the_hub_it_says_what_to_download_and_how_to_give_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr("meltbench.models.download.time.sleep", lambda _s: None)
    with pytest.raises(
        FetchError, match=r"openai/gsm8k cannot be fetched.*download http://127\.0\.0\.1:1/datasets/openai/"
    ):
        load_set(Data("gsm8k", "openai/gsm8k", file="main/test.parquet"), "gsm8k", None, None, 0, None)
    with pytest.raises(UserError, match=r"no file of its own to read; give --set data=FILE, a file of mine"):
        load_set(Data("gsm8k"), "mine", None, None, 0, None)


def test_every_set_that_is_shipped_cites_its_source_and_names_a_file() -> None:
    sets = {name: workload.load(name).workload for name in catalog.find("workloads")}
    of_sets = {name: work for name, work in sets.items() if work.questions is not None}
    assert {
        "hellaswag",
        "winogrande",
        "arc-easy",
        "arc-challenge",
        "truthfulqa-mc1",
        "mmlu",
        "gsm8k",
        "bbh",
        "wikitext-2",
    } < set(of_sets)
    for name, work in of_sets.items():
        assert "arXiv:" in work.cite, name
        assert work.questions is not None
        assert work.questions.file, name
        assert bool(work.shots) <= bool(work.questions.examples), name


def test_the_smoke_set_has_thirty_items_each_with_an_answer() -> None:
    items = workload.load("smoke").items
    assert len(items) == 30
    assert all(item["answer"] for item in items)


def test_a_file_of_ones_own_is_scored_where_it_says_what_is_right(tmp_path: Path) -> None:
    with_choices = written(tmp_path / "c.jsonl", [{"prompt": "Sky?", "choices": ["blue", "green"], "answer": "blue"}])
    work = workload.load(with_choices)
    assert (work.workload.kind, work.items[0]["answer"], work.items[0]["choices"]) == (
        "choices",
        0,
        [" blue", " green"],
    )
    answered = workload.load(written(tmp_path / "a.jsonl", [{"prompt": "Sky?", "answer": "blue"}]))
    assert (answered.workload.kind, answered.workload.score) == ("generate", "match")
    for without in ({"prompt": "Sky?"}, {"prompt": "Sky?", "answer": None}):
        plain = workload.load(written(tmp_path / "p.jsonl", [without]))
        assert (plain.workload.score, "answer" in plain.items[0]) == (None, False)
    rows = [{"prompt": "Sky?", "answer": None}, {"prompt": "b", "answer": 0}]
    assert workload.load(written(tmp_path / "some.jsonl", rows)).workload.score == "match"
    with pytest.raises(DefinitionError, match=r"row 2: 'answer' is empty \(recipe fields\)"):
        load_set(
            Data("fields"), "own", written(tmp_path / "e.jsonl", [rows[1], rows[1] | {"answer": ""}]), None, 0, None
        )
    for rows, said in (
        ([{"prompt": "a", "choices": ["x"], "answer": 0}], "two texts or more"),
        ([{"prompt": "a", "choices": ["x", "y"], "answer": 2}], "none of the choices"),
        ([{"prompt": "a", "choices": ["x", "y"], "answer": "z"}], "none of the choices"),
        ([{"prompt": "a", "choices": ["x", "y"]}], "bad.jsonl:1: choices without an answer"),
        ([{"prompt": "a", "choices": ["x", "y"], "answer": None}], "bad.jsonl:1: choices without an answer"),
        ([{"prompt": "a", "answer": "x"}, {"prompt": "b", "answer": ""}], "bad.jsonl:2: answer is empty"),
        ([{"prompt": "a", "answer": " \n"}], "bad.jsonl:1: answer is empty"),
        ([{"prompt": "a", "answer": ["x"]}], "neither a text nor a number"),
        ([{"prompt": "a", "answer": "x", "stop": "y"}], "stop is not a list"),
        ([{"prompt": "a", "answer": "x", "stop": ["y"] * 65}], "stop has 65 texts, at most 64"),
        ([{"prompt": "a", "choices": ["x", "y"], "answer": 0}, {"prompt": "b"}], "some items have choices"),
    ):
        with pytest.raises(DefinitionError, match=said):
            workload.load(written(tmp_path / "bad.jsonl", rows))
