"""``meltbench report`` and ``meltbench dashboard`` as commands: what they write, and one line for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import duckdb
import pytest
from cli import heed_interrupts
from store_kit import add_run, store_at

from meltbench.pages.page import pages
from meltbench.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return store_at(tmp_path_factory.mktemp("store"), runs=2)


def start(where: Path, *words: str, **env: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "meltbench", *words],
        cwd=where,
        env={**os.environ, "PYTHONWARNINGS": "error", "XDG_CONFIG_HOME": str(where), **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )


def run(where: Path, *words: str, code: int = 0, **env: str) -> tuple[str, str]:
    process = start(where, *words, **env)
    out, err = process.communicate(timeout=120)
    assert process.returncode == code, out + err
    return out, err


def one_line(err: str) -> str:
    """The error as it is printed; everything before it is progress."""
    lines = [line for line in err.replace("\r", "\n").split("\n") if line.strip()]
    assert lines
    assert "Traceback" not in err
    return lines[-1]


def test_a_report_is_a_file_and_a_document_of_it(store: Store, tmp_path: Path) -> None:
    out, _ = run(tmp_path, "report", "--data", str(store.root))
    assert out.startswith("report.html: ")
    assert (tmp_path / "report.html").read_text().startswith("<!DOCTYPE html>")
    path = tmp_path / "a" / "b.html"
    out, err = run(
        tmp_path, "report", "device=desk", "--json", "--out", str(path), "--data", str(store.root), "--title", "T"
    )
    found: dict[str, Any] = json.loads(out)
    assert (found["path"], found["bytes"]) == (str(path), path.stat().st_size)
    assert found["facts"][0] == "Runs: device=desk."
    assert "Overview" in [page["title"] for page in found["pages"]]
    assert "<title>T</title>" in path.read_text()
    assert "Traceback" not in err


def test_markdown_goes_to_the_screen_or_to_a_file(store: Store, tmp_path: Path) -> None:
    out, _ = run(tmp_path, "report", "--markdown", "--data", str(store.root))
    assert out.startswith("# meltbench report\n\n- Runs: all.\n- runs 2, models 1, devices 1")
    assert not [*tmp_path.glob("*.html")]
    run(tmp_path, "report", "--markdown", "--out", "said.md", "--data", str(store.root))
    assert (tmp_path / "said.md").read_text().strip() == out.strip()


def test_a_run_is_named_as_everywhere(store: Store, tmp_path: Path) -> None:
    name = store.run_ids()[0]
    out, _ = run(tmp_path, "report", name, "--markdown", "--data", str(store.root))
    assert f"## Run {name}" in out
    assert f"- Runs: run={name}." in out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["devise=pi"], 2, "unknown word of a selection 'devise'; did you mean device"),
        (["device="], 2, "'device=' selects nothing"),
        (["20991231T000000Z-abcdef"], 2, "20991231T000000Z-abcdef"),
        (["--out", "/proc/nothing/report.html"], 1, "cannot write /proc/nothing/report.html"),
        (["--out", "."], 1, "cannot write ."),
        (["--json", "--markdown"], 2, "--markdown"),
    ],
)
def test_what_is_wrong_is_one_line(store: Store, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    out, err = run(tmp_path, "report", *words, "--data", str(store.root), code=code)
    assert said in one_line(err)
    assert out == ""


def test_a_store_of_a_newer_meltbench_is_one_line(tmp_path: Path) -> None:
    store = store_at(tmp_path / "data", runs=1)
    with duckdb.connect(str(store.index)) as connection:
        connection.execute("UPDATE schema_version SET version = 99")
    for command in ("report", "dashboard"):
        _, err = run(tmp_path, command, "--data", str(store.root), code=1)
        assert "has schema 99, this meltbench knows" in one_line(err)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ([b"device=\xff"], 2, b"'device=\\udcff' selects nothing: it is no text; write names in UTF-8"),
        ([b"--title", b"a\xffb"], 0, b""),
        ([b"\xff"], 2, b"udcff"),
    ],
)
def test_bytes_that_are_no_text_are_no_error_of_ours(
    store: Store, tmp_path: Path, words: list[bytes], code: int, said: bytes
) -> None:
    argv = [sys.executable.encode(), b"-m", b"meltbench", b"report", *words, b"--data", bytes(store.root)]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
    assert code or b"<title>a?b</title>" in (tmp_path / "report.html").read_bytes()


def test_the_dashboard_answers_until_ctrl_c(tmp_path: Path) -> None:
    store = store_at(tmp_path / "data", runs=1)
    overview = pages()["overview"].page
    assert overview is not None
    (number,) = (at for at, one in enumerate(overview.panel) if one.title == "Newest runs")
    process = start(tmp_path, "dashboard", "--port", "0", "--data", str(store.root))
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        address, _, how = line.partition("  ")
        assert how == "(Ctrl-C ends it)\n"
        with urllib.request.urlopen(f"{address}_dash-layout", timeout=60) as answer:
            assert answer.status == 200
        with urllib.request.urlopen(f"{address}export/overview/{number}.csv", timeout=60) as answer:
            assert answer.read().count(b"\n") == 2
        store.ingest(add_run(store, 1).run_id)  # nobody is in the way of who writes
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert (out, "Traceback" in err) == ("", False)


def test_a_port_that_is_taken_is_one_line(store: Store, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        _, err = run(tmp_path, "dashboard", "--port", port, "--data", str(store.root), code=2)
    assert f"cannot listen on 127.0.0.1, port {port}" in one_line(err)


def test_a_weak_token_is_one_line(store: Store, tmp_path: Path) -> None:
    words = ("dashboard", "--host", "0.0.0.0", "--port", "0", "--data", str(store.root))
    _, err = run(tmp_path, *words, code=2, MELTBENCH_TOKEN="secret")
    assert "MELTBENCH_TOKEN has fewer than 16 characters" in one_line(err)
    assert "secret," not in err
