"""The model of the server in serve.py: ONNX Runtime GenAI, asked for one answer at a time, token by token.

Runs on the target, so it imports nothing of meltbench.
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime_genai as genai

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator


class Refused(Exception):
    """A request that cannot be answered: why, and the HTTP status for it."""

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Asked:
    """A request, checked. ``limit``: the most tokens; ``stops``: texts that end it; ``settings``: how tokens are drawn,
    in GenAI's words; ``flags``: what was asked for of the others."""

    chat: bool
    ids: list[int]
    limit: int
    stops: list[str]
    settings: dict[str, Any]
    flags: frozenset[str]


@dataclass(frozen=True)
class Told:
    """One token: its id and text; of the last one why the answer ends with it, and the usage."""

    id: int
    text: str
    stop: str | None = None
    usage: dict[str, Any] | None = None


class Words:
    """The text of an answer as its tokens come. ``held``: what may be the beginning of a text that ends it."""

    def __init__(self, stream: Any, stops: list[str]) -> None:
        self.stream, self.stops, self.held = stream, stops, ""

    def add(self, token: int) -> tuple[str, bool]:
        """The text that can be sent now, and whether the answer ends with it."""
        text = self.held + self.stream.decode(token)
        if found := [at for stop in self.stops if (at := text.find(stop)) >= 0]:
            self.held = ""
            return text[: min(found)], True
        ends = (n for stop in self.stops for n in range(1, len(stop)) if text.endswith(stop[:n]))
        sent = len(text) - max(ends, default=0)
        self.held = text[sent:]
        return text[:sent], False


class Engine:
    """The model, and a generator whose cache is used again where the next request allows it."""

    def __init__(self, given: argparse.Namespace) -> None:
        config = genai.Config(given.model)
        config.clear_providers()
        if given.provider != "cpu":
            config.append_provider(given.provider)
        if given.threads is not None:
            session = {"intra_op_num_threads": given.threads}
            config.overlay(json.dumps({"model": {"decoder": {"session_options": session}}}))
        said = json.loads((Path(given.model) / "genai_config.json").read_bytes())["model"]
        self.name = Path(given.model).resolve().name
        self.vocab_size, self.ctx = int(said["vocab_size"]), int(given.ctx_size or said["context_length"])
        self.model = genai.Model(config)
        self.tokenizer = genai.Tokenizer(self.model)
        self.ends = {int(token) for token in self.tokenizer.eos_token_ids}
        self.begins = self.encoded("a")[:1] == [self.tokenizer.bos_token_id]  # some tokenizers write a beginning
        self.lock = threading.Lock()
        self.held: list[int] = []  # the tokens whose keys and values the generator has
        self.settings: dict[str, Any] = {}
        self.generator: Any = None
        # The memory of its cache is part of the load.
        self._generator({"do_sample": False, "repetition_penalty": 1, "min_length": 0})

    def _generator(self, settings: dict[str, Any]) -> None:
        self.generator = None  # the old cache is freed before there is a new one
        params = genai.GeneratorParams(self.model)
        params.set_search_options(max_length=self.ctx, **settings)
        self.generator, self.settings = genai.Generator(self.model, params), settings

    def encoded(self, text: str) -> list[int]:
        """The tokens of a text. Raises Refused for one that GenAI would cut off without a word, or not take."""
        if "\0" in text or any("\ud800" <= one <= "\udfff" for one in text):
            raise Refused("a text may hold neither NUL nor half of a surrogate pair")
        return [int(token) for token in self.tokenizer.encode(text)]

    def chat(self, messages: list[dict[str, str]]) -> list[int]:
        """The tokens that the model's template makes of messages. Raises Refused where there is none."""
        try:
            text = self.tokenizer.apply_chat_template(json.dumps(messages), add_generation_prompt=True)
        except RuntimeError as error:
            why = "has no chat template" if "Empty chat template" in str(error) else f"its template fails: {error}"
            raise Refused(f"the model {self.name} takes no messages, {why}; ask with a prompt") from None
        ids = self.encoded(text)
        # The template may have written it already; once is enough.
        return ids[1:] if self.begins and ids[:2] == [self.tokenizer.bos_token_id] * 2 else ids

    def answer(self, asked: Asked, t_asked: float) -> Iterator[Told]:
        """The tokens, one by one, when it is this request's turn."""
        with self.lock:
            t_start, t_first = time.perf_counter(), 0.0
            cached = self._prefill(asked)
            words, tokens = Words(self.tokenizer.create_stream(), asked.stops), []
            while True:
                self.generator.generate_next_token()
                tokens.append(int(self.generator.get_next_tokens()[0]))
                t_last = time.perf_counter()
                t_first = t_first or t_last
                ended = tokens[-1] in self.ends and "ignore_eos" not in asked.flags
                text, stopped = ("", False) if ended else words.add(tokens[-1])
                if ended or stopped or len(tokens) == asked.limit:
                    break
                yield Told(tokens[-1], text)
            self.held = asked.ids + tokens[:-1]  # the last one was drawn and not evaluated
            told = usage(len(asked.ids), cached, len(tokens), t_first - t_asked, t_first - t_start, t_last - t_first)
            yield Told(tokens[-1], text + words.held, "stop" if ended or stopped else "length", told)

    def _prefill(self, asked: Asked) -> int:
        """Evaluate the prompt; how many of its tokens were held."""
        settings = asked.settings | {"min_length": self.ctx if "ignore_eos" in asked.flags else 0}
        held, self.held, same = self.held, [], 0  # nothing is held of a request that fails
        if settings != self.settings or settings["do_sample"] or self.generator is None:
            self._generator(settings)
        else:
            # The last token is evaluated in any case: from its output the first new one is drawn.
            most = min(len(held), len(asked.ids) - 1) if "cache_prompt" in asked.flags else 0
            while same < most and held[same] == asked.ids[same]:
                same += 1
            self.generator.rewind_to(same)
        self.generator.append_tokens(np.array(asked.ids[same:], dtype=np.int32))
        return same


def usage(n_in: int, cached: int, n_out: int, ttft_s: float, prefill_s: float, decode_s: float) -> dict[str, Any]:
    """As OpenAI has it, with MLC's ``extra``; a rate of nothing is left out."""
    extra = {"prefill_tokens": n_in - cached, "decode_tokens": n_out - 1, "ttft_s": ttft_s}
    extra |= {"prefill_tokens_per_s": (n_in - cached) / prefill_s}
    extra |= {"decode_tokens_per_s": (n_out - 1) / decode_s} if n_out > 1 else {}
    counts = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    return {**counts, "prompt_tokens_details": {"cached_tokens": cached}, "extra": extra}
