from __future__ import annotations

import functools
import http.server
import importlib.util
import json
import os
import socket
import struct
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from types import ModuleType
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.account import remote
from meltbench.catalog import builtin_root
from meltbench.errors import UserError
from meltbench.probe.job import Job
from meltbench.runners import engine, load
from meltbench.serving import KEY, read_address, relayed


def loaded_relay() -> ModuleType:
    path = builtin_root() / "runners/openai/relay.py"
    spec = importlib.util.spec_from_file_location("relay", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


RELAY = loaded_relay()


@pytest.mark.parametrize(
    ("text", "origin", "path", "remote", "straight"),
    [
        ("http://127.0.0.1:8000/v1", "http://127.0.0.1:8000", "/v1", False, True),
        ("http://localhost:1234/v1/", "http://localhost:1234", "/v1", False, True),
        ("http://127.0.0.2:80", "http://127.0.0.2", "", False, False),
        ("http://[::1]:8000/v1", "http://[::1]:8000", "/v1", False, False),
        ("https://localhost/v1", "https://localhost", "/v1", False, False),
        ("https://api.example.org/openai/v1", "https://api.example.org", "/openai/v1", True, False),
        ("http://10.0.0.7:8000", "http://10.0.0.7:8000", "", True, False),
    ],
)
def test_an_address_says_how_its_server_is_reached(
    text: str, origin: str, path: str, remote: bool, straight: bool
) -> None:
    found = read_address(text)
    assert (found.origin, found.path, found.remote, found.straight) == (origin, path, remote, straight)


@pytest.mark.parametrize(
    "text",
    [
        *("", "ftp://h/v1", "http://", "http://:80", "http://h:0", "http://h:99999", "http://h:x", "http://[::1"),
        *("h:80/v1", "http://h/v 1", "http://h/\x1b[2J", "http://hé/v1", "http://h/" + "x" * 3000),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="is no address of a server") as refused:
        read_address(text)
    assert "http://127.0.0.1:8000/v1" in str(refused.value.hint)


@pytest.mark.parametrize("text", ["https://me:secret@h/v1", "https://h/v1?key=secret", "https://h/v1#secret"])
def test_an_address_with_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UserError) as refused:
        read_address(text)
    assert "secret" not in str(refused.value)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_an_error_of_ours(text: str) -> None:
    for candidate in (text, "http://" + text):
        try:
            found = read_address(candidate)
        except UserError:
            continue
        assert read_address(found.origin + found.path) == found


def test_the_relay_is_for_what_the_probe_cannot_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KEY, raising=False)
    assert not relayed("http://127.0.0.1:8000/v1", {"tokenizer": "none"})
    assert relayed("http://127.0.0.1:8000/v1", {"tokenizer": "/t.json"})
    assert relayed("https://127.0.0.1:8000/v1", {})
    monkeypatch.setenv(KEY, "sk-1")
    assert relayed("http://127.0.0.1:8000/v1", {})


def test_a_server_that_runs_already_needs_an_address() -> None:
    recipe, found = load("openai")
    folder = found.path.parent
    with pytest.raises(UserError, match="asks a server that runs already") as refused:
        engine("openai", recipe, folder, None)
    assert refused.value.hint == "--engine http://127.0.0.1:8000/v1"
    made = engine("openai", recipe, folder, "https://h/v1/")
    assert (made.name, made.url, made.origin, made.files) == ("h:443", "https://h/v1", "running", ())
    assert made.start[-1] == str(folder / "relay.py")
    there = engine("openai", recipe, folder, "https://h/v1", here=False)
    assert (there.start, there.files) == ((), (folder / "relay.py",))
    assert there.sha256 == made.sha256


def test_a_recipe_that_starts_its_engine_sends_an_address_to_the_one_that_asks() -> None:
    recipe, found = load("llamacpp")
    with pytest.raises(UserError, match="starts its engine") as refused:
        engine("llamacpp", recipe, found.path.parent, "http://127.0.0.1:8000/v1")
    assert refused.value.hint == "--runner openai --engine http://127.0.0.1:8000/v1 asks one that runs"


def test_only_another_machine_is_remote() -> None:
    def of(url: str | None) -> str:
        return remote({"runner": {"url": url}})

    assert (of(None), of("http://127.0.0.1:1/v1"), remote({"runner": None})) == ("", "", "")
    assert of("https://h/v1") == "the engine was at https://h/v1: what this machine draws is not what it takes"
    assert remote({"runner": {"name": "llamacpp"}}) == ""  # of an earlier version


def test_a_port_is_filled_into_the_environment_and_nothing_else_of_it_is() -> None:
    job = Job("r")
    job.spawn("a", ["x", "{port:engine}", "y{port:engine}"], {"HOST": "127.0.0.1:{port:engine}", "B": "{pid} a*b"})
    (line,) = job.lines
    assert "env=HOST=127.0.0.1:{port:engine} " in line
    assert "env=B=%7Bpid%7D%20a%2Ab " in line
    assert line.endswith("-- x {port:engine} y%7Bport:engine%7D")


@given(st.lists(st.binary(max_size=6)), st.binary(min_size=1, max_size=5), st.data())
def test_a_key_is_masked_however_it_is_cut(parts: list[bytes], key: bytes, data: Any) -> None:
    whole = key.join(parts) + key
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=6)))
    masked = RELAY.Masked(key)
    pieces = [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    out = b"".join(map(masked.through, pieces)) + masked.rest()
    if not set(key) & set(b"*"):
        assert key not in out
    assert RELAY.Masked(b"").through(whole) == whole


@given(st.lists(st.binary(max_size=8), max_size=6))
def test_what_is_no_key_passes_as_it_was(parts: list[bytes]) -> None:
    masked = RELAY.Masked(b"sk-secret")
    whole = b"".join(parts)
    if b"sk-secret" not in whole:
        assert b"".join(map(masked.through, parts)) + masked.rest() == whole


def test_the_text_that_is_counted_is_what_was_said() -> None:
    events = [
        {"choices": [{"delta": {"role": "assistant", "content": None, "reasoning_content": "hm "}}]},
        {"choices": [{"delta": {"content": "é"}}]},
        {"choices": [{"text": "!"}]},
        {"choices": []},
        [1],
    ]
    body = b": ping\n\n" + b"".join(b"data: " + json.dumps(one).encode() + b"\r\n\r\n" for one in events)
    assert RELAY.text_of(body + b"data: {\n\ndata: [DONE]\n\n") == "hm é!"


@given(st.binary(max_size=200))
def test_any_bytes_have_a_text(body: bytes) -> None:
    assert isinstance(RELAY.text_of(b"data: " + body), str)


class Upstream(http.server.BaseHTTPRequestHandler):
    """A server that notes what it is asked, with which key."""

    asked: ClassVar[list[tuple[str, str | None]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers["Authorization"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def relay() -> Iterator[Any]:
    """Starts a relay with a key, or none, to a server that notes what comes; returns what asks it."""
    open_servers: list[http.server.ThreadingHTTPServer] = []
    answers: list[bytes] = []

    def serve(handler: Any) -> int:
        open_servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler))
        threading.Thread(target=open_servers[-1].serve_forever).start()
        return open_servers[-1].server_port

    def start(key: str) -> Any:
        url = urllib.parse.urlsplit(f"http://127.0.0.1:{serve(Upstream)}")
        port = serve(functools.partial(RELAY.Handler, url, None, key))

        def ask(line: str, *, half_closed: bool = False) -> int:
            with socket.create_connection(("127.0.0.1", port)) as connection:
                connection.sendall(f"{line} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n{{}}".encode())
                if half_closed:
                    connection.shutdown(socket.SHUT_WR)
                answers.append(connection.makefile("rb").read())
                return int(answers[-1].split()[1])

        ask.answers = answers  # type: ignore[attr-defined]
        return ask

    Upstream.asked.clear()
    RELAY.STRANGERS.clear()
    yield start
    for server in open_servers:
        server.shutdown()
        server.server_close()


def test_a_relay_with_a_key_serves_its_own_user_and_forwards_nothing_of_another(
    relay: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ask, bearer = relay("sk-a-long-one"), "Bearer sk-a-long-one"
    assert (ask("POST /v1/chat/completions"), ask("GET /v1/models", half_closed=True)) == (200, 200)
    assert Upstream.asked == [("/v1/chat/completions", bearer), ("/v1/models", bearer)]
    Upstream.asked.clear()
    mine = os.getuid()
    monkeypatch.setattr(RELAY.os, "getuid", lambda: mine + 1)  # so that it is another's
    for line in ("POST /v1/chat/completions", "POST /v1/completions", "GET /v1/models"):
        assert ask(line) == 403
        assert ask.answers[-1].endswith(b'"this relay serves its own user only"}}')
    monkeypatch.setattr(RELAY, "user_of", lambda *_: None)  # as of what reached it by way of IPv6
    assert ask("POST /v1/completions") == 403
    assert b"cannot be told: it is not, or no more, in /proc/net/tcp" in ask.answers[-1]
    assert Upstream.asked == []
    assert capsys.readouterr().err.splitlines() == [
        f"relay: refused what user {mine} asked", "relay: refused what nobody known asked",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "sent", [b"", b"GET /v1/models HTTP/1.1\r\n", b"GET /v1/models HTTP/1.1\r\n\r\n", b"a b c\r\n\r\n"]
)
def test_a_stranger_who_breaks_his_connections_does_not_fill_the_log(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], sent: bytes
) -> None:
    url = urllib.parse.urlsplit("http://127.0.0.1:9")
    monkeypatch.setattr(RELAY, "STRANGERS", {None})  # who was told of already
    handler = functools.partial(RELAY.Handler, url, None, "sk-a-long-one")
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        for _ in range(3):
            reset(server.server_port, sent)
            server.handle_request()
    assert capsys.readouterr().err == ""


def test_what_breaks_while_its_own_user_is_served_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    url = urllib.parse.urlsplit("http://127.0.0.1:9")
    monkeypatch.setattr(RELAY, "asker", lambda *_: os.getuid())
    handler = functools.partial(RELAY.Handler, url, None, "sk-a-long-one")
    with http.server.HTTPServer(("127.0.0.1", 0), handler) as server:
        reset(server.server_port, b"POST /nowhere HTTP/1.1\r\n\r\n")
        server.handle_request()
    assert "ConnectionResetError" in capsys.readouterr().err


def reset(port: int, sent: bytes) -> None:
    """Say this to a port, and break the connection."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(sent)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_a_relay_without_a_key_has_nothing_to_guard(relay: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RELAY, "CONNECTIONS", "/nowhere")
    assert relay("")("POST /v1/completions") == 200
    assert Upstream.asked == [("/v1/completions", None)]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a connection to another user")
def test_the_kernel_tells_another_user_apart() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
        served, peer = server.accept()
        os.fchown(client.fileno(), 65534, -1)
        assert RELAY.asker(peer, server.getsockname()) == 65534
        served.close()


def test_a_connection_is_its_users_while_it_is_open_and_nobodys_afterwards() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = socket.create_connection(server.getsockname())
        served, peer = server.accept()
        assert RELAY.asker(peer, server.getsockname()) == os.getuid()
        client.shutdown(socket.SHUT_WR)  # it has said all, and waits
        assert RELAY.asker(peer, server.getsockname()) == os.getuid()
        client.close()  # the kernel lists it as root's from here on
        assert RELAY.asker(peer, server.getsockname()) is None
        served.close()


@given(
    st.integers(0, 65535), st.integers(0, 65535), st.sampled_from(["01", "02", "04", "05", "06", "0A"]),
    st.integers(0, 2**32 - 1), st.integers(0, 2),
)  # fmt: skip
def test_a_connection_is_known_by_both_its_ends(peer: int, own: int, state: str, user: int, inode: int) -> None:
    host = f"{int.from_bytes(bytes([127, 0, 0, 1]), sys.byteorder):08X}"
    row = (
        f" 1: {host}:{peer:04X} {host}:{own:04X} {state} 00000000:00000000 00:00000000 00000000 {user} 0 {inode} 1 0\n"
    )
    ends = (("127.0.0.1", peer), ("127.0.0.1", own))
    table = "  sl  local_address rem_address   st\n" + row
    assert RELAY.user_of(table, *ends) == (user if state in ("01", "04", "05") and inode else None)
    if peer != own:
        assert RELAY.user_of(table, *reversed(ends)) is None
    assert RELAY.user_of("", *ends) is None
