"""A made run of MELT's: its llama.cpp's main loop, its host's script and its meter, played with clocks of our own.

It stands in for the phone and the laboratory that MELT needs, and for nothing of ours. The loop goes through the turns
of examples/main/main.cpp of MELT's fork and marks what that marks; the files have the forms of its scripts. What really
happened (``Truth``) is kept beside, so that a test knows what is right without reading any of the files.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path

EPOCH_S = 1_709_550_000.0
IDLE_W, LOAD_W, PREFILL_W, DECODE_W = 1.0, 3.0, 8.0, 5.0


@dataclass
class Truth:
    """One prompt by the true clock (s): when it was tokenised, its prefill, and when each token was evaluated."""

    sent_s: float
    prefill_s: tuple[float, float] = (0.0, 0.0)
    token_s: list[float] = field(default_factory=list)
    end_s: float = 0.0


@dataclass
class Line:
    """Power over time: (start, end, W) one after the other, else idle."""

    spans: list[tuple[float, float, float]] = field(default_factory=list)

    def watts(self, t: float) -> float:
        return next((w for a, b, w in self.spans if a <= t < b), IDLE_W)

    def joules(self, start: float, end: float) -> float:
        busy = sum(max(0.0, min(b, end) - max(a, start)) * (w - IDLE_W) for a, b, w in self.spans)
        return busy + IDLE_W * (end - start)


@dataclass
class Played:
    """Files by name, and what really happened."""

    files: dict[str, bytes]
    prompts: list[Truth]
    load_s: tuple[float, float]
    power: Line
    skew_s: float

    def write(self, folder: Path) -> Path:
        """As MELT leaves them: tables of an experiment at the top, those of its conversations below."""
        for name, raw in self.files.items():
            deep = name.startswith(("measurements_iter", "llm_output"))
            path = folder / "melt_measurements" / name if deep else folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(raw)
        return folder


@dataclass
class LlamaCpp:
    """The conversation to be played. ``answers``: tokens drawn for each prompt, of which the last is the end of the
    text where ``ends`` says so; else the answer is cut. ``tokens``: of each prompt. ``late_words``: the program's last
    timings, at its interruption, were logged too."""

    tokens: tuple[int, ...] = (12, 30, 7)
    answers: tuple[int, ...] = (9, 14, 11)
    ends: tuple[bool, ...] = (True, False, False)
    system: int = 20
    batch: int = 512
    skew_s: float = 0.7
    late_words: bool = False
    typed_s: float = 0.04
    seen_s: float = 0.03
    step_s: float = 0.1
    per_token_s: float = 0.01
    draw_s: float = 0.002
    slower: float = 0.0  # of a step, by prompt

    def play(self, iteration: int = 0, number: int = 0) -> Played:
        return _Loop(self).run(iteration, number)


class _Loop:
    def __init__(self, plan: LlamaCpp) -> None:
        self.plan, self.t = plan, EPOCH_S + 60.0
        self.marks: dict[str, int] = {}
        self.states: list[tuple[float, float, str]] = []
        self.output = ["spawn adb shell /data/local/tmp/llama.cpp/build-android/bin/main"]
        self.power, self.prompts = Line(), list[Truth]()
        self.counts = [0, 0, 0]  # evaluated as a batch, one by one, drawn
        self.seconds = [0.0, 0.0, 0.0]

    def mark(self, name: str) -> None:
        self.marks[name] = round((self.t + self.plan.skew_s) * 1e9)

    def spend(self, seconds: float, watts: float) -> None:
        self.power.spans.append((self.t, self.t + seconds, watts))
        self.t += seconds

    def evaluate(self, counter: int, n: int) -> None:
        if n:
            self.mark(f"generate.{counter}.decode.start")
            one = self.plan.step_s * (1 + self.plan.slower * max(len(self.prompts) - 1, 0))
            seconds = one if n == 1 else n * self.plan.per_token_s
            self.spend(seconds, DECODE_W if n == 1 else PREFILL_W)
            kind = 1 if n == 1 else 0
            self.counts[kind] += n
            self.seconds[kind] += seconds
        self.mark(f"generate.{counter}.decode.end")

    def tell(self) -> None:
        (n_in, n_steps, drawn), (s_in, s_steps, s_drawn) = [max(1, n) for n in self.counts], self.seconds
        row = "llama_print_timings: {:>16} = {:10.2f} ms / {:5d} {} ({:8.2f} ms per token, {:8.2f} tokens per second)"
        rows = [("sample time", s_drawn, drawn, "runs  "), ("prompt eval time", s_in, n_in, "tokens")]
        rows.append(("eval time", s_steps, n_steps, "runs  "))
        self.output += ["", "llama_print_timings:        load time =    2000.00 ms"]
        for what, seconds, n, unit in rows:
            rate = n / seconds if seconds else float("inf")
            self.output.append(row.format(what, seconds * 1e3, n, unit, seconds * 1e3 / n, rate))
        self.output.append("llama_print_timings:       total time =   12345.67 ms")
        self.counts, self.seconds = [0, 0, 0], [0.0, 0.0, 0.0]

    def ask(self, state: str, began: float) -> float:
        """The host sees the program ask, notes what it waited for, rests, and types the next prompt; when it did."""
        seen = self.t + self.plan.seen_s
        self.states.append((round(began, 3), round(seen - began, 3), state))
        self.t = seen + 5.0
        return self.t

    def run(self, iteration: int, number: int) -> Played:
        plan, began = self.plan, self.t
        self.t += 0.2
        load = self.t
        self.mark("load_model.start")
        self.spend(2.0, LOAD_W)
        self.mark("load_model.end")
        load_s = load, self.t
        self.t = max(self.t, began + 5.0)  # the script sleeps before it looks
        self.mark("generate.start")
        state, pending, embd, asked, drawn, counter = "load_model", plan.system, 0, -1, 0, 0
        interacting = True
        while True:
            counter += 1
            first = asked >= 0 and embd > 1 and not self.prompts[asked].token_s
            start = self.t
            self.evaluate(counter, embd)
            if asked >= 0 and embd and not interacting:
                truth = self.prompts[asked]
                if first and truth.prefill_s == (0.0, 0.0):
                    truth.prefill_s = start, self.t
                truth.prefill_s = (truth.prefill_s[0], self.t) if first else truth.prefill_s
            embd = 0
            if not pending and not interacting:
                self.prompts[asked].token_s.append(self.t)
                self.spend(plan.draw_s, DECODE_W)
                drawn, embd = drawn + 1, 1
                self.counts[2] += 1
                self.seconds[2] += plan.draw_s
                over = drawn == plan.answers[asked]
                ended = over and plan.ends[asked]
                if ended:
                    interacting = True
                    self.tell()
            else:
                over = ended = False
                embd = min(pending, plan.batch)
                pending -= embd
            if not pending and interacting and (embd <= 1 or asked < 0) and (ended or not embd):
                if asked >= 0:
                    self.prompts[asked].end_s = self.t
                if asked + 1 == len(plan.tokens):
                    self.ask(state, began)
                    break
                began = self.ask(state, began)
                asked, drawn = asked + 1, 0
                state = f"a prompt of {plan.tokens[asked]} tokens, said {asked}"
                self.t += plan.typed_s
                self.prompts.append(Truth(self.t))
                self.mark(f"prompt.{counter}.tokenize.start")
                self.t += 0.001
                self.mark(f"prompt.{counter}.tokenize.end")
                pending, interacting = plan.tokens[asked], False
            if over and not ended:
                interacting = True
                self.tell()
        self.mark("generate.end")
        if plan.late_words:
            self.tell()
        return Played(self.files(iteration, number), self.prompts, load_s, self.power, plan.skew_s)

    def files(self, iteration: int, number: int) -> dict[str, bytes]:
        shuffled = list(self.marks.items())
        random.Random(5).shuffle(shuffled)
        stem = f"iter{iteration}_conv{number}"
        rows = [f'{start:.3f},{lasts:.3f},"{text}"\r\n' for start, lasts, text in self.states]
        return {
            f"measurements_{stem}.tsv": "".join(f"{name} {ns}\n" for name, ns in shuffled).encode(),
            f"measurements_{stem}.csv": ("start_date,duration,state\r\n" + "".join(rows)).encode(),
            f"llm_output_{stem}.txt": "\n".join(self.output).encode(),
        }


def monsoon(
    power: Line, start_s: float, end_s: float, *, volts: float = 4.0, rate: int = 5000, share: int = 3
) -> dict[str, bytes]:
    """What PyMonsoon writes of it: samples in packets, each under one stamp, in mA and V, and the host's start."""
    n, dice = int((end_s - start_s) * rate), random.Random(11)
    rows = []
    for at in range(n):
        stamp = (at // share + 1) * share / rate  # when the packet came
        watts = power.watts(start_s + at / rate) * (1 + 0.01 * dice.uniform(-1, 1))
        rows.append(f"{stamp!r},{watts / volts * 1e3!r},{volts!r},\n")
    return {"measurements_monsoon.csv": "".join(rows).encode(), ".t_monsoon": f"{start_s!r}".encode()}


def jetson(
    power: Line, start_s: float, end_s: float, *, rail: str = "VDD_IN", rate: int = 100, noise_ma: int = 8
) -> bytes:
    """What jetson-monitor logs of a rail of 5 V: a line a value, the current first."""
    rows = []
    for at in range(int((end_s - start_s) * rate)):
        t = start_s + at / rate
        ma = round(power.watts(t) / 5.0 * 1e3) + noise_ma * (at % 3 - 1)
        for k, text in enumerate((f"current_{rail}: {ma} mA", f"voltage_{rail}: 5000 mV")):
            rows.append(f"{round(t * 1e9) + k * 20_000} {text}\n")
    return "".join(rows).encode()


def app(answers: tuple[int, ...] = (5, 8), skew_s: float = 0.0, tokens: int = 20) -> Played:
    """What MLC's Android app leaves of one conversation: whole milliseconds, a rest of 5 s after each prompt."""
    t, marks, questions = EPOCH_S + 70.0, {}, []
    power, prompts = Line(), []

    def mark(name: str) -> None:
        marks[name] = round((t + skew_s) * 1e3) * 1_000_000

    mark("reload.0.start")
    power.spans.append((t, t + 3.0, LOAD_W))
    load = t, t + 3.0
    t += 3.0
    mark("reload.0.end")
    step = 0
    for at, n in enumerate(answers):
        t += 5.0
        truth = Truth(t)
        mark(f"prefill.{at}.start")
        power.spans.append((t, t + 0.4, PREFILL_W))
        truth.prefill_s = t, t + 0.4
        t += 0.4
        mark(f"prefill.{at}.end")
        truth.token_s.append(t)
        for _ in range(n - 1):
            mark(f"stopped.{step}.start")
            mark(f"stopped.{step}.end")
            mark(f"generate.decode.{step}.start")
            power.spans.append((t, t + 0.1, DECODE_W))
            t += 0.1
            mark(f"generate.decode.{step}.end")
            truth.token_s.append(t)
            step += 1
        truth.end_s = t
        prompts.append(truth)
        stats = {
            "prefill": {
                "throughput": f"{tokens / 0.4:.1f} tok/s",
                "total tokens": f"{tokens} tok",
                "total time": "0.4 s",
            },
            "decode": {
                "throughput": "10.0 tok/s",
                "total tokens": f"{n - 1} tok",
                "total time": f"{(n - 1) / 10:.1f} s",
            },
        }
        questions.append({
            "time": {"start": round(truth.sent_s + skew_s, 3), "duration": round(t - truth.sent_s + 0.01, 3)},
            "input": "a question", "output": "an answer", "original_session_tokens": -1,
            "input_tokens": tokens, "output_tokens": n - 1, "runtimeStats": json.dumps(stats),
        })  # fmt: skip
    mark("verbose_runtime_stats_text.start")
    mark("verbose_runtime_stats_text.end")
    shuffled = list(marks.items())
    random.Random(3).shuffle(shuffled)
    session = {"modelName": "TinyLlama-q4f16", "modelLoadTime": {"start": load[0] - 0.2 + skew_s, "duration": 3.2}}
    files = {
        "measurements_iter0.json": json.dumps([session | {"questionRecords": questions}], indent=4).encode(),
        "measurements_iter0_conv0.csv": "".join(f"{name},{ns}\n" for name, ns in shuffled).encode(),
    }
    return Played(files, prompts, load, power, skew_s)
