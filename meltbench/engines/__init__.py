"""Recorded bytes of an engine to requests, tokens and timings: one module an engine protocol.

An engine is driven in one of two ways. A *server* is started, asked over HTTP and stopped. A *program* is started with
its work on its command line, or in a file beside the job, and runs to its end; what it prints is stamped by the probe,
line by line, and that is the evidence. Pure: nothing here opens a file or reaches a target.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from meltbench import plugins
from meltbench.errors import DefinitionError, UnknownName

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from meltbench.engines.prompts import Ask, Sent
    from meltbench.records import Readings, Request, Score


# Engine protocols of ours that are asked in one way only.
WITHOUT_DIALECT = ("llama-server", "llama-bench", "llama-perplexity", "in-process", "inference")
# What a server may know beside OpenAI's own fields; see ``Dialect``.
Extension = Literal[
    "ignore_eos",
    "min_tokens",
    "debug_config",
    "cache_prompt",
    "continuous_usage_stats",
    "top_k",
    "repeat_penalty",
    "repetition_penalty",
    "return_token_ids",
    "structured_outputs",
    "chat_template_kwargs",
]


@dataclass(frozen=True)
class Dialect:
    """What one kind of OpenAI-compatible server knows beside the fields that all of them know, as its recipe says it.

    ``path`` is where its routes begin, ``health`` what answers 200 once the model is loaded: ``path``/models where it
    is None. ``token_ids``: its completions take a list of ids for a prompt. A field that is not among ``fields`` is not
    sent, for many servers refuse what they do not know: ``ignore_eos`` and ``min_tokens`` make an answer as long as it
    is asked to be, ``debug_config`` does so in MLC's way; ``cache_prompt`` is llama.cpp's word for reusing what two
    prompts have in common, ``continuous_usage_stats`` vLLM's for a count in every event, ``return_token_ids`` for the
    ids of its tokens; ``structured_outputs`` bounds an answer to given ones, ``chat_template_kwargs`` tells a model
    whether to think. The others say how tokens are drawn.
    """

    path: str = "/v1"
    health: str | None = None
    token_ids: bool = False
    fields: tuple[Extension, ...] = ()

    def __post_init__(self) -> None:
        for one in (self.path, self.health):
            if one and (not one.startswith("/") or not one.isascii() or not one.isprintable() or " " in one):
                raise ValueError(f"{one!r} is no path: it begins with / and has no space")


class EngineProtocol(Protocol):
    """What every engine can be asked about itself."""

    @property
    def words(self) -> tuple[str, ...]:
        """The words that a recipe's arguments may use beside its knobs."""

    def identity(self, log: str) -> dict[str, str]:
        """What the engine says it is, by its own log: always ``accelerator``; ``version`` and more where it says.

        The accelerator is CPU, CUDA, Vulkan, Metal ... or unknown. A model that lies there only in part adds its share
        of layers, as ``CUDA 12/31``.
        """


@runtime_checkable
class ServerEngine(EngineProtocol, Protocol):
    """How one kind of server is spoken to."""

    @property
    def health_path(self) -> str:
        """What answers 200 once the model is loaded."""

    def request(self, ask: Ask) -> bytes:
        """The exact bytes to send for one ask."""

    def answer(self, ask: Ask, sent: Sent, chunks: Readings) -> Request:
        """What the recorded answer says. Never raises for its content."""


@dataclass(frozen=True)
class Command:
    """One process to be run to its end.

    ``words`` fill its recipe's arguments; ``files`` are pushed beside the job, by name. ``asks`` is what it is to
    measure, ``log_bytes`` what it may print on one stream.
    """

    words: dict[str, str]
    asks: tuple[Ask, ...]
    files: dict[str, bytes] = field(default_factory=dict)
    log_bytes: int = 0


@dataclass(frozen=True)
class Process:
    """What the probe saw of one process: its end (None where that was not seen), and both its streams."""

    t_exit_ns: int | None
    out: Readings
    err: Readings


@runtime_checkable
class ProgramEngine(EngineProtocol, Protocol):
    """How one kind of program is given its work, and how what it printed is read."""

    def commands(self, asks: Sequence[Ask], folder: str) -> list[Command]:
        """The processes of a run, in order; ``folder`` is where their files will lie on the target.

        Raises UserError for what the engine cannot be asked.
        """

    def requests(self, asks: Sequence[Ask], processes: Sequence[Process], asked: Mapping[str, Any]) -> list[Request]:
        """What the processes printed, in order. ``asks`` are those of the commands, ``asked`` the settings of the run.

        Never raises for what was printed.
        """

    def loaded_ns(self, processes: Sequence[Process]) -> int | None:
        """When the first process had its model loaded, None where it never said so."""


@runtime_checkable
class ScoringEngine(ProgramEngine, Protocol):
    """A program that scores its items by itself."""

    def scores(self, asks: Sequence[Ask], processes: Sequence[Process], asked: Mapping[str, Any]) -> list[Score]:
        """What each item came to; arguments as of ``requests``. Never raises for what was printed."""

    def against(self, command: Command, reference: str, folder: str) -> list[Command]:
        """The processes that hold a text against a model of reference, which lies at that path on the target."""


def protocol(name: str, dialect: Dialect | None = None, model: str = "") -> ServerEngine | ProgramEngine:
    """The engine protocol of a recipe's ``protocol`` key; also one of an installed package (meltbench.plugins).

    ``dialect`` and ``model``, the name by which a server knows it, go into requests; to read answers neither is needed.
    """
    from meltbench.engines import in_process, inference, llama_bench, llama_perplexity, llama_server, openai

    known: dict[str, ServerEngine | ProgramEngine] = {
        "llama-server": llama_server.LlamaServer(),
        "llama-bench": llama_bench.LlamaBench(),
        "llama-perplexity": llama_perplexity.LlamaPerplexity(),
        "in-process": in_process.InProcess(),
        "inference": inference.Inference(),
        "openai": openai.OpenAI(dialect or Dialect(), model),
    }
    if name in known:
        return known[name]
    make = plugins.protocol(name)
    if make is None:
        raise UnknownName("engine protocol", name, [*known, *plugins.protocol_names()])
    engine: ServerEngine | ProgramEngine = make(dialect or Dialect(), model)
    if not isinstance(engine, ServerEngine | ProgramEngine):
        raise DefinitionError(
            f"what the engine protocol {name} makes is none", hint="it lacks a method of ServerEngine"
        )
    return engine
