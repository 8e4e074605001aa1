from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from meltbench.deadline import Deadline
from meltbench.errors import DeadlineExceeded, DeviceError, UnknownName, UserError
from meltbench.targets import Place, Transport, connect, printable

SOON = 10.0


@pytest.fixture
def local() -> Transport:
    return connect(Place())


def soon() -> Deadline:
    return Deadline.after(SOON)


def test_arguments_are_never_seen_by_a_shell(local: Transport) -> None:
    odd = ["a b", "$HOME", "`id`", "x;y", "'", '"', "\n", "*"]
    done = local.run([sys.executable, "-c", "import sys; print(sys.argv[1:])", *odd], soon())
    assert done.code == 0
    assert done.stdout.decode().strip() == str(odd)


def test_a_status_a_signal_and_a_complaint(local: Transport) -> None:
    assert local.run(["sh", "-c", "echo no >&2; exit 7"], soon()).code == 7
    assert local.run(["sh", "-c", "kill -9 $$"], soon()).code == -9
    done = local.run(["sh", "-c", "printf 'one\\ntwo \\033[31m\\n' >&2; exit 1"], soon())
    assert done.complaint() == "two \ufffd[31m"
    assert local.run(["sh", "-c", "exit 3"], soon()).complaint() == "exit status 3"


def test_a_command_that_hangs_is_ended_at_its_deadline(local: Transport, tmp_path: Path) -> None:
    pidfile = tmp_path / "pid"
    with pytest.raises(DeadlineExceeded):
        local.run(["sh", "-c", f"echo $$ > {pidfile}; exec sleep 60"], Deadline.after(0.5))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pidfile.read_text()), 0)


def test_a_flood_is_bounded(local: Transport) -> None:
    done = local.run(["sh", "-c", "head -c 20000000 /dev/zero"], soon())
    assert len(done.stdout) == 8 << 20


def test_what_is_not_there_is_said(local: Transport) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        local.run(["/nowhere/program"], soon())
    with pytest.raises(DeviceError, match="No such file"):
        local.pull("/nowhere/file", Path("/tmp/x"), soon())


def test_push_and_pull_are_whole_or_not_at_all(local: Transport, tmp_path: Path) -> None:
    source, there, back = tmp_path / "a", tmp_path / "deep" / "b", tmp_path / "c"
    source.write_bytes(os.urandom(3 << 20))
    local.push(source, str(there), soon(), executable=True)
    assert os.access(there, os.X_OK)
    local.pull(str(there), back, soon())
    assert back.read_bytes() == source.read_bytes()
    local.push(b"bytes", str(there), soon())
    assert there.read_bytes() == b"bytes"
    assert sorted(p.name for p in there.parent.iterdir()) == ["b"]
    with pytest.raises(DeadlineExceeded):
        local.push(b"late", str(there), Deadline.after(0))
    assert there.read_bytes() == b"bytes"


def test_a_channel_answers_line_by_line(local: Transport) -> None:
    channel = local.spawn(["cat"], soon())
    assert channel.ask(b"one", soon()) == b"one\n"
    assert channel.ask(b"two\n", soon()) == b"two\n"
    channel.close()


def test_a_channel_that_ends_or_hangs_is_said(local: Transport) -> None:
    gone = local.spawn(["true"], soon())
    with pytest.raises(DeviceError, match="ended"):
        gone.ask(b"x", soon())
    gone.close()
    mute = local.spawn(["sleep", "60"], soon())
    with pytest.raises(DeadlineExceeded):
        mute.ask(b"x", Deadline.after(0.2))
    mute.close()


def test_other_targets_are_refused_in_one_line() -> None:
    with pytest.raises(UserError, match="from a recorded log"):
        connect(Place("log"))
    with pytest.raises(UnknownName, match="lokal"):
        connect(Place("lokal"))


def test_printable_keeps_letters_and_takes_codes_away() -> None:
    assert printable("Grüße\t\x1b[2J\x00\u202e") == "Grüße \ufffd[2J\ufffd\ufffd"
