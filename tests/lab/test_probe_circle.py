"""The step http that asks its files in a circle until a limit."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest
from probe_kit import Lab, call, py, result

from meltbench.probe.job import Job, Until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from meltbench.probe.journal import Journal

SERVER = """
import http.server, os, sys, time
left = int(sys.argv[2])
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *a): pass
    def do_GET(self):
        global left
        if self.path != "/health": left -= 1
        if self.path == "/slow": time.sleep(0.4)
        time.sleep(0.01)
        self.send_response(200 if left >= 0 else 500)
        self.send_header("Content-Length", "2"); self.end_headers(); self.wfile.write(b"ok")
http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), H).serve_forever()
"""
MANY = 1_000_000


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    lab = Lab(tmp_path)
    for name in ("a", "b", "slow"):
        lab.request(name, f"/{name}")
    yield lab
    assert lab.left() == []


def start(answers: int = MANY) -> tuple[str, ...]:
    return (
        "step port api",
        f"step spawn srv -- {py(SERVER)} {{port:api}} {answers}",
        "step ready srv api /health 20000",
    )


def circle(until: Until | None, *files: str, concurrency: int = 1, pause_s: float = 0.0) -> str:
    job = Job("x")
    job.http("play", "api", concurrency, 20, 100_000, [f"req/{name}" for name in files], until, pause_s)
    return job.lines[0]


def asked(journal: Journal) -> list[str]:
    requests = sorted(journal.named("request"), key=lambda e: e["index"])
    assert [e["index"] for e in requests] == list(range(len(requests)))
    assert len({e["stream"] for e in requests}) == len(requests)
    assert all(journal.streams[e["stream"]].path == e["file"] for e in requests)
    return [e["file"].removeprefix("req/") for e in requests]


def ended_by(journal: Journal) -> tuple[str, str | None, float | None]:
    (event,) = journal.named("until")
    return event["by"], event["path"], event["value"]


def test_files_are_asked_in_a_circle_until_the_time_is_over(lab: Lab) -> None:
    journal = lab.run(*start(), circle(Until(1), "a", "b"), "step stop srv 1000")
    assert result(journal) == ("done", "")
    files = asked(journal)
    assert len(files) > 4
    assert files == (["a", "b"] * len(files))[: len(files)]
    assert ended_by(journal) == ("time", None, None)
    first, last = (journal.named("request")[i] for i in (0, -1))
    assert last["t_connect0"] - first["t_connect0"] < 1_000_000_000
    assert {e["error"] for e in journal.named("request")} == {""}


def test_a_request_under_way_at_the_limit_is_finished_and_none_is_started_after_it(lab: Lab) -> None:
    journal = lab.run(*start(), circle(Until(0.6), "slow", concurrency=2), "step stop srv 1000")
    (event,) = journal.named("until")
    requests = journal.named("request")
    assert {(e["status"], e["error"]) for e in requests} == {(200, "")}
    # The other worker may have looked a moment before the limit and started a moment after.
    assert sum(e["t_connect0"] > event["boot_ns"] for e in requests) <= 1
    assert len(requests) >= 2


def test_a_value_past_its_limit_ends_the_circle(lab: Lab, tmp_path: Path) -> None:
    for zone, text in (("zone0", "30000"), ("zone1", "31000")):
        (tmp_path / zone).write_text(text + "\n")
    (tmp_path / "zone2").write_text("nonsense\n")
    (tmp_path / "soc").write_text("80\n")
    limits = ((str(tmp_path / "soc"), "below", 20.5), (str(tmp_path / "zone*"), "above", 84_999.5))
    running = lab.start(*start(), circle(Until(60, limits), "a"), "step stop srv 1000")
    lab.until(lambda: lab.state().get("done", 0) > 3)
    state = lab.state()
    assert (state["op"], state["of"], state["limit_ms"]) == ("http", 0, 60_000)
    assert 0 < state["elapsed_ms"] < 60_000
    (tmp_path / "zone1").write_text("85000\n")
    running.wait(20)
    journal = lab.journal()
    assert result(journal) == ("done", "")
    assert ended_by(journal) == ("path", str(tmp_path / "zone1"), 85_000)
    assert len(asked(journal)) > 3
    assert "limit_ms" not in lab.state()


def test_a_limit_that_holds_from_the_start_is_a_failure_that_says_so(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "soc").write_text("7\n")
    journal = lab.run(*start(), circle(Until(5, ((str(tmp_path / "soc"), "below", 20.5),)), "a"))
    assert result(journal) == ("failed", "a limit was reached before the first request")
    assert ended_by(journal) == ("path", str(tmp_path / "soc"), 7)
    assert journal.named("request") == []


def test_a_server_that_answers_nothing_any_more_is_not_asked_for_ever(lab: Lab) -> None:
    journal = lab.run(*start(5), circle(Until(30), "a", "b"))
    assert result(journal) == ("failed", "no request of the last round was answered")
    assert len(asked(journal)) == 7
    assert journal.named("until") == []


def test_a_dead_server_ends_the_circle(lab: Lab) -> None:
    running = lab.start(*start(), circle(Until(60), "slow"), "step mark never")
    lab.until(lambda: lab.state().get("done", 0) > 1)
    (spawn,) = lab.journal().named("spawn")
    os.kill(spawn["pid"], signal.SIGKILL)
    running.wait(20)
    journal = lab.journal()
    assert result(journal) == ("failed", "process srv died of signal 9")
    assert journal.named("mark") == []
    assert [e["error"] for e in journal.named("request")][:2] == ["", ""]


def test_a_stop_ends_the_circle_at_once(lab: Lab) -> None:
    running = lab.start(*start(), circle(Until(60), "slow"))
    lab.until(lambda: lab.state().get("done", 0) > 0)
    before = time.monotonic()
    assert call("stop", lab.dir).returncode == 0
    running.wait(20)
    assert time.monotonic() - before < 10
    assert result(lab.journal())[0] == "stopped"
    assert {e["error"] for e in lab.journal().named("request")} <= {"", "stopped"}


def test_a_full_journal_ends_the_circle(lab: Lab) -> None:
    journal = lab.run("limit journal_bytes 262144", *start(), circle(Until(60), "a"))
    assert journal.end is not None
    assert (journal.end["result"], journal.end["reason"]) == ("stopped", "full")
    assert [e["reason"] for e in journal.named("full")] == ["limit"]


def test_every_request_waits_for_its_pause_the_first_one_too_and_none_comes_after_the_last(lab: Lab) -> None:
    journal = lab.run(*start(), circle(None, "a", "b", "a", pause_s=0.3), "step stop srv 1000")
    assert result(journal) == ("done", "")
    requests = sorted(journal.named("request"), key=lambda e: e["index"])
    assert [(e["status"], e["error"]) for e in requests] == [(200, "")] * 3
    (begun,) = (e["boot_ns"] for e in journal.named("step") if (e["op"], e["state"]) == ("http", "start"))
    before = [begun] + [e["t_end"] for e in requests[:-1]]
    # Asked no earlier; how much later is the machine's affair.
    assert all(e["t_connect0"] - t >= 300_000_000 for e, t in zip(requests, before, strict=True))


def test_a_circle_pauses_too_and_its_end_comes_within_a_pause(lab: Lab) -> None:
    journal = lab.run(*start(), circle(Until(1), "a", "b", pause_s=0.3), "step stop srv 1000")
    assert result(journal) == ("done", "")
    assert 1 <= len(asked(journal)) <= 3
    assert ended_by(journal) == ("time", None, None)


def test_a_limit_ends_the_pause_before_the_first_request(lab: Lab, tmp_path: Path) -> None:
    (tmp_path / "soc").write_text("80\n")
    limit = Until(600, ((str(tmp_path / "soc"), "below", 20.5),))
    running = lab.start(*start(), circle(limit, "a", pause_s=600))
    lab.until(lambda: lab.state().get("op") == "http")
    (tmp_path / "soc").write_text("7\n")
    running.wait(20)
    assert result(lab.journal()) == ("failed", "a limit was reached before the first request")


@pytest.mark.parametrize("end", ["stop", "dead"])
def test_a_stop_or_a_dead_server_ends_a_pause(lab: Lab, end: str) -> None:
    running = lab.start(*start(), circle(None, "a", "b", pause_s=600), "step mark never")
    lab.until(lambda: lab.state().get("op") == "http")
    (spawn,) = lab.journal().named("spawn")
    if end == "stop":
        assert call("stop", lab.dir).returncode == 0
    else:
        os.kill(spawn["pid"], signal.SIGKILL)
    running.wait(20)
    journal = lab.journal()
    assert result(journal)[0] == {"stop": "stopped", "dead": "failed"}[end]
    said = {"stop": "stopped", "dead": "process_ended"}[end]
    assert [(e["error"], e["t_connect0"]) for e in journal.named("request")] == [(said, None)] * 2
    assert journal.named("mark") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("until=0 -- req/a", 'bad "until=0"'),
        ("until=x -- req/a", "bad"),
        ("until=5 req/a", "too few words"),
        ("until=5 /x above 3 req/a", "too few words"),
        ("until=5 /x over 3 -- req/a", "below above"),
        ("until=5 /x above hot -- req/a", "not a number"),
        ("until=5 --", "too few words"),
        ("until=5 /x above 3", "expected --"),
        ("pause=0 req/a", 'bad "pause=0"'),
        ("pause=x req/a", 'bad "pause=x"'),
        ("pause=5", "too few words"),
        ("pause=5 until=0 -- req/a", 'bad "until=0"'),
    ],
)
def test_a_malformed_end_is_refused_before_anything_runs(lab: Lab, words: str, said: str) -> None:
    lab.job("step port api", f"step http play api 1 2000 1000 {words}")
    done = call("run", lab.dir)
    assert done.returncode == 64
    assert said in done.stderr.decode()
