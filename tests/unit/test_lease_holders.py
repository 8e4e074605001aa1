"""Who holds a lease, in the words of the target and of people."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench.controller import this_process
from meltbench.errors import UserError
from meltbench.probe.client import holder_words, leased, lost
from meltbench.rollcall import lease_holder
from meltbench.targets import lease
from meltbench.targets.lease import has_ended, holder_of, reason_of


@given(st.text(max_size=300))
def test_a_holder_fits_whatever_the_stores_path_is(path: str) -> None:
    holder = holder_of(Path("/data") / path.replace("\0", ""))
    assert 0 < len(holder) <= 200
    assert all(0x20 <= ord(c) <= 0x7E for c in holder)
    told = json.loads(holder)
    assert {key: told[key] for key in this_process()} == this_process()
    assert not has_ended(holder)


def test_names_that_are_not_ascii_fit_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "this_process", lambda: this_process() | {"host": "\u00fc" * 32})
    monkeypatch.setattr(lease, "_user", lambda: "\u00e5" * 40)
    assert json.loads(holder_of(Path("/data")))["pid"] == os.getpid()


def test_where_the_kernel_does_not_say_who_it_is_nobody_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_kernel", lambda: "")
    gone = this_process() | {"pid": 2**30, "kernel": ""}  # of another machine, it may be, of the same name
    assert not has_ended(json.dumps(gone))


def test_the_end_of_a_long_path_is_kept() -> None:
    assert json.loads(holder_of(Path("/data/store")))["store"] == "/data/store"
    told = json.loads(holder_of(Path("/" + "x" * 300 + "/mine")))["store"]
    assert (told[:3], told[-5:]) == ("...", "/mine")


def test_a_process_that_ended_here_has_ended() -> None:
    script = "from pathlib import Path; from meltbench.targets.lease import holder_of; print(holder_of(Path('/x')))"
    gone = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True).stdout.strip()
    assert has_ended(gone)
    told = json.loads(gone)
    for other in (
        {"host": "elsewhere"},
        {"kernel": "00000000"},
        {"pid": "x"},
        {"pid": None},
        {"pid": 10**30},
        {"pid": 0},
    ):
        assert not has_ended(json.dumps(told | other))
    # The number is another process's now.
    assert has_ended(json.dumps(told | {"pid": os.getpid()}))


@pytest.mark.parametrize("holder", ["", "a b", "[1]", "{", "[" * 100_000, "null", '{"pid":1}'])
def test_of_a_holder_that_is_none_of_ours_nothing_is_known(holder: str) -> None:
    assert not has_ended(holder)
    assert len(holder_words(holder)) <= 200


def test_words_for_people() -> None:
    holder = json.dumps({"host": "lab\u001b[31m", "pid": 7, "user": "ann", "store": "/s"})
    answer = {"token": 3, "holder": holder, "left_ms": 61_400, "held_ms": 9_700}
    said = leased(answer)
    assert said == "ann on lab\ufffd[31m (process 7, store /s), for 10 s now, at most 61 s more"
    assert str(lost(answer)) == f"the lease was taken over: {said}; what ran is collected by `meltbench collect`"
    assert leased({"token": 3, "holder": None, "left_ms": 0}) is None
    assert "has run out" in lost({"token": 3, "holder": None}).message


def test_a_reason_is_one_line() -> None:
    assert reason_of(" it is\n my\tturn\x07 ") == "it is my turn"
    assert reason_of("x" * 500) == "x" * 200
    for nothing in ("", " \n\t"):
        with pytest.raises(UserError, match="for a reason"):
            reason_of(nothing)


def test_the_list_of_devices_names_a_holder_in_the_same_words() -> None:
    ours = json.dumps({"user": "ada", "host": "desk", "pid": 7, "store": "/data"})
    assert lease_holder({"holder": ours, "left_ms": 5}) == "ada on desk (process 7, store /data)"
    assert lease_holder({"holder": ours, "left_ms": 0}) is None
    assert lease_holder({"holder": None}) is None
