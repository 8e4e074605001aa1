"""Where and why our numbers of a MELT run are not MELT's: sentences, and of each when it applies."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from meltbench.imports.melt.account import Told
    from meltbench.imports.melt.operators import Operators

LOAD_HOST = (
    "load: MELT's is the host's, from before the program is started to its first prompt. Its script sleeps 5 s before "
    "it looks, so that no load is shorter. Ours is what the program marked of loading."
)
LOAD_APP = "load: MELT's has the unloading of the model before in it; ours is what the program marked of loading."
DURATION_HOST = (
    "duration: MELT's ends when the host sees the program ask again, over adb or a terminal; ours with the last token."
)
TOKENS_LLAMA = (
    "tokens: MELT's output_tokens are those that llama.cpp evaluated one by one: without the first of an answer, which "
    "comes of the prompt's evaluation, and from the second prompt on with the last one of the answer before. Ours are "
    "the tokens drawn."
)
TOKENS_MLC = (
    "tokens: MELT's output_tokens are MLC's decodes: without the first token of an answer, which the prefill draws."
)
RATE_LLAMA = (
    "tps: MELT's is over llama.cpp's eval time, without drawing and printing tokens; our decode_tps is over the time "
    "between tokens."
)
RATE_MLC = "tps: MELT's is as MLC prints it, with one decimal; our decode_tps is over the time between tokens."
PREFILL_FIRST = (
    "prefill: llama.cpp's count of the first prompt has in it what was evaluated before, the system prompt: MELT takes "
    "it, we leave it out."
)
PREFILL_TIME = (
    "ttft: MELT has no time to the first token; ours ends with the prompt's evaluation, before the token is drawn."
)
MILLISECONDS = "times: the MLC app of Android marks whole milliseconds, and ours are no better."
ENERGY = (
    "energy: MELT's energy_pt is that of the prompt's whole window, prefill included, over its output_tokens. It adds "
    "up each sample inside the window times the time since the one before: both edges are cut, and of samples with one "
    "stamp the first alone counts. Ours is a trapezoid, interpolated at both edges, with u; None where fewer than ten "
    "fresh values lie in the window."
)
STAGES_JETSON = (
    "stages: MELT's report of a Jetson keeps of a single stage the lines of the current alone, drops them for their "
    "empty voltage, and shows 0 mWh for each; so it does for every prompt of MLC."
)
SHIFTED = (
    "rows: the engine told its timings more often than there are prompts, and MELT's report takes the last ones: its "
    "rows have the tokens and rates of other prompts. Ours are matched by the tokens that the program marked."
)
OVERALL = (
    "overall: MELT's notebook keeps the prompts strictly between the 5th and the 95th percentile of an iteration, sums "
    "energy_pt and discharge_pt over them, and divides discharge_pt by the output tokens once more. Ours are medians, "
    "and a ratio of sums over the whole run, rests between prompts included."
)
NO_TIMES = (
    "operators: such a log has no clock. When a prompt was sent, a token was there or the model was loaded is not in "
    "it, nor are ttft, tpot, decode_tps or energy, by either account; tok/s of the operators alone are an upper bound, "
    "and printing every operator slows the engine down."
)
TWO_DURATIONS = (
    'operators: MELT\'s tables call two things "Duration (ms)": in the detailed one it is CPU time, of all threads '
    "together, in the summary wall time, where a call counts 1 us at least. Both add up warm-up, prompts and answers."
)
UNCHUNKED = (
    "operators: MELT's parser reads TVM's reports in numbered pieces alone. These are whole, and it finds none: its "
    "numbers here are what it would add up."
)
PER_MS = (
    "operators: the \"Throughput\" of MELT's notebook is reports by millisecond of all calls, the host's among them."
)


def differences(told: Sequence[Told], logs: Sequence[Operators] = ()) -> list[str]:
    """The sentences that apply to any of these conversations and logs of operators, each once."""
    found = [words for one in told for words in _of(one)]
    return list(dict.fromkeys([*found, *(words for log in logs for words in _of_operators(log))]))


def _of_operators(log: Operators) -> Iterator[str]:
    yield NO_TIMES
    if log.engine == "llama.cpp":
        yield TWO_DURATIONS
        return
    yield PER_MS
    if not log.chunked:
        yield UNCHUNKED


def _of(told: Told) -> Iterator[str]:
    conversation, llama = told.conversation, told.conversation.engine == "llama.cpp"
    marked = any(prompt.turn is not None for prompt in conversation.prompts)
    counted = any(row.output_tokens is not None for row in told.rows)
    if told.load is not None and conversation.load_ns is not None:
        yield LOAD_HOST if conversation.by_host else LOAD_APP
    if conversation.by_host and marked:
        yield DURATION_HOST
    if counted:
        yield TOKENS_LLAMA if llama else TOKENS_MLC
        yield RATE_LLAMA if llama else RATE_MLC
        if conversation.warmed:
            yield PREFILL_FIRST
    if marked:
        yield PREFILL_TIME
    if marked and conversation.events is not None and conversation.events.dialect == "mlc-app":
        yield MILLISECONDS
    if any(prompt.said is not None and prompt.taken != prompt.said for prompt in conversation.prompts) and llama:
        yield SHIFTED
    if told.power is not None and told.power.rails:
        yield ENERGY
        if told.power.emptied:
            yield STAGES_JETSON
    if counted:
        yield OVERALL
