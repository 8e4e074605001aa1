"""The program that asks meters, over real sockets and real packages, with made meters at their other end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import made_meters as made
import numpy as np
import pytest
from probe_kit import Lab, call, result

from meltbench.catalog import builtin_root
from meltbench.measure.energy import energy, prepare
from meltbench.probe.job import literal
from meltbench.readings import READERS, read
from meltbench.readings.capture import captured
from meltbench.records import Phase

HELPERS = builtin_root() / "runners" / "helpers"
Row = dict[str, Any]


def argv(reader: str, period_ms: float, **options: object) -> list[str]:
    """As compose starts it."""
    helper = READERS[reader].helper
    assert helper is not None
    script = str(HELPERS / f"{helper.script}.py")
    return [sys.executable, "-B", "-P", script, *helper.words(period_ms, options)]


@contextmanager
def asking(reader: str, period_ms: float = 50, env: Row | None = None, **options: object) -> Iterator[Iterator[Row]]:
    """The lines of the helper as they come; it must end when nobody reads on."""
    process = subprocess.Popen(
        argv(reader, period_ms, **options), stdout=subprocess.PIPE, env={**os.environ, **(env or {})}
    )
    assert process.stdout is not None
    try:
        yield (json.loads(line) for line in process.stdout)
        process.stdout.close()
        assert process.wait(20) in (1, -signal.SIGPIPE)
    finally:
        process.kill()
        process.wait()


def some(reader: str, n: int, period_ms: float = 50, env: Row | None = None, **options: object) -> list[Row]:
    with asking(reader, period_ms, env, **options) as lines:
        return [line for _, line in zip(range(n), lines, strict=False)]


def heard(reader: str, lines: list[Row], **options: object) -> tuple[dict[str, Any], Any]:
    """What the reader makes of the helper's lines, by the helper's own stamps."""
    raw = b"\n".join(json.dumps(line).encode() for line in lines)
    series, status = read("plug", reader, captured(READERS[reader], raw), options)
    return {one.name: one for one in series}, status


def stamped(lines: list[Row], before_ns: int) -> None:
    now = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    stamps = [before_ns, *(line[key] for line in lines for key in ("t0_ns", "t1_ns")), now]
    assert stamps == sorted(stamps)


@pytest.mark.parametrize("kind", ["first", "second"])
def test_both_generations_of_shelly_are_told_apart_and_asked_in_their_own_way(kind: str) -> None:
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    answer = made.shelly_first(made.Load(61.5)) if kind == "first" else made.shelly_second(made.Load(61.5), 2)
    with made.plug(answer) as address:
        lines = some("shelly", 3, address=address)
    stamped(lines, before)
    kept = {"meters", "unixtime"} if kind == "first" else {"sys", "switch:0", "switch:1"}
    assert set(lines[0]["reply"]) == kept
    found, status = heard("shelly", lines, channel=0)
    assert found["meter.power"].value.tolist() == [61.5] * 3
    assert found["meter.energy"].value[0] < found["meter.energy"].value[2] < 61.5 * 60
    assert status.status == "ok"


def test_a_plug_with_tasmota() -> None:
    with made.plug(made.tasmota(made.Load(17.4))) as address:
        found, status = heard("tasmota", some("tasmota", 2, address=f"http://{address}"))
    assert found["meter.power"].value.tolist() == [17.0, 17.0]
    assert status.detail == "meter.power comes in steps of 1 W"


def between_marks(journal: Any) -> Phase:
    first, last = (event["boot_ns"] for event in journal.named("mark"))
    return Phase("run", first, last)


@pytest.mark.alone
def test_the_joules_of_a_load_behind_a_plug_between_two_marks_of_the_real_probe(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    with made.plug(made.shelly_second(made.Load(250.0))) as address:
        words = " ".join(literal(word) for word in argv("shelly", 47, address=address))
        lab.job(
            f"channel plug lines -- {words}",
            *("step idle before 1500", "step mark first", "step idle window 1500", "step mark last", "step idle a 500"),
        )
        done = call("run", lab.dir, timeout=120)
    assert done.returncode == 0, done.stderr
    journal = lab.journal()
    assert result(journal) == ("done", "")
    series, status = read("plug", "shelly", journal.channel("plug"), {})
    assert status.status == "ok", status.detail
    found = {one.name: one for one in series}
    span = between_marks(journal)
    joules = energy(prepare(found["meter.energy"]), span)
    assert joules.reason is None
    assert joules.value == pytest.approx(250 * span.duration_s, rel=0.05)
    assert (joules.scope, joules.klass) == ("wall", "B")
    assert set(found["meter.power"].value.tolist()) == {250.0}


def drip(connection: Any, path: str) -> None:
    for byte in made.reply({"gen": 2}):
        connection.sendall(bytes([byte]))
        time.sleep(0.2)


def silence(connection: Any, path: str) -> None:
    connection.recv(1)


def endless(connection: Any, path: str) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        connection.sendall(b"[" * 65536)


def sends(raw: bytes) -> made.Answer:
    return lambda connection, path: connection.sendall(raw)


@pytest.mark.parametrize(
    ("answer", "word", "detail"),
    [
        (drip, "again", "no whole answer in 3 s"),
        (silence, "again", "no whole answer in 3 s"),
        (endless, "error", "more than 65536 bytes"),
        (sends(made.reply(b"x" * 100_000)), "error", "more than 65536 bytes"),
        (sends(made.reply(b"<html>no</html>")), "error", "no JSON object"),
        (sends(made.reply(b"[1, 2]")), "error", "no JSON object"),
        (sends(made.reply(b"[" * 60_000)), "error", "no JSON object"),
        (sends(made.reply(b"", "401 Unauthorized")), "denied", "wants a password"),
        (sends(made.reply(b"", "500 Internal Server Error")), "error", "status 500"),
        (sends(made.reply(b"", "302 Found", "Location: http://192.0.2.1/\r\n")), "error", "status 302"),
        (sends(b"SSH-2.0-made\r\n"), "error", "does not speak HTTP"),
        (sends(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{"), "error", "no JSON object"),
        (sends(b""), "absent", ""),
    ],
)
def test_a_plug_that_misbehaves_is_told_in_words_and_asked_again(answer: Any, word: str, detail: str) -> None:
    with made.plug(answer) as address:
        lines = some("shelly", 1 if word == "again" else 2, address=address)
    assert {line["cannot"] for line in lines} == {word}
    assert detail in lines[0]["detail"]
    found, status = heard("shelly", lines)
    assert list(found) == ["meter.lost"]
    assert status.status == word


def test_a_plug_that_is_away_for_a_while_is_read_again_when_it_is_back() -> None:
    load, n = made.Load(9.0), 0
    second = made.shelly_second(load)

    def flaky(connection: Any, path: str) -> None:
        nonlocal n
        n += 1
        if n not in (3, 4):
            second(connection, path)

    with made.plug(flaky) as address:
        lines = some("shelly", 5, address=address)
    assert ["cannot" in line for line in lines] == [False, True, True, False, False]
    found, status = heard("shelly", lines)
    assert found["meter.power"].value.tolist() == [9.0] * 3
    assert status.status == "ok"


def test_nobody_at_the_address_a_wrong_address_and_none() -> None:
    (line,) = some("tasmota", 1, address="127.0.0.1:1")
    assert line["cannot"] == "absent"
    assert "refused" in line["detail"]
    for wrong in ("https://127.0.0.1", "127.0.0.1:x", "file:///etc/passwd"):
        (line,) = some("shelly", 1, address=wrong)
        assert line["cannot"] == "error", wrong
    (line,) = some("shelly", 1)
    assert line == {"cannot": "absent", "detail": "the profile gives no address: the host of the plug"}


def test_a_reply_that_is_longer_than_a_line_is_no_torn_one() -> None:
    huge = {"StatusSNS": {"ENERGY": {"Power": 1, "Voltage": list(range(3000))}}}
    with made.plug(sends(made.reply(huge))) as address:
        (line,) = some("tasmota", 1, address=address)
    assert line["cannot"] == "error"
    assert "does not fit on a line" in line["detail"]
    with made.plug(sends(made.reply({"WARNING": "Need user=<username>&password=<password>"}))) as address:
        (line,) = some("tasmota", 1, address=address)
    assert line["cannot"] == "denied"


def test_the_helper_ends_on_sigterm_also_while_it_waits_for_a_plug() -> None:
    with made.plug(silence) as address:
        process = subprocess.Popen(argv("shelly", 50, address=address), stdout=subprocess.DEVNULL)
        time.sleep(0.5)
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


def need(package: str) -> None:
    if find_spec(package) is None:
        pytest.skip(f"{package} is not installed: pip install 'meltbench[meters]'")


def test_the_real_python_kasa_asks_a_made_plug_and_a_made_strip() -> None:
    need("kasa")
    with made.kasa(made.Load(88.5)) as address:
        lines = some("kasa", 3, address=address)
    assert set(lines[0]["reply"]["emeter"]["get_realtime"]) >= {"power_mw", "total_wh"}
    assert "channel" not in lines[0]
    found, status = heard("kasa", lines)
    assert found["meter.power"].value.tolist() == [88.5] * 3
    assert found["meter.energy"].value[2] > found["meter.energy"].value[0] > 0
    assert status.status == "ok"
    with made.kasa(made.Load(40.0), outlets=3) as address:
        lines = some("kasa", 6, address=address)
    assert [line["channel"] for line in lines] == [0, 1, 2, 0, 1, 2]
    found, _ = heard("kasa", lines)
    assert [found[f"meter.ch{n}.power"].value.tolist() for n in range(3)] == [[40.0] * 2, [0.0] * 2, [0.0] * 2]


def test_a_plug_that_hangs_up_on_python_kasa_and_one_that_is_not_there_are_told() -> None:
    need("kasa")
    with made.kasa(made.Load(1.0), refuse=True) as address:
        (line,) = some("kasa", 1, address=address)
    assert line["cannot"] in ("absent", "again")
    with made.kasa(made.Load(1.0), nonsense=True) as address:
        lines = some("kasa", 2, address=address)
    assert {line["cannot"] for line in lines} <= {"absent", "error"}
    (line,) = some("kasa", 1, address="127.0.0.1:1")
    assert line["cannot"] == "absent"


def test_a_helper_without_its_package_says_which_is_missing() -> None:
    for reader, package in (("kasa", "python-kasa"), ("joulescope", "pyjoulescope_driver"), ("monsoon", "Monsoon")):
        words = argv(reader, 50, address="192.0.2.7")
        bare = [words[0], "-S", *words[1:]]  # without the packages that were installed
        done = subprocess.run(bare, capture_output=True, timeout=60)
        assert done.returncode == 1
        line = json.loads(done.stdout)
        assert line["cannot"] == "absent"
        assert line["detail"].startswith(f"{package} is not installed")


def test_the_log_of_ptdaemon_is_followed_from_its_end_through_a_new_beginning(tmp_path: Path) -> None:
    log = tmp_path / "spl.txt"
    line = "Time,04-28-2024 10:00:00.000,Watts,{}.5,Volts,230.0,Amps,0.1,PF,0.9,Mark,x\n"
    log.write_text(line.format(1))
    with asking("ptdaemon", 20, address=str(log)) as lines:
        time.sleep(1.0)
        with log.open("a") as file:
            file.write(line.format(2) + line.format(3)[:20])
        assert ",Watts,2.5," in next(lines)["reply"]
        with log.open("a") as file:
            file.write(line.format(3)[20:])
        third = next(lines)
        assert ",Watts,3.5," in third["reply"]
        log.write_text(line.format(4))
        fourth = next(lines)
        log.unlink()
        gone = next(lines)
    assert ",Watts,4.5," in fourth["reply"]
    assert third["t1_ns"] <= fourth["t0_ns"] < fourth["t1_ns"]
    assert gone["cannot"] == "absent"
    found, status = heard("ptdaemon", [third, fourth], date_order="mdy")
    assert found["meter.power"].value.tolist() == [3.5, 4.5]
    assert status.status == "ok"


def usb(kind: str, tmp_path: Path, **more: str) -> Row:
    """The environment in which usb.core finds a made instrument."""
    need("usb")
    shutil.copy(Path(__file__).with_name("made_usb.py"), tmp_path / "sitecustomize.py")
    return {"MADE_USB": kind, "PYTHONPATH": str(tmp_path), **more}


def test_the_real_pymonsoon_reads_a_made_monsoon_of_2_w(tmp_path: Path) -> None:
    need("Monsoon")
    lines = some("monsoon", 4, 500, usb("monsoon", tmp_path))
    full = [line["reply"] for line in lines if line["reply"]["samples"]]
    assert full
    for reply in full:
        assert reply["amps"] == pytest.approx(0.5, rel=1e-6)
        assert reply["volts"] == pytest.approx(4.0, rel=1e-6)
        assert reply["watts"] == pytest.approx(2.0, rel=1e-6)
    found, _ = heard("monsoon", lines)
    good = found["meter.power"].value[np.isfinite(found["meter.power"].value)]
    assert good == pytest.approx(np.full(len(good), 2.0), rel=1e-6)
    # A block is taken where enough of its samples came, which a busy machine may not manage.
    enough = [reply["samples"] >= 0.9 * 5000 * reply["seconds"] for reply in (line["reply"] for line in lines)]
    assert [word == "ok" for word in found["meter.power"].words] == enough
    assert found["meter.power"].window_s == pytest.approx(0.5, rel=0.5)


def test_trap_33_a_block_in_which_a_monsoon_lost_samples_has_no_power(tmp_path: Path) -> None:
    need("Monsoon")
    lines = some("monsoon", 8, 500, usb("monsoon", tmp_path, MADE_DROP_MS="400"))
    found, status = heard("monsoon", lines)
    assert "error" in found["meter.power"].words
    assert "samples were dropped" in status.detail


def test_a_monsoon_that_stops_ends_the_helper_with_its_words(tmp_path: Path) -> None:
    need("Monsoon")
    (line,) = some("monsoon", 2, 500, usb("monsoon", tmp_path, MADE_NOISE="1"))
    assert line["cannot"] == "error"
    assert line["detail"].startswith("the Monsoon stopped sampling")


def test_no_instrument_and_one_that_may_not_be_opened(tmp_path: Path) -> None:
    need("Monsoon")
    (line,) = some("monsoon", 2, 500, usb("none", tmp_path))
    assert line == {"cannot": "absent", "detail": "no Monsoon at USB"}
    (line,) = some("fnb58", 2, 500, usb("none", tmp_path))
    assert line == {"cannot": "absent", "detail": "no FNIRSI meter at USB"}
    (line,) = some("fnb58", 2, 500, usb("denied", tmp_path))
    assert line["cannot"] == "denied"
    (line,) = some("monsoon", 2, 500, usb("denied", tmp_path))
    assert line["cannot"] == "denied"


def test_the_real_joulescope_driver_finds_no_instrument() -> None:
    need("pyjoulescope_driver")
    (line,) = some("joulescope", 2)
    assert line == {"cannot": "absent", "detail": "0 Joulescopes: none; one is needed, address names it"}


def test_packets_of_a_made_fnb58_are_its_samples(tmp_path: Path) -> None:
    need("usb")
    lines = some("fnb58", 3, 500, usb("fnb58", tmp_path))
    found, status = heard("fnb58", lines)
    assert found["meter.power"].value == pytest.approx(np.full(12, 2.5))
    assert (found["meter.power"].window_s, status.status) == (0.0, "ok")
