"""Which wheels a target's Python takes, and what is asked of pip for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from meltbench import packages
from meltbench.errors import FetchError
from meltbench.packages import Python
from meltbench.probe.client import Probe
from meltbench.report.progress import Quiet
from meltbench.runners import Embedded
from meltbench.site import Site
from meltbench.targets import facts as device_facts
from meltbench.targets.local import LocalTransport

ENGINE = Embedded("serve.py", "some_engine", "some-engine", beside=("runtime",), pushed=True)
GLIBC = Python((3, 11), ("glibc", "2.31"), frozenset())


def test_wheels_are_of_the_c_library_or_older() -> None:
    assert GLIBC.platforms("aarch64")[0] == "manylinux_2_31_aarch64"
    assert GLIBC.platforms("aarch64")[-1] == "manylinux_2_17_aarch64"
    assert Python((3, 12), ("", ""), frozenset()).platforms("x86_64") == [
        "musllinux_1_2_x86_64",
        "musllinux_1_1_x86_64",
    ]
    for odd in ("2", "2.x", "3.1", "2.31; rm", "2.99999"):
        assert all(one.startswith("musllinux") for one in Python((3, 11), ("glibc", odd), frozenset()).platforms("a"))
    assert GLIBC.words("x86_64") == "Python 3.11 on x86_64 with glibc 2.31"
    assert Python((3, 11), ("", ""), frozenset()).words("x86_64") == "Python 3.11 on x86_64 with musl"


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setenv("MELTBENCH_CACHE", str(tmp_path / "cache"))
    facts = device_facts.parse({"uname": {"machine": "aarch64"}})
    return Site(Probe(LocalTransport(), "/probe", "/root", "pi5"), facts)


def pip_says(monkeypatch: pytest.MonkeyPatch, codes: list[int], asked: list[list[str]]) -> None:
    """pip stands at the edge of the world: here it takes no more than its words, and puts empty wheels where it was
    told to."""

    def run(argv: list[str], **more: Any) -> subprocess.CompletedProcess[str]:
        asked.append(argv)
        code = codes.pop(0)
        if code == 0:
            folder = next(word.removeprefix("--dest=") for word in argv if word.startswith("--dest="))
            for name in ("some_engine-1.0-py3-none-any.whl", "pip-26-py3-none-any.whl"):
                (Path(folder) / name).touch()
        return subprocess.CompletedProcess(argv, code, "", "ERROR: No matching distribution found for some-engine")

    monkeypatch.setattr(packages.subprocess, "run", run)


def test_the_version_that_is_installed_here_comes_first_then_the_newest(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(packages, "version_of", {"some-engine": "1.0", "runtime": "2.0"}.get)
    pip_says(monkeypatch, [1, 0], asked)
    found = packages._wheels("some-engine", ENGINE, GLIBC, site, Quiet())
    assert [path.name for path in found] == ["pip-26-py3-none-any.whl", "some_engine-1.0-py3-none-any.whl"]
    assert [argv[argv.index("--") + 1 :] for argv in asked] == [
        ["some-engine==1.0", "runtime==2.0", "pip"],
        ["some-engine", "pip"],
    ]
    for word in ("--python-version=3.11", "--implementation=cp", "--platform=manylinux_2_28_aarch64"):
        assert word in asked[0]
    assert asked[0][:5] == [sys.executable, "-W", "ignore", "-m", "pip"]
    # Nothing is asked for twice, what is not there neither.
    assert packages._wheels("some-engine", ENGINE, GLIBC, site, Quiet()) == found
    assert len(asked) == 2


def test_what_is_not_installed_here_is_the_newest_and_what_is_not_there_is_one_line(
    site: Site, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(packages, "version_of", lambda _name: None)
    pip_says(monkeypatch, [1], asked)
    with pytest.raises(FetchError) as failed:
        packages._wheels("some-engine", ENGINE, GLIBC, site, Quiet())
    assert str(failed.value) == (
        "pip cannot find some-engine for Python 3.11 on aarch64 with glibc 2.31: No matching distribution found for "
        "some-engine; check the network and the pip settings, or install it on pi5"
    )
    assert len(asked) == 1
    assert not list((tmp_path / "cache" / "wheels").iterdir())
