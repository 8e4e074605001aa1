"""What --where says: read as meant, never run, and refused with the place of what is wrong."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.analysis.constraints import parse
from meltbench.errors import UserError

NAN = math.nan


def holds(text: str, **values: float) -> float:
    condition = parse(text)
    return float(condition.holds([np.array([values[ref.axis.name]]) for ref in condition.refs])[0])


@pytest.mark.parametrize(
    ("text", "is_met"),
    [
        ("power_w<5 and ttft_s<1", True),
        ("power_w < 4", False),
        ("mean_power_w<=4.5 AND ttft<0.9", True),
        ("not power_w<5", False),
        ("not (power_w<5 and ttft_s>1)", True),
        ("power_w<4 or ttft_s<1 and power_w>4", True),
        ("(power_w<4 or ttft_s<1) and power_w>5", False),
        ("power_w<5W", True),
        ("power_w<4600mW", True),
        ("power_w<4kW", True),
        ("ttft_s<500ms", False),
        ("ttft_s<.9s", True),
        ("memory_bytes<4GB", True),
        ("memory_bytes<2GiB", False),
        ("memory_bytes<2.2G", True),
        ("peak_rss_bytes = 2147483649", True),
        ("peak_rss_bytes == 2.147483649e9 and power_w != 4", True),
        ("accuracy>=60%", True),
        ("accuracy >= 0.61", False),
        ("temp_c<80degC and max_temp_c<80C and temp_c>-10", True),
        ("decode_tps>20tok/s", False),
        ("decode_tps>10 and decode_tps<1k", True),
        ("5>power_w", True),
        ("4 < power_w <= 4.5W", True),
        ("4 < power_w < 4.4", False),
        ("n_params<1G", True),
    ],
)
def test_conditions(text: str, is_met: bool) -> None:
    values = {
        "mean_power_w": 4.5, "ttft_s": 0.8, "peak_rss_bytes": 2.0**31 + 1, "accuracy": 0.6, "max_temp_c": 71.0,
        "decode_tps": 12.0, "n_params": 135e6,
    }  # fmt: skip
    assert holds(text, **values) == is_met


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("ttft_s<1", NAN),
        ("not ttft_s<1", NAN),
        ("ttft_s<1 or power_w<5", 1.0),
        ("ttft_s<1 or power_w>5", NAN),
        ("ttft_s<1 and power_w<5", NAN),
        ("ttft_s<1 and power_w>5", 0.0),
    ],
)
def test_what_is_missing_makes_neither_true_nor_false(text: str, found: float) -> None:
    assert holds(text, ttft_s=NAN, mean_power_w=4.5) == pytest.approx(found, nan_ok=True)


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("", "--where, at 1: the end where a number, or a column was expected", "such as"),
        ("ttft_s", "--where, at 7: the end where one of", "such as"),
        ("ttft_s<", "--where, at 8: the end where a number", "such as"),
        ("ttft_s<1 power_w<5", "--where, at 10: 'power_w' where and, or, or the end was expected", ""),
        ("ttft_s<1 and tftt_s<2", "--where, at 14: unknown axis 'tftt_s'", "did you mean ttft_s"),
        ("zzz<1", "--where, at 1: unknown axis 'zzz'", "columns: accuracy, bits_per_weight"),
        ("ttft_s@quick/sever<1", "--where, at 1: unknown mode 'sever'", "did you mean server"),
        ("ttft_s<5W", "--where, at 8: 'W' is no unit of ttft_s", "a number in s"),
        ("accuracy<60C", "--where, at 10: 'C' is no unit of accuracy", "bare number or %"),
        ("temp_c<80kC", "--where, at 8: 'kC' is no unit", "degC"),
        ("(ttft_s<1", "--where, at 10: the end where a closing parenthesis", ""),
        ("ttft_s<1)", "--where, at 9: ')' where and, or, or the end", ""),
        ("ttft_s<1e999", "--where, at 8: the number is too large", "reached"),
        ("ttft_s<1; import os", "--where, at 9: ';' where a column", ""),
        ("1<2", "--where, at 3: '2' where a column was expected", ""),
        ("and<1", "--where, at 1: 'and' where a column was expected", ""),
        ("ttft_s<-", "--where, at 9: the end where a number", ""),
        ("(" * 41 + "ttft_s<1" + ")" * 41, "--where, at 41: nested deeper than 40", ""),
        ("not " * 3000 + "ttft_s<1", "--where has 12008 characters", "1000 are the most"),
    ],
)
def test_errors_say_where(text: str, message: str, hint: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(text)
    assert message in caught.value.message
    assert hint in (caught.value.hint or "")
    assert "\n" not in str(caught.value)


def test_a_place_is_part_of_a_name() -> None:
    condition = parse("ttft_s@quick/server<1 and accuracy@mmlu-pro>0.2 and ttft_s<2 and ttft_s@grid/bench/tg128@d64<3")
    assert [str(ref) for ref in condition.refs] == [
        "ttft_s@quick/server", "accuracy@mmlu-pro", "ttft_s", "ttft_s@grid/bench/tg128@d64",
    ]  # fmt: skip


WORDS = ["ttft_s", "power_w", "and", "or", "not", "(", ")", "<", ">=", "!=", "1", "2.5ms", "@", "5W", "'", "\x00", "é"]


@given(st.one_of(st.text(max_size=60), st.lists(st.sampled_from(WORDS), max_size=14).map(" ".join)))
def test_any_text_is_a_condition_or_an_error(text: str) -> None:
    try:
        condition = parse(text)
    except UserError:
        return
    found = condition.holds([np.array([1.0, NAN])] * len(condition.refs))
    assert set(found[~np.isnan(found)]) <= {0.0, 1.0}
    assert parse(condition.told).told == condition.told  # what is told of it reads the same


COMPARED = st.builds(
    lambda name, sign, number: (f"{name}{sign}{number}", f"(v[{name!r}] {sign} {number})"),
    st.sampled_from(["ttft_s", "load_s", "decode_tps"]), st.sampled_from(["<", "<=", ">", ">=", "=="]),
    st.integers(0, 3),
)  # fmt: skip
NESTED = st.recursive(
    COMPARED,
    lambda inner: st.one_of(
        inner.map(lambda one: (f"not ({one[0]})", f"(not {one[1]})")),
        inner.map(lambda one: (f"({one[0]})", one[1])),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(
            lambda t: (f"({t[0][0]}) {t[1]} ({t[2][0]})", f"({t[0][1]} {t[1]} {t[2][1]})")
        ),
    ),
    max_leaves=6,
)


@given(NESTED, st.tuples(*[st.integers(0, 3)] * 3))
def test_it_means_what_it_means_in_python(texts: tuple[str, str], numbers: tuple[int, ...]) -> None:
    values = dict(zip(("ttft_s", "load_s", "decode_tps"), map(float, numbers), strict=True))
    assert holds(texts[0], **values) == eval(texts[1], {"v": values})
