"""Building on a device: the shell on this machine stands for the device's, a small project for llama.cpp's source.

CMake, the compiler and the detached shell are real. nvcc is made where one is asked for: no toolkit is at hand.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from standin_kit import Told, cached, standin
from test_builds import sleeping, slow

from meltbench import builds, paths
from meltbench.builds import on_device
from meltbench.builds.on_device import Installed
from meltbench.builds.source import Source
from meltbench.deadline import Deadline
from meltbench.errors import BuildFailed, DeviceError, Interrupted, LinkLost
from meltbench.targets import Completed, Feed, Transport
from meltbench.targets.local import LocalTransport


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A controller's cache and a device's home, with the tools of this machine and nothing of CUDA."""
    if any(shutil.which(tool) is None for tool in ("cmake", "c++", "make")):
        pytest.skip("no cmake, c++ or make on this machine")
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "controller"))
    monkeypatch.setenv("HOME", str(tmp_path / "a home"))
    monkeypatch.setattr(on_device, "_POLL_S", 0.2)
    (tmp_path / "a home").mkdir()
    return tmp_path / "a home"


def made(source: Source, *, cuda: bool = False, told: Told | None = None, link: Transport | None = None) -> Installed:
    root, link = str(Path.home() / ".meltbench"), link or LocalTransport()
    return on_device.build(link, "orin", told or Told(), root=root, cuda=cuda, source=source)


def test_a_build_lies_in_the_devices_cache_and_is_found_there_again(home: Path, tmp_path: Path) -> None:
    source, archive = standin(tmp_path / "index")
    cached(source, archive)
    told = Told()
    found = made(source, told=told)
    folder = Path(found.folder)
    assert folder.parent == home / ".meltbench" / "cache" / "builds"
    assert found.programs == {name: paths.sha256_of(folder / name) for name in builds.PROGRAMS}
    assert found.version == "9.9.9 (build 0, commit llama-standin-1.0)"
    assert (found.cuda, found.source_sha256) == (None, source.sha256)
    assert {step["op"] for step in told.steps} >= {"build"}
    assert any("sending the source" in text for text in told.said)
    assert on_device.installed(LocalTransport(), str(home / ".meltbench")) == (found,)
    again = Told()
    assert made(source, told=again) == found
    assert (again.said, again.steps) == ([], [])
    work = folder.parent / f".{folder.name}"
    assert not (work / "build").exists()
    assert not (work / "source").exists()


def test_a_record_that_is_damaged_is_not_taken_for_a_build(home: Path, tmp_path: Path) -> None:
    source, archive = standin(tmp_path / "index")
    cached(source, archive)
    found = made(source)
    (Path(found.folder) / "build.json").write_text('{"source_sha256": ')
    assert on_device.installed(LocalTransport(), str(home / ".meltbench")) == ()
    assert made(source) == found


def test_a_toolkit_that_is_missing_is_told_with_where_it_was_looked_for() -> None:
    kit = on_device._Kit("orin", {"cmake": "/usr/bin/cmake", "c++": "/usr/bin/c++", "nvcc": ""})
    with pytest.raises(DeviceError, match=r"nvcc is not on orin: .*/usr/local/cuda\*/bin; .*nvidia-jetpack"):
        on_device._check(kit, cuda=True)


def test_cuda_is_built_with_the_toolkit_for_the_gpu_that_is_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, archive = standin(tmp_path / "index")
    cached(source, archive)
    bin_ = tmp_path / "bin"
    bin_.mkdir()
    for name, said in (("nvcc", "Cuda compilation tools, release 12.6, V12.6.68"), ("nvidia-smi", "8.7")):
        (bin_ / name).write_text(f"#!/bin/sh\necho '{said}'\n")
        (bin_ / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{bin_}:{os.environ['PATH']}")
    found = made(source, cuda=True)
    assert found.cuda == "12.6"
    assert "-linux-cuda-" in found.folder
    said = subprocess.check_output([f"{found.folder}/llama-server"], text=True)
    assert said.startswith("llama-server cuda=ON architectures=87 ")


def test_what_is_free_is_asked_of_the_disk_that_the_folder_lies_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "df").write_text('#!/bin/sh\necho head\necho "disk 9 9 $(basename "$2" | wc -c) 1% /"\n')
    (elsewhere / "df").chmod(0o755)
    monkeypatch.setenv("PATH", f"{elsewhere}:{os.environ['PATH']}")
    for root, at in ((elsewhere, "elsewhere"), (tmp_path / "not there", "a home")):
        kit = on_device._look(LocalTransport(), "orin", str(root))
        assert kit.number("free_kib") == len(f"{at}\n")


def test_tools_that_are_missing_are_all_named(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    bare.mkdir()
    for tool in ("sh", "uname", "sed", "nproc", "df", "tr", "tar", "gzip", "sha256sum"):
        (bare / tool).symlink_to(str(shutil.which(tool)))
    monkeypatch.setenv("PATH", str(bare))
    source, _ = standin(tmp_path / "index")
    with pytest.raises(DeviceError, match=r"orin lacks cmake, c\+\+, make; on it: sudo apt install cmake g\+\+ make"):
        made(source)


def test_what_the_compiler_refuses_is_told_and_its_log_is_brought(home: Path, tmp_path: Path) -> None:
    source, archive = standin(tmp_path / "index", lines="int lines(void) { return nothing; }\n")
    cached(source, archive)
    with pytest.raises(
        BuildFailed, match=r"orin cannot build it: .*lines\.c:1:.*error: .nothing. undeclared"
    ) as caught:
        made(source)
    kept = Path(str(caught.value.hint).removeprefix("the whole log is "))
    assert "undeclared" in kept.read_text()
    with pytest.raises(BuildFailed):  # it is tried again, not remembered
        made(source)


class Cut(LocalTransport):
    """A link that is cut while a build is looked at: the edge of the world, where a cable would be pulled."""

    def __init__(self) -> None:
        self.looks = 0

    def run(self, argv: Sequence[str], deadline: Deadline, *, feed: Feed | None = None) -> Completed:
        if "alive" in " ".join(argv):
            self.looks += 1
            if 2 <= self.looks <= 5:
                raise LinkLost("the link to orin is lost")
        return super().run(argv, deadline, feed=feed)


def test_a_link_that_is_cut_is_waited_for(home: Path, tmp_path: Path) -> None:
    source, archive = slow(tmp_path, 2)
    cached(source, archive)
    told, link = Told(), Cut()
    found = made(source, told=told, link=link)
    assert link.looks > 5
    assert Path(found.folder).is_dir()
    assert [text for text in told.said if "cannot be reached" in text] == [
        "orin cannot be reached; it goes on building, and is waited for"
    ]


SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from standin_kit import Told
from meltbench.builds import on_device
from meltbench.builds.on_device import Installed
from meltbench.builds.source import Source
from meltbench.targets.local import LocalTransport
class Loud(Told):
    def step(self, status):
        print(status["op"], flush=True)
source = Source("llama-standin", "1.0", sys.argv[2], "llama_standin-1.0/vendor/llama.cpp")
on_device.build(LocalTransport(), "orin", Loud(), root=str(Path.home() / ".meltbench"), cuda=False, source=source)
"""


def test_a_controller_that_is_killed_leaves_the_device_building_and_the_next_one_looks_on(
    home: Path, tmp_path: Path
) -> None:
    source, archive = slow(tmp_path, 59)
    cached(source, archive)
    words = [sys.executable, "-c", SCRIPT, str(Path(__file__).parents[1]), source.sha256]
    controller = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert controller.stdout is not None
    while not sleeping(59):
        assert controller.poll() is None
        time.sleep(0.05)
    controller.kill()
    controller.communicate()
    builder = sleeping(59)
    told = Told()
    (tmp_path / "hurry").touch()

    def heed(status: dict[str, object]) -> None:
        for pid in sleeping(59):  # only now: the second controller has found the build under way
            os.kill(pid, signal.SIGTERM)

    told.step = heed  # type: ignore[method-assign]
    with pytest.raises(BuildFailed):  # the step that was ended failed: of the first build, not of another
        made(source, told=told)
    assert builder
    assert told.said == []
    assert Path(made(source).folder).is_dir()


def test_an_interrupt_leaves_the_build_under_way(home: Path, tmp_path: Path) -> None:
    source, archive = slow(tmp_path, 3)
    cached(source, archive)
    told = Told()

    def stop(status: dict[str, object]) -> None:
        raise KeyboardInterrupt

    told.step = stop  # type: ignore[method-assign]
    with pytest.raises(Interrupted, match="orin goes on building; the same command looks on again"):
        made(source, told=told)
    again = Told()
    assert made(source, told=again).version.startswith("9.9.9")
    assert again.said == []


def test_a_jetsons_gpu_is_known_by_its_device_tree() -> None:
    kit = on_device._Kit("orin", {"compatible": "nvidia,p3737-0000+p3701-0000 nvidia,p3701-0000 nvidia,tegra234"})
    assert kit.compute == "87"
    assert replace(kit, told={"compute": "12.0"}).compute == "120"
    assert replace(kit, told={"compute": "N/A"}).compute is None
