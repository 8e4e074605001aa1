"""A sensor that goes wrong in the middle of a run: the run goes on, the samples say so, and no number is made up.

The board is made: its one power sensor is a file that a thread writes, so what it truly drew is known.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from cli import Bench

WATTS = 5.0
PROFILE = """
title = "a made board"
target = "local"
max_power_w = 15
roots.sys = "{sys}"

[[source]]
name = "board"
reader = "hwmon"
period_ms = 19
options = {{ scope = "module" }}

[[total]]
source = "board"
"""
CAPS = "-sys_ptrace"  # with it root may look into any process


class Board:
    """Shows ``WATTS``, a little more with each update, until it is told otherwise."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write, self._stop = write, threading.Event()
        self.say: Callable[[int], bytes | None] = lambda uw: b"%d\n" % uw  # None: nothing new
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        at = 0
        while not self._stop.wait(0.005):
            at = (at + 7919) % 100_000  # within 0.1 W, and never the same twice in a row
            if (text := self.say(int(WATTS * 1e6) + at - 50_000)) is not None:
                self._write(text)

    def __enter__(self) -> Board:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def board(bench: Bench, kind: str = "file") -> Iterator[tuple[Board, Callable[[str], None]]]:
    """The made board as device ``made``, and a way to tell its sensor something (see made_sensor.py)."""
    chip = bench.home / "sys" / "class" / "hwmon" / "hwmon0"
    chip.mkdir(parents=True)
    (chip / "name").write_text("ina238\n")
    (chip / "power1_label").write_text("VIN\n")
    (bench.home / "devices").mkdir()
    (bench.home / "devices" / "made.toml").write_text(PROFILE.format(sys=bench.home / "sys"))
    if kind == "file":
        handle = os.open(chip / "power1_input", os.O_CREAT | os.O_WRONLY)
        with Board(lambda text: (os.ftruncate(handle, len(text)), os.pwrite(handle, text, 0))[0]) as made:
            yield made, lambda _: None
        os.close(handle)
        return
    program = [*bench.prefix, sys.executable, str(Path(__file__).with_name("made_sensor.py")), kind]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as sensor:
        assert sensor.stdin is not None
        assert sensor.stdout is not None
        (chip / "power1_input").symlink_to(sensor.stdout.readline().decode().strip())

        def tell(text: bytes) -> None:
            sensor.stdin.write(text)
            sensor.stdin.flush()

        with Board(tell) as made:

            def end(word: str) -> None:
                made.say = lambda _: None
                time.sleep(0.02)
                tell(f"{word}\n".encode())
                if word == "gone":
                    sensor.wait()

            yield made, end
            made.say = lambda _: None
        sensor.kill()


def metered(bench: Bench, seconds: float, fault: Callable[[], None], after_s: float) -> dict[str, Any]:
    """A run of a sleep, in which the fault comes some time after it began."""
    running = bench.start("exec", "--json", "--device", "made", "--set", "idle_s=0.4", "--", "sleep", str(seconds))
    bench.wait_for(lambda s: s.get("op") == "exec")
    time.sleep(after_s)
    fault()
    out, err = running.communicate(timeout=60)
    assert running.returncode == 0, err
    (run,) = json.loads(out)
    assert run["outcome"] == "done"  # whatever a sensor does, the run keeps going
    assert "\x1b" not in out
    return dict(run)


def energy(run: dict[str, Any], source: str = "total") -> dict[str, Any]:
    keys = ("energy_j", "run", source)
    (found,) = [m for m in run["measures"] if (m["name"], m["phase"], m["source"]) == keys]
    return dict(found)


def wall(run: dict[str, Any]) -> float:
    return float(next(m["value"] for m in run["measures"] if m["name"] == "wall_s"))


def against(run: dict[str, Any]) -> dict[str, str]:
    return {reason["code"]: reason["detail"] for reason in run["reasons"]}


def stored(run: dict[str, Any]) -> Counter[str]:
    """The statuses of the stored samples of power; a value is there exactly where one is ok."""
    folder = Path(run["stored"])
    names = pq.read_table(folder / "series.parquet").to_pylist()
    (number,) = [row["series"] for row in names if row["unit"] == "W"]
    rows = [row for row in pq.read_table(folder / "samples.parquet").to_pylist() if row["series"] == number]
    assert all((row["value"] is not None) == (row["status"] == "ok") for row in rows)
    assert all(abs(row["value"]) <= 15 for row in rows if row["value"] is not None)
    return Counter(row["status"] for row in rows)


def test_a_sound_sensor_for_comparison(bench: Bench) -> None:
    with board(bench):
        run = metered(bench, 1.2, lambda: None, 0)
    assert energy(run)["value"] == pytest.approx(WATTS * wall(run), rel=0.02)
    assert set(stored(run)) == {"ok"}
    assert set(against(run)) == {"not_gated", "no_thermal_sensor"}


def test_a_sensor_that_vanishes(bench: Bench) -> None:
    with board(bench, "comm") as (_, end):
        run = metered(bench, 2.2, lambda: end("gone"), 0.5)
    assert energy(run)["value"] is None
    assert energy(run)["reason"].startswith("low_coverage")
    assert stored(run)["absent"] > 20
    assert "absent" in against(run)["sensor_unreadable"]
    assert (run["validity"], run["sources"][0]["status"]) == ("degraded", "ok")
    assert "absent" in run["sources"][0]["detail"]


def test_a_sensor_that_is_denied_midway(bench: Bench) -> None:
    if shutil.which("setpriv") is None and os.geteuid() == 0:
        pytest.skip("root looks into every process, and setpriv (util-linux), which takes that away, is not here")
    if os.geteuid() == 0:
        bench.prefix = ("setpriv", f"--bounding-set={CAPS}", f"--inh-caps={CAPS}")
    with board(bench, "personality") as (_, end):
        run = metered(bench, 2.2, lambda: end("deny"), 0.5)
    found = stored(run)
    if not found["ok"]:
        pytest.skip("this kernel lets nobody read the personality of a process")
    assert found["denied"] > 20
    assert (energy(run)["value"], energy(run)["reason"].partition(":")[0]) == (None, "low_coverage")
    assert "denied" in against(run)["sensor_denied"]
    assert run["validity"] == "degraded"


def test_a_sensor_that_freezes(bench: Bench) -> None:
    with board(bench) as (made, _):

        def freeze() -> None:
            made.say = lambda _: None

        run = metered(bench, 2.2, freeze, 0.7)
    assert energy(run)["value"] is None
    assert energy(run)["reason"].startswith("stale_sensor: hwmon.ina238.VIN.power stood still for ")
    assert energy(run, "hwmon.ina238.VIN.power")["value"] is None
    assert "stood still" in against(run)["stale_sensor"]
    assert run["validity"] == "degraded"


def test_a_sensor_that_jumps_once(bench: Bench) -> None:
    with board(bench) as (made, _):

        def jump() -> None:
            before = made.say
            made.say = lambda uw: b"%d\n" % (uw * 900)
            time.sleep(0.045)
            made.say = before

        run = metered(bench, 2.2, jump, 0.6)
    assert 1 <= stored(run)["implausible"] <= 6
    assert energy(run)["value"] == pytest.approx(WATTS * wall(run), rel=0.03)  # bridged, and not 900 times as much
    assert energy(run)["reason"] is None
    assert "beyond 15 W" in against(run)["bridged_readings"]
    assert "implausible" in run["sources"][0]["detail"]
    assert run["validity"] == "degraded"


def test_a_sensor_that_goes_negative(bench: Bench) -> None:
    with board(bench) as (made, _):
        made.say = lambda uw: b"-%d\n" % uw
        run = metered(bench, 1.2, lambda: None, 0)
    assert set(stored(run)) == {"ok"}  # it is what the sensor says, and a wrong sign is for the profile to mend
    assert energy(run)["value"] is None or energy(run)["value"] < 0
    assert "implausible_power" in against(run)
    assert run["validity"] == "invalid"


def test_a_sensor_that_changes_its_unit(bench: Bench) -> None:
    with board(bench) as (made, _):

        def nanowatts() -> None:
            made.say = lambda uw: b"%d\n" % (uw * 1000)

        run = metered(bench, 2.2, nanowatts, 0.6)
    assert energy(run)["value"] is None
    detail = against(run)["implausible_power"]
    assert detail.endswith("about 1,000 times too much: the unit of its profile looks wrong")
    assert energy(run)["reason"] == f"implausible_power: {detail}"
    assert stored(run)["implausible"] > 20
    assert run["validity"] == "invalid"


@pytest.mark.parametrize(
    "answer",
    [b"sensor is busy, try again later\n", b"", b"\xff\x00\x1b[2J\xfe", b"0x4c4b40\n", b"5 000 000\n", b"9" * 5000],
)
def test_a_sensor_that_answers_with_prose(bench: Bench, answer: bytes) -> None:
    with board(bench) as (made, _):

        def talk() -> None:
            made.say = lambda _: answer

        run = metered(bench, 2.2, talk, 0.4)
    assert energy(run)["value"] is None
    assert stored(run)["unparsed"] + stored(run)["error"] > 10
    assert "hwmon.ina238.VIN.power" in against(run)["sensor_unreadable"]
    assert run["validity"] == "degraded"
