from __future__ import annotations

import http.server
import threading
from typing import TYPE_CHECKING

import pytest
from probe_kit import Lab, call, only, py, result, sh

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.probe.journal import Journal

SERVER = """
import http.server, sys, time
RAW = {
    "/short": b"HTTP/1.1 200 OK\\r\\nContent-Length: 100\\r\\n\\r\\nhalf",
    "/old": b"HTTP/1.0 200 OK\\r\\n\\r\\nto the end",
    "/odd": b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\nzz\\r\\nnot chunks",
}
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def piece(self, b):
        self.wfile.write(b"%x\\r\\n" % len(b) + b + b"\\r\\n")
    def do_GET(self):
        if self.path == "/die": sys.stdout.flush(); import os; os._exit(7)
        if self.path == "/hang": time.sleep(60)
        if self.path in RAW:
            self.wfile.write(RAW[self.path]); self.close_connection = True; return
        self.send_response(200)
        if self.path == "/late":
            self.end_headers(); self.wfile.write(b"first"); time.sleep(60)
        if self.path == "/chunks":
            self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
            for i in range(5): self.piece(b"data: 0\\r\\n\\r\\n%d" % i); self.wfile.flush(); time.sleep(0.03)
            self.wfile.write(b"0\\r\\n\\r\\n"); return   # and the connection stays open
        body = b"x" * (500000 if self.path == "/big" else 5)
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
time.sleep(0.2)
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""
START = ("step port api", f"step spawn srv -- {py(SERVER)} {{port:api}}", "step ready srv api /health 20000")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    for name in ("chunks", "big", "die", "hang", "short", "old", "odd", "plain", "late"):
        lab.request(name, f"/{name}")
    yield lab
    assert lab.left() == []


def bodies(journal: Journal) -> list[bytes]:
    return [b"".join(journal.streams[e["stream"]].readings.raw) for e in journal.named("request")]


def test_a_server_that_runs_already_is_asked_at_its_own_port(lab: Lab) -> None:
    class Mute(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"here")

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mute) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        journal = lab.run(f"step port api {server.server_port}", "step http play api 1 20000 100000 req/plain")
        server.shutdown()
    assert result(journal) == ("done", "")
    assert journal.first("port") == journal.first("port") | {"name": "api", "port": server.server_port}
    assert bodies(journal)[0].endswith(b"here")


def test_every_chunk_is_stamped_and_the_zero_chunk_ends_the_answer(lab: Lab) -> None:
    journal = lab.run(*START, "step http play api 1 20000 100000 req/chunks req/chunks", "step stop srv 1000")
    assert result(journal) == ("done", "")
    (ready,) = journal.named("ready")
    assert (ready["status"], ready["load_ns"] > 200_000_000, ready["polls"] > 1) == (200, True, True)
    for event, body in zip(journal.named("request"), bodies(journal), strict=True):
        readings = journal.streams[event["stream"]].readings
        assert len(readings) >= 6
        assert (event["error"], event["status"], event["bytes"]) == ("", 200, len(body))
        assert body.endswith(b"0\r\n\r\n")
        times = [event[f"t_{name}"] for name in ("connect0", "connect1", "send0", "send1", "end")]
        assert times == sorted(times)
        assert event["t_send0"] <= readings.t0_ns[0]
        assert readings.t1_ns[-1] <= event["t_end"]
    first, second = journal.named("request")
    assert second["t_connect0"] >= first["t_end"]


def test_a_slow_answer_is_in_the_journal_while_it_comes(lab: Lab) -> None:
    running = lab.start(*START, "step http play api 1 60000 100000 req/late")
    lab.until(lambda: b"first" in b"".join(raw for s in lab.journal().channel("play") for raw in s.readings.raw), 10)
    assert lab.journal().named("request") == []
    assert call("stop", lab.dir).returncode == 0
    running.wait(20)
    (request,) = lab.journal().named("request")
    assert (request["error"], bodies(lab.journal())[0][-5:]) == ("stopped", b"first")


def test_requests_are_played_n_at_a_time(lab: Lab) -> None:
    journal = lab.run(*START, f"step http play api 4 20000 100000 {' '.join(['req/chunks'] * 8)}")
    requests = sorted(journal.named("request"), key=lambda e: e["t_connect0"])
    assert sorted(e["index"] for e in requests) == list(range(8))
    edges = sorted([(e["t_connect0"], 1) for e in requests] + [(e["t_end"], -1) for e in requests])
    depth, deepest = 0, 0
    for _, step in edges:
        depth += step
        deepest = max(deepest, depth)
    assert deepest == 4


def test_ends_of_answers(lab: Lab) -> None:
    journal = lab.run(*START, "step http play api 1 20000 100000 req/plain req/old req/odd req/short")
    assert [e["error"] for e in journal.named("request")] == ["", "", "", "truncated"]
    assert [body[-5:] for body in bodies(journal)] == [b"xxxxx", b"e end", b"hunks", b"\nhalf"]
    assert result(journal) == ("done", "")


def test_an_answer_is_bounded(lab: Lab) -> None:
    journal = lab.run(*START, "step http play api 1 20000 100000 req/big req/plain")
    big, plain = journal.named("request")
    assert (big["error"], plain["error"]) == ("too_large", "")
    assert len(bodies(journal)[0]) == 100_000
    assert journal.streams[big["stream"]].dropped_bytes > 0
    assert result(journal) == ("done", "")


def test_a_deadline_ends_a_request(lab: Lab) -> None:
    journal = lab.run(*START, "step http play api 2 300 100000 req/hang req/plain")
    assert {e["file"]: e["error"] for e in journal.named("request")} == {"req/hang": "timeout", "req/plain": ""}


def test_a_dead_server_fails_the_step_and_names_it(lab: Lab) -> None:
    journal = lab.run(*START, "step http play api 1 20000 100000 req/die req/plain req/plain", "step mark never")
    assert result(journal) == ("failed", "process srv ended with 7")
    errors = [e["error"] for e in journal.named("request")]
    assert len(errors) == 3
    assert all(errors)
    assert journal.named("mark") == []
    assert journal.end is not None
    assert journal.end["step"] == 3


EARLY = """
import socket, sys, time
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    c, _ = s.accept()
    big = b"health" not in c.recv(65536)
    c.sendall(b"HTTP/1.1 %s\\r\\nContent-Length: 3\\r\\n\\r\\nbig" % (b"413 Too Large" if big else b"200 OK"))
    if big: time.sleep(0.2)
    c.close()
"""


def test_an_answer_that_comes_before_the_request_is_sent_is_kept(lab: Lab) -> None:
    (lab.dir / "req" / "huge").write_bytes(b"POST / HTTP/1.1\r\nContent-Length: 20000000\r\n\r\n" + b"x" * 20_000_000)
    journal = lab.run(
        "step port api",
        f"step spawn srv -- {py(EARLY)} {{port:api}}",
        "step ready srv api /health 20000",
        "step http play api 1 20000 1000 req/huge req/plain",
    )
    huge = journal.named("request")[0]
    assert (huge["error"], huge["status"], huge["t_send1"]) == ("reset", 413, None)
    assert huge["bytes"] == len(bodies(journal)[0])
    assert bodies(journal)[0].endswith(b"big")


def test_the_probes_own_peak_is_told_beside_a_process(lab: Lab) -> None:
    (lab.dir / "req" / "huge").write_bytes(b"x" * 20_000_000)
    journal = lab.run(
        "step port api",
        f"step spawn srv -- {py(SERVER)} {{port:api}}",
        "step ready srv api /health 20000",
        "step exec before 5000 -- true",
        "step http play api 1 300 1000 req/huge req/plain",
        "step exec after 5000 -- true",
    )
    gone = {e["proc"]: e for e in journal.named("exit")}
    assert gone["before"]["maxrss_floor_bytes"] < 10_000_000 < gone["srv"]["maxrss_bytes"]
    assert gone["after"]["maxrss_floor_bytes"] > 20_000_000
    assert gone["after"]["maxrss_bytes"] <= gone["after"]["maxrss_floor_bytes"] + 2_000_000  # kernels count in batches


def test_nobody_listening_is_refused(lab: Lab) -> None:
    journal = lab.run("step port api", "step http play api 1 2000 1000 req/plain req/plain")
    assert [e["error"] for e in journal.named("request")] == ["refused", "refused"]
    assert [e["t_send0"] for e in journal.named("request")] == [None, None]
    assert result(journal) == ("failed", "all requests failed")


def test_a_missing_request_file_fails_before_anything_is_sent(lab: Lab) -> None:
    journal = lab.run("step port api", "step http play api 1 2000 1000 req/plain req/none")
    assert journal.named("request") == []
    assert result(journal)[0] == "failed"
    assert "req/none" in result(journal)[1]


def test_a_silent_listener_does_not_hold_the_probe(lab: Lab) -> None:
    script = "import socket,time,sys\ns=socket.create_server(('127.0.0.1',int(sys.argv[1])))\ntime.sleep(60)"
    journal = lab.run("step port api", f"step spawn mute -- {py(script)} {{port:api}}", "step ready mute api / 1500")
    assert result(journal) == ("failed", "not ready in time")
    (ready,) = journal.named("ready")
    assert (ready["status"], ready["load_ns"]) == (None, None)


def test_a_process_that_ends_before_it_is_ready(lab: Lab) -> None:
    journal = lab.run(
        "step port api", f"step spawn gone -- {sh('echo sorry >&2; exit 4')}", "step ready gone api / 9000"
    )
    assert result(journal) == ("failed", "process gone ended with 4")
    assert only(journal, "gone", "err").readings.raw == [b"sorry"]


def test_not_ready_yet_is_polled_again(lab: Lab) -> None:
    answers = [503, 503, 200]

    class Loading(http.server.BaseHTTPRequestHandler):
        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self.send_response(answers.pop(0))
            self.end_headers()

    # The port is the probe's choice, so the real server stands behind a relay that the probe starts.
    server = http.server.HTTPServer(("127.0.0.1", 0), Loading)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    relay = f"""
import socket, sys
s = socket.create_server(("127.0.0.1", int(sys.argv[1])))
while True:
    a, _ = s.accept()
    b = socket.create_connection(("127.0.0.1", {server.server_port}))
    b.sendall(a.recv(65536))
    while (x := b.recv(65536)): a.sendall(x)
    a.close(); b.close()
"""
    try:
        journal = lab.run(
            "step port api", f"step spawn relay -- {py(relay)} {{port:api}}", "step ready relay api / 9000"
        )
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert result(journal) == ("done", "")
    assert answers == []
