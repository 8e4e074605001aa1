from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_kit import Lab, call

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = [
    ("stop idle a 1", "run limit channel step"),
    ("step dance a", "idle port pages spawn ready http exec try gate mark set undo stop"),
    ("step idle a", "step idle NAME MS"),
    ("step idle a b", "step idle NAME MS"),
    ("step idle a 1 2", "step idle NAME MS"),
    ("step idle a -1", "step idle NAME MS"),
    ("step idle a%20b 1", "step idle NAME MS"),
    ("step idle  a 1", "split by one space"),
    ("step mark a%00b", "split by one space"),
    ("step mark a%0", "split by one space"),
    ("step pages /a look", "measure drop"),
    ("step gate g /a beneath 1 1 1", "below above"),
    ("step gate g /a below warm 1 1", "step gate"),
    ("step spawn a true", "step spawn"),
    ("step spawn a env=K -- true", "step spawn"),
    ("step spawn a --", "step spawn"),
    ("step stop a 1", "step stop"),
    ("step port p 0", "step port NAME [PORT]"),
    ("step port p 65536", "step port NAME [PORT]"),
    ("step port p 80 81", "step port NAME [PORT]"),
    ("step ready a p / 1", "step ready"),
    ("step http a p 1 1 1 f", "step http"),
    ("step exec a 1 -- {port:p}", "no earlier step port"),
    ("step exec a 1 -- {pid:b", "unclosed"),
    ("channel a tape /x 1", "file poll lines"),
    ("channel a file /x 999999", "1000000"),
    ("channel a file /x", "channel NAME file"),
    ("channel a file /x/{pid:gone} 0", "no step spawn or exec"),
    ("channel a poll 1000000 0 -- true", "channel NAME poll"),
    ("channel a poll 1000000 10 true", "channel NAME poll"),
    ("channel a lines -- x {pid:b}", "channel NAME lines"),
    ("limit patience 1", "journal_bytes duration_ms log_bytes"),
    ("limit journal_bytes 1000", "262144"),
    ("run again", "run RUN_ID"),
]


@pytest.mark.parametrize(("line", "valid"), REFUSED)
def test_a_wrong_line_is_named_with_what_is_valid(tmp_path: Path, line: str, valid: str) -> None:
    lab = Lab(tmp_path)
    lab.job("step mark first", line)
    done = call("run", lab.dir)
    assert done.returncode == 64
    assert "job line 4:" in done.stderr.decode()
    assert valid in done.stderr.decode()
    assert done.stderr.count(b"\n") == 1
    assert sorted(p.name for p in lab.dir.iterdir()) == ["job", "req"]


@pytest.mark.parametrize("text", [b"", b"meltjob 2\n", b"meltjob 1\n", b"meltjob 1\nrun a", b"meltjob 1\nrun a\0\n"])
def test_a_file_that_is_no_job_is_refused(tmp_path: Path, text: bytes) -> None:
    lab = Lab(tmp_path)
    (lab.dir / "job").write_bytes(text)
    assert call("run", lab.dir).returncode == 64


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(st.sampled_from("step channel limit {pid:}%-*?[]/019abc\n"), max_size=40), max_size=6))
def test_any_text_is_refused_or_run_but_never_crashes(tmp_path: Path, lines: list[str]) -> None:
    lab = Lab(tmp_path)
    lab.job("limit duration_ms 50", *lines)
    done = call("run", lab.dir)
    assert done.returncode in (0, 64)
    assert (done.returncode == 64) == done.stderr.startswith(b"meltprobe: malformed job: job line")


@pytest.mark.parametrize("args", [[], ["run"], ["fly", "x"], ["run", "x", "y"], ["status"], ["version", "x"]])
def test_usage(args: list[str]) -> None:
    done = call(*args)
    assert done.returncode == 64
    assert b"usage" in done.stderr


def test_a_missing_folder_cannot_be_written(tmp_path: Path) -> None:
    assert call("run", tmp_path / "none").returncode == 73
    assert call("recover", tmp_path / "none").returncode == 73
