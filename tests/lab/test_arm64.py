"""From nothing to stored runs on arm64 machines that have sshd and a shell: one whose programs are emulated, and one
emulated whole, with a kernel, a clock, a disk and a network card of its own: stepped, filled, delayed, rebooted.

Both are a Cortex-A72, for which the stock engine is the one that `make lab` had meltbench cross-build.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from box_kit import (
    FEW,
    LONG,
    SHORT,
    TINY,
    Controller,
    answered,
    has_real_tokens,
    is_rebooted,
    one_of,
    reasons,
    rebooted_in_a_run,
    until_run,
    value,
)
from engines_kit import stock_folder
from guest_kit import Guest, arm64_guest
from made_meter import IDLE_W, LOAD_W, made_meter
from road_kit import Staged
from rooms_kit import arm64_rootfs
from targets_kit import Keys, until
from test_smoke import DOTPROD, zigged

from meltbench import builds
from meltbench.store import read_record

CPU = "cortex-a72"


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys, stock: builds.Record) -> Iterator[Controller]:
    del stock  # without it a run would build one, which takes minutes
    with arm64_rootfs(tmp_path_factory.mktemp("room"), lab_keys, CPU) as target:
        yield Controller.of(tmp_path_factory.mktemp("controller"), target)


@pytest.fixture(scope="module")
def guest(tmp_path_factory: pytest.TempPathFactory, lab_keys: Keys) -> Iterator[Guest]:
    with arm64_guest(tmp_path_factory.mktemp("guest"), lab_keys, CPU) as target:
        yield target


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, guest: Guest, stock: builds.Record) -> Controller:
    del stock
    return Controller.of(tmp_path_factory.mktemp("controller"), guest)


@pytest.fixture(autouse=True)
def ended(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"room", "box"} & {*request.fixturenames}:
        request.getfixturevalue(name).end()


# --- show 1: arm64 programs ---


def test_from_nothing_to_real_tokens_and_then_nothing_is_pushed(room: Controller, stock: builds.Record) -> None:
    assert room.target.ssh("command -v python3 python perl cc || echo none") == "none"
    assert room.target.ssh("ls .meltbench/cache 2> /dev/null || echo none") == "none"
    done = room.run("run", "--device", "box", *SHORT, *TINY, "--json")
    assert done.returncode == 0, done.stderr
    assert "pushing llama-server, tiny.gguf" in done.stderr
    (first,) = json.loads(done.stdout)
    has_real_tokens(first, stock)
    assert room.json("verify") == []
    cached = room.target.ssh("cd .meltbench/cache && ls -i blobs trees/*")
    again = room.run("run", "--device", "box", *SHORT, *TINY, "--json")
    assert "pushing" not in again.stderr
    assert room.target.ssh("cd .meltbench/cache && ls -i blobs trees/*") == cached
    (second,) = json.loads(again.stdout)
    has_real_tokens(second, stock)
    assert second["cell_key"] == first["cell_key"]
    assert room.left() == ""


def test_an_engine_for_another_machine_is_refused_before_it_is_pushed(room: Controller) -> None:
    before = room.target.ssh("ls .meltbench/cache/blobs")
    said = room.refused("run", "--engine", str(stock_folder()), *TINY)
    assert "llama-server is for x86_64, the target box is aarch64; give a build for aarch64" in said
    assert room.target.ssh("ls .meltbench/cache/blobs") == before


def test_an_engine_for_a_newer_processor_is_explained(room: Controller, tmp_path: Path) -> None:
    words = ("-mcpu=generic+v8_2a+dotprod", "-nostdlib", "-static", "-O1")
    program = zigged(tmp_path, "aarch64-linux-musl", DOTPROD, *words)
    said = room.refused("run", "--engine", str(program), *TINY)
    assert "stopped at an instruction that this processor does not have" in said
    assert "It lists: asimd cpuid crc32 evtstrm fp" in said
    assert "meltbench runners build llamacpp --target aarch64-linux --cpu generic" in said


# --- show 2: an arm64 machine ---


def test_on_a_machine_whose_clock_is_an_hour_off(box: Controller, guest: Guest, stock: builds.Record) -> None:
    guest.step_clock(3600)
    run = box.one("run", *TINY)
    guest.step_clock(-3600)
    has_real_tokens(run, stock)
    assert run["conditions"]["kernel"] == guest.ssh("uname -r")
    assert run["conditions"]["boot_id"] == guest.boot_id()
    assert not reasons(run) & {"clock_stepped", "suspended", "device_rebooted"}
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "ended_at"))
    assert value(run, "wall_s") < (ended - began).total_seconds() < 600
    assert box.left() == ""


METER = """
title = "an arm64 machine at a plug"
inherits = "linux-desktop"
target = "ssh"
[[source]]
name = "plug"
reader = "shelly"
period_ms = 97
host = true
[source.options]
address = "{address}"
[[total]]
source = "plug"
rails = ["meter.energy"]
scope = "wall"
"""
WORKS_S = 4
WORK = f"echo on > /dev/ttyAMA0; {{}}sleep {WORKS_S}; echo off > /dev/ttyAMA0"
GO = "until [ -e /tmp/go ]; do sleep 0.1; done; "


@dataclass
class Plug:
    """A plug on this machine, at which the guest hangs: it draws more from ``on`` on its serial line to ``off``."""

    box: Controller

    def working(self) -> bool:
        return self.words()[-1:] == ["on"]

    def words(self) -> list[str]:
        return [word for word in self.box.target.said().split() if word in ("on", "off")]

    @contextmanager
    def read(self) -> Iterator[None]:
        """While it lasts, the device's profile has the plug as its meter."""
        with made_meter(self.working) as address:
            (self.box.home / "devices").mkdir(exist_ok=True)
            (self.box.home / "devices/plugged.toml").write_text(METER.format(address=address))
            inventory = self.box.home / "inventory.toml"
            text = inventory.read_text()
            inventory.write_text(text.replace('profile = "linux-desktop"', 'profile = "plugged"'))
            try:
                yield
            finally:
                inventory.write_text(text)


def drawn(run: dict[str, Any]) -> tuple[float, float, float]:
    """The run's energy and what it was by the truth, J, and how far the clock of its meter may be off, s."""
    (meter,) = (one for one in read_record(Path(run["stored"])).series if one.name == "meter.energy")
    energy = one_of(run, "energy_j", source="total")["value"]
    return float(energy), LOAD_W * value(run, "wall_s"), meter.clock_bound_s


def test_a_meter_beside_a_machine_whose_clock_is_stepped_meanwhile(box: Controller, guest: Guest) -> None:
    plug = Plug(box)
    with plug.read():
        words = ("exec", "--json", "--device", "box", "--set", "idle_s=2.5", "--", "sh", "-c", WORK.format(GO))
        with box.start(*words) as under_way:
            until(plug.working, "the work to begin", 120)
            guest.step_clock(3600)
            guest.ssh("touch /tmp/go")
            out, err = under_way.communicate(timeout=240)
        guest.step_clock(-3600)
    assert under_way.returncode == 0, err
    (run,) = json.loads(out)
    assert (run["outcome"], reasons(run) & {"clock_stepped", "suspended", "clock_unsynced"}) == (
        "done",
        {"clock_stepped"},
    )
    energy, truth, bound_s = drawn(run)
    assert 0 < bound_s < 0.5
    assert energy == pytest.approx(truth, rel=0.1)
    began, ended = (datetime.fromisoformat(run[name]) for name in ("started_at", "ended_at"))
    assert WORKS_S < (ended - began).total_seconds() < 600


def test_over_a_long_and_lossy_link(box: Controller, guest: Guest) -> None:
    plug = Plug(box)
    guest.netem("delay 200ms loss 5%")
    try:
        with plug.read():
            run = box.one("exec", "--set", "idle_s=2.5", "--", "sh", "-c", WORK.format(""))
    finally:
        guest.netem("")
    assert (run["outcome"], reasons(run) & {"clock_stepped", "clock_unsynced", "link_traffic"}) == ("done", set())
    energy, truth, bound_s = drawn(run)
    assert 0.1 < bound_s < 2
    assert abs(energy - truth) < 0.1 * truth + bound_s * (LOAD_W - IDLE_W)
    assert box.left() == ""


# --- its reboots ---


def test_a_machine_that_reboots_while_somebody_looks_on(
    box: Controller, guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest.ssh("rm -r .meltbench/bin")  # so that the probe is put there a moment before, too
    rebooted_in_a_run(box, monkeypatch, guest.reboot)
    assert box.left() == ""


def test_a_machine_that_is_reset_after_its_controller_was_killed(box: Controller, guest: Guest) -> None:
    guest.ssh("rm -r .meltbench/bin")  # so that the probe is put there a moment before, too
    under_way = box.start("run", "--device", "box", *SHORT, *LONG)
    answered(box)
    under_way.kill()
    under_way.communicate()
    guest.crash()
    for path in ("runs/2*/job", "runs/2*/ticket", "bin/meltprobe-*"):  # on the disk before it began, whatever is lost
        assert guest.ssh(f"stat -c %s .meltbench/{path}") != "0"
    (run,) = box.json("collect", code=1)
    is_rebooted(run)
    assert box.left() == ""


# --- its disk ---


def test_a_disk_that_is_full_before_a_run(box: Controller, guest: Guest) -> None:
    guest.fill_disk(0)
    try:
        said = box.refused("exec", "--", "true")
    finally:
        guest.free_disk()
    assert "No space left" in said or "no room" in said
    assert box.left() == ""


def test_a_disk_that_fills_up_while_a_model_is_pushed(
    box: Controller, guest: Guest, stock: builds.Record, monkeypatch: pytest.MonkeyPatch
) -> None:
    big = box.home / "big.gguf"
    big.write_bytes((box.home / "tiny.gguf").read_bytes() + bytes(40 << 20))
    words = ("run", "--device", "box", *SHORT, "--model", "big.gguf", *FEW)
    monkeypatch.setitem(box.env, "STAGED_PATIENT", "")
    pushing = Staged(box, "push", words)
    box.started.append(pushing.process)
    try:
        pushing.reached()
        guest.fill_disk(0)
        pushing.go()
        code, _, err = pushing.end(240)
    finally:
        guest.free_disk()
    (said,) = (line for line in err.splitlines() if line.startswith("meltbench: "))
    assert code == 1
    assert "pushing big.gguf to box" in said
    assert "No space left" in said or "no room" in said
    assert "meltbench devices cache box" in said
    assert box.left() == ""
    (run,) = box.json(words[0], *words[1:])
    has_real_tokens(run, stock)


def test_a_disk_that_fills_up_while_a_run_writes_its_journal(box: Controller, guest: Guest) -> None:
    under_way = box.start("exec", "--json", "--device", "box", *SHORT, "--", "sleep", "12")
    try:
        until_run(box, 'grep \'"op":"exec"\'')
        guest.fill_disk(0)
        out, err = under_way.communicate(timeout=240)
    finally:
        guest.free_disk()
    assert under_way.returncode == 1, err
    (run,) = json.loads(out)
    assert (run["outcome"], run["validity"]) == ("failed", "invalid")
    assert "journal_full" in reasons(run)
    assert box.left() == ""
    assert box.one("exec", "--", "true")["outcome"] == "done"


# --- its memory ---


def test_an_engine_past_its_memory_cap_is_told_apart(tmp_path: Path, guest: Guest, stock: builds.Record) -> None:
    root = Controller.of(tmp_path, guest, "--ssh", f"root@{guest.name}")
    fits = root.one("run", *TINY, "--set", "memory_mib=256")
    has_real_tokens(fits, stock)
    held = {"cpus": None, "memory_by": "cgroup", "memory_bytes": 256 << 20}
    assert fits["conditions"]["process"] == held
    run = root.one("run", *TINY, "--set", "memory_mib=4", code=1)
    assert (run["outcome"], run["validity"]) == ("failed", "invalid")
    assert "oom_killed" in reasons(run)
    assert run["conditions"]["process"] == held | {"memory_bytes": 4 << 20}
    assert guest.ssh("ls -d /sys/fs/cgroup/meltbench-* 2> /dev/null || echo none") == "none"
