"""A made powercap tree that counts known powers in real time, along the whole road: the right joules, or the reason.

The tree is the edge of the world here: the probe reads it as it would read the kernel's.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cli import Bench

RANGE_UJ = 262_143_328_850
EXEC = ("--set", "idle_s=0.6", "--device", "made", "--", "sleep", "1.6")


@dataclass(frozen=True)
class Domain:
    """A zone of the tree: what it draws, and where its counter stands at first."""

    name: str
    watts: float
    start_uj: int = 1_000_000


@dataclass
class Machine:
    """The made tree below ``root``; ``reset`` lets every counter start from nothing, as a module loaded anew does."""

    root: Path
    since: float = field(default_factory=lambda: time.clock_gettime(time.CLOCK_BOOTTIME))
    anew: bool = False

    def reset(self) -> None:
        self.since, self.anew = time.clock_gettime(time.CLOCK_BOOTTIME), True

    def count(self, domain: Domain) -> int:
        joules = domain.watts * (time.clock_gettime(time.CLOCK_BOOTTIME) - self.since)
        return (int(joules * 1e6) + (0 if self.anew else domain.start_uj)) % RANGE_UJ

    def counter(self, zone: str = "0") -> int:
        return int((self.root / f"class/powercap/intel-rapl:{zone}/energy_uj").read_text())


SOCKETS = {
    "0": Domain("package-0", 21.0),
    "0:0": Domain("core", 17.0),
    "0:1": Domain("dram", 3.0),
    "1": Domain("package-1", 12.5),
    "1:0": Domain("dram", 1.5),
}


@contextmanager
def machine(bench: Bench, zones: dict[str, Domain]) -> Iterator[Machine]:
    """The device profile ``made`` and its tree, counted up by a thread every millisecond."""
    root = bench.home / "sys"
    files = {}
    for number, domain in zones.items():
        folder = root / "class" / "powercap" / f"intel-rapl:{number}"
        folder.mkdir(parents=True)
        (folder / "name").write_text(domain.name + "\n")
        (folder / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
        files[folder / "energy_uj"] = domain
    (bench.home / "devices").mkdir()
    (bench.home / "devices" / "made.toml").write_text(f'inherits = "local"\n[roots]\nsys = "{root}"\n')
    stop, begun, made = threading.Event(), threading.Event(), Machine(root)

    def count() -> None:
        handles = {os.open(path, os.O_CREAT | os.O_WRONLY): domain for path, domain in files.items()}
        while not stop.wait(0.001):
            for handle, domain in handles.items():
                os.pwrite(handle, b"%-14d\n" % made.count(domain), 0)
            begun.set()
        for handle in handles:
            os.close(handle)

    thread = threading.Thread(target=count)
    thread.start()
    assert begun.wait(10)
    try:
        yield made
    finally:
        stop.set()
        thread.join()


def energies(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {m["source"]: m for m in run["measures"] if (m["name"], m["phase"]) == ("energy_j", "run")}


def joules_per_watt(run: dict[str, Any]) -> float:
    """What one watt makes of the run: its length."""
    return float(next(m["value"] for m in run["measures"] if m["name"] == "wall_s"))


def check_joules(run: dict[str, Any], source: str, watts: float) -> None:
    found, expected = energies(run)[source], watts * joules_per_watt(run)
    assert found["reason"] is None
    assert found["value"] == pytest.approx(expected, rel=0.03)
    assert abs(found["value"] - expected) <= found["u_k2"]


def codes(run: dict[str, Any]) -> set[str]:
    return {reason["code"] for reason in run["reasons"]}


def test_two_sockets_and_their_dram_add_up_and_every_domain_has_its_own_joules(bench: Bench) -> None:
    with machine(bench, SOCKETS):
        (run,) = bench.json("exec", *EXEC)
    check_joules(run, "total", 21 + 3 + 12.5 + 1.5)
    for source, watts in (("package-0", 21), ("package-0.core", 17), ("package-0.dram", 3), ("package-1", 12.5)):
        check_joules(run, f"rapl.{source}", watts)
    assert energies(run)["total"]["scope"] == "soc"


def test_psys_stands_alone(bench: Bench) -> None:
    with machine(bench, SOCKETS | {"2": Domain("psys", 55.0)}):
        (run,) = bench.json("exec", *EXEC)
    check_joules(run, "total", 55)
    assert energies(run)["total"]["scope"] == "module"


def test_a_counter_that_wraps_within_the_run_loses_nothing(bench: Bench) -> None:
    # At 30 W it ends 3.5 s after it began to count: within the run, unless the command line was very slow to start.
    with machine(bench, {"0": Domain("package-0", 30.0, RANGE_UJ - 105_000_000)}) as made:
        (run,) = bench.json("exec", "--set", "idle_s=0.6", "--device", "made", "--", "sleep", "3.5")
        assert made.counter() < RANGE_UJ // 2
    check_joules(run, "total", 30)
    assert "counter_reset" not in codes(run)


def test_a_counter_that_starts_anew_within_the_run_gives_none_and_says_so(bench: Bench) -> None:
    with machine(bench, {"0": Domain("package-0", 30.0, RANGE_UJ // 2)}) as made:
        process = bench.start("exec", "--json", *EXEC)
        bench.wait_for(lambda s: s.get("op") == "exec")
        time.sleep(0.5)
        made.reset()
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    (run,) = json.loads(out)
    total = energies(run)["total"]
    assert total["value"] is None
    assert total["reason"].startswith("counter_reset")
    assert "counter_reset" in codes(run)


@pytest.mark.parametrize("what", ["all", "one package", "dram"])
def test_what_may_not_be_read_is_named_and_no_sum_pretends_to_be_whole(bench: Bench, what: str) -> None:
    hidden: dict[str, Callable[[str], bool]] = {
        "all": lambda _: True,
        "one package": lambda zone: zone == "intel-rapl:1",
        "dram": lambda zone: zone == "intel-rapl:1:0",
    }
    drop = "-dac_override,-dac_read_search"
    bench.prefix = ("setpriv", f"--bounding-set={drop}", f"--inh-caps={drop}")
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root reads what nobody may, and setpriv (util-linux), which takes that away, is not here")
    with machine(bench, SOCKETS) as made:
        for zone in (made.root / "class" / "powercap").iterdir():
            if hidden[what](zone.name):
                (zone / "energy_uj").chmod(0)
        (run,) = bench.json("exec", *EXEC)
    total = energies(run)["total"]
    if what == "dram":
        check_joules(run, "total", 21 + 3 + 12.5)
        assert "partial_total" in codes(run)
    else:
        assert (total["value"], total["reason"].partition(":")[0]) == (None, "sensor_denied")
