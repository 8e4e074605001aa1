"""llama-perplexity: what it is given, and what its lines say of each task and chunk; lines as it printed them."""

from __future__ import annotations

import math
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.engines import Process, ScoringEngine, protocol
from meltbench.engines.llama_perplexity import LlamaPerplexity
from meltbench.engines.prompts import Ask
from meltbench.errors import UserError
from meltbench.measure.accuracy import accuracy_measures
from meltbench.records import Readings, Score

SPEAK = LlamaPerplexity()
BEGUN = b"perplexity: calculating perplexity over 3 chunks, n_ctx=512, batch_size=2048, n_seq=4\n"
# Of SmolLM2-135M-Instruct Q4_1 on WikiText-2; the second kind against the same model at Q8_0.
CHUNKS = [b"       0  13.8520  2.628431  0.160120\n", b"       0  19.2020  2.955014  0.121300\n"]
AGAINST = [
    "   1      15.9012 ±    2.1100       0.13790 ±    0.05402       0.28702 ±    0.02113    12.410 ±  0.803 % ...\n",
    "   2      20.0010 ±    2.0103       0.14020 ±    0.03510       0.29610 ±    0.01500    12.020 ±  0.550 % ...\n",
]
ITSELF = (
    "   1      36.6900 ±   15.6305      -0.00000 ±       -nan      -0.00000 ±    0.00000     0.000 ±  0.000 % ...\n"
)


def lines(*raw: bytes, t0: int = 100) -> Readings:
    stamps = np.arange(t0, t0 + len(raw), dtype=np.int64)
    return Readings.of(stamps, stamps, np.zeros(len(raw), np.int32), list(raw))


def process(*out: bytes, begun: bytes = BEGUN, end: int | None = 900) -> Process:
    return Process(end, lines(*out), lines(b"load: something\n", begun, t0=50))


def task(number: int, answer: str = "0", **more: Any) -> Ask:
    known: dict[str, Any] = {"prompt": "Sky?", "allowed": (" blue", " green", " red")} | more
    return Ask(f"{number:05d}", f"q{number}", "timed", 0, 0, ignore_eos=False, answer=answer, **known)


TEXT = Ask("00000", "1", "timed", 0, 0, ignore_eos=False, prompt="Some wörds.")


def test_the_tasks_are_packed_as_the_program_reads_them() -> None:
    (command,) = SPEAK.commands([task(0, "1"), task(1, "2", prompt="Ü?")], "/run/req")
    assert command.words["flags"] == "--multiple-choice"
    assert command.words["tasks"] == "/run/req/tasks.bin"
    raw, at = command.files["tasks.bin"], 0

    def number() -> int:
        nonlocal at
        at += 4
        return int(struct.unpack_from("<I", raw, at - 4)[0])

    def text() -> str:
        nonlocal at
        size = number()
        at += size
        return raw[at - size : at].decode()

    assert number() == 2
    at += 2 * 4
    found = []
    for _ in range(2):
        question = text()
        for n in (number(), 0):
            answers, labels = [text() for _ in range(n)], [number() for _ in range(n)]
            if n:
                found.append((question, answers, labels))
        assert number() == 0
    assert at == len(raw)
    words = ["blue", "green", "red"]
    assert found == [("Sky?", words, [0, 1, 0]), ("Ü?", words, [0, 0, 1])]


def test_a_text_goes_along_as_it_is_and_a_reference_goes_first() -> None:
    (command,) = SPEAK.commands([TEXT], "/run/req")
    assert command.files == {"text.txt": "Some wörds.".encode()}
    assert (command.words["flags"], command.words["output"], command.words["logits"]) == ("none", "1", "none")
    first, second = SPEAK.against(command, "/models/ref.gguf", "/run/req")
    assert (first.words["model"], first.words["flags"], first.asks) == ("/models/ref.gguf", "none", ())
    assert (second.words["flags"], second.words["logits"]) == ("--kl-divergence", "/run/req/logits")
    assert first.words["logits"] == second.words["logits"]
    assert "model" not in second.words
    assert second.files == {}


@pytest.mark.parametrize(
    "ask",
    [task(0, prompt=None), task(0, allowed=("blue", " green")), task(0, allowed=tuple(f" {n}" for n in range(101)))],
)
def test_what_the_program_cannot_score_is_refused(ask: Ask) -> None:
    with pytest.raises(UserError, match=r"llama-perplexity (scores answers after one question|takes 100 answers)"):
        SPEAK.commands([ask], "/run/req")


def test_each_task_adds_what_the_percentage_says() -> None:
    asks = [task(n) for n in range(4)]
    out = [
        b"\n",
        b"task\tacc_norm\n",
        b"1\t100.00000000\n",
        b"2\t50.00000000\n",
        b"3\t66.66666667\n",
        b"4\t75.00000000\n",
    ]
    done = process(*out, begun=b"multiple_choice_score : calculating TruthfulQA score over 4 tasks.\n")
    found = SPEAK.scores(asks, [done], {})
    assert [(one.item, one.correct) for one in found] == [("q0", 1.0), ("q1", 0.0), ("q2", 1.0), ("q3", 1.0)]
    (request,) = SPEAK.requests(asks, [done], {})
    assert (request.status, request.t_send_ns, request.t_end_ns) == ("ok", 51, 900)
    cut = process(*out[:4], begun=b"calculating TruthfulQA score over 4 tasks.\n")
    assert [(one.correct, one.detail) for one in SPEAK.scores(asks, [cut], {})][2:] == [(None, "truncated")] * 2
    (request,) = SPEAK.requests(asks, [cut], {})
    assert (request.status, request.detail) == ("truncated", "it told of 2 of 4")


def test_each_chunk_adds_to_the_mean_so_far() -> None:
    found = SPEAK.scores([TEXT], [process(*CHUNKS)], {"chunk": 512})
    assert [one.n for one in found] == [255, 255]
    assert found[0].value == pytest.approx(-2.628431 * 255)
    assert (found[0].value or 0) + (found[1].value or 0) == pytest.approx(-2.955014 * 510)
    measures = {one.name: one for one in accuracy_measures(found)}
    assert measures["perplexity"].value == pytest.approx(19.2020, abs=2e-4)
    (request,) = SPEAK.requests([TEXT], [process(*CHUNKS)], {})
    assert (request.item, request.status) == ("all", "ok")


def test_against_a_reference_each_chunk_has_a_divergence_too() -> None:
    done = process(*(line.encode() for line in AGAINST), begun=b"kl_divergence: computing over 2 chunks\n")
    reference = process(*CHUNKS)
    found = SPEAK.scores([TEXT], [reference, done], {"chunk": 512})
    assert [one.method for one in found] == ["nll", "kld", "nll", "kld"]
    measures = {one.name: one for one in accuracy_measures(found)}
    assert measures["kl_divergence"].value == pytest.approx(0.29610, abs=1e-5)
    assert measures["perplexity"].value == pytest.approx(20.0010, abs=1e-3)
    # Two chunks, each off the mean by as much: twice the standard error is that distance twice over.
    assert measures["kl_divergence"].u_k2 == pytest.approx(2 * (0.29610 - 0.28702), rel=0.01)
    assert measures["kl_divergence"].n == 510
    assert SPEAK.loaded_ns([reference, done]) == 51
    of_itself = SPEAK.scores([TEXT], [reference, process(ITSELF.encode())], {"chunk": 512})
    assert [one.value for one in of_itself] == [pytest.approx(-255 * math.log(36.69)), 0.0]


def test_a_program_that_never_began_told_nothing() -> None:
    silent = process(begun=b"error: unable to load model\n")
    assert SPEAK.requests([TEXT], [silent], {}) == []
    assert SPEAK.requests([TEXT], [], {}) == []
    assert SPEAK.scores([TEXT], [], {}) == []
    assert SPEAK.scores([TEXT], [silent], {}) == []
    (request,) = SPEAK.requests([TEXT], [process(*CHUNKS, end=None)], {})
    assert request.status == "truncated"
    assert isinstance(protocol("llama-perplexity"), ScoringEngine)


@given(st.lists(st.binary(max_size=80) | st.from_regex(rb"\d{1,3}\t\d{1,3}\.\d{1,8}\n", fullmatch=True), max_size=20))
def test_no_line_of_it_raises_and_no_score_is_beyond_its_bounds(out: list[bytes]) -> None:
    asks = [task(n) for n in range(5)]
    for found in (SPEAK.scores(asks, [process(*out)], {}), SPEAK.scores([TEXT], [process(*out)], {"chunk": 64})):
        assert all(_sane(one) for one in found)


def _sane(score: Score) -> bool:
    known = score.correct is None or score.correct in (0.0, 1.0)
    return known and (score.value is None or math.isfinite(score.value))
