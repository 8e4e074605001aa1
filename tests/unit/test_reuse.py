"""Prompts that begin as earlier ones: how much of each does, and which rates of a prefill are none."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines.prompts import Ask
from meltbench.engines.reuse import with_repeats, without_reused
from meltbench.records import Readings, Request
from meltbench.ticket import described
from meltbench.told import told_of

ASK = Ask("00000", "a", "timed", 2, 0, prompt="")


def words(text: str) -> Ask:
    return replace(ASK, prompt=text)


def ids(*tokens: int) -> Ask:
    return replace(ASK, prompt=None, tokens=tokens)


def chat(*texts: str) -> Ask:
    roles = ("system", "user", "assistant", "user")
    said = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    return replace(ASK, prompt=None, messages=tuple(said))


def shares(*asks: Ask) -> list[float]:
    return [one.repeats for one in with_repeats(asks)]


def test_a_prompt_repeats_as_much_as_an_earlier_one_begins_with() -> None:
    assert shares(*map(words, ("abcd", "abxxyyzz", "q", "abcd"))) == [0, 0.25, 0, 1]
    assert shares(ids(1, 2, 3), ids(9, 2, 3), ids(1, 2, 4)) == [0, 0, 2 / 3]
    first, second = chat("Be short.", "Why?"), chat("Be short.", "Why?", "So.", "And then?")
    whole = len("Be short.\0Why?\0So.\0And then?")
    assert shares(first, second) == [0, pytest.approx(len("Be short.\0Why?") / whole)]
    assert shares(second, first) == [0, 1]
    of_token = replace(ids(1, 2), target=3)  # many, long, and without a rate
    assert shares(of_token, of_token) == [0, 0]


@given(st.lists(st.text("ab", max_size=6), max_size=8) | st.lists(st.lists(st.integers(0, 1), max_size=6), max_size=8))
def test_the_share_is_the_most_that_any_earlier_one_begins_with(prompts: list[Any]) -> None:
    asks = [words(one) if isinstance(one, str) else ids(*one) for one in prompts]
    for n, (prompt, found) in enumerate(zip(prompts, shares(*asks), strict=True)):
        common = [k for one in prompts[:n] for k in range(len(prompt) + 1) if prompt[:k] == one[:k] and k <= len(one)]
        assert found == (max(common, default=0) / len(prompt) if prompt else 0)


RATE = Request(0, "a", "timed", "ok", 0, 1, n_in=10, ttft_s=0.1, prefill_tps=100.0, prefill_source="client_side")


@pytest.mark.parametrize(
    ("request_", "repeats", "again", "kept"),
    [
        (RATE, 0.0, False, True),
        (RATE, 0.05, False, True),
        (RATE, 0.06, False, False),
        (RATE, 0.0, True, False),
        (replace(RATE, n_cached=0), 1.0, True, True),  # told
        (replace(RATE, n_cached=5), 1.0, True, True),
        (replace(RATE, prefill_source="engine"), 1.0, True, True),
    ],
)
def test_a_rate_is_withheld_where_the_cache_may_have_had_a_part(
    request_: Request, repeats: float, again: bool, kept: bool
) -> None:
    found = without_reused(replace(ASK, repeats=repeats), request_, again=again)
    if kept:
        assert found == request_
    else:
        assert (found.prefill_tps, found.prefill_source, found.ttft_s) == (None, "cache_unknown", 0.1)


def asked(url: str, files: list[str], details: object = None) -> list[Request]:
    """A run of three prompts, the second like the first, whose requests were sent in the order of ``files``."""
    asks = with_repeats([replace(ASK, file=f"0000{n}", prompt=text) for n, text in enumerate(("tide", "tidy", "moon"))])
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": details}
    events = [*({"choices": [{"text": "x"}]} for _ in range(2)), {"choices": [], "usage": usage}]
    body = b"HTTP/1.1 200 OK\r\n\r\n" + b"".join(b"data: %s\n\n" % json.dumps(one).encode() for one in events)
    end = b"data: [DONE]\n\n"
    t = np.array([50, 60], np.int64) * 1_000_000
    stream = SimpleNamespace(readings=Readings.of(t, t, np.zeros(2, np.int32), [body, end]))
    span = {"t_end": 10**8, "stream": 1}
    sent = [{"file": f"req/{file}", "boot_ns": n, "t_send0": n} | span for n, file in enumerate(files)]
    journal = SimpleNamespace(named=lambda name: sent if name == "request" else [], streams={1: stream})
    runner = {"protocol": "openai", "mode": "server", "url": url}
    kept = json.loads(json.dumps(described([asdict(one) for one in asks])))
    ticket = {"runner": runner, "workload": {"kind": "generate"}, "asks": kept}
    return told_of(ticket, journal).requests  # type: ignore[arg-type]


def test_a_run_whose_server_tells_nothing_of_its_cache_has_rates_of_new_prompts_alone() -> None:
    sources = [one.prefill_source for one in asked("", ["00000", "00001", "00002", "00002"])]
    assert sources == ["client_side", "cache_unknown", "client_side", "cache_unknown"]
    told = asked("", ["00000", "00001", "00002", "00002"], {"cached_tokens": 3})
    assert {one.prefill_source for one in told} == {"client_side"}
    # What a server was asked that ran before, by another repetition of this run, nobody knows.
    assert {one.prefill_source for one in asked("http://127.0.0.1:1/v1", ["00000", "00002"])} == {"cache_unknown"}
