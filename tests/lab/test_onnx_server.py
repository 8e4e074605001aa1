"""The ONNX server over real HTTP: the real runtime, a tiny model of random weights."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx_kit import CONTEXT, SCRIPT, TINY, VOCABULARY, Server, copied, need_runtime

IDS = [1, 75, 76, 0, 202, 2]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    need_runtime()
    one = Server.start()
    yield one
    assert one.stop() == -15


def test_it_says_what_it_is(server: Server) -> None:
    assert server.ask("/health").json == {"status": "ok"}
    (model,) = server.ask("/v1/models").json["data"]
    assert (model["id"], model["max_model_len"]) == ("tiny-onnx", CONTEXT)
    assert "meltbench: accelerator CPU\n" in server.log


def test_every_token_is_one_event_and_the_counts_are_exact(server: Server) -> None:
    answer = server.complete(IDS, max_tokens=40, ignore_eos=True, return_token_ids=True)
    assert len(answer.tokens) == 40
    assert "" in [one["text"] for one in answer.tokens]  # a part of a character has no text yet
    assert all(len(one["token_ids"]) == 1 and 0 <= one["token_ids"][0] < VOCABULARY for one in answer.tokens)
    assert [one["finish_reason"] for one in answer.tokens] == [None] * 39 + ["length"]
    counts = {key: answer.usage[key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
    assert counts == {"prompt_tokens": 6, "completion_tokens": 40, "total_tokens": 46}
    assert answer.usage["prompt_tokens_details"] == {"cached_tokens": 0}
    extra = answer.usage["extra"]
    assert (extra["prefill_tokens"], extra["decode_tokens"]) == (6, 39)
    assert min(extra[key] for key in ("prefill_tokens_per_s", "decode_tokens_per_s", "ttft_s")) > 0


def test_a_single_token_has_no_rate_of_decoding(server: Server) -> None:
    answer = server.complete(IDS, max_tokens=1)
    assert answer.usage["completion_tokens"] == 1
    assert "decode_tokens_per_s" not in answer.usage["extra"]


def test_a_stream_and_a_whole_answer_say_the_same(server: Server) -> None:
    for path in ("/v1/completions", "/v1/chat/completions"):
        asked = {"prompt": "the in", "messages": [{"role": "user", "content": "the in"}], "max_tokens": 20}
        asked |= {"temperature": 0}
        streamed = server.ask(path, asked | {"stream": True})
        whole = server.ask(path, asked).json
        choice = whole["choices"][0]
        assert streamed.text == (choice["text"] if "text" in choice else choice["message"]["content"])
        assert (whole["usage"]["completion_tokens"], choice["finish_reason"]) == (20, "length")
        assert all("usage" not in event for event in streamed.events)


def test_words_and_their_ids_are_one_prompt(server: Server) -> None:
    words = server.complete("the in", max_tokens=12)
    ids = server.complete([87, 261, 224, 263], max_tokens=12)
    assert words.usage["prompt_tokens"] == 4
    assert words.text == ids.text


def test_the_template_of_the_model_is_what_messages_are_asked_with(server: Server) -> None:
    templated = "<|user|>hi<|end|>\n<|assistant|>the<|end|>\n<|user|>in<|end|>\n<|assistant|>"
    assert server.chat("hi", "the", "in", max_tokens=12).text == server.complete(templated, max_tokens=12).text
    opening = server.chat("hi", max_tokens=1).events[0]["choices"][0]
    assert opening["delta"] == {"role": "assistant", "content": ""}


def test_a_seed_repeats_and_another_does_not(server: Server) -> None:
    drawn = {"temperature": 1.5, "max_tokens": 30, "ignore_eos": True}
    one, again, other = (server.complete(IDS, **drawn, seed=seed).text for seed in (7, 7, 8))
    assert one == again != other
    assert server.complete(IDS, **drawn, seed=2**62 - 1).status == 200
    best = server.complete(IDS, max_tokens=30, ignore_eos=True).text
    assert server.complete(IDS, **(drawn | {"top_k": 1}), seed=7).text == best
    assert server.complete(IDS, max_tokens=30, ignore_eos=True, repetition_penalty=50).text != best


def test_what_two_prompts_have_in_common_is_kept_where_it_is_asked_for(server: Server) -> None:
    prompt = list(range(60, 160))
    fresh = server.complete([*prompt, 7, 8, 9], max_tokens=8, ignore_eos=True)
    server.complete(prompt, max_tokens=1, ignore_eos=True)
    kept = server.complete([*prompt, 7, 8, 9], max_tokens=8, ignore_eos=True, cache_prompt=True)
    assert (fresh.usage["prompt_tokens_details"], kept.usage["prompt_tokens_details"]) == (
        {"cached_tokens": 0},
        {"cached_tokens": 100},
    )
    assert (kept.usage["prompt_tokens"], kept.usage["extra"]["prefill_tokens"]) == (103, 3)
    assert kept.text == fresh.text
    # The very same prompt again: its last token is evaluated, for the first new one is drawn from its output.
    same = server.complete([*prompt, 7, 8, 9], max_tokens=8, ignore_eos=True, cache_prompt=True)
    assert same.usage["prompt_tokens_details"] == {"cached_tokens": 102}
    assert same.text == fresh.text
    drawn = server.complete(prompt, max_tokens=2, temperature=1, seed=1, cache_prompt=True)
    assert drawn.usage["prompt_tokens_details"] == {"cached_tokens": 0}


def test_an_answer_is_kept_too_where_the_next_turn_begins_with_it(server: Server) -> None:
    first = server.complete(IDS, max_tokens=10, ignore_eos=True, return_token_ids=True)
    answer = [one["token_ids"][0] for one in first.tokens]
    more = server.complete([*IDS, *answer, 5, 6], max_tokens=4, ignore_eos=True, cache_prompt=True)
    assert more.usage["prompt_tokens_details"] == {"cached_tokens": len(IDS) + 9}  # the last one was not evaluated
    assert more.text == server.complete([*IDS, *answer, 5, 6], max_tokens=4, ignore_eos=True).text


def test_an_answer_ends_with_the_context(server: Server) -> None:
    answer = server.complete([5] * (CONTEXT - 10), ignore_eos=True)
    assert (answer.usage["completion_tokens"], answer.tokens[-1]["finish_reason"]) == (10, "length")
    assert server.complete([5] * (CONTEXT - 10), max_tokens=50, ignore_eos=True).usage["completion_tokens"] == 10
    refused = server.complete([5] * CONTEXT, max_tokens=1)
    assert (refused.status, refused.error) == (400, "the prompt has 1024 tokens, the context has room for 1024")


def test_an_answer_ends_by_itself_where_it_may(tmp_path: Path) -> None:
    need_runtime()
    model = copied(tmp_path / "often")
    config = json.loads((model / "genai_config.json").read_text())
    config["model"]["eos_token_id"] = list(range(0, VOCABULARY, 2))  # so one of them comes soon
    (model / "genai_config.json").write_text(json.dumps(config))
    one = Server.start(model, ())
    try:
        drawn = {"temperature": 1.5, "seed": 3, "max_tokens": 200, "return_token_ids": True}
        answer = one.complete(IDS, **drawn)
        made = answer.usage["completion_tokens"]
        assert (answer.tokens[-1]["finish_reason"], answer.tokens[-1]["text"]) == ("stop", "")
        assert made == len(answer.tokens) < 200
        assert [token["token_ids"][0] % 2 for token in answer.tokens] == [1] * (made - 1) + [0]
        assert one.complete(IDS, **drawn, ignore_eos=True).usage["completion_tokens"] == 200
    finally:
        one.stop()


def free(server: Server) -> tuple[list[str], str]:
    """The texts of forty tokens that nothing ends, and all of them."""
    texts = [one["text"] for one in server.complete(IDS, max_tokens=40, ignore_eos=True).tokens]
    return texts, "".join(texts)


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_an_answer_ends_before_a_text_that_stops_it(server: Server, length: int) -> None:
    texts, text = free(server)
    stop = text[10 : 10 + length]
    at = text.index(stop)
    made = next(n for n in range(41) if stop in "".join(texts[:n]))
    answer = server.complete(IDS, max_tokens=40, ignore_eos=True, stop=[stop, "never said"])
    assert answer.text == text[:at]
    assert [one["finish_reason"] for one in answer.tokens] == [None] * (made - 1) + ["stop"]  # one event a token
    assert (answer.usage["completion_tokens"], answer.usage["extra"]["decode_tokens"]) == (made, made - 1)
    whole = server.ask("/v1/completions", {"prompt": IDS, "temperature": 0, "ignore_eos": True, "stop": stop}).json
    assert (whole["choices"][0]["text"], whole["choices"][0]["finish_reason"]) == (text[:at], "stop")
    assert whole["usage"]["completion_tokens"] == made


def test_what_may_be_the_beginning_of_a_stop_is_held_back_and_comes_where_it_was_none(server: Server) -> None:
    texts, text = free(server)
    first = next(n for n, one in enumerate(texts) if one)
    held = server.complete(IDS, max_tokens=40, ignore_eos=True, stop=[texts[first] + "never said"])
    assert held.tokens[first]["text"] == ""
    assert (held.text, len(held.tokens), held.tokens[-1]["finish_reason"]) == (text, 40, "length")
    # Also where the answer ends with it.
    last = server.complete(IDS, max_tokens=40, ignore_eos=True, stop=[texts[-1] + "never said"])
    assert (last.text, last.tokens[-1]["text"].endswith(texts[-1])) == (text, True)
    # The next answer knows nothing of it, and an answer that was stopped can be built upon.
    stopped = server.complete(IDS, max_tokens=40, ignore_eos=True, stop=text[10:14], return_token_ids=True)
    more = [*IDS, *(one["token_ids"][0] for one in stopped.tokens)]
    kept = server.complete(more, max_tokens=5, ignore_eos=True, cache_prompt=True)
    assert kept.usage["prompt_tokens_details"] == {"cached_tokens": len(more) - 1}
    assert kept.text == server.complete(more, max_tokens=5, ignore_eos=True).text


def test_messages_may_be_stopped_too(server: Server) -> None:
    text = server.chat("hi", max_tokens=30, ignore_eos=True).text
    answer = server.chat("hi", max_tokens=30, ignore_eos=True, stop=[text[4:6]])
    assert answer.text == text[: text.index(text[4:6])]
    assert answer.tokens[-1]["finish_reason"] == "stop"


@functools.cache
def engine() -> Any:
    """The module of the server's that has its engine, in this process."""
    need_runtime()
    spec = importlib.util.spec_from_file_location("genai_engine", SCRIPT.with_name("genai_engine.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@given(pieces=st.lists(st.text("ab", max_size=4), max_size=12), stops=st.lists(st.text("ab", min_size=1), max_size=4))
def test_however_the_text_comes_it_is_the_same_up_to_the_stop(pieces: list[str], stops: list[str]) -> None:
    class Stream:
        decode = staticmethod(pieces.__getitem__)

    words, whole, sent = engine().Words(Stream, stops), "", ""
    for token, piece in enumerate(pieces):
        whole += piece
        text, stopped = words.add(token)
        sent += text
        found = [whole.index(stop) for stop in stops if stop in whole]
        assert stopped == bool(found)
        if stopped:
            assert sent == whole[: min(found)]
            assert words.held == ""
            return
        assert sent + words.held == whole
        assert not words.held or any(stop.startswith(words.held) and stop != words.held for stop in stops)


def test_a_model_without_a_template_takes_prompts_alone(tmp_path: Path) -> None:
    need_runtime()
    model = copied(tmp_path / "bare")
    (model / "chat_template.jinja").unlink()
    one = Server.start(model)
    try:
        refused = one.chat("hi", max_tokens=1)
        assert refused.status == 400
        assert refused.error == "the model bare takes no messages, has no chat template; ask with a prompt"
        assert refused.json["error"]["type"] == "invalid_request_error"
        assert one.complete("hi", max_tokens=2).usage["completion_tokens"] == 2
    finally:
        one.stop()


BAD: dict[str, Any] = {
    "the body must be a JSON object": [1, 2],
    "prompt must be a text or a list of token ids": {"prompt": [1, "a"]},
    f"the ids of the tokens of tiny-onnx are 0 to {VOCABULARY - 1}": {"prompt": [1, VOCABULARY]},
    "the prompt has 0 tokens, the context has room for 1024": {"prompt": ""},
    "a text may hold neither NUL nor half of a surrogate pair": {"prompt": "a\0b"},
    "max_tokens must be a number from 1 to 2147483647": {"prompt": "a", "max_tokens": 0},
    "max_tokens must be a whole number": {"prompt": "a", "max_tokens": 1.5},
    "temperature must be a number from 0 to 100": {"prompt": "a", "temperature": "hot"},
    "top_p must be a number from 0 to 1": {"prompt": "a", "top_p": float("nan")},
    "seed must be a number from 0 to 4611686018427387904": {"prompt": "a", "seed": -1},
    "ignore_eos must be true or false": {"prompt": "a", "ignore_eos": "yes"},
    "stop must be up to 64 texts of 1 to 1000 characters": {"prompt": "a", "stop": ["a"] * 65},
    "this server does not know n": {"prompt": "a", "n": 2},
}


@pytest.mark.parametrize("why", BAD)
def test_what_cannot_be_answered_is_refused_in_one_line(server: Server, why: str) -> None:
    refused = server.ask("/v1/completions", BAD[why])
    assert (refused.status, refused.error) == (400, why)
    assert refused.json["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("stop", ["", [""], [1], 1, {"a": 1}, "x" * 1001, [["a"]], False])
def test_what_ends_an_answer_is_a_few_texts(server: Server, stop: Any) -> None:
    refused = server.complete("a", stop=stop)
    assert (refused.status, refused.error) == (400, "stop must be up to 64 texts of 1 to 1000 characters")


@pytest.mark.parametrize("messages", [None, [], "hi", [1], [{"role": "user"}], [{"role": 1, "content": "a"}]])
def test_messages_are_text_with_roles(server: Server, messages: Any) -> None:
    refused = server.ask("/v1/chat/completions", {"messages": messages})
    assert (refused.status, "a role and a content of text" in refused.error) == (400, True)


def test_half_a_surrogate_pair_is_no_text(server: Server) -> None:
    assert server.ask("/v1/completions", b'{"prompt": "a\\ud800b"}').status == 400


def test_other_paths_methods_and_bodies_are_refused(server: Server) -> None:
    assert server.ask("/v2").status == server.ask("/v1/embeddings", {}).status == 404
    assert server.ask("/v1/completions", b"{").error == "the body is not JSON"
    assert server.ask("/v1/completions", b"[" * 100_000).error == "the body is not JSON"
    assert server.ask("/v1/completions", b"{}", {"Content-Length": "99999999999"}).status == 413
    assert server.ask("/v1/completions", b"{}", {"Content-Length": "-1"}).status == 411
    assert server.ask("/v1/completions", b"{}", {"Transfer-Encoding": "chunked"}).status == 411


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
KEYS = (
    *("prompt", "messages", "max_tokens", "temperature", "top_p", "top_k", "seed", "repetition_penalty", "stream"),
    *("stream_options", "ignore_eos", "cache_prompt", "stop", "n", "model", "logit_bias", "return_token_ids"),
)


@settings(max_examples=150)
@given(body=st.dictionaries(st.sampled_from(KEYS), values, max_size=6), chat=st.booleans())
def test_any_object_is_answered_or_refused(server: Server, body: dict[str, Any], chat: bool) -> None:
    raw = json.dumps({"max_tokens": 2} | body).encode("utf-8", "surrogatepass")
    answer = server.ask("/v1/chat/completions" if chat else "/v1/completions", raw)
    assert answer.status in (200, 400), answer.body
    if answer.status == 400:
        assert answer.error


@settings(max_examples=60)
@given(
    raw=st.binary(max_size=300) | st.binary(max_size=100).map(lambda tail: b"POST /v1/completions HTTP/1.1\r\n" + tail)
)
def test_any_bytes_are_answered_and_the_server_lives(server: Server, raw: bytes) -> None:
    with socket.create_connection(("127.0.0.1", server.port), 10) as link:
        link.sendall(raw + b"\r\n\r\n")
        link.shutdown(socket.SHUT_WR)
        while link.recv(4096):
            pass
    assert server.process.poll() is None
    assert server.ask("/health").status == 200


def test_who_goes_away_is_not_answered_on(server: Server) -> None:
    for _ in range(3):
        body = json.dumps({"prompt": [5], "temperature": 0, "ignore_eos": True, "stream": True}).encode()
        with socket.create_connection(("127.0.0.1", server.port), 10) as link:
            link.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            link.recv(100)
    after = server.complete(IDS, max_tokens=5, ignore_eos=True, cache_prompt=True)
    assert (after.usage["completion_tokens"], after.text) == (5, server.complete(IDS, max_tokens=5).text)


def test_requests_at_a_time_are_answered_one_after_the_other(server: Server) -> None:
    expected = server.complete(IDS, max_tokens=100, ignore_eos=True).text
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.complete(IDS, max_tokens=100, ignore_eos=True).text))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers == [expected] * 8


def test_a_connection_may_ask_twice(server: Server) -> None:
    link = server.connect()
    for _ in range(2):
        link.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 2, "stream": True}))
        assert link.getresponse().read().endswith(b"data: [DONE]\n\n")
    link.close()


def test_it_ends_at_once_also_while_it_answers() -> None:
    need_runtime()
    one = Server.start()
    body = json.dumps({"prompt": [5], "ignore_eos": True, "stream": True}).encode()
    with socket.create_connection(("127.0.0.1", one.port), 10) as link:
        link.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        link.recv(100)
        assert one.stop() == -15


def test_a_folder_that_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    need_runtime()

    def fails(model: Path, *words: str) -> str:
        argv = [sys.executable, "-B", str(SCRIPT), "--model", str(model), "--port", "0", *words]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        last: str = done.stderr.splitlines()[-1]
        assert last.startswith("onnxruntime-genai: ")
        return last

    cut = copied(tmp_path / "cut")
    os.truncate(cut / "model.onnx.data", 1000)
    fails(cut)
    garbage = copied(tmp_path / "garbage")
    (garbage / "model.onnx").write_bytes(b"\xff" * 500)
    fails(garbage)
    silent = copied(tmp_path / "silent")
    (silent / "genai_config.json").write_text("{}")
    fails(silent)
    fails(tmp_path / "nowhere")
    assert "2048" in fails(TINY, "--ctx-size", "2048")
    assert "nonsense" in fails(TINY, "--provider", "nonsense")
