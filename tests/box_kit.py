"""A controller that knows one device by the name of ``box``, and what must be true of the runs it makes of it.

The device is a Cortex-A72, for which the stock engine is the one that `make lab` had meltbench cross-build, or a
machine of this one's kind; the model is tiny.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import tiny_llama
from cli import Bench
from targets_kit import Target

from meltbench import builds, follow, paths, plan, road
from meltbench.report.progress import Quiet
from meltbench.spec import Spec
from meltbench.store import open_store

TOKENS = 4
FEW = ("--set", f"max_tokens={TOKENS}", "--set", "repeat=1", "--set", "warmup=0")
TINY = ("--model", "tiny.gguf", *FEW)
LONG = ("--model", "tiny.gguf", "--set", "repeat=100", "--set", "warmup=0")
SHORT = ("--set", "idle_s=0.3")


class Lacking:
    """A Watch of a build that must not begin: it takes minutes."""

    def say(self, text: str) -> None:
        pytest.skip(f"no engine for arm64 in the user's cache ({text}): make lab has meltbench build one")

    warn = say

    def fetched(self, done: int, total: int | None, doing: str = "") -> None:
        raise AssertionError("skipped before")

    def step(self, status: Mapping[str, Any]) -> None:
        raise AssertionError("skipped before")


def stock_engine() -> builds.Record:
    """What meltbench knows of the engine that it built for these machines, which a run takes by itself."""
    record = builds.record_of(builds.ensure(builds.variant("aarch64-linux"), Lacking()))
    assert record is not None
    return record


@dataclass
class Controller(Bench):
    """A controller that knows one device, ``box``; nothing of it was there before.

    ``ours``: our folder on the device, as ``target.ssh`` sees it, which is how tests look behind the product's back.
    """

    target: Target = field(kw_only=True)
    ours: str = field(kw_only=True, default=".meltbench")
    started: list[subprocess.Popen[str]] = field(default_factory=list)

    @classmethod
    def of(cls, home: Path, target: Target, *words: str, **more: str) -> Controller:
        """``words``: what the device is added by, else by SSH."""
        tiny_llama.write(home / "tiny.gguf")
        own = {"XDG_CONFIG_HOME": str(home / "config"), "MELTBENCH_INVENTORY": str(home / "inventory.toml")}
        # An adb server that meltbench starts keeps a key in the home.
        own |= {"HOME": str(home), "MELTBENCH_CACHE": str(paths.cache_dir())}
        made = cls(home, own | target.environment, target=target, **more)
        done = made.run("devices", "add", "box", *(words or ("--ssh", target.address)))
        assert done.returncode == 0, done.stderr
        return made

    def one(self, *words: str, code: int = 0) -> dict[str, Any]:
        """The run that a command stored."""
        (record,) = self.json(words[0], "--device", "box", *SHORT, *words[1:], code=code)
        return dict(record)

    def refused(self, *words: str) -> str:
        """What was said of a command that did not work: one line. Nothing is stored by it."""
        before = self.stored()
        done = self.run(words[0], "--device", "box", *SHORT, *words[1:])
        assert done.returncode not in (0, -9), done.stdout
        assert self.stored() == before
        (line,) = (line for line in done.stderr.splitlines() if line.startswith("meltbench: "))
        assert "Traceback" not in done.stderr
        return line

    def stored(self) -> list[str]:
        return sorted(path.parent.name for path in self.data.glob("runs/*/manifest.json"))

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start it, and end it at the end of the block, or of the test, that it was started for."""
        process = super().start(*args)
        self.started.append(process)
        return process

    def end(self) -> None:
        """End what is still under way: a controller left behind would hold the device against the next."""
        for process in self.started:
            process.kill()
            process.communicate()

    def left(self) -> str:
        """What of a run is left on the device beside the lease's files: its folders, and processes of ours."""
        return self.target.ssh(
            f"ls {self.ours}/runs | grep -v -e lease -e '^lock$'; ps -o args | grep -e '[m]eltprobe' -e '[l]lama-'; :"
        )


def has_real_tokens(run: dict[str, Any], stock: builds.Record) -> None:
    """The engine is the product's own, every request was answered by it, and every token counted."""
    assert (run["outcome"], run["conditions"]["arch"]) == ("done", "aarch64")
    assert run["conditions"]["pushed"]["files"]["llama-server"] == stock.programs["llama-server"]
    assert run["runner"]["version"] == stock.version
    assert [(one["status"], one["n_out"]) for one in run["requests"]] == [("ok", TOKENS)] * 5
    assert all(one["n_in"] > 200 and one["t_end_ns"] > one["t_send_ns"] for one in run["requests"])
    assert value(run, "engine_decode_tps", "median") > 0


def value(run: dict[str, Any], name: str, stat: str = "value") -> float:
    return float(one_of(run, name, stat)["value"])


def one_of(run: dict[str, Any], name: str, stat: str = "value", source: str = "") -> dict[str, Any]:
    (found,) = (
        m for m in run["measures"]
        if (m["name"], m["phase"], m["stat"], m["source"] or "") == (name, "run", stat, source)
        and not m.get("request")
    )  # fmt: skip
    return dict(found)


def reasons(run: dict[str, Any]) -> set[str]:
    return {one["code"] for one in run["reasons"]}


def until_run(box: Controller, says: str) -> None:
    """Wait until a filter leaves something of the state of the run that is under way."""
    box.target.ssh(f"until cat {box.ours}/runs/2*/state | {says}; do sleep 0.1; done", seconds=240)


def answered(box: Controller) -> None:
    """Wait until the run that is under way has had an answer."""
    until_run(box, 'grep \'"op":"http"\' | grep -v \'"done":0\'')


def rebooted_in_a_run(box: Controller, monkeypatch: pytest.MonkeyPatch, reboot: Callable[[], None]) -> None:
    """A run in which the device reboots while somebody looks on. Its end is silent, for qemu stands between it and us:
    it is asked when it should have ended."""
    for name, text in box.environment().items():
        monkeypatch.setenv(name, text)
    monkeypatch.setattr(follow, "_LONGER", 1e-4)  # else in hours: the run could take so long on a slow machine
    knobs = (("gate_timeout_s", "0"), ("idle_s", "0.3"), ("repeat", "100"), ("warmup", "0"))
    what = plan.make(Spec(device="box", model=str(box.home / "tiny.gguf"), knobs=knobs))
    store, records = open_store(box.data), []
    under_way = threading.Thread(target=lambda: records.extend(road.run(what, store, Quiet())), daemon=True)
    under_way.start()
    answered(box)
    reboot()
    under_way.join(240)
    (record,) = records
    is_rebooted(box.json("show", record.run_id))


def is_rebooted(run: dict[str, Any]) -> None:
    """Stored as failed, and without a number that would span the reboot."""
    assert (run["outcome"], run["validity"], run["ended_at"]) == ("failed", "invalid", None)
    assert "device_rebooted" in reasons(run)
    assert run["failure"].startswith("the device rebooted")
    of_time = [one for one in run["measures"] if one["phase"] == "run" and one["unit"] in ("s", "J", "W", "1/s")]
    assert {one["name"] for one in of_time if one["value"] is not None} <= {"load_s"}  # it was over before
    assert [one["name"] for one in run["phases"]] == ["idle_before", "load"]
