"""Hashes and the push cache in the probe's other builds, by qemu-user; x86-64 without its own instructions for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from cache_kit import sha_of

from meltbench.probe import build

EMULATED = [
    ("aarch64-linux-musl", "qemu-aarch64-static", "cortex-a53"),
    ("arm-linux-musleabihf", "qemu-arm-static", "cortex-a7"),
    ("riscv64-linux-musl", "qemu-riscv64-static", "rv64"),
    ("x86_64-linux-musl", "qemu-x86_64-static", "Nehalem"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("target", "emulator", "cpu"), EMULATED)
def test_a_file_is_hashed_and_kept(target: str, emulator: str, cpu: str, tmp_path: Path) -> None:
    found = shutil.which(emulator)
    if found is None:
        pytest.skip(f"no {emulator} here: make lab installs it where it may")
    if not build.zig_there():
        pytest.skip("the pinned ziglang is not installed")
    probe = [found, "-cpu", cpu, str(build.binary(target))]

    def call(*words: str | Path, data: bytes = b"", code: int = 0) -> bytes:
        done = subprocess.run([*probe, *map(str, words)], input=data, capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done.stdout

    wanted = {}
    for size in (*range(140), 4095, 1 << 18, 300_001):
        data = bytes((size * i * i + i) & 255 for i in range(size))
        (tmp_path / str(size)).write_bytes(data)
        wanted[str(tmp_path / str(size))] = {"status": "ok", "bytes": size, "sha256": sha_of(data)}
    assert json.loads(call("hash", *wanted)) == {"files": wanted}

    cache, sha = tmp_path / "cache", sha_of(data)
    put = ("cache", cache, "put", sha, str(len(data)))
    call(*put, "0", "9000000", "0", data=data[:100_000], code=74)
    call(*put, "100000", "9000000", "0", data=data[100_000:])
    call("cache", cache, "tree", "0" * 64, f"engine={sha}", f"lib.so={sha}")
    for flags in ((), ("--full",)):
        assert json.loads(call("cache", cache, "look", *flags, sha))["blobs"][sha]["state"] == "whole"
    assert (cache / "trees" / ("0" * 64) / "engine").read_bytes() == data
    (cache / "blobs" / sha).write_bytes(data[:-1] + b"\0\0")
    assert json.loads(call("cache", cache, "look", sha))["blobs"][sha]["state"] == "damaged"
    assert json.loads(call("cache", cache, "list"))["blobs"] == {}
