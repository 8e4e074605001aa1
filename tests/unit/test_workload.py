from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from meltbench import workload
from meltbench.errors import DefinitionError, UnknownName, UserError


def own(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    return str(path)


def test_quick_is_warmed_up_once_and_times_five_requests() -> None:
    loaded = workload.load("quick")
    asks = loaded.asks(0, 0)
    assert [ask.role for ask in asks] == ["warmup"] + ["timed"] * 5
    assert all(ask.n_out == 64 and ask.ignore_eos for ask in asks)
    assert loaded.workload.idle_s == 3


def test_a_file_of_ones_own_is_a_workload(tmp_path: Path) -> None:
    loaded = workload.load(own(tmp_path, '{"prompt": "Hello", "max_tokens": 9}\n\n{"id": "b", "prompt": "x"}\n'))
    assert loaded.name == "mine"
    warmup, *timed = [(ask.item, ask.n_out) for ask in loaded.asks(0, 0)]
    assert warmup == ("line1", 9)
    assert sorted(timed) == [("b", 128), ("line1", 9)]
    assert loaded.sha256 != workload.load(own(tmp_path, '{"prompt": "Hello"}')).sha256


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no items"),
        ("{", "mine.jsonl:1 is not JSON"),
        ("[" * 100_000, "mine.jsonl:1 is not JSON"),
        ('{"prompt": "\\ud800"}', "half of a character"),
        ("[]", "is not an object"),
        ('{"prompt": ""}', "prompt is not a text"),
        ('{"prompt": 5}', "prompt is not a text"),
        ('{"id": 1}', "either prompt or messages"),
        ('{"prompt": "a", "messages": []}', "either prompt or messages"),
        ('{"messages": []}', "role and content"),
        ('{"messages": [{"role": "user"}]}', "role and content"),
        ('{"prompt": "a", "promt": 1}', "unknown key 'promt'"),
        ('{"prompt": "a", "max_tokens": 0}', "max_tokens is not a count"),
        ('{"prompt": "a", "max_tokens": true}', "max_tokens is not a count"),
        ('{"id": null, "prompt": "x"}', "id is neither"),
        ('{"id": true, "prompt": "x"}', "id is neither"),
        ('{"id": "a", "prompt": "x"}\n{"id": "a", "prompt": "y"}', "'a' stands twice"),
        ('{"prompt": "x", "group": 3}', "group is no name of 1 to 60"),
        ('{"prompt": "x", "point": ""}', "point is no name of 1 to 60"),
        ('{"prompt": "x", "point": "a\\nb"}', "point is no name of 1 to 60"),
        ('{"prompt": "x", "point": "run"}', "point 'run' is the name of a phase"),
        ('{"prompt": "x", "group": "prefill"}', "group 'prefill' is the name of a phase"),
        ('{"prompt": "x", "point": "a"}\n{"prompt": "y"}', "some items have a point and some have none"),
    ],
)
def test_a_wrong_line_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(DefinitionError, match=said):
        workload.load(own(tmp_path, text))


def test_a_file_that_is_not_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(DefinitionError, match="not UTF-8"):
        workload.load(str(path))


def test_a_missing_file_and_an_unknown_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        workload.load(str(tmp_path / "none.jsonl"))
    with pytest.raises(UnknownName, match="quick"):
        workload.load("quik")


def test_every_built_in_workload_loads() -> None:
    kinds = {name: workload.load(name).workload.kind for name in ("quick", "grid", "idle", "exec")}
    assert kinds == {"quick": "generate", "grid": "grid", "idle": "idle", "exec": "exec"}


def test_the_context_holds_every_request() -> None:
    loaded = workload.load("grid")
    assert loaded.n_ctx >= max(p.depth + p.prefill + p.generate for p in loaded.grid)


def test_a_line_ends_at_a_newline_alone_and_a_byte_order_mark_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "mine.JSONL"
    path.write_bytes(b"\xef\xbb\xbf" + '{"prompt": "a\u2028b"}\r\n'.encode())
    assert workload.load(str(path)).items[0]["prompt"] == "a\u2028b"


def test_each_pass_has_an_order_of_its_own_that_the_seed_repeats(tmp_path: Path) -> None:
    loaded = workload.load(own(tmp_path, "".join(f'{{"prompt": "{n}"}}\n' for n in range(20))))
    twice = replace(loaded, workload=replace(loaded.workload, repeat=2))
    items = [[ask.item for ask in twice.asks(0, seed)] for seed in (0, 0, 1)]
    assert items[0] == items[1]
    assert items[0] != items[2]
    assert items[0][0] == items[2][0] == "line1"  # the warm-up
    first, second = items[0][1:21], items[0][21:]
    assert first != second
    assert sorted(first) == sorted(second) == sorted({*items[0]})
    assert len(twice.asks(0, 0)) == twice.n_requests == 41


def test_the_requests_of_a_grid_are_counted_with_those_that_set_up_a_depth() -> None:
    grid = workload.load("grid")
    assert len(grid.asks(1000, 0)) <= grid.n_requests <= len(grid.asks(1000, 0)) + 1
    assert grid.longest_point == "tg128@d2048"
