"""A page's address is its whole state: whatever stands in one, it is read without complaint and says itself again."""

from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.pages.address import MAX_FIELDS, MAX_QUERY, MAX_VALUE, Address
from meltbench.pages.page import Choice, Page, Panel
from meltbench.selecting import WORDS, Selection

any_text = st.text(st.characters(codec=None), max_size=40)  # halves of characters too
words = st.sampled_from([*WORDS, "metric", "x", "token"]) | any_text


@given(st.text(st.characters(codec=None)) | st.text(alphabet="?&=%;+0aF\0\ud800é", max_size=60))
def test_nothing_is_too_strange_to_be_read(query: str) -> None:
    found = Address.parse(query)
    assert Address.parse(found.query()) == found
    found.query().encode("ascii")
    str(found.selection).encode("utf-8")


@given(st.lists(st.tuples(words, any_text), max_size=12))
def test_what_was_said_is_said_again(pairs: list[tuple[str, str]]) -> None:
    text = urlencode([(a.encode("utf-8", "replace"), b.encode("utf-8", "replace")) for a, b in pairs])
    found = Address.parse(f"?{text}")
    assert Address.parse(found.query()) == found
    sane = [(a, b) for a, b in pairs if b and "\0" not in a + b and (a + b).isprintable()]
    for word in WORDS:
        if word != "run":
            said = tuple(dict.fromkeys(b for a, b in sane if a == word))
            assert set(said) <= {*found.selection.of_word(word)}


def test_the_parts_of_an_address() -> None:
    found = Address.parse("?device=pi&device=desk&night=2026-11-20&run=20261123T1&metric=ttft_s&metric=load_s&z=")
    pairs = (("device", "pi"), ("device", "desk"), ("night", "2026-11-20"))
    assert found == Address(Selection(pairs), (("metric", "load_s"),), "20261123T1")
    assert found.query() == "?device=pi&device=desk&night=2026-11-20&metric=load_s&run=20261123T1"
    assert Address.parse("") == Address()
    assert Address().query() == ""


def test_a_run_is_looked_at_and_filters_nothing() -> None:
    assert Address.parse("?run=a").selection == Selection()


@pytest.mark.parametrize(
    "query",
    [
        "device=" + "x" * (MAX_VALUE + 1),
        "device=a%00b",
        "device=a\ud800b",
        "devi\ud800ce=b",
        "a%00=b",
        "x=" + "y" * MAX_QUERY,
        "&".join(["device=a"] * (MAX_FIELDS + 1)),
    ],
)
def test_what_is_no_text_or_too_long_is_left_out(query: str) -> None:
    assert Address.parse(query) == Address()


def test_names_may_hold_anything() -> None:
    name = "<b>&amp;\"'=&?#%20 ü\u202e"
    assert Address.parse(f"?model={quote(name)}").selection.of_word("model") == (name,)
    assert Address.parse(Address(Selection((("model", name),))).query()).selection.of_word("model") == (name,)


def test_choices_are_those_of_the_page() -> None:
    page = Page(
        "t",
        choice=(
            Choice("metric", "m", "metric", "decode_tps"),
            Choice("way", "w", "list", "up", ("up", "down")),
            Choice("where", "w", "text"),
        ),
        panel=(Panel("p", "table", "SELECT 1"),),
    )
    assert Address.parse("").choices(page) == {"metric": "decode_tps", "way": "up", "where": ""}
    said = Address.parse("?metric=ttft_s&way=sideways&where=a<b&other=1")
    assert said.choices(page) == {"metric": "ttft_s", "way": "up", "where": "a<b"}
