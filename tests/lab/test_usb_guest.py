"""A phone at a USB port whose cable is pulled: in a command, in a push, in a run, for a moment and until it is over.

Both ends of the cable are one emulated machine's kernel, its USB host's and its USB gadget's. Android's adbd and a real
adb server are at the ends, and the engine is the stock one of this machine's kind.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from adb_guest_kit import OURS, ROOT, SERIAL
from box_kit import FEW, SHORT, TINY, TOKENS, Controller, answered, reasons, until_run
from engines_kit import stock_folder
from road_kit import Staged
from targets_kit import Keys
from usb_guest_kit import UsbGuest, usb_guest

from meltbench.deadline import Deadline
from meltbench.errors import LinkLost
from meltbench.targets.adb.transport import AdbTransport

pytestmark = pytest.mark.slow
TMP = "/data/local/tmp"
GATED = ("--", "sh", "-c", f"until [ -e {TMP}/gate ]; do sleep 0.1; done")
WRONG = {"device_rebooted", "clock_stepped", "suspended", "settings_not_applied"}


@pytest.fixture(scope="module")
def phone(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[UsbGuest]:
    with usb_guest(tmp_path_factory.mktemp("guest"), lab_keys) as target:
        yield target


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, phone: UsbGuest) -> Controller:
    words = ("--adb", SERIAL, "--adb-port", str(phone.server.port))
    return Controller.of(tmp_path_factory.mktemp("controller"), phone, *words, ours=OURS)


@pytest.fixture(autouse=True)
def mended(request: pytest.FixtureRequest, phone: UsbGuest) -> Iterator[None]:
    yield
    if "box" in request.fixturenames:
        request.getfixturevalue("box").end()
    phone.plug()
    phone.connect()


def engine(*words: str) -> tuple[str, ...]:
    return ("run", "--device", "box", "--engine", str(stock_folder()), *SHORT, *words)


def is_whole(run: dict[str, Any], requests: int = 5) -> None:
    """Every token of it is real, and nothing is said of it that did not happen."""
    assert (run["outcome"], run["conditions"]["arch"], run["device"]["target"]) == ("done", "x86_64", "adb")
    assert [(one["status"], one["n_out"]) for one in run["requests"]] == [("ok", TOKENS)] * requests
    assert not reasons(run) & WRONG


@contextmanager
def pulled_once_begun(phone: UsbGuest) -> Iterator[None]:
    """The cable is pulled as soon as WORK, which is begun within, runs there."""
    begun = f"{ROOT}{TMP}/begun"
    phone.ssh(f"rm -f {begun}")

    def pull() -> None:
        phone.ssh(f"until [ -e {begun} ]; do sleep 0.1; done", seconds=120)
        phone.unplug()

    thread = threading.Thread(target=pull)
    thread.start()
    yield
    thread.join()


WORK = f"echo begun | tee {TMP}/begun; sleep 200; echo over"


def test_a_command_is_told_of_its_pulled_cable_where_adb_says_that_all_is_well(phone: UsbGuest) -> None:
    to = AdbTransport(SERIAL, phone.server.port)
    assert to.run(["id", "-u"], Deadline.after(60)).stdout == b"2000\n"
    with pulled_once_begun(phone), pytest.raises(LinkLost, match="was lost while sh was under way"):
        to.run(["sh", "-c", WORK], Deadline.after(150))
    with pytest.raises(LinkLost, match=f"{SERIAL} is not attached; check its cable"):
        to.run(["true"], Deadline.after(60))
    phone.plug()
    phone.connect()
    with pulled_once_begun(phone):
        done = phone.try_adb("exec-out", WORK, seconds=150)
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", ""), "adb itself"
    phone.plug()
    phone.connect()
    assert to.run(["echo", "b"], Deadline.after(60)).stdout == b"b\n"
    to.close()


def test_a_cable_that_is_pulled_in_a_push_stores_nothing_and_the_rest_is_pushed_later(
    box: Controller, phone: UsbGuest, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = box.home / "big.gguf"
    big.write_bytes((box.home / "tiny.gguf").read_bytes() + bytes(40 << 20))
    words = engine("--model", "big.gguf", *FEW)
    monkeypatch.setitem(box.env, "STAGED_PATIENT", "")
    pushing = Staged(box, "push", words)
    box.started.append(pushing.process)
    pushing.reached()
    phone.unplug()
    pushing.go()
    code, _, err = pushing.end(240)
    (said,) = (line for line in err.splitlines() if line.startswith("meltbench: "))
    assert (code, box.stored(), pushed_mb(err) > 40) == (1, [], True), err
    assert f"{SERIAL} is not attached; check its cable" in said
    phone.plug()
    phone.connect()
    done = box.run(*words, "--json")
    assert done.returncode == 0, done.stderr
    assert 0 < pushed_mb(done.stderr) < 41
    (run,) = json.loads(done.stdout)
    is_whole(run)
    assert "link_traffic" not in reasons(run)
    assert (box.json("verify"), box.left()) == ([], "")


def pushed_mb(said: str) -> float:
    """How much was to be pushed, by what was said."""
    (found,) = re.findall(r"^pushing .* \(([0-9.]+) MB\) to box$", said, re.MULTILINE)
    return float(found)


def test_a_cable_that_is_out_until_the_run_is_over(box: Controller, phone: UsbGuest) -> None:
    more = ("--set", "repeat=10")  # so that it is not over before the cable is out
    with box.start(*engine("--json", *TINY, *more)) as under_way:
        answered(box)
        phone.unplug()
        until_run(box, 'grep \'"state":"ended"\'')
        phone.plug()
        out, err = under_way.communicate(timeout=240)
    assert under_way.returncode == 0, err
    assert "the link is lost" in err
    (run,) = json.loads(out)
    is_whole(run, requests=50)
    assert "link_traffic" not in reasons(run)
    assert box.left() == ""


def test_a_cable_that_is_put_in_again_while_it_measures(box: Controller, phone: UsbGuest) -> None:
    with box.start("exec", "--json", "--device", "box", *SHORT, *GATED) as under_way:
        until_run(box, 'grep \'"op":"exec"\'')
        phone.unplug()
        assert under_way.stderr is not None
        assert any("the link is lost" in line for line in under_way.stderr)
        phone.plug()
        assert any("the link is back, the run goes on" in line for line in under_way.stderr)
        phone.ssh(f"touch {ROOT}{TMP}/gate")
        out, _ = under_way.communicate(timeout=240)
    assert under_way.returncode == 0
    (run,) = json.loads(out)
    assert (run["outcome"], reasons(run) & (WRONG | {"link_traffic"})) == ("done", {"link_traffic"})
    assert box.left() == ""
