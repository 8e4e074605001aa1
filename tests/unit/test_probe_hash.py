from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

from cache_kit import Box, sha_of
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from probe_kit import call

AROUND = st.sampled_from([0, 55, 56, 63, 64, 65, 119, 120, 127, 128, 4096, 1 << 16, 1 << 18, (1 << 18) + 64])
TMP = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@TMP
@given(AROUND, st.integers(-3, 3), st.randoms(use_true_random=False))
def test_hashes_are_those_of_hashlib(tmp_path: Path, size: int, more: int, random: object) -> None:
    data = random.randbytes(max(0, size + more))  # type: ignore[attr-defined]
    path = tmp_path / "file"
    path.write_bytes(data)
    done = call("hash", path)
    told = {"status": "ok", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert json.loads(done.stdout) == {"files": {str(path): told}}


@TMP
@given(st.lists(st.binary(max_size=200), max_size=30))
def test_what_comes_in_odd_pieces_is_one_file(tmp_path: Path, pieces: list[bytes]) -> None:
    data, box = b"".join(pieces), Box(tmp_path)
    box.call("drop", "--all")
    put = box.start_put(data)
    assert put.stdin is not None
    for piece in pieces:
        put.stdin.write(piece)
        put.stdin.flush()
    out, err = put.communicate()
    assert (put.returncode, json.loads(out)) == (0, {"state": "whole", "bytes": len(data)}), err
    assert box.blob(sha_of(data)).read_bytes() == data


def test_every_file_has_its_own_answer(tmp_path: Path) -> None:
    (tmp_path / 'odd "name"\n').write_bytes(b"abc")
    os.mkfifo(tmp_path / "fifo")
    names = ['odd "name"\n', "none", "fifo", "."]
    done = call("hash", *(tmp_path / name for name in names))
    files = json.loads(done.stdout)["files"]
    assert done.returncode == 0
    assert [files[str(tmp_path / name)]["status"] for name in names] == ["ok", "absent", "error", "error"]
    assert files[str(tmp_path / names[0])]["sha256"] == hashlib.sha256(b"abc").hexdigest()
    assert call("hash").returncode == 64
