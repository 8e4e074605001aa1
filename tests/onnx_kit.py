"""The ONNX server of runners/onnx as a process of its own, asked over HTTP; the model is tests/models/tiny-onnx."""

from __future__ import annotations

import http.client
import importlib.util
import json
import select
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
TINY = HERE / "models" / "tiny-onnx"
SCRIPT = HERE.parent / "runners" / "onnx" / "serve.py"
VOCABULARY, CONTEXT = 276, 1024
_PATIENCE_S = 60.0


def need_runtime() -> None:
    """Skip where the engine is not installed."""
    if importlib.util.find_spec("onnxruntime_genai") is None:
        pytest.skip("onnxruntime-genai is not installed: pip install '.[onnx]'")


def copied(folder: Path) -> Path:
    """The tiny model, to be changed."""
    return Path(shutil.copytree(TINY, folder))


@dataclass
class Reply:
    """What came back: its status, and the object of it or the events of its stream."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        return str(self.json["error"]["message"])

    @property
    def events(self) -> list[dict[str, Any]]:
        """Of a stream that ended as it should."""
        parts = self.body.decode().split("\n\n")
        assert parts[-2:] == ["data: [DONE]", ""], parts[-3:]
        return [json.loads(part.removeprefix("data: ")) for part in parts[:-2]]

    @property
    def tokens(self) -> list[dict[str, Any]]:
        """The choices of a stream, one a token."""
        found = [event["choices"][0] for event in self.events if event["choices"]]
        return found[1:] if found[0].get("delta", {}).get("role") else found

    @property
    def text(self) -> str:
        return "".join(one["text"] if "text" in one else one["delta"]["content"] for one in self.tokens)

    @property
    def usage(self) -> dict[str, Any]:
        found = self.events[-1]["usage"] if self.body.startswith(b"data:") else self.json["usage"]
        assert isinstance(found, dict)
        return found


@dataclass
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    log: list[str] = field(default_factory=list)

    @classmethod
    def start(cls, model: Path = TINY, words: Sequence[str] = ("--threads", "1")) -> Server:
        argv = [sys.executable, "-B", "-W", "error", str(SCRIPT), "--model", str(model), "--port", "0", *words]
        # Unbuffered: a line that was read ahead would be waited for in vain.
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, bufsize=0)
        assert process.stderr is not None
        log: list[str] = []
        while "listening" not in (log or [""])[-1]:
            ready, _, _ = select.select([process.stderr], [], [], _PATIENCE_S)
            line = process.stderr.readline().decode() if ready else ""
            if not line:
                process.kill()
                process.communicate()
                raise RuntimeError("".join(log))
            log.append(line)
        return cls(process, int(log[-1].rsplit(":", 1)[1]), log)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_S)

    def ask(self, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Reply:
        """A POST of a JSON body, or of bytes; a GET without one."""
        raw = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        link = self.connect()
        try:
            link.request("GET" if body is None else "POST", path, raw, headers or {})
            answer = link.getresponse()
            return Reply(answer.status, answer.read())
        finally:
            link.close()

    def complete(self, prompt: Any, **more: Any) -> Reply:
        """The best tokens after a prompt, streamed, with the usage."""
        greedy = {"prompt": prompt, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        return self.ask("/v1/completions", greedy | more)

    def chat(self, *words: str, **more: Any) -> Reply:
        """An answer to what was said in turns, the user first."""
        roles = ("user", "assistant")
        said = [{"role": roles[n % 2], "content": text} for n, text in enumerate(words)]
        greedy = {"messages": said, "temperature": 0, "stream": True, "stream_options": {"include_usage": True}}
        return self.ask("/v1/chat/completions", greedy | more)

    def stop(self) -> int:
        self.process.terminate()
        code = self.process.wait(_PATIENCE_S)
        assert self.process.stderr is not None
        self.process.stderr.close()
        return code
