"""Answers recorded from real engines, byte for byte as the probe received them, mean what they meant then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from meltbench.engines import protocol
from meltbench.engines.prompts import Ask, Sent
from meltbench.records import Readings, Request

FOLDER = Path(__file__).parent / "llama_server"
EXPECTED: dict[str, dict[str, Any]] = {
    "stock_completion_at_depth": {"n_in": 160, "n_cached": 128, "n_out": 8, "stop_reason": "limit"},
    "stock_prefill_only": {"n_in": 64, "n_cached": 0, "n_out": 0, "decode_tps": None, "tpot_s": None},
    "xllamacpp_chat_stopped": {"n_in": 43, "n_cached": 0, "n_out": 8, "stop_reason": "stop"},
    "xllamacpp_chat": {"n_in": 59, "n_cached": 0, "n_out": 6, "stop_reason": "length"},
}


def replay(name: str, keep: int | None = None) -> Request:
    recorded = json.loads((FOLDER / f"{name}.json").read_text())
    chunks = recorded["chunks"][:keep]
    t = np.array([chunk["t_us"] * 1000 for chunk in chunks], np.int64)
    raw = [chunk["raw"].encode("latin-1") for chunk in chunks]
    ask = Ask(file="00000", **recorded["ask"])
    end = int(t[-1]) if len(t) else 0
    return protocol("llama-server").answer(ask, Sent(0, 0, end), Readings.of(t, t, np.zeros(len(t), np.int32), raw))


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recorded_answer(name: str) -> None:
    got = replay(name)
    assert got.status == "ok"
    for field, value in EXPECTED[name].items():
        assert getattr(got, field) == value, field
    assert got.ttft_s is not None
    assert got.engine_prefill_s is not None
    # The engine's prefill lies inside what the client waited for its first token.
    assert got.engine_prefill_s <= got.ttft_s < got.engine_prefill_s + 0.02
    if got.decode_tps is not None:
        assert got.decode_tps == pytest.approx(got.engine_decode_tps, rel=0.05)
        assert sum(got.token_n) == got.n_out


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_recording_cut_anywhere_is_never_ok_and_never_raises(name: str) -> None:
    whole = len(json.loads((FOLDER / f"{name}.json").read_text())["chunks"])
    # The last piece recorded is only the blank line that closes the chunked body: before it the answer is whole.
    for keep in range(whole - 1):
        assert replay(name, keep).status != "ok"
