from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines.prompts import Point, grid_asks, point, random_tokens
from meltbench.errors import UserError


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("pp512", (512, 0, 0)), ("tg128", (0, 128, 0)), ("pp512+tg128", (512, 128, 0)), ("tg32@d4096", (0, 32, 4096))],
)
def test_points_are_named_as_llama_bench_names_them(text: str, numbers: tuple[int, int, int]) -> None:
    assert point(text) == Point(*numbers)
    assert point(text).name == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pp",
        "tg0",
        "d4096",
        "@d5",
        "pp12x",
        "tg128pp512",
        "PP512",
        "pp-1",
        "pp99999999",
        "+tg4",
        "pp4+",
        "pp4tg4",
        "pp" + "9" * 5000,
        "pp\u0663",
    ],
)
def test_anything_else_is_refused_with_the_right_form(text: str) -> None:
    with pytest.raises(UserError, match=r"pp|million"):
        point(text)


@given(st.integers(1, 50), st.integers(1, 1000), st.integers(0, 2**31 - 1))
def test_random_prompts_repeat_and_stay_in_the_vocabulary(count: int, n_vocab: int, seed: int) -> None:
    tokens = random_tokens(count, n_vocab, seed)
    assert tokens == random_tokens(count, n_vocab, seed)
    assert len(tokens) == count
    assert all(0 <= token < n_vocab for token in tokens)


def test_a_grid_asks_every_point_once_a_round_in_an_order_of_its_own() -> None:
    points = [point(text) for text in ("pp8", "tg4", "pp8+tg4", "tg4@d16")]
    asks = grid_asks(points, 6, 100, 1, 2)
    timed = [ask.item for ask in asks if ask.role == "timed"]
    rounds = [timed[i : i + 4] for i in range(0, len(timed), 4)]
    assert len(rounds) == 6
    assert all(sorted(order) == sorted(p.name for p in points) for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1
    assert [ask.role for ask in asks if ask.role == "warmup"] == ["warmup"] * 2
    assert [ask.role for ask in asks[:2]] == ["warmup"] * 2
    assert [ask.file for ask in asks] == [f"{i:05d}" for i in range(len(asks))]
    assert asks == grid_asks(points, 6, 100, 1, 2)


def test_a_depth_is_filled_by_a_prefix_the_engine_keeps() -> None:
    fill, timed = grid_asks([point("pp8+tg4@d16")], 1, 100, 1, 0)
    assert (fill.role, fill.n_out, fill.n_in, fill.n_cached) == ("setup", 0, 16, 0)
    assert (timed.role, timed.n_out, timed.n_in, timed.n_cached, timed.keep_cache) == ("timed", 4, 24, 16, True)
    assert fill.tokens is not None
    assert timed.tokens is not None
    assert timed.tokens[:16] == fill.tokens
    assert point("pp8+tg4@d16").n_ctx >= 16 + 8 + 4
