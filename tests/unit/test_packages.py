"""Which wheels a target's Python takes, and what is asked of pip for them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from meltbench import packages
from meltbench.errors import FetchError
from meltbench.packages import Python
from meltbench.probe.client import Probe
from meltbench.report.progress import Quiet
from meltbench.runners import Embedded, Engine
from meltbench.site import Site
from meltbench.targets import Completed
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


def test_what_is_not_a_script_is_a_wheel(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []

    def run(argv: list[str], _within: Any) -> Completed:
        asked.append(argv)
        told = [{"name": name, "version": "1", "libraries": []} for name in ("some-engine", "runtime")]
        return Completed(0, json.dumps(told).encode(), b"")

    monkeypatch.setattr(LocalTransport, "run", staticmethod(run))
    for name in ("serve.py", "parts.py", "pip-26-py3-none-any.whl", "some_engine-1-py3-none-any.whl"):
        (tmp_path / name).write_text(name)
    two = replace(ENGINE, modules=("parts.py",))
    wheels = tuple(sorted(tmp_path.glob("*.whl")))

    def put(*files: Path) -> Engine:
        return packages.put(Engine("some-engine", "", "", (), files=files), two, site, "/there", Quiet())

    with_its_own = put(*two.scripts(tmp_path))
    assert with_its_own.start == ("python3", "-B", "/there/serve.py")
    assert len(asked) == 1  # no environment is made
    with_wheels = put(*two.scripts(tmp_path), *wheels)
    assert with_wheels.start[1:] == with_its_own.start[1:]
    made = next(argv for argv in asked if "/there/pip-26-py3-none-any.whl" in argv)
    assert made[-1] == "/there/some_engine-1-py3-none-any.whl"
    assert "/there/parts.py" not in made
    (tmp_path / "parts.py").write_text("other")
    assert put(*two.scripts(tmp_path)).sha256 != with_its_own.sha256  # what it does lies in its modules too


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
