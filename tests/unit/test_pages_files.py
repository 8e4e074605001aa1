"""Page files: what they may say, and that what is wrong with one is told in its place while the others go on."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from contrast_kit import MadeIndex
from pages_kit import page_of

from meltbench.pages.kinds import KINDS
from meltbench.pages.page import MAX_PANELS, MAX_ROWS, PageFile, pages
from meltbench.selecting import WORDS

BUILT_IN = ["overview", "pareto", "run", "compare", "trends", "devices", "accuracy"]
PLAIN = '[[panel]]\ntitle = "a"\nkind = "table"\nsql = "SELECT 1"\n'


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a folder for pages, and a user without any."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dashboards").mkdir()
    return tmp_path


def read(place: Path, text: str | bytes, name: str = "mine") -> PageFile:
    file = place / "dashboards" / f"{name}.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return pages()[name]


def why(place: Path, text: str | bytes) -> str:
    found = read(place, text)
    assert found.page is None
    assert found.title == "mine (broken)"
    # The others go on working, and what is broken stands last.
    assert [*pages()] == [*BUILT_IN, "mine"]
    assert all(pages()[name].page for name in BUILT_IN)
    return found.why.replace(str(place), "")


def panel(more: str) -> str:
    return f'title = "t"\n[[panel]]\ntitle = "a"\n{more}\n'


def choice(more: str) -> str:
    return f'title = "t"\n[[choice]]\nlabel = "x"\n{more}\n{PLAIN}'


def test_every_page_that_is_shipped_can_be_read(place: Path) -> None:
    found = pages()
    assert [*found] == BUILT_IN
    for file in found.values():
        assert file.page is not None, file.why
        lines = file.path.read_text().split("\n")
        for one, number in zip(file.page.panel, file.lines, strict=True):
            assert one.kind in KINDS
            assert not one.sql or lines[number - 1] == one.sql.split("\n")[0]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('titel = "t"\n' + PLAIN, "unknown key 'titel'; did you mean 'title'?"),
        (PLAIN, "missing key 'title'; expected a string"),
        ('title = "t"\n', "a page needs a [[panel]]"),
        ('title = "t\n' + PLAIN, "mine.toml, line 1, column 11: "),
        (b'title = "t"\n\xff', "mine.toml, line 2: not UTF-8"),
        (panel('kind = "tabel"'), "panel[0].kind: expected one of 'table', "),
        (panel('kind = "tabel"'), "did you mean 'table'?"),
        (panel('kind = "table"'), "panel[0]: a panel of kind 'table' needs sql"),
        (panel('kind = "heat"\nsql = "SELECT 1"\nx = "a"'), "panel[0]: a panel of kind 'heat' needs y and value"),
        (panel('kind = "changes"\nsql = "SELECT 1"'), "needs x and group and value"),
        (panel('kind = "table"\nsqll = "SELECT 1"'), "panel[0]: unknown key 'sqll'; did you mean 'sql'?"),
        (panel('kind = "table"\nsql = "SELECT 1"\nlimit = 0'), f"limit is 0; give 1 to {MAX_ROWS}"),
        (
            panel('kind = "bars"\nsql = "SELECT 1"\nx = "{m}"\ny = "b"'),
            "panel 1: x is {m}, and no choice has that name",
        ),
        ('title = "t"\n' + PLAIN * (MAX_PANELS + 1), "25 panels are more than a page can have, 24"),
        (choice('name = "A b"\nkind = "text"'), "choice[0]: 'A b' cannot be the name of a choice; small letters"),
        (choice('name = "m"\nkind = "list"'), "choice[0]: a list needs options"),
        (choice('name = "m"\nkind = "list"\noptions = ["a"]\ndefault = "b"'), "default 'b' is none of the options"),
        (choice('name = "m"\nkind = "metric"\ndefault = "decode_tsp"'), "did you mean decode_tps?"),
        (choice('name = "m"\nkind = "metric"'), "choice[0]: unknown metric ''"),
        (choice('name = "m"\nkind = "text"\n[[choice]]\nname = "m"\nlabel = "y"\nkind = "text"'), "the same name"),
    ],
)
def test_a_broken_page_says_what_is_wrong(place: Path, text: str | bytes, said: str) -> None:
    assert said in why(place, text)


@pytest.mark.parametrize("word", [*WORDS, "token", "theme", "panel"])
def test_what_an_address_says_otherwise_is_no_choice(place: Path, word: str) -> None:
    # A choice "device" would never be found: the word is the filter's.
    assert f"{word!r} cannot be the name of a choice" in why(place, choice(f'name = "{word}"\nkind = "text"'))


def test_a_name_that_cannot_stand_in_an_address_is_none(place: Path) -> None:
    found = read(place, 'title = "t"\n' + PLAIN, "<script>")
    assert found.page is None
    assert "is no name of a page" in found.why


def test_a_page_of_ones_own_takes_the_place_of_one_that_is_shipped(place: Path) -> None:
    user = place / "config" / "meltbench" / "dashboards"
    user.mkdir(parents=True)
    for name in ("trends", "own"):
        (user / f"{name}.toml").write_text('title = "of the user"\n' + PLAIN)
    assert read(place, 'title = "of the folder"\nplace = -1\n' + PLAIN, "own").title == "of the folder"
    found = pages()
    assert next(iter(found)) == "own"
    assert found["trends"].title == "of the user"
    assert found["trends"].path == user / "trends.toml"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (panel('kind = "table"\nsql = "SELECT 1"'), (5,)),
        (panel('kind = "table"\nsql = """\nSELECT 1\n"""'), (6,)),
        (panel('kind = "table"\nsql = """SELECT\n1"""'), (5,)),
        (panel("kind = 'table'\nsql = '''\r\nSELECT 1\r\n'''"), (6,)),
        (panel('kind = "compare"'), (2,)),
        # Nothing that stands in a text is taken for a heading or for the query.
        (panel('about = """\n[[panel]]\nsql = "b"\n"""\nkind = "table"\nsql = "SELECT 1"'), (9,)),
        (panel('kind = "table"\nsql = """\nSELECT\nsql = 1\n"""\n') + PLAIN, (6, 13)),
        ('title = "t"\npanel = [{title = "a", kind = "table", sql = "SELECT 1"}]', ()),
    ],
)
def test_where_a_query_begins(place: Path, text: str, lines: tuple[int, ...]) -> None:
    found = read(place, text)
    assert found.page is not None, found.why
    assert found.lines == lines


def test_the_page_of_the_docs_is_one(place: Path) -> None:
    docs = Path(__file__).parents[2] / "docs" / "new-page.md"
    (text,) = re.findall(r"```toml\n(.*?)```", docs.read_text(), re.DOTALL)
    found = read(place, text)
    assert found.page is not None, found.why
    assert [*pages()][-1] == "mine"  # its place is the eighth
    made = MadeIndex()
    made.add({"peak_rss_bytes": 1e8}, model_bytes=5)
    assert found.page is not None
    (drawn,) = page_of(made, "mine").values()
    assert drawn.says == "peak RSS, B by size of the model, B: 1 points in 1 group."


def test_every_kind_stands_in_the_docs() -> None:
    text = (Path(__file__).parents[2] / "docs" / "new-page.md").read_text()
    assert {*re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (.*?) \|", text, re.MULTILINE)))} == {*KINDS}
