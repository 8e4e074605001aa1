"""Holds an answer against what was asked, whatever engine gave it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from meltbench.engines.prompts import Ask
    from meltbench.records import Request


def checked(ask: Ask, request: Request) -> Request:
    """The request, or its failure where a grid's prompt or context depth is not the one that was asked for."""
    if request.status != "ok" or ask.n_in is None:
        return request
    if request.n_in != ask.n_in:
        return replace(
            request, status="wrong_n_in", detail=f"asked {ask.n_in} prompt tokens, the engine saw {request.n_in}"
        )
    if request.n_cached != ask.n_cached:  # also when the engine does not say
        return replace(
            request,
            status="wrong_depth",
            detail=f"asked a depth of {ask.n_cached}, the engine had {request.n_cached} cached",
        )
    return request
