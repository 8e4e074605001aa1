"""The exact log-probability of one token by llama.cpp's server.

The server tells probabilities of what it draws, before any bias (tools/server/README.md, ``n_probs``). So the token is
made to be drawn by a bias that nothing else reaches, and what is told of it is its own probability. A grammar would not
do: it lets the engine spell the same text by other tokens. With the prompt's prefix kept, an ending of n tokens costs
about n decoded ones.
"""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from meltbench.engines.http import Answer
    from meltbench.engines.prompts import Ask
    from meltbench.records import Request

_LEAST = -1e4  # nats: e to that is no double any more
_BIAS = 1000  # in logits: of no model are two so far apart


def body(ask: Ask) -> dict[str, Any]:
    """What is posted to /completion for the token ``ask.target`` after the prompt ``ask.tokens``."""
    return {
        "prompt": list(ask.tokens or ()),
        "n_predict": 1,
        "n_probs": 1,
        "logit_bias": [[ask.target, _BIAS]],
        "cache_prompt": ask.keep_cache,
        "temperature": 0,
        "seed": ask.seed,
        "stream": False,
        "response_fields": ["completion_probabilities", "timings", "tokens_evaluated"],
    }


def read(ask: Ask, request: Request, answer: Answer) -> Request:
    """The request with the log-probability that the server told, or its failure: told of another token, of none, or a
    value that is no log-probability."""
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        return replace(request, status="garbage", detail=answer.problem or "an answer that is not JSON")
    found = said.get("completion_probabilities") if isinstance(said, dict) else None
    first = found[0] if isinstance(found, list) and found and isinstance(found[0], dict) else {}
    logprob = first.get("logprob")
    if first.get("id") != ask.target:
        told = str(first.get("id", "no token"))[:20]
        return replace(request, status="garbage", detail=f"asked about token {ask.target}, it tells of {told}")
    if (
        not isinstance(logprob, int | float)
        or isinstance(logprob, bool)
        or not math.isfinite(logprob)
        or logprob > 1e-6
    ):
        return replace(request, status="garbage", detail=f"{str(logprob)[:20]} is no log-probability")
    if logprob < _LEAST:  # llama.cpp says the least float for a probability that underflowed
        return replace(request, status="garbage", detail="the probability underflowed: nobody knows its logarithm")
    n_in = said.get("tokens_evaluated")
    if n_in != ask.n_in or not isinstance(n_in, int):
        detail = f"asked {ask.n_in} prompt tokens, the engine saw {str(n_in)[:20]}"
        return replace(request, status="wrong_n_in", detail=detail)
    timings = said.get("timings")
    cached = timings.get("cache_n") if isinstance(timings, dict) else None
    known = cached if isinstance(cached, int) and not isinstance(cached, bool) and 0 <= cached <= n_in else None
    return replace(request, logprob=min(float(logprob), 0.0), n_in=n_in, n_cached=known, n_out=1)
