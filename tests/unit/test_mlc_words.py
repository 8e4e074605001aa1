"""How texts become tokens in MLC's form: a tokenizer of what a GGUF says, a conversation template of a Jinja one."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from hypothesis import given
from hypothesis import strategies as st
from mlc_kit import asker
from tokenizers import Tokenizer

from meltbench.errors import ModelDamaged, UserError
from meltbench.models.mlc import render, template
from meltbench.models.mlc.render import texts
from meltbench.models.mlc.template import conv_template, takes_system, written
from meltbench.models.mlc.tokenizer import tokenizer_json
from meltbench.models.mlc.weights import GgufSource
from meltbench.models.mlc.words import words_of

CHATML = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
NO_SYSTEM = CHATML.replace("{{ '<|im_start|>system\nBe kind<|im_end|>\n' }}", "")
LLAMA_3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
ZEPHYR = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] + eos_token + '\n' }}{% endfor %}"
    "{{ '<|assistant|>\n' }}"
)
TALK = [
    {"role": "user", "content": "Where is {assistant_message}?"},
    {"role": "assistant", "content": "There."},
    {"role": "user", "content": "Why?"},
]


def gguf_says(changed: dict[str, Any]) -> Any:
    words = ["<|end|>", *(chr(c) for c in range(33, 127)), "\u0120", "he", "\u0120he", "12"]
    said = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [3, *[1] * (len(words) - 1)],
        "tokenizer.ggml.merges": ["h e", "\u0120 he", "1 2"],
        "tokenizer.ggml.bos_token_id": 0,
    } | changed
    return lambda key, otherwise=None: said.get(key, otherwise)


def pieces(says: Any, text: str) -> list[str]:
    return list(Tokenizer.from_str(tokenizer_json(says, "m.gguf")).encode(text).tokens)


def test_a_byte_level_vocabulary_cuts_as_its_gguf_names() -> None:
    assert pieces(gguf_says({}), "he he12<|end|>") == ["he", "\u0120he", "1", "2", "<|end|>"]
    assert pieces(gguf_says({"tokenizer.ggml.pre": "gpt-2"}), "he12") == ["he", "12"]
    # Llama 3 takes a whole word that is a token as it is, and begins with its first token.
    assert pieces(gguf_says({"tokenizer.ggml.pre": "llama-bpe", "tokenizer.ggml.merges": ["h e"]}), " he12") == [
        "<|end|>",
        "\u0120he",
        "12",
    ]


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"tokenizer.ggml.tokens": None}, ModelDamaged, "has no vocabulary"),
        ({"tokenizer.ggml.tokens": [1, 2]}, ModelDamaged, "has no vocabulary"),
        ({"tokenizer.ggml.model": "rwkv"}, UserError, "of kind rwkv"),
        ({"tokenizer.ggml.pre": "tekken"}, UserError, "as tekken; known are smollm"),
        ({"tokenizer.ggml.merges": None}, ModelDamaged, "has no merges"),
        ({"tokenizer.ggml.merges": ["a b c"]}, ModelDamaged, "has no merges"),
        ({"tokenizer.ggml.merges": ["zz zz"]}, ModelDamaged, "cannot be read"),
        ({"tokenizer.ggml.model": "llama"}, ModelDamaged, "no score for every token"),
    ],
)
def test_a_vocabulary_that_is_none_is_told_with_what_to_do(changed: dict[str, Any], error: Any, words: str) -> None:
    with pytest.raises(error, match=words) as caught:
        tokenizer_json(gguf_says(changed), "m.gguf")
    assert "--tokenizer tokenizer.json" in str(caught.value)


@pytest.mark.parametrize("special", [5, [1], {"a": 3}, {"a": {"ids": 7}}, {"a": {"ids": ["x"]}}])
def test_what_a_tokenizer_says_beside_its_own_is_not_trusted(tmp_path: Path, special: object) -> None:
    made = json.loads(tokenizer_json(gguf_says({}), "m.gguf"))
    made["post_processor"] = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    made["post_processor"]["special_tokens"] = special
    given = tmp_path / "tokenizer.json"
    given.write_text(json.dumps(made))
    source = GgufSource(tiny_llama.write(tmp_path / "tiny.gguf"))
    assert words_of(source, given).bos == 1
    given.write_text(json.dumps(made)[:-1] + ', "more": ' + "9" * 5000 + "}")
    with pytest.raises(UserError, match=r"tokenizer\.json is no tokenizer"):
        words_of(source, given)


def test_sentencepiece_keeps_every_byte(tmp_path: Path) -> None:
    says = GgufSource(tiny_llama.write(tmp_path / "tiny.gguf")).says
    made = Tokenizer.from_str(tokenizer_json(says, "tiny"))
    text = "ab \u20ac!"
    found = made.encode(text)
    assert found.tokens[:5] == ["<s>", "\u2581", "a", "b", "\u2581"]
    assert found.tokens[5:] == ["<0xE2>", "<0x82>", "<0xAC>", "<0x21>"]
    assert made.decode(found.ids) == text


def test_pieces_are_merged_by_their_scores() -> None:
    words = ["<unk>", "<s>", "\u2581", "a", "b", "c", "ab", "bc", "abc"]
    changed = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.scores": [0.0, 0, -1, -2, -3, -4, -7, -5, -6],
        "tokenizer.ggml.token_type": [2, 3, *[1] * 7],
        "tokenizer.ggml.bos_token_id": 1,
    }
    assert pieces(gguf_says(changed), "abc") == ["<s>", "\u2581", "abc"]  # a + bc, for bc comes before ab
    assert pieces(gguf_says(changed), "abab") == ["<s>", "\u2581", "ab", "ab"]


@pytest.mark.parametrize(
    ("jinja", "bos", "system"), [(CHATML, None, True), (LLAMA_3, (1, "<s>"), False), (ZEPHYR, None, False)]
)
def test_a_conversation_is_written_as_the_models_own_template_writes_it(
    jinja: str, bos: tuple[int, str] | None, system: bool
) -> None:
    from jinja2 import Environment

    conv = conv_template(jinja, [2], bos, "</s>")
    assert conv is not None
    assert takes_system(conv) is system
    assert (conv["system_prefix_token_ids"], conv["stop_token_ids"]) == ([] if bos is None else [1], [2])
    template = Environment().from_string(jinja)
    talks = [TALK, TALK[:1], *([[{"role": "system", "content": "So: {x}"}, *TALK]] if system else [])]
    for talk in talks:
        theirs = template.render(messages=talk, add_generation_prompt=True, bos_token="", eos_token="</s>")
        assert written(conv, talk) == theirs
        assert asker().written(conv, talk) == theirs  # the runner's own, which imports nothing of ours


@pytest.mark.parametrize(
    "jinja",
    [
        "{{ messages[0]['content'] }}",  # the others are lost
        "{% for m in messages %}{{ loop.index }}{{ m['content'] }}{% endfor %}",
        "{{ 1 / 0 }}",
        "{{ raise_exception('no') }}",
        "{% if %}",
        "{{ messages.__class__.__mro__ }}",
        "{{ messages[0]['content'] * 99999999999 }}",
        "x" * 70_000,
    ],
)
def test_a_template_that_is_of_another_form_gives_none(jinja: str) -> None:
    assert conv_template(jinja, [2], None, "") is None


@pytest.mark.parametrize(
    "jinja",
    [
        "{% for a in range(99999) %}" * 6 + "{% endfor %}" * 6,
        "{% set a = 9 ** 9 %}{{ a ** a }}",
        "{{ 'x' * 10 ** 9 }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ 'x' | center(1000000000) }}",
        "{% set n = namespace(x='x') %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}{{ n.x }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% for a in [1] %}" * 30 + "{% endfor %}" * 30,
        "{{ 'x' * 2000000 }}",
    ],
)
def test_a_template_that_takes_time_or_memory_is_ended(jinja: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meltbench.models.mlc.template._CPU_S", 1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert conv_template(CHATML + jinja, [2], None, "") is None
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


@given(st.text(max_size=80))
def test_no_template_does_worse_than_none(jinja: str) -> None:
    conversations = [[dict(one) for one in case] for case in (*template._MARKED, *template._CASES)]
    loop = "{% for m in messages %}{{ m['content'] }}{{ '" + "|" + "' }}{% endfor %}"
    found = template.matching(texts(jinja + loop, conversations, "", ""), [], None)
    assert found is None or json.dumps(found)


STUBBORN = """
import resource, runpy, sys
lower = resource.setrlimit
def setrlimit(which, limits):
    if which == getattr(resource, sys.argv[2]):
        raise {error}("current limit exceeds maximum limit")
    lower(which, limits)
resource.setrlimit = setrlimit
runpy.run_path(sys.argv[1], run_name="__main__")
"""


@pytest.mark.parametrize("error", ["ValueError", "OSError"])
def test_a_host_that_bounds_no_memory_bounds_the_time_all_the_same(error: str) -> None:
    ask = {"jinja": "{{ messages[0].content }}", "conversations": [[{"role": "user", "content": "a"}]]}
    ask |= {"bos": "", "eos": "", "cpu_s": 10, "memory_bytes": 1 << 29}
    done = {}
    for limit in ("RLIMIT_AS", "RLIMIT_CPU"):
        argv = [sys.executable, "-c", STUBBORN.format(error=error), render.__file__, limit]
        done[limit] = subprocess.run(argv, input=json.dumps(ask), capture_output=True, text=True, check=False)
    assert (done["RLIMIT_AS"].stdout, done["RLIMIT_AS"].stderr) == ('["a"]', "")
    assert done["RLIMIT_CPU"].returncode == 1


def test_a_template_without_a_place_for_a_system_message_refuses_one() -> None:
    conv = conv_template(NO_SYSTEM, [], None, "")
    assert conv is not None
    with pytest.raises(SystemExit, match="no place for a system message"):
        asker().written(conv, [{"role": "system", "content": "x"}, *TALK])
    with pytest.raises(SystemExit, match="no place for a message of tool"):
        asker().written(conv, [{"role": "tool", "content": "x"}])
