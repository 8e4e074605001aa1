"""The ONNX runners on another target: a real sshd of this machine, whose user has a home of his own and a Python that
lacks the package, or has it, or is not there at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli import QUICK, Bench
from onnx_kit import TINY, need_runtime
from sshd_kit import PROGRAMS, Sshd, folder_for_all, lab_user, start_sshd
from test_onnxruntime import FAST, detector

ONNX = ("--runner", "onnx", "--model", str(TINY))


@pytest.fixture
def sshd() -> Iterator[Sshd]:
    need_runtime()
    user = lab_user()
    with folder_for_all() as folder:
        one = start_sshd(folder / "device", user=user, programs=(*PROGRAMS, "sed"))
        yield one
        one.stop()


@pytest.fixture
def lab(bench: Bench, sshd: Sshd) -> Bench:
    """A controller that knows the sshd as ``box``."""
    bench.env |= {
        "XDG_CONFIG_HOME": str(bench.home / "config"),
        "MELTBENCH_INVENTORY": str(bench.home / "inventory.toml"),
        "MELTBENCH_SSH_CONFIG": str(sshd.config_path),
    }
    done = bench.run("devices", "add", "box", "--ssh", sshd.address)
    assert done.returncode == 0, done.stderr
    return bench


def python_there(sshd: Sshd, text: str | None = None) -> Path:
    """Put a Python into the search path of the user there: one of this machine that he may run, or this script."""
    link = sshd.folder / "bin" / "python3"
    if text is not None:
        link.write_text(text)
        link.chmod(0o755)
        return link
    for one in ("/usr/bin/python3", "/usr/local/bin/python3", os.path.realpath(sys.executable)):
        as_user = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", one, "-c", "import venv"]
        if subprocess.run(as_user, capture_output=True).returncode == 0:
            link.symlink_to(one)
            return link
    pytest.skip("no Python here that another user may run")


def run_there(bench: Bench, *words: str, code: int = 0) -> tuple[Any, str]:
    process = bench.start("run", "--json", *QUICK, *ONNX, "--device", "box", *words)
    out, err = process.communicate(timeout=600)
    assert process.returncode == code, err + out
    return json.loads(out) if out else None, err


@pytest.mark.slow
def test_an_environment_is_made_of_wheels_once_and_the_engine_runs_in_it(lab: Bench, sshd: Sshd) -> None:
    python_there(sshd)
    (first,), said = run_there(lab)
    assert first["outcome"] == "done"
    assert "making a virtual environment with onnxruntime-genai on box: once" in said
    (environment,) = (sshd.home / ".meltbench/cache/venvs").iterdir()
    assert (environment / "whole").is_file()
    (again,), said = run_there(lab)
    assert "virtual environment" not in said
    assert "pushing" not in said
    assert (first["runner"]["sha256"], first["cell_key"]) == (again["runner"]["sha256"], again["cell_key"])
    assert ", onnxruntime " in first["runner"]["version"]
    assert {one["n_out"] for one in first["requests"]} == {16}
    # The same wheels here and there are the same engine.
    (here,) = lab.json("run", *QUICK, *ONNX)
    if here["runner"]["version"] == first["runner"]["version"] and python_minor(sshd) == sys.version_info[:2]:
        assert here["runner"]["sha256"] == first["runner"]["sha256"]


def python_minor(sshd: Sshd) -> tuple[int, int]:
    words = [str(sshd.folder / "bin" / "python3"), "-c", "import sys; print(*sys.version_info[:2])"]
    major, minor = subprocess.run(words, capture_output=True, text=True, check=True).stdout.split()
    return int(major), int(minor)


def python_with_packages(sshd: Sshd) -> None:
    """A Python there with our packages, copied where its user may read them, as if he had installed them."""
    python_there(sshd)
    if python_minor(sshd) != sys.version_info[:2]:
        pytest.skip("the other Python of this machine cannot load the packages of this one")
    packages = sshd.folder / "site"
    packages.mkdir()
    import onnxruntime_genai

    site = Path(onnxruntime_genai.__file__).parent.parent
    for name in ("onnxruntime_genai", "onnxruntime", "numpy", "numpy.libs"):
        subprocess.run(["cp", "-r", str(site / name), str(packages)], check=True)
    for info in (*site.glob("onnxruntime*.dist-info"), *site.glob("numpy*.dist-info")):
        subprocess.run(["cp", "-r", str(info), str(packages)], check=True)
    real = os.path.realpath(sshd.folder / "bin" / "python3")
    (sshd.folder / "bin" / "python3").unlink()
    python_there(sshd, f'#!/bin/sh\nPYTHONPATH={packages} exec {real} "$@"\n')


def plain(bench: Bench) -> tuple[str, ...]:
    """A run of a plain model whose weights lie beside its graph, given the arrays of two files."""
    model = onnx.load(detector(bench.home / "detector.onnx", ["batch", 3, 9, 9]))
    weights = "detector.onnx.data"
    onnx.save(model, bench.home / "detector.onnx", save_as_external_data=True, location=weights, size_threshold=0)
    assert (bench.home / weights).stat().st_size > 0
    (bench.home / "in").mkdir()
    for n, name in enumerate(("one.npy", "another one.npy"), 1):
        np.save(bench.home / "in" / name, np.ones((n, 3, 9, 9), np.float32))
    return ("--runner", "onnxruntime", "--model", str(bench.home / "detector.onnx"), *FAST, "--set", "inputs=in")


def test_a_plain_model_its_weights_and_what_it_is_given_are_pushed_once(lab: Bench, sshd: Sshd) -> None:
    python_with_packages(sshd)
    words = plain(lab)
    (run,) = lab.json("run", *words, "--device", "box")
    assert run["outcome"] == "done"
    assert not (sshd.home / ".meltbench/cache/venvs").exists()
    timed = [one for one in run["requests"] if one["role"] == "timed"]
    assert sorted(one["item"] for one in timed) == ["another one.npy"] * 20 + ["one.npy"] * 20
    told = {one["item"]: (one["detail"], one["answer"]) for one in run["requests"] if one["detail"]}
    assert told["another one.npy"] == ("images float32 2x3x9x9", "scores float32 2x8")
    assert set(told) == {"one.npy", "another one.npy"}
    again = lab.run("run", *words, "--device", "box", "--reps", "2")
    assert again.returncode == 0, again.stderr
    assert "pushing" not in again.stderr
    # What is given is a part of the same work, wherever it lies.
    (here,) = lab.json("run", *words)
    assert here["workload"]["sha256"] == run["workload"]["sha256"]
    assert here["runner"]["sha256"] == run["runner"]["sha256"]
    # Another array of the same name is another one.
    np.save(lab.home / "in" / "one.npy", np.ones((1, 3, 9, 8), np.float32))
    refused = lab.run("run", *words, "--device", "box")
    assert "input images is batchx3x9x9, 1x3x9x8 is given" in refused.stderr + refused.stdout


@pytest.mark.slow
def test_a_plain_model_runs_in_an_environment_of_wheels(lab: Bench, sshd: Sshd) -> None:
    python_there(sshd)
    process = lab.start("run", "--json", *plain(lab), "--device", "box")
    out, err = process.communicate(timeout=600)
    assert process.returncode == 0, err + out
    assert "making a virtual environment with onnxruntime on box: once" in err
    assert json.loads(out)[0]["outcome"] == "done"


def test_a_python_that_has_the_package_is_used_as_it_is(lab: Bench, sshd: Sshd) -> None:
    python_with_packages(sshd)
    (run,), said = run_there(lab)
    assert run["outcome"] == "done"
    assert "virtual environment" not in said
    assert not (sshd.home / ".meltbench/cache/venvs").exists()
    assert run["runner"]["sha256"] == lab.json("run", *QUICK, *ONNX, "--dry-run")["runner"]["sha256"]


def test_a_target_without_python_is_one_line(lab: Bench) -> None:
    _, said = run_there(lab, code=2)
    assert "onnxruntime-genai needs Python, and box has no python3" in said


ANSWER = """#!/bin/sh
case "$*" in
*libc_ver*) echo '{"python": [3, 6], "libc": ["glibc", "2.27"], "found": []}' ;;
*) echo no; exit 1 ;;
esac
"""


def test_a_python_that_has_no_wheels_is_one_line_and_nothing_is_pushed(lab: Bench, sshd: Sshd) -> None:
    python_there(sshd, ANSWER)
    _, said = run_there(lab, code=1)
    last = said.splitlines()[-1]
    assert "pip cannot find onnxruntime-genai for Python 3.6 on " in last
    assert "with glibc 2.27" in last
    assert "install it on box" in last
    assert not list((sshd.home / ".meltbench/cache/blobs").glob("*"))


def test_an_environment_that_cannot_be_made_is_one_line_and_the_next_one_is_made_anew(lab: Bench, sshd: Sshd) -> None:
    real = os.path.realpath(python_there(sshd))
    (sshd.folder / "bin" / "python3").unlink()
    full = "echo 'OSError: [Errno 28] No space left on device' >&2; mkdir -p \"$4/lib\"; exit 1"
    python_there(sshd, f'#!/bin/sh\ncase "$*" in\n*"-m venv"*) {full} ;;\n*) exec {real} "$@" ;;\nesac\n')
    for _ in range(2):
        _, said = run_there(lab, code=1)
        last = said.splitlines()[-1]
        assert "no virtual environment can be made on box: OSError: [Errno 28] No space left on device" in last
        assert "meltbench devices cache box" in last
        (left,) = (sshd.home / ".meltbench/cache/venvs").iterdir()
        assert left.name.endswith(".part")


@pytest.mark.parametrize("answer", ["echo '{}'", "echo '[[[['; exit 3"])
def test_a_python_that_says_nothing_sensible_is_one_line(lab: Bench, sshd: Sshd, answer: str) -> None:
    python_there(sshd, f"#!/bin/sh\n{answer}\n")
    _, said = run_there(lab, code=1)
    assert "the Python of box cannot be asked" in said.splitlines()[-1]
