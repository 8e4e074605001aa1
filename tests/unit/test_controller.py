from __future__ import annotations

import subprocess
import sys

import pytest

from meltbench.controller import is_alive, this_process


def test_this_process_is_alive_and_a_recycled_pid_is_not() -> None:
    me = this_process()
    assert is_alive(me)
    assert not is_alive(me | {"start_ticks": 1})
    assert not is_alive(me | {"host": "elsewhere"})


def test_the_pid_of_somebody_else_is_told_apart_by_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(pid: int, number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    me = this_process()
    monkeypatch.setattr("meltbench.controller.os.kill", denied)
    assert is_alive(me)
    assert not is_alive(me | {"start_ticks": 1})


def test_an_ended_process_and_nonsense_are_not_alive() -> None:
    code = "from meltbench.controller import this_process; import json; print(json.dumps(this_process()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    import json

    assert not is_alive(json.loads(done.stdout))
    for nonsense in (None, {}, {"host": this_process()["host"], "pid": "x"}, 5):
        assert not is_alive(nonsense)
