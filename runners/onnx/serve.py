"""An OpenAI-compatible server around ONNX Runtime GenAI: /health, /v1/models, /v1/chat/completions, /v1/completions.

Runs on the target, so it imports nothing of meltbench. It answers one request at a time and streams one event a token,
also where a token has no text yet. It ends on SIGTERM.

A prompt is a text or a list of token ids. A text of ``stop`` ends the answer before it: what may be its beginning is
held back, and those tokens come without text. Beside OpenAI's fields are known: ``top_k``, ``repetition_penalty``,
``ignore_eos`` (all of ``max_tokens`` are made, unless a text of ``stop`` comes), ``cache_prompt`` (what the prompt has
in common with the one before is not evaluated again; where tokens are drawn it is, for a seed must give the same answer
each time), and ``return_token_ids`` as vLLM has it. ``usage.extra`` has the rates and ``ttft_s`` by the clock of this
process, under the names that MLC has for them. A field that would change the answer and is not known is refused.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import onnxruntime_genai as genai
from genai_engine import Asked, Engine, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from genai_engine import Told

MAX_BODY_BYTES = 16 << 20
MAX_CONNECTIONS = 32
MAX_STOPS, MAX_STOP_CHARS = 64, 1000
SILENCE_S = 30.0  # of a client that is waited for
MOST = (1 << 31) - 1  # GenAI's seeds and counts have 32 bits
FLAGS = ("ignore_eos", "cache_prompt", "stream", "include_usage", "return_token_ids")
# What a field may be without changing the answer; it is refused with any other value.
REFUSED: dict[str, Any] = {
    "n": 1, "best_of": 1, "min_tokens": 0, "presence_penalty": 0, "frequency_penalty": 0, "top_logprobs": 0,
    "echo": False, "logprobs": False, "logit_bias": {}, "tools": [], "functions": [],
    "response_format": {"type": "text"},
}  # fmt: skip


def number(body: dict[str, Any], key: str, default: float, low: float, high: float) -> float:
    value = body.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise Refused(f"{key} must be a number from {low} to {high}")
    return value


def whole(body: dict[str, Any], key: str, default: int, low: int, high: int) -> int:
    if (value := number(body, key, default, low, high)) != int(value):
        raise Refused(f"{key} must be a whole number")
    return int(value)


def flags_of(body: dict[str, Any]) -> frozenset[str]:
    more = body.get("stream_options")
    said = {**body, **more} if isinstance(more, dict) else body
    for key in FLAGS:
        if said.get(key) is not None and not isinstance(said[key], bool):
            raise Refused(f"{key} must be true or false")
    return frozenset(key for key in FLAGS if said.get(key))


def settings_of(body: dict[str, Any], vocab_size: int) -> dict[str, Any]:
    """How tokens are drawn. At temperature 0 the best one is taken; OpenAI's default is 1."""
    temperature, top_p = number(body, "temperature", 1, 0, 100), number(body, "top_p", 1, 0, 1)
    top_k, seed = whole(body, "top_k", 0, -1, MOST), whole(body, "seed", -1, 0, 1 << 62)
    settings = {"do_sample": temperature > 0, "repetition_penalty": number(body, "repetition_penalty", 1, 0.01, 100)}
    if temperature > 0:
        settings |= {"temperature": temperature, "top_p": top_p, "top_k": min(max(top_k, 0), vocab_size)}
        settings["random_seed"] = seed % MOST if seed >= 0 else -1
    return settings


def stops_of(body: dict[str, Any]) -> list[str]:
    stops: Any = [] if (found := body.get("stop")) is None else [found] if isinstance(found, str) else found
    fit = isinstance(stops, list) and len(stops) <= MAX_STOPS
    if not fit or not all(isinstance(one, str) and 0 < len(one) <= MAX_STOP_CHARS for one in stops):
        raise Refused(f"stop must be up to {MAX_STOPS} texts of 1 to {MAX_STOP_CHARS} characters")
    return list(stops)


def messages_of(body: dict[str, Any]) -> list[dict[str, str]]:
    found: Any = body.get("messages")
    said = [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []
    pairs = [(one.get("role"), one.get("content")) for one in said]
    if not said or len(said) != len(found) or not all(isinstance(text, str) for pair in pairs for text in pair):
        raise Refused("messages must be a list of objects, each with a role and a content of text")
    return [{"role": role, "content": content} for role, content in pairs]


def prompt_of(body: dict[str, Any], engine: Engine) -> list[int]:
    if isinstance(prompt := body.get("prompt"), str):
        return engine.encoded(prompt)
    if not isinstance(prompt, list) or not all(type(one) is int for one in prompt):
        raise Refused("prompt must be a text or a list of token ids")
    if not all(0 <= one < engine.vocab_size for one in prompt):  # GenAI itself would take it
        raise Refused(f"the ids of the tokens of {engine.name} are 0 to {engine.vocab_size - 1}")
    return prompt


def asked_of(body: Any, engine: Engine, *, chat: bool) -> Asked:
    """A request's body, checked. Raises Refused."""
    if not isinstance(body, dict):
        raise Refused("the body must be a JSON object")
    if unknown := next((key for key, fine in REFUSED.items() if body.get(key) not in (None, fine)), None):
        raise Refused(f"this server does not know {unknown}")
    ids = engine.chat(messages_of(body)) if chat else prompt_of(body, engine)
    room = engine.ctx - len(ids)
    if not ids or room < 1:
        raise Refused(f"the prompt has {len(ids)} tokens, the context has room for {engine.ctx}")
    limit = min(whole(body, key, room, 1, MOST) for key in ("max_tokens", "max_completion_tokens"))
    settings = settings_of(body, engine.vocab_size)
    return Asked(chat, ids, min(limit, room), stops_of(body), settings, flags_of(body))


def wrong(status: int, message: str) -> dict[str, Any]:
    kind = "server_error" if status >= 500 else "invalid_request_error"
    return {"error": {"message": message[:500], "type": kind, "param": None, "code": status}}


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # each token leaves by itself
    timeout = SILENCE_S
    server: Server

    def do_GET(self) -> None:
        """Whether the model is loaded, and which it is."""
        engine = self.server.engine
        if self.path == "/health":
            self._reply(200, {"status": "ok"})
        elif self.path == "/v1/models":
            model = {"id": engine.name, "object": "model", "created": 0, "owned_by": "", "max_model_len": engine.ctx}
            self._reply(200, {"object": "list", "data": [model]})
        else:
            self.send_error(404)

    def do_POST(self) -> None:
        """Ask the model."""
        t_asked, chat = time.perf_counter(), self.path == "/v1/chat/completions"
        if not chat and self.path != "/v1/completions":
            self.send_error(404)
            return
        try:
            asked = asked_of(self._body(), self.server.engine, chat=chat)
        except Refused as error:
            self.send_error(error.status, str(error))
            return
        answer = self.server.engine.answer(asked, t_asked)
        try:
            (self._stream if "stream" in asked.flags else self._whole)(asked, answer)
        except RuntimeError as error:  # the engine's, before its first token
            self.send_error(500, f"onnxruntime-genai: {error}")
        finally:
            answer.close()  # type: ignore[attr-defined]

    def _body(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit() or "Transfer-Encoding" in self.headers:
            raise Refused("a request needs its Content-Length", 411)
        if len(length) > 12 or int(length) > MAX_BODY_BYTES:
            raise Refused(f"a request may have {MAX_BODY_BYTES} bytes", 413)
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            raise Refused("the body is not JSON") from None

    def _stream(self, asked: Asked, answer: Iterator[Told]) -> None:
        told = next(answer)
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if asked.chat:
            self._say(self._event(asked, {"delta": {"role": "assistant", "content": ""}}))
        try:
            while True:
                part: dict[str, Any] = {"delta": {"content": told.text}} if asked.chat else {"text": told.text}
                part |= {"token_ids": [told.id]} if "return_token_ids" in asked.flags else {}
                self._say(self._event(asked, part, told.stop))
                if told.stop is not None:
                    break
                told = next(answer)
            if "include_usage" in asked.flags:
                self._say(self._event(asked, {}) | {"choices": [], "usage": told.usage})
        except RuntimeError as error:
            self._say(wrong(500, f"onnxruntime-genai: {error}"))
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _whole(self, asked: Asked, answer: Iterator[Told]) -> None:
        tokens = list(answer)
        text = "".join(one.text for one in tokens)
        part = {"message": {"role": "assistant", "content": text}} if asked.chat else {"text": text}
        event = self._event(asked, part, tokens[-1].stop) | {"usage": tokens[-1].usage}
        self._reply(200, event | ({"object": "chat.completion"} if asked.chat else {}))

    def _event(self, asked: Asked, part: dict[str, Any], stop: str | None = None) -> dict[str, Any]:
        kind, name = "chat.completion.chunk" if asked.chat else "text_completion", self.server.engine.name
        choice = {"index": 0, **part, "finish_reason": stop}
        return {"id": f"{id(self):x}", "object": kind, "created": int(time.time()), "model": name, "choices": [choice]}

    def _say(self, event: dict[str, Any]) -> None:
        self._chunk(b"data: " + json.dumps(event, separators=(",", ":")).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _reply(self, status: int, told: dict[str, Any]) -> None:
        raw = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def send_error(self, code: int, message: str | None = None, *_: object) -> None:
        """An error as OpenAI has it; the connection ends, for what was not read of a request is no next one."""
        self.close_connection = True
        self._reply(code, wrong(code, message or self.responses.get(code, ("error",))[0]))

    def log_message(self, *args: object) -> None:
        """Nothing: what is printed in a run goes into its journal."""


class Server(ThreadingHTTPServer):
    """A thread a connection, and a bounded number of them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int, engine: Engine) -> None:
        self.engine, self.places = engine, threading.Semaphore(MAX_CONNECTIONS)
        super().__init__(("127.0.0.1", port), Handler)

    def process_request(self, *request: Any) -> None:
        """Wait for a place, then answer in a thread."""
        self.places.acquire()
        super().process_request(*request)

    def shutdown_request(self, request: Any) -> None:
        """End a connection, and give its place back."""
        super().shutdown_request(request)
        self.places.release()

    def handle_error(self, *_: Any) -> None:
        """A client that went away is nobody's error; anything else is told in a line."""
        if not isinstance(error := sys.exc_info()[1], OSError):
            print(f"a request failed: {error!r}"[:500], file=sys.stderr, flush=True)


def main() -> None:
    # Python's own handler would run only between the engine's calls; the default ends the process at once.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parser = argparse.ArgumentParser(prog="serve.py", allow_abbrev=False)
    parser.add_argument("--model", required=True)
    parser.add_argument("--port", type=int, required=True)
    for name in ("threads", "ctx-size"):
        parser.add_argument(f"--{name}", type=int)
    parser.add_argument("--provider", default="cpu")
    given = parser.parse_args()
    try:
        engine = Engine(given)
    except (RuntimeError, OSError, ValueError, KeyError, TypeError) as error:  # of a model that is not one
        sys.exit(f"onnxruntime-genai: {' '.join(str(error).split())[:500]}")
    print(f"onnxruntime-genai {genai.__version__}, a model of type {engine.model.type}", file=sys.stderr)
    print(f"meltbench: accelerator {engine.model.device_type}", file=sys.stderr)
    server = Server(given.port, engine)
    print(f"server is listening on http://127.0.0.1:{server.server_port}", file=sys.stderr, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
