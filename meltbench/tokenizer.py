"""Texts as a model's tokens, by llama.cpp itself: its server, out of the xllamacpp wheel, is asked on this machine.

What is scored token by token must be known in tokens before the run; the model's file is on this machine in any case.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from meltbench import catalog
from meltbench.deadline import Deadline
from meltbench.errors import InternalError, ModelDamaged, UserError
from meltbench.targets import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

_READY_S, _ASK_S, _PAUSE_S = 300.0, 60.0, 0.02
_MAX_SAID_BYTES = 256 << 20
_TAIL_BYTES = 4096
# prctl(PR_SET_PDEATHSIG, SIGKILL), which stays in force over the execv: prctl(2).
_DIES_WITH_US = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Tokenized:
    """Texts in tokens, special ones that the model begins with included; ``bos``: the one it begins with, if any."""

    tokens: dict[str, tuple[int, ...]]
    bos: int | None


def tokenized(model: Path, texts: Iterable[str], say: Callable[[str], None]) -> Tokenized:
    """The tokens of each text. Raises ModelDamaged where the model cannot be loaded, UserError without xllamacpp."""
    import importlib.util

    if importlib.util.find_spec("xllamacpp") is None:
        raise UserError(
            "scoring token by token needs llama.cpp's tokenizer, the package xllamacpp, on this machine",
            hint="pip install xllamacpp (Linux), or --runner llama-perplexity",
        )
    wanted = list(dict.fromkeys(texts))
    say(f"finding the tokens of {len(wanted)} texts")
    with _serving(model) as connection:
        empty = _ask(connection, "")
        return Tokenized({text: _ask(connection, text) for text in wanted}, empty[0] if empty else None)


@contextlib.contextmanager
def _serving(model: Path) -> Iterator[http.client.HTTPConnection]:
    """A server of the model on this machine, for as long as it is asked; it dies with this process."""
    port = _free_port()
    script = catalog.builtin_root() / "runners" / "llamacpp" / "serve.py"
    words = ["--model", str(model), "--port", str(port), "--ctx-size", "64", "--threads", "1", "--parallel", "1"]
    argv = [sys.executable, "-B", "-c", _DIES_WITH_US, sys.executable, "-B", str(script), *words]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_S)
        try:
            _wait(process, connection, model, said)
            yield connection
        finally:
            connection.close()
            process.kill()
            process.wait()


def _wait(
    process: subprocess.Popen[bytes], connection: http.client.HTTPConnection, model: Path, said: IO[bytes]
) -> None:
    """Until the model is loaded."""
    deadline = Deadline.after(_READY_S)
    while process.poll() is None and deadline.remaining() > 0:
        try:
            connection.request("GET", "/health")
            answer = connection.getresponse()
            answer.read()
            if answer.status == 200:
                return
        except (OSError, http.client.HTTPException):
            connection.close()
        time.sleep(_PAUSE_S)
    said.seek(0, 2)
    said.seek(max(said.tell() - _TAIL_BYTES, 0))
    lines = printable(said.read().decode("utf-8", "replace")).strip().splitlines()
    last = lines[-1][:300] if lines else "it said nothing"
    raise ModelDamaged(f"llama.cpp cannot load {model}: {last}", hint="fetch it again, or name another model")


def _ask(connection: http.client.HTTPConnection, text: str) -> tuple[int, ...]:
    """One text in tokens, marks of special tokens in it read as text."""
    body = json.dumps({"content": text, "add_special": True, "parse_special": False})
    try:
        connection.request("POST", "/tokenize", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        found = json.loads(answer.read(_MAX_SAID_BYTES)).get("tokens")
    except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
        raise InternalError(f"llama.cpp's tokenizer does not answer: {error}", hint="please report it") from error
    if not isinstance(found, list) or not all(isinstance(one, int) for one in found):
        raise InternalError("llama.cpp's tokenizer answers without tokens", hint="please report it")
    return tuple(found)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
