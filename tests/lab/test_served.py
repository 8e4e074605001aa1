"""Servers that run already on the whole road: a real one, straight, by way of the relay, and through TLS."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli import QUICK, Bench

from meltbench.catalog import builtin_root

pytestmark = pytest.mark.engine
KEY = "sk-not-to-be-written-down"
FEW = (*QUICK, "--workload", "quick")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def server(default_model: Path) -> Iterator[int]:
    """llama.cpp's own server by the wheel, as somebody else might have started it; its port."""
    port = free_port()
    argv = [sys.executable, str(builtin_root() / "runners/llamacpp/serve.py"), "--model", str(default_model)]
    more = ["--port", str(port), "--threads", "1", "--ctx-size", "2048", "--parallel", "1"]
    with subprocess.Popen([*argv, *more], stderr=subprocess.DEVNULL) as process:
        try:
            until_there(port, process)
            yield port
        finally:
            process.kill()


def until_there(port: int, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError, http.client.HTTPException):
            if status(port, "/v1/models") == 200:
                return
        time.sleep(0.05)
    raise AssertionError("the server did not come")


def status(port: int, path: str) -> int:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request("GET", path)
        with connection.getresponse() as answer:
            return answer.status


def value(run: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(m for m in run["measures"] if m["name"] == name and m["phase"] == "run")
    return found


def codes(run: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in run["reasons"]}


def asked(bench: Bench, *words: str, code: int = 0) -> dict[str, Any]:
    (run,) = bench.json("run", "--runner", "openai", "--model", "smol", *FEW, *words, code=code)
    return dict(run)


def test_a_real_server_is_asked_straight_and_nothing_is_said_of_what_was_not_seen(bench: Bench, server: int) -> None:
    run = asked(bench, "--engine", f"http://127.0.0.1:{server}/v1")
    assert run["outcome"] == "done"
    assert run["model"]["name"] == "smol"
    assert run["model"]["sha256"] is None
    assert (run["runner"]["url"], run["runner"]["relayed"]) == (f"http://127.0.0.1:{server}/v1", False)
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert [r["status"] for r in timed] == ["ok"] * 5
    assert {r["count_source"] for r in timed} == {"server"}
    assert all(0 < r["n_out"] <= 16 and r["n_in"] > 5 and r["decode_tps"] > 0 for r in timed)
    assert value(run, "ttft_s")["value"] > 0
    why = "not_started_here: the server was running before the run"
    for name in ("load_s", "peak_rss_bytes", "peak_pss_bytes", "cpu_s"):
        assert (value(run, name)["value"], value(run, name)["reason"]) == (None, why)
    assert not codes(run) & {"remote_engine", "request_failed"}
    # The server is not ours to end.
    assert status(server, "/health") == 200


def test_through_the_relay_tokens_arrive_one_by_one_and_a_tokenizer_counts_them(
    bench: Bench, server: int, tmp_path: Path
) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="pip install 'meltbench[tokenizer]'")
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    run = asked(bench, "--engine", f"http://127.0.0.1:{server}/v1", "--set", f"tokenizer={path}")
    assert (run["outcome"], run["runner"]["relayed"], run["knobs"]["tokenizer"]) == ("done", True, str(path))
    for request in run["requests"]:
        assert request["count_source"] == "tokenizer"
        assert request["n_out"] == len(made.encode(request["answer"]).ids)
        assert 0 < request["ttft_s"] < request["e2e_s"]
    assert value(run, "peak_rss_bytes")["value"] is None  # it would be the relay's
    assert bench.no_leftovers()


def test_through_tls_with_a_key_that_nobody_finds_again(bench: Bench, server: int, tmp_path: Path) -> None:
    certificate = made_certificate(tmp_path)
    with tls_front(server, certificate) as (port, seen):
        bench.env |= {"MELTBENCH_API_KEY": KEY, "SSL_CERT_FILE": str(certificate)}
        run = asked(bench, "--engine", f"https://localhost:{port}/v1")
        assert run["outcome"] == "done"
        assert (run["runner"]["relayed"], run["runner"]["url"]) == (True, f"https://localhost:{port}/v1")
        assert f"Authorization: Bearer {KEY}".encode() in seen[0]
        # A certificate for another name is refused, and the run says by whom and why.
        run = asked(bench, "--engine", f"https://127.0.0.1:{port}/v1", "--set", "timeout_s=2", code=1)
        assert run["outcome"] == "failed"
        assert "CERTIFICATE_VERIFY_FAILED" in run["failure_log"]
    held = [path for path in bench.home.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
    assert held == []


def test_a_server_that_is_not_there_or_refuses_is_told_in_a_line(bench: Bench, server: int) -> None:
    gone = free_port()
    done = bench.run("run", "--runner", "openai", "--model", "m", *FEW, "--engine", f"http://127.0.0.1:{gone}/v1")
    assert done.returncode == 2
    assert f"no server at http://127.0.0.1:{gone}/v1: Connection refused" in done.stderr
    run = asked(bench, "--engine", f"http://127.0.0.1:{server}/v2", code=1)
    assert run["outcome"] == "failed"
    assert "http_404" in run["failure"]


def made_certificate(folder: Path) -> Path:
    """A certificate of localhost that signs itself, with its key, in one file."""
    pytest.importorskip("cryptography", reason="no cryptography, which paramiko brings")
    import datetime

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    path = folder / "localhost.pem"
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain) + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@contextlib.contextmanager
def tls_front(port: int, certificate: Path) -> Iterator[tuple[int, list[bytes]]]:
    """TLS before a server, as a proxy ends it; what was asked of it, in order."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    seen: list[bytes] = []

    def pump(source: socket.socket, sink: socket.socket, keep: bool) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if keep:
                    seen.append(piece)
                sink.sendall(piece)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)

    def serve(raw: socket.socket) -> None:
        with (
            contextlib.suppress(OSError),
            raw,
            context.wrap_socket(raw, server_side=True) as front,
            socket.create_connection(("127.0.0.1", port)) as back,
        ):
            threading.Thread(target=pump, args=(front, back, True), daemon=True).start()
            pump(back, front, False)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1], seen


def test_a_dry_run_says_where_it_would_ask(bench: Bench) -> None:
    told = bench.json("run", "--dry-run", "--runner", "openai", "--model", "m", "--engine", "https://example.org/v1")
    assert told["runner"]["url"] == "https://example.org/v1"
