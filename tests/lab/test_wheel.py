"""What ships: the wheel holds the definitions and, for a release, the probe of every target."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from meltbench.probe import build

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_release_wheel_carries_the_definitions_and_all_four_probes(tmp_path: Path) -> None:
    if not build.zig_there():
        pytest.skip("the pinned ziglang is not installed")
    argv = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(ROOT)]
    done = subprocess.run(
        argv, env={**os.environ, "MELTBENCH_PROBE_TARGETS": "all"}, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("meltbench-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as bundle:
        names = set(bundle.namelist())
        for target in build.TARGETS:
            member = bundle.getinfo(f"meltbench/definitions/probe-bin/{build.source_hash()}/{target}/meltprobe")
            assert member.file_size <= build.MAX_BYTES
            assert member.external_attr >> 16 & stat.S_IXUSR
            assert bundle.read(member) == build.binary(target).read_bytes()
    for definition in (
        "devices/local.toml",
        "workloads/quick.toml",
        "workloads/quick.jsonl",
        "runners/llamacpp/runner.toml",
        "runners/llamacpp/serve.py",
        "runners/helpers/nvml.py",
        "runners/helpers/pyrapl.py",
        "runners/llama-bench/runner.toml",
        "runners/llama-cpp-python/ask.py",
        "runners/probe/src/main.c",
        "data/factors.toml",
        "data/models.toml",
    ):
        assert f"meltbench/definitions/{definition}" in names
