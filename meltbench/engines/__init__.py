"""Recorded bytes of an engine to requests, tokens and timings: one module an engine protocol.

Pure: nothing here opens a file or reaches a target.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from meltbench.errors import UnknownName

if TYPE_CHECKING:
    from meltbench.engines.prompts import Ask, Sent
    from meltbench.records import Readings, Request


class EngineProtocol(Protocol):
    """How one kind of server is spoken to."""

    @property
    def health_path(self) -> str:
        """What answers 200 once the model is loaded."""

    def request(self, ask: Ask) -> bytes:
        """The exact bytes to send for one ask."""

    def answer(self, ask: Ask, sent: Sent, chunks: Readings) -> Request:
        """What the recorded answer says. Never raises for its content."""

    def accelerator(self, log: str) -> str:
        """Which device the engine computed on, by its own log: CPU, CUDA, Vulkan, Metal ... or unknown.

        A model that lies there only in part adds its share of layers, as ``CUDA 12/31``.
        """


def protocol(name: str) -> EngineProtocol:
    """The engine protocol of a recipe's ``protocol`` key."""
    from meltbench.engines import llama_server

    known: dict[str, EngineProtocol] = {"llama-server": llama_server.LlamaServer()}
    if name not in known:
        raise UnknownName("engine protocol", name, known)
    return known[name]
