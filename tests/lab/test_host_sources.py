"""A meter beside the device: read on the controller, by its clock, for runs whose clock is another."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from cli import Bench
from made_meter import IDLE_W, LOAD_W, made_meter
from made_phone import burning
from probe_kit import probe_path

from meltbench import plan, road, site
from meltbench.deadline import Deadline
from meltbench.errors import DeviceError
from meltbench.probe.client import Probe
from meltbench.probe.clockmap import Batch, Clock
from meltbench.probe.journal import read_journal
from meltbench.probe.sync import EXCHANGES, exchange
from meltbench.report.progress import Quiet
from meltbench.spec import Spec
from meltbench.store import Store, open_store, read_record
from meltbench.targets import Completed, Feed
from meltbench.targets.local import LocalChannel, LocalTransport

AHEAD_S = 1_000_000  # how far the target's clock is ahead of the controller's
PROFILE = """
title = "a device at a plug"
target = "local"
workdir = "{home}/target"
[[source]]
name = "plug"
reader = "shelly"
period_ms = 97
host = true
[source.options]
address = "{address}"
[[source]]
name = "cpu"
reader = "cpustat"
period_ms = 97
[[total]]
source = "plug"
rails = ["meter.energy"]
scope = "wall"
"""


class AnotherClock(LocalTransport):
    """A target with a clock of its own, on this machine: whatever runs there runs in the time namespace of ``holder``.

    In one for all: of a new one a call the kernel may give each another number, and then none is surely the same clock.
    """

    def __init__(self, holder: int) -> None:
        self.prefix = ("nsenter", f"--time=/proc/{holder}/ns/time", "--")

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        return super().run([*self.prefix, *argv], deadline, feed=feed)

    def spawn(self, argv: Sequence[str], deadline: Deadline) -> LocalChannel:
        return super().spawn([*self.prefix, *argv], deadline)


@pytest.fixture
def another_clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The target of this test is reached through its own clock; the controller's own probe is not."""
    words = ["unshare", "--time", "--boottime", str(AHEAD_S), "--", "sh", "-c", "echo ready; exec sleep 600"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stderr is not None
        try:
            if holder.stdout.readline() != "ready\n":
                pytest.skip(f"no time namespace can be made here: {holder.stderr.read().strip()}")
            monkeypatch.setattr(site, "connect", lambda place, identity: AnotherClock(holder.pid))
            yield
        finally:
            holder.kill()


@contextmanager
def place(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A place with a profile whose plug measures what this place's probe burns."""
    monkeypatch.chdir(home)
    monkeypatch.setenv("XDG_STATE_HOME", str(home / "state"))
    with made_meter(lambda: burning(str(home))) as address:
        (home / "devices").mkdir()
        (home / "devices" / "plugged.toml").write_text(PROFILE.format(home=home, address=address))
        yield open_store(home / "data")


def burn(home: Path, store: Store, seconds: float = 3.0) -> Any:
    """A run whose command is a burn by a copy of the probe below ``home``, and what it should have drawn, J."""
    probe = home / "burner"
    probe.write_bytes(Path(probe_path()).read_bytes())
    probe.chmod(0o755)
    words = (str(probe), "burn", "1", str(round(seconds * 1000)))
    spec = Spec(device="plugged", workload="exec", knobs=(("idle_s", "2.5"),), command=words)
    (record,) = road.run(plan.make(spec), store, Quiet())
    return record


def energy(record: Any) -> Any:
    (found,) = [m for m in record.measures if (m.name, m.phase, m.source) == ("energy_j", "run", "total")]
    return found


def test_trap_15_a_meter_beside_a_target_of_another_clock_is_tied_to_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_clock: None
) -> None:
    with place(tmp_path, monkeypatch) as store:
        record = burn(tmp_path, store)
    assert record.manifest["outcome"] == "done"
    folder = store.folder(record.run_id)
    target, host = (read_journal(folder.path / "evidence" / name) for name in ("journal", "host/journal"))
    begin, beside = target.first("begin"), host.first("begin")
    assert begin is not None
    assert beside is not None
    assert begin["boot_id"] == beside["boot_id"]  # one kernel, and two clocks all the same
    assert begin["time_namespace"] != beside["time_namespace"]
    assert begin["boot_ns"] - beside["boot_ns"] == pytest.approx(AHEAD_S * 1e9, rel=1e-4)
    batches = [Batch.read(row) for row in json.loads((folder.path / "evidence" / "sync.json").read_bytes())]
    assert len(batches) == 2
    assert target.end is not None
    assert batches[0].exchanges[-1].told_ns < begin["boot_ns"]
    assert batches[1].exchanges[0].told_ns > target.end["boot_ns"]
    (run,) = [one for one in record.phases if one.name == "run"]
    (meter,) = [one for one in record.series if one.name == "meter.energy"]
    assert 0 < meter.clock_bound_s < 0.05
    assert meter.t0_ns.size == 0  # heads only: the samples are in the store
    found = energy(record)
    assert found.value == pytest.approx(LOAD_W * run.duration_s, rel=0.1)
    idle = [m for m in record.measures if (m.name, m.phase, m.source) == ("idle_power_w", "idle_before", "total")]
    assert idle[0].value == pytest.approx(IDLE_W, rel=0.1)
    assert "clock_unsynced" not in {one.code for one in record.reasons}
    assert read_record(folder.path).reasons == record.reasons
    assert not list((tmp_path / "state" / "meltbench" / "host").glob("*/runs/*/*"))


def test_without_an_exchange_after_the_run_its_energy_is_wider_and_the_run_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_clock: None
) -> None:
    from meltbench import host

    asked, real = [0], host.exchange

    def once(*args: Any) -> Batch:
        asked[0] += 1
        if asked[0] > 1:
            raise DeviceError("the line is cut")  # what a target that went away after the run gives
        return real(*args)

    monkeypatch.setattr(host, "exchange", once)
    with place(tmp_path, monkeypatch) as store:
        record = burn(tmp_path, store)
    (found,) = [one for one in record.reasons if one.code == "clock_unsynced"]
    assert found.detail == "plug: no clock exchange after the run"
    (meter,) = [one for one in record.series if one.name == "meter.energy"]
    assert 0.003 < meter.clock_bound_s < 0.05
    assert energy(record).value is not None


def test_without_any_exchange_the_meter_gives_no_energy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, another_clock: None
) -> None:
    with place(tmp_path, monkeypatch) as store:
        record = burn(tmp_path, store, 1.0)
        folder = store.folder(record.run_id)
        ticket, journal = folder.ticket(), read_journal(folder.evidence / "journal")
        (folder.evidence / "sync.json").unlink()
    from meltbench.assemble import assemble
    from meltbench.host import Hosted

    again = assemble(ticket, journal, lambda _: None, Hosted.of(ticket, journal, folder.evidence))
    assert energy(again).value is None
    assert energy(again).reason.startswith("clock_unsynced: plug: ")
    assert "clock_unsynced" in {one.code for one in again.reasons}
    assert not [one for one in again.series if one.source == "plug"]
    (seen,) = [one for one in again.sources if one.source == "plug"]
    assert seen.status == "error"


def test_one_clock_needs_no_exchange(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with place(tmp_path, monkeypatch) as store:
        record = burn(tmp_path, store, 1.5)
    folder = store.folder(record.run_id)
    assert not (folder.evidence / "sync.json").exists()
    (meter,) = [one for one in record.series if one.name == "meter.energy"]
    assert meter.clock_bound_s == 0
    (run,) = [one for one in record.phases if one.name == "run"]
    assert energy(record).value == pytest.approx(LOAD_W * run.duration_s, rel=0.15)
    begin = read_journal(folder.evidence / "journal").first("begin")
    assert begin is not None
    if begin["time_namespace"] is None:
        pytest.skip("this kernel has no time namespaces: nothing proves that two clocks are one")


def test_the_recording_survives_the_death_of_the_controller(bench: Bench) -> None:
    home = bench.home
    (home / "devices").mkdir()
    (home / "burner").write_bytes(Path(probe_path()).read_bytes())
    (home / "burner").chmod(0o755)
    with made_meter(lambda: burning(str(home))) as address:
        # The CLI's own state folder; the workdir below it, where the bench looks for jobs.
        text = PROFILE.format(home=home, address=address).replace(f'workdir = "{home}/target"\n', "")
        (home / "devices" / "plugged.toml").write_text(text)
        words = ("exec", "--device", "plugged", "--set", "idle_s=2.5", "--", str(home / "burner"), "burn", "1", "3000")
        controller = bench.start(*words)
        bench.wait_for(lambda state: state.get("op") == "exec")
        controller.kill()
        controller.communicate()
        (record,) = bench.json("collect")
    assert record["outcome"] == "done"
    (run,) = [one for one in record["phases"] if one["name"] == "run"]
    found = [m for m in record["measures"] if (m["name"], m["phase"], m["source"]) == ("energy_j", "run", "total")]
    seconds = (run["t1_ns"] - run["t0_ns"]) / 1e9
    assert found[0]["value"] == pytest.approx(LOAD_W * seconds, rel=0.1)
    assert bench.no_leftovers()


def test_a_run_that_could_not_be_started_leaves_no_recording(bench: Bench) -> None:
    (bench.home / "devices").mkdir()
    bench.start_detached(8)  # another run holds the target
    with made_meter(lambda: False) as address:
        text = PROFILE.format(home=bench.home, address=address).replace(f'workdir = "{bench.home}/target"\n', "")
        (bench.home / "devices" / "plugged.toml").write_text(text)
        done = bench.run("exec", "--device", "plugged", "--", "true")
    assert done.returncode == 1
    assert "the target is leased" in done.stderr
    assert not list(bench.home.glob("state/meltbench/host/*/runs/*/journal"))
    bench.json("collect")
    assert bench.no_leftovers()


@pytest.mark.alone
def test_trap_39_a_real_exchange_asks_over_one_channel_and_every_answer_lies_within_its_trip() -> None:
    """On one clock the true offset is 0: each of the real exchanges must be off by no more than half its trip."""
    started: list[str] = []

    class Counting(LocalTransport):
        def spawn(self, argv: Sequence[str], deadline: Deadline) -> LocalChannel:
            started.append(argv[1])
            return super().spawn(argv, deadline)

    probe = Probe(Counting(), probe_path(), "/tmp")
    batch = exchange(probe, Clock.of(probe.facts([])))
    assert started == ["clock"]
    assert len(batch.exchanges) == EXCHANGES
    assert all(2 * abs(one.offset_ns) <= one.trip_ns + 1 for one in batch.exchanges)
    assert batch.best is not None
    assert batch.best.trip_ns < 5_000_000
    assert batch.controller == batch.target


def test_a_clock_that_answers_nonsense_is_an_error_of_the_device(tmp_path: Path) -> None:
    for answer in ("soon", "-5 1 1", "12345678901234567890 1 1", "1 1"):
        fake = tmp_path / "meltprobe"
        fake.write_text(f"#!/bin/sh\n[ $1 = facts ] && echo '{{}}' && exit\nwhile read x; do echo '{answer}'; done\n")
        fake.chmod(0o755)
        with pytest.raises(DeviceError, match="answered something else"):
            exchange(Probe(LocalTransport(), str(fake), "/tmp"), Clock("a", 1))
