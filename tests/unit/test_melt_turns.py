"""Prompts out of the marks of MELT's engines, held against what a made main loop really did."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from melt_kit import EPOCH_S, LlamaCpp, app

from meltbench.imports.melt import app as records
from meltbench.imports.melt import events, output, tables
from meltbench.imports.melt.conversation import Parts, put_together
from meltbench.imports.melt.turns import turns

STEM = "iter0_conv0"


def parts(played, **more):
    given_files = {
        "events": events.parse(played.files[f"measurements_{STEM}.tsv"], "x"),
        "states": tables.parse_states(played.files[f"measurements_{STEM}.csv"], "x")[0],
        "timings": output.parse_timings(played.files[f"llm_output_{STEM}.txt"]),
        "batch": 512,
    }
    return Parts(**(given_files | more))


def near(seconds):
    """Marks are in the program's clock: 0.7 s ahead here; a float of unix time is good to a microsecond."""
    return pytest.approx(round((seconds + 0.7) * 1e9), abs=2000)


plans = st.integers(1, 6).flatmap(
    lambda n: st.builds(
        LlamaCpp,
        tokens=st.tuples(*[st.integers(2, 40)] * n),
        answers=st.tuples(*[st.integers(1, 12)] * n),
        ends=st.tuples(*[st.booleans()] * n),
        system=st.integers(1, 30),
    )
)


@settings(max_examples=80, deadline=None)
@given(plans)
def test_every_prompt_is_found_with_its_tokens(plan):
    played = plan.play()
    conversation = put_together(0, 0, parts(played))
    assert conversation.notes == ()
    assert len(conversation.prompts) == len(plan.tokens)
    for prompt, truth, n_out in zip(conversation.prompts, played.prompts, plan.answers, strict=True):
        turn = prompt.turn
        assert turn is not None
        assert turn.sent_ns == near(truth.sent_s)
        assert turn.prefill[1] == near(truth.token_s[0])
        assert turn.n_out == n_out
        assert list(turn.token_ns) == [near(t) for t in truth.token_s]
        assert prompt.said is not None
        assert prompt.said.n_drawn == n_out


@settings(max_examples=40, deadline=None)
@given(plans)
def test_by_the_marks_alone_all_but_the_last_answers_length_is_known(plan):
    played = plan.play()
    found = turns(events.parse(played.files[f"measurements_{STEM}.tsv"], "x"))
    assert [turn and turn.n_out for turn in found][:-1] == list(plan.answers[:-1])
    last = found[-1]
    assert last is not None
    assert last.n_out is None
    # Each of the tokens that it tells of was there; whether its last step gave one nobody knows.
    truth = [near(t) for t in played.prompts[-1].token_s]
    assert list(last.token_ns) == truth[: len(last.token_ns)]
    assert len(truth) - len(last.token_ns) <= 1


def test_a_prompt_of_several_batches_has_its_first_token_at_the_end_of_the_last():
    plan = LlamaCpp(tokens=(12, 300, 130), answers=(5, 6, 7), ends=(True, True, False), batch=128)
    played = plan.play()
    conversation = put_together(0, 0, parts(played, batch=128))
    ends = [prompt.turn and prompt.turn.prefill[1] for prompt in conversation.prompts]
    assert ends == [near(truth.token_s[0]) for truth in played.prompts]
    assert [prompt.turn and prompt.turn.n_out for prompt in conversation.prompts] == [5, 6, 7]


def test_where_nobody_knows_how_many_batches_there_were_a_prompt_has_no_turn():
    plan = LlamaCpp(tokens=(12, 300, 9), answers=(5, 6, 7), ends=(True, True, False), batch=128)
    conversation = put_together(0, 0, parts(plan.play(), batch=None))
    assert [prompt.turn is None for prompt in conversation.prompts] == [False, True, False]
    assert conversation.notes == ("1 prompts have no whole marks, or may have been evaluated in several batches",)
    # A first prompt's count has the system prompt in it: two batches may be one of each.
    plan = LlamaCpp(tokens=(120, 9), answers=(5, 6), ends=(True, False), batch=128)
    conversation = put_together(0, 0, parts(plan.play(), batch=128))
    assert [prompt.turn is None for prompt in conversation.prompts] == [True, False]


def test_words_of_the_engine_that_were_logged_once_more_at_its_end_are_matched_by_the_marks():
    """MELT's report takes the last groups: each prompt has the tokens and rates of the next one."""
    plan = LlamaCpp(answers=(9, 14, 11), late_words=True)
    conversation = put_together(0, 0, parts(plan.play()))
    assert [prompt.said and prompt.said.n_drawn for prompt in conversation.prompts] == [9, 14, 11]
    assert [prompt.taken and prompt.taken.n_drawn for prompt in conversation.prompts] == [14, 11, 1]
    bare = put_together(0, 0, parts(plan.play(), events=None))
    assert [prompt.said for prompt in bare.prompts] == [None] * 3
    assert bare.notes == (
        "the engine told its timings 4 times for 3 prompts, which are not told apart by anything: they are left out",
    )


def test_words_that_do_not_agree_with_the_marks_are_left_out():
    words = LlamaCpp(answers=(9, 13, 11)).play().files[f"llm_output_{STEM}.txt"]
    conversation = put_together(0, 0, parts(LlamaCpp().play(), timings=output.parse_timings(words)))
    assert [prompt.said for prompt in conversation.prompts] == [None] * 3
    assert "which do not agree with its marks" in conversation.notes[0]
    assert [prompt.turn is not None for prompt in conversation.prompts] == [True] * 3


def test_a_line_that_was_lost_takes_its_prompt_alone():
    played = LlamaCpp().play()
    lines = played.files[f"measurements_{STEM}.tsv"].splitlines(keepends=True)
    kept = b"".join(line for line in lines if not line.startswith(b"generate.16.decode.start "))
    found = put_together(0, 0, parts(played, events=events.parse(kept, "x")))
    assert [prompt.turn is None for prompt in found.prompts] == [False, True, False]


def test_marks_of_another_number_of_prompts_are_left_out():
    played, other = LlamaCpp().play(), LlamaCpp(tokens=(5,), answers=(4,), ends=(False,)).play()
    marked = events.parse(other.files[f"measurements_{STEM}.tsv"], "x")
    found = put_together(0, 0, parts(played, events=marked))
    assert found.notes[-1] == "1 prompts are marked, 3 are in the table: the marks are left out"
    assert all(prompt.turn is None for prompt in found.prompts)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=5))
def test_the_apps_prefill_draws_the_first_token_and_each_decode_one_more(answers):
    played = app(tuple(answers))
    session = records.parse(played.files["measurements_iter0.json"], "x")[0]
    marked = events.parse(played.files["measurements_iter0_conv0.csv"], "x")
    found = put_together(0, 0, Parts(events=marked, session=session))
    assert (found.engine, found.by_host, found.notes) == ("MLC", False, ())
    for prompt, truth, n_out in zip(found.prompts, played.prompts, answers, strict=True):
        assert prompt.turn is not None
        assert prompt.turn.n_out == n_out
        assert [t / 1e9 - EPOCH_S for t in prompt.turn.token_ns] == pytest.approx(
            [t - EPOCH_S for t in truth.token_s], abs=1e-3
        )
        assert prompt.taken is not None
        assert prompt.taken.n_steps == n_out - 1


def test_mlcs_command_line_has_the_first_and_the_last_times_of_its_last_prompt():
    marks = {
        "load_model": (1, 3),
        "chat.0.0.prefill": (10, 11),
        "chat.0.0.decode.0": (14, 15),
    }
    text = "".join(
        f"{name}.{edge} {t * 10**9}\n"
        for name, span in marks.items()
        for edge, t in zip(("start", "end"), span, strict=True)
    )
    states = [tables.State("load_model", 0.5, 5), tables.State("a", 6, 1), tables.State("b", 9.9, 5.2)]
    stats = [output.Counted(1, 2, 3.0, 4.0), output.Counted(5, 6, 7.0, 8.0), output.Counted(9, 10, 11.0, 12.0)]
    found = put_together(0, 0, Parts(states=states, events=events.parse(text.encode(), "x"), stats=stats))
    assert found.prompts[0].turn is None
    turn = found.prompts[1].turn
    assert turn is not None
    assert (turn.sent_ns, turn.end_ns, turn.n_out, turn.only_ends) == (10 * 10**9, 15 * 10**9, None, True)
    # Asked before the first prompt as well: MELT's report takes the words of the prompt before.
    assert [prompt.said for prompt in found.prompts] == stats[1:]
    assert [prompt.taken for prompt in found.prompts] == stats[:2]
