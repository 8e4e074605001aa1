"""A made server that stands in at the edge of the world for mlc_llm, vllm, sglang, ollama and llamafile.

None of those can be had where these tests run. What it speaks is the interface that each of them documents: its command
line or environment, its routes, and the events of a streamed answer. It computes nothing: its words are made up, one
every few milliseconds. It writes its command line and the requests that it got into the file $STANDIN_SAW.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

PREFILL_S, TOKEN_S = 0.02, 0.005
NAME = Path(sys.argv[0]).name


def told() -> argparse.Namespace:
    """The command line as each program takes it; what it does not know ends it, as it would the real one."""
    parser = argparse.ArgumentParser(NAME, allow_abbrev=False)
    numbers: tuple[str, ...] = ()
    texts: tuple[str, ...] = ("--host",)
    flags: tuple[str, ...] = ()
    if NAME == "ollama":
        parser.add_argument("verb", choices=["serve"])
        given = parser.parse_args()
        given.host, _, port = os.environ["OLLAMA_HOST"].partition(":")
        given.port, given.model = int(port), "pulled:1b"
        return given
    if NAME == "mlc_llm":
        parser.add_argument("verb", choices=["serve"])
        parser.add_argument("model")
        texts += ("--model-lib", "--device", "--overrides")
        parser.add_argument("--mode", choices=["local", "interactive", "server"], default="local")
        parser.add_argument("--prefix-cache-mode", choices=["disable", "radix"], default="radix")
        flags = ("--enable-debug",)
    elif NAME == "vllm":
        parser.add_argument("verb", choices=["serve"])
        parser.add_argument("model")
        numbers, texts, flags = ("--max-model-len",), (*texts, "--dtype"), ("--enable-prompt-tokens-details",)
    elif NAME == "sglang":
        parser.add_argument("verb", choices=["serve"])
        texts += ("--model-path",)
        numbers, flags = ("--context-length",), ("--enable-cache-report",)
    elif NAME == "llamafile":
        parser.add_argument("-m", dest="model")
        numbers = ("--threads", "--ctx-size", "--n-gpu-layers", "--parallel")
        flags = ("--server", "--nobrowser")
    for name in (*numbers, "--port"):
        parser.add_argument(name, type=int)
    for name in texts:
        parser.add_argument(name)
    for name in flags:
        parser.add_argument(name, action="store_true", required=True)
    given = parser.parse_args()
    given.model = getattr(given, "model", None) or getattr(given, "model_path", None)
    return given


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    given: argparse.Namespace

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""

    def say(self, body: bytes, kind: str = "application/json", status: int = 200) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        known = {"/v1/models"} | ({"/health"} if NAME in ("vllm", "sglang", "llamafile") else set())
        models = {"object": "list", "data": [{"id": self.given.model, "object": "model"}]}
        self.say(
            json.dumps(models).encode() if self.path in known else b"{}", status=200 if self.path in known else 404
        )

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        saw({"path": self.path, "asked": asked})
        if asked["model"] != self.given.model:
            said = {"object": "error", "message": f'The requested model "{asked["model"]}" is not served.'}
            self.say(json.dumps(said).encode(), status=400)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in answer(asked, chat=self.path.endswith("/chat/completions")):
            data = b"data: " + (event.encode() if isinstance(event, str) else json.dumps(event).encode()) + b"\n\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
        self.wfile.write(b"0\r\n\r\n")


def answer(asked: dict[str, Any], *, chat: bool) -> Any:
    debug = asked.get("debug_config") or {}
    exact = bool(asked.get("ignore_eos") or debug.get("ignore_eos"))
    n_in = len(asked["prompt"]) if isinstance(asked.get("prompt"), list) else 11
    n_out = asked["max_tokens"] if exact else min(asked["max_tokens"], 3)
    time.sleep(PREFILL_S)
    # MLC's delta has a role in every event, the others' in a first one without text.
    role = {"role": "assistant"} if NAME == "mlc_llm" else {}
    if chat and NAME != "mlc_llm":
        yield {"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
    for at in range(n_out):
        text = f"w{at} "
        choice = {"delta": {"content": text, **role}} if chat else {"text": text}
        yield {"choices": [{"index": 0, "finish_reason": None, **choice}], "usage": None}
        time.sleep(TOKEN_S)
    last = {"delta": {"content": "", **role}} if chat else {"text": ""}
    yield {"choices": [{"index": 0, "finish_reason": "length" if exact else "stop", **last}]}
    if asked["stream_options"]["include_usage"]:
        yield {"choices": [], "usage": usage(n_in, n_out)}
    yield "[DONE]"


def usage(n_in: int, n_out: int) -> dict[str, Any]:
    told: dict[str, Any] = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    if NAME == "mlc_llm":  # a rate is left out where its count is 0
        rates = {"prefill_tokens_per_s": n_in / PREFILL_S, "decode_tokens_per_s": 1 / TOKEN_S} if n_out > 1 else {}
        counts = {"prompt_tokens": n_in, "completion_tokens": n_out, "prefill_tokens": n_in, "decode_tokens": n_out - 1}
        told["extra"] = {**counts, **rates, "ttft_s": PREFILL_S, "jump_forward_tokens": 0}
    if NAME in ("vllm", "sglang"):
        told["prompt_tokens_details"] = {"cached_tokens": 0}
    return told


def saw(what: dict[str, Any]) -> None:
    with Path(os.environ["STANDIN_SAW"]).open("a") as file:
        file.write(json.dumps(what) + "\n")


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        print("ollama version is 0.20.3" if NAME == "ollama" else "1.2.3")
        return
    Handler.given = told()
    env = {key: value for key, value in os.environ.items() if key.startswith("OLLAMA_")}
    saw({"argv": sys.argv[1:], "env": env})
    http.server.ThreadingHTTPServer((Handler.given.host, Handler.given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
