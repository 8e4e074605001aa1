"""Plain models: what they are given, the lines of their script, and what is made of those."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from meltbench import tensors, workload
from meltbench.definition import Workload
from meltbench.engines import Process
from meltbench.engines.inference import Inference
from meltbench.errors import UserError
from meltbench.measure.inference import inference_costs, inference_measures
from meltbench.records import Measure, Readings, Request

WORK = workload.load("infer").workload


def with_settings(**settings: Any) -> Workload:
    from dataclasses import replace

    return replace(WORK, **settings)


def process(lines: list[tuple[int, bytes]]) -> Process:
    t = np.array([at for at, _ in lines], np.int64)
    out = Readings.of(t, t, np.zeros(len(lines), np.int32), [raw for _, raw in lines])
    return Process(None, out, Readings.of(t[:0], t[:0], np.zeros(0, np.int32), []))


def line(file: str, t0: object, t1: object, **more: object) -> bytes:
    return json.dumps({"event": "inference", "file": file, "t0": t0, "t1": t1} | more).encode()


def test_shapes_are_read_by_the_name_of_the_input() -> None:
    assert tensors.shapes(["images:1x3x224x224", "scale:0:2"]) == {"images": [1, 3, 224, 224], "scale:0": [2]}


@pytest.mark.parametrize(
    "part", ["images", "images:", ":1x3", "a:1x0", "a:1x-3", "a:99999x99999", "a:1x" + "1x" * 20 + "1"]
)
def test_what_is_no_shape_is_said(part: str) -> None:
    with pytest.raises(UserError, match="no shape of an input"):
        tensors.shapes([part])


@given(st.text(max_size=60))
def test_no_shape_does_worse_than_a_user_error(text: str) -> None:
    try:
        found = tensors.shapes([text])
    except UserError:
        return
    assert all(one > 0 for dims in found.values() for one in dims)


def test_a_name_twice_and_shapes_of_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="twice"):
        tensors.shapes(["a:1", "a:2"])
    with pytest.raises(UserError, match="have their own shape"):
        with_settings(inputs=str(tmp_path), shape=("a:1",)).check("--set")
    with pytest.raises(UserError, match="the first inference is no timed one"):
        with_settings(warmup=0).check("--set")


def test_files_of_arrays_are_items_by_their_content(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", np.ones(3, np.float32))
    np.savez(tmp_path / "a.npz", x=np.ones(3, np.float32))
    (tmp_path / "notes.txt").write_text("not one of them")
    loaded = workload.filled(workload.load("infer"))
    of_files = workload.filled(workload.Loaded("infer", loaded.sha256, with_settings(inputs=str(tmp_path)), ()))
    assert [one["id"] for one in of_files.items] == ["a.npz", "b.npy"]
    assert json.loads(of_files.items[0]["prompt"]) == {"path": str(tmp_path / "a.npz")}
    np.save(tmp_path / "b.npy", np.zeros(3, np.float32))
    again = workload.filled(workload.Loaded("infer", loaded.sha256, with_settings(inputs=str(tmp_path)), ()))
    assert again.sha256 != of_files.sha256
    for odd in (tmp_path / "notes.txt", tmp_path / "absent.npz", tmp_path / "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(UserError, match="holds no arrays"):
            tensors.items(with_settings(inputs=str(odd)))


def test_a_run_is_its_warm_up_and_then_every_item_in_each_pass() -> None:
    loaded = workload.filled(workload.load("infer"))
    asks = loaded.asks(0, 3)
    assert [ask.role for ask in asks] == ["warmup"] * 10 + ["timed"] * 100
    assert loaded.n_requests == 110
    assert not any(ask.ignore_eos or ask.n_out for ask in asks)
    (command,) = Inference().commands(asks, "/there")
    told = json.loads(command.files["asks.json"])
    assert (command.words, told["seed"], told["items"]) == ({"asks": "/there/asks.json"}, 3, {"made": {"shapes": {}}})
    assert [file for file, _ in told["order"]] == [ask.file for ask in asks]
    with pytest.raises(UserError, match="given tensors"):
        Inference().commands([], "/there")


def asks(count: int) -> Any:
    return tensors.asks(tensors.items(WORK), with_settings(warmup=1, repeat=count - 1), 0)


def test_an_inference_is_the_time_between_the_scripts_stamps() -> None:
    lines = [
        (10, b"a library says something"),
        (1_000, b'{"event": "loaded"}'),
        (3_000, line("00000", 500, 2_500, **{"in": "x float32 1x3", "out": "y float32 1"})),
        (4_000, line("00001", 3_100, 3_900)),
    ]
    speak = Inference()
    first, second = speak.requests(asks(2), [process(lines)], {})
    assert (first.role, first.status, first.e2e_s, first.detail, first.answer) == (
        *("warmup", "ok", 2e-6),
        *("x float32 1x3", "y float32 1"),
    )
    assert (second.t_send_ns, second.t_end_ns, second.e2e_s) == (3_100, 3_900, 8e-7)
    assert speak.loaded_ns([process(lines)]) == 1_000
    assert (speak.loaded_ns([]), speak.requests(asks(2), [], {})) == (None, [])
    assert speak.identity("x\nonnxruntime 1.32.0: provider CUDA\n") == {"accelerator": "CUDA"}
    assert speak.identity("") == {"accelerator": "unknown"}


@pytest.mark.parametrize(
    ("t0", "t1"),
    [
        (2_000, 2_500),
        (3_950, 3_900),
        (3_500, 3_500),
        (3_500, 4_001),
        (None, 3_900),
        ("1", "2"),
        (3e3, 3.9e3),
        (-5, 3_900),
    ],
)
def test_times_that_cannot_be_are_not_believed(t0: object, t1: object) -> None:
    lines = [(3_000, line("00000", 500, 2_500)), (4_000, line("00001", t0, t1))]
    first, second = Inference().requests(asks(2), [process(lines)], {})
    assert first.status == "ok"
    assert (second.status, second.e2e_s) == ("garbage", None)
    assert "it tells of" in second.detail


@given(
    st.lists(
        st.tuples(
            st.integers(0, 10**6),
            st.binary(max_size=80)
            | st.builds(line, st.sampled_from(["00000", "00001", "9"]), st.integers(), st.integers()),
        ),
        max_size=6,
    )
)
def test_no_line_does_worse_than_garbage(lines: list[tuple[int, bytes]]) -> None:
    found = Inference().requests(asks(2), [process(sorted(lines, key=lambda one: one[0]))], {})
    assert len(found) <= 2
    assert all(one.t_end_ns >= one.t_send_ns for one in found)
    assert all(one.status == "garbage" or (one.e2e_s or 0) > 0 for one in found)


def requests(times_s: list[float]) -> list[Request]:
    out, at = [], 0
    for index, seconds in enumerate(times_s):
        end = at + round(seconds * 1e9)
        role: Any = "timed" if index else "warmup"
        out.append(Request(index, "made", role, "ok", at, end, e2e_s=seconds))
        at = end
    return out


def test_the_first_inference_is_told_apart_from_the_others() -> None:
    found = {(m.name, m.stat): m for m in inference_measures(requests([1.0, 0.1, 0.2, 0.3]))}
    assert found["first_inference_s", "value"].value == 1.0
    assert found["inference_s", "median"].value == pytest.approx(0.2)
    assert (found["inference_s", "median"].n, found["inference_s", "min"].value) == (3, 0.1)
    assert found["inferences_per_s", "value"].value == pytest.approx(3 / 0.6)
    assert found["requests_timed", "count"].value == 3
    assert not {name for name, _ in found} & {"n_in", "n_out", "requests_per_s"}
    nothing = {m.name: m for m in inference_measures([])}
    assert nothing["first_inference_s"].reason == "no_reading: no first inference was seen"
    assert (nothing["inference_s"].value, nothing["inferences_per_s"].value) == (None, None)


def test_energy_by_inference_is_a_ratio_of_sums() -> None:
    gross = Measure("energy_j", 12.0, "J", u_k2=1.2, source="total")
    net = Measure("net_energy_j", 6.0, "J", u_k2=1.2, source="total")
    timed = requests([1.0, 0.1, 0.2, 0.3])
    by_gross, by_net = inference_costs(gross, net, timed)
    assert (by_gross.name, by_gross.value, by_gross.unit) == ("j_per_inference", 4.0, "J/inference")
    assert by_gross.u_k2 == pytest.approx(0.4)
    assert (by_net.name, by_net.value) == ("net_j_per_inference", 2.0)
    lacking = Measure("energy_j", None, "J", reason="no_energy_source: none")
    assert [one.reason for one in inference_costs(lacking, lacking, timed)] == ["no_energy_source: none"] * 2
