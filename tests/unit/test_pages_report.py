"""The report: one file that asks nobody, with everything of its pages in it, or the same in Markdown."""

from __future__ import annotations

import base64
import gzip
import json
import re
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from store_kit import store_at

from benchmarks import made_store
from meltbench.pages import offline, summary
from meltbench.pages.address import Address
from meltbench.pages.drawn import Drawn, Grid, GridColumn
from meltbench.pages.offline import Chapter, Part
from meltbench.pages.page import pages
from meltbench.pages.panel import contexts, draw
from meltbench.pages.published import Published
from meltbench.selecting import Selection
from meltbench.store import Store, index

NO_RUN = ("run",)  # pages of one run


class Read(HTMLParser):
    """What a browser finds in a file: every address it would ask, every script, every text with its element."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.elements: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        for name, value in attrs:
            assert not name.startswith("on")
            if name in ("src", "href", "srcset", "action", "data", "poster", "background"):
                self.asked.append(value or "")

    def handle_data(self, data: str) -> None:
        if self.elements:
            self.texts.append((self.elements[-1], data))


def unpacked(text: str, key: str) -> str:
    found = re.search(rf'<script type="application/octet-stream" id="{key}">([A-Za-z0-9+/=]*)</script>', text)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1])).decode()


def report(store: Store, words: str = "", title: str = "A title") -> tuple[str, str, list[Chapter]]:
    """The file, the Markdown, and what they are made of."""
    selection = Selection.parse(words)
    with Published(store).snapshot().asking(selection) as asking:
        runs = offline.chosen_runs(asking, selection)
        facts = summary.facts(asking, selection, runs)
        made = offline.chapters(store, asking, runs)
    return offline.html(title, made, facts), summary.markdown(title, made, facts), made


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store.small(tmp_path_factory.mktemp("made") / "data", runs=40, samples=600)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return made_store.small(tmp_path_factory.mktemp("hostile") / "data", runs=48, samples=400, hostile=True)


def test_nothing_is_asked_of_anybody(hostile: Store) -> None:
    text, _, _ = report(hostile, f"run={hostile.run_ids()[0]}", '"><script>hostile()</script>')
    found = Read(text)
    assert all(address.startswith("#") for address in found.asked)
    assert "link" not in found.elements
    assert "base" not in found.elements
    assert found.elements.count("script") == 4
    style = " ".join(part for element, part in found.texts if element == "style")
    assert "url(" not in style
    assert "@import" not in style
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; ")
    assert "http" not in policy
    assert "connect-src" not in policy  # nothing: default-src
    assert text.index("Content-Security-Policy") < text.index("<script")


def test_figures_are_those_of_the_pages(made: Store) -> None:
    text, _, chapters = report(made)
    data = json.loads(unpacked(text, "data"))
    assert unpacked(text, "plotly").count("Plotly") > 10
    shown = [part for chapter in chapters for part in chapter.parts]
    assert len(data["panels"]) == len(shown)
    found = iter(data["panels"])
    with Published(made).snapshot().asking(Selection()) as asking:
        for name, file in pages().items():
            if name in NO_RUN:
                continue
            assert file.page is not None
            for number, context in enumerate(contexts(made, asking, Address(), file.page, offline.MAX_ROWS)):
                drawn = draw(context, file, number)
                if not (drawn.figure or drawn.grid or drawn.facts):
                    continue
                panel = next(found)
                assert ("figure" in panel, "grid" in panel) == (drawn.figure is not None, drawn.grid is not None)
                if drawn.figure:
                    alike(panel["figure"], drawn.figure)
                if drawn.grid:
                    heads = [[one.heading, int(one.right)] for one in drawn.grid.columns]
                    assert panel["grid"]["heads"] == heads
                    assert [list(row) for row in zip(*panel["grid"]["cells"], strict=True)] == [
                        list(row.values()) for row in drawn.grid.texts
                    ]
    assert next(found, None) is None


def alike(packed: Any, drawn: Any) -> None:
    """The same, but for digits that nobody sees."""
    if isinstance(drawn, float):
        assert packed == pytest.approx(drawn, rel=1e-4)
    elif isinstance(drawn, dict):
        assert {*packed} == {*drawn}
        for key, value in drawn.items():
            alike(packed[key], value)
    elif isinstance(drawn, Sequence) and not isinstance(drawn, str):
        assert len(packed) == len(drawn)
        for one, other in zip(packed, drawn, strict=True):
            alike(one, other)
    else:
        assert packed == drawn


def test_every_panel_says_itself_without_scripts(made: Store) -> None:
    text, _, chapters = report(made)
    plain = [part for element, part in Read(text).texts if element not in ("script", "style")]
    for chapter in chapters:
        assert chapter.title in plain
        for part in chapter.parts:
            assert part.drawn.says in plain


def test_the_same_store_gives_the_same_bytes(made: Store) -> None:
    assert report(made)[:2] == report(made)[:2]


def test_runs_that_are_named_have_their_traces(made: Store) -> None:
    runs = made.run_ids()
    _, said, chapters = report(made, f"run={runs[0]},run={runs[1]}")
    of_runs = [chapter for chapter in chapters if chapter.key.startswith("run-")]
    assert [chapter.title for chapter in of_runs] == [f"Run {run}" for run in sorted(runs[:2])]
    assert "Traces" in [part.title for part in of_runs[0].parts]
    assert "- Traces of 2 of them." in said
    assert not [chapter for chapter in report(made)[2] if chapter.key.startswith("run-")]


def test_only_so_many_have_traces(made: Store) -> None:
    with Published(made).snapshot().asking(Selection((("run", "2"),))) as asking:
        runs = offline.chosen_runs(asking, asking.selection)
    assert len(runs) == offline.MOST_RUNS
    assert runs == sorted(made.run_ids())[-offline.MOST_RUNS :]


def test_names_are_text_in_html_and_markdown(hostile: Store) -> None:
    text, said, chapters = report(hostile, title="<b>&\n# `t` [a](b) | c")
    assert "window.hostile=" in unpacked(text, "data")  # as text, for whoever draws it
    plain = text.replace(unpacked(text, "plotly"), "")
    assert "<script>window" not in plain
    assert "<img" not in plain
    assert chapters
    assert not re.search(r"(?<!\\)<(?!br)", said)
    lines = said.split("\n")
    assert lines[0] == "# &lt;b>&amp; # \\`t\\` \\[a\\](b) \\| c"
    for line in lines:
        # Every row of a table has the cells of its head, and no sentence has a mark that means something.
        assert not re.search(r"(?<!\\)[`\[\]*~]", line.replace("# ", ""))
    tables = re.findall(r"(?:^\|.*\n)+", said, re.MULTILINE)
    assert tables
    for table in tables:
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in table.strip().split("\n")}) == 1


def test_markdown_as_it_is_pasted() -> None:
    grid = Grid((GridColumn("a", "name"), GridColumn("b", "rate", right=True)), [], [{"a": "x|y", "b": "—"}] * 31)
    parts = (
        Part("One", "about it", False, Drawn("Two lines.", grid=grid, notes=("a note",))),
        Part("Two", "", True, Drawn("A picture.", figure={"data": []}, facts=(("device", "a<b"),))),
    )
    said = summary.markdown("T", [Chapter("k", "Chapter", "", parts)], ["Runs: all."])
    rows = "| x\\|y | — |\n" * 30
    assert said == (
        "# T\n\n- Runs: all.\n\n## Chapter\n\n"
        f"### One\n\nTwo lines.\n\n| name | rate |\n|---|---:|\n{rows}\nThe first 30 of 31 rows.\n\n- a note\n\n"
        "### Two\n\nA picture.\n\n| what | is |\n|---|---|\n| device | a&lt;b |\n"
    )


def test_facts_say_which_runs_and_which_count(made: Store) -> None:
    def facts(words: str) -> list[str]:
        with Published(made).snapshot().asking(Selection.parse(words)) as asking:
            return summary.facts(asking, asking.selection, [])

    with index.attached(made.index) as connection:
        ((left,),) = connection.execute(
            "SELECT count(*) FROM runs WHERE validity = 'invalid' OR outcome <> 'done'"
        ).fetchall()
    assert left
    first, second, third = facts("")
    assert first == "Runs: all."
    assert re.fullmatch(r"runs 40, models \d, devices 3, 2026-09-0\d to 2026-09-\d\d\.", second)
    assert third == f"{left} of them are invalid, failed or imported: listed, and in no aggregate."
    assert facts("model=none") == ["Runs: model=none.", "There is none."]


def test_an_empty_store_makes_a_report(tmp_path: Path) -> None:
    store = store_at(tmp_path)
    index.refresh(store)
    text, said, chapters = report(store)
    assert [chapter for chapter in chapters if any(part.drawn.troubled for part in chapter.parts)] == []
    assert "<li>There is none.</li>" in text
    assert said.startswith("# A title\n\n- Runs: all.\n- There is none.\n")


def test_a_page_that_is_broken_is_no_part_of_it_and_one_of_ones_own_is(
    made: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dashboards").mkdir()
    (tmp_path / "dashboards" / "bad.toml").write_text("nothing")
    panels = "".join(
        f'[[panel]]\ntitle = "{k}"\nkind = "table"\nsql = "{k}"\n' for k in ("SELECT 1.5 AS a", "SELECT nope")
    )
    (tmp_path / "dashboards" / "own.toml").write_text(f'title = "Mine"\n{panels}')
    monkeypatch.chdir(tmp_path)
    text, _, chapters = report(made)
    (own,) = (chapter for chapter in chapters if chapter.key == "own")
    assert [part.drawn.troubled for part in own.parts] == [False, True]
    assert "own.toml, line 9: Binder Error" in text
    assert "bad" not in [chapter.key for chapter in chapters]
