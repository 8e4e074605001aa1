"""Plain ONNX models on the whole road, in the real ONNX Runtime."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from cli import Bench
from onnx import TensorProto, helper, numpy_helper
from test_engines import found
from test_run import WATTS, made_machine  # noqa: F401  (the fixture of a machine with a known power)

from meltbench.tensors import shapes

pytestmark = pytest.mark.engine
SCRIPT = Path(__file__).parents[2] / "runners" / "onnxruntime" / "infer.py"
FAST = ("--set", "idle_s=0.3", "--set", "repeat=20", "--set", "warmup=2")


def detector(path: Path, images: list[Any], width: int = 8, dtype: int = TensorProto.FLOAT) -> Path:
    """A convolution, a mean and a row of scores."""
    weights = np.random.default_rng(0).normal(size=(width, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["images", "w"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Flatten", ["p"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "detector",
        [helper.make_tensor_value_info("images", dtype, images)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [None, width])],
        [numpy_helper.from_array(weights, "w")],
    )
    return saved(path, graph)


def saved(path: Path, graph: Any) -> Path:
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


def asked(folder: Path, model: Path, given: dict[str, Any], *more: str) -> subprocess.CompletedProcess[str]:
    """The script alone, given one item once."""
    (folder / "asks.json").write_text(json.dumps({"seed": 0, "items": {"i": given}, "order": [["00000", "i"]]}))
    words = [sys.executable, str(SCRIPT), "--model", str(model), "--asks", str(folder / "asks.json"), *more]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def joined(path: Path, kind: int) -> Path:
    """Two inputs of one type, one after the other."""
    ends = [helper.make_tensor_value_info(name, kind, [2]) for name in "ab"]
    out = [helper.make_tensor_value_info("c", kind, [4])]
    graph = helper.make_graph([helper.make_node("Concat", ["a", "b"], ["c"], axis=0)], "joined", ends, out)
    return saved(path, graph)


def test_a_plain_model_is_timed_and_metered(bench: Bench, made_machine: str) -> None:  # noqa: F811
    model = detector(bench.home / "detector.onnx", ["batch", 3, "h", "w"], width=64)
    (run,) = bench.json(
        *("run", "--runner", "onnxruntime", "--model", str(model), "--device", made_machine, "--threads", "1"),
        *("--set", "shape=images:1x3x256x256", "--set", "idle_s=1", "--set", "repeat=200", "--set", "warmup=3"),
    )
    assert run["outcome"] == "done", run["failure"]
    assert (run["runner"]["mode"], run["runner"]["accelerator"], run["runner"]["engine"]) == (
        *("in-process", "CPU"),
        "onnxruntime",
    )
    requests = run["requests"]
    assert [r["role"] for r in requests] == ["warmup"] * 3 + ["timed"] * 200
    assert all(r["status"] == "ok" and r["e2e_s"] > 0 and r["n_out"] is None for r in requests)
    assert requests[0]["detail"] == "made: images float32 1x3x256x256"
    assert requests[0]["answer"] == "scores float32 1x64"
    values, medians = found(run, "value"), found(run)
    assert values["run", "first_inference_s"]["value"] == requests[0]["e2e_s"]
    timed = [r["e2e_s"] for r in requests[3:]]
    assert medians["run", "inference_s"]["value"] == pytest.approx(np.median(timed))
    assert found(run, "p99")["run", "inference_s"]["value"] == pytest.approx(np.percentile(timed, 99))
    assert values["run", "inferences_per_s"]["value"] == pytest.approx(200 / values["run", "wall_s"]["value"], rel=0.01)
    assert values["run", "inprocess_load_s"]["value"] > 0
    # The counter of the made machine counts a constant power: each inference has its share of the run's time.
    each = found(run, "ratio_of_sums")["run", "j_per_inference"]
    assert each["value"] == pytest.approx(WATTS * values["run", "wall_s"]["value"] / 200, rel=0.1)
    assert ("run", "net_j_per_inference") in found(run, "ratio_of_sums")
    assert found(run, "max")["run", "peak_rss_bytes"]["value"] > 10 << 20
    listed = bench.run("runs").stdout
    assert "plain models" in listed
    assert "inference_s" in bench.run("show", "last", "--no-plot").stdout


def test_arrays_of_files_are_given_as_they_are(bench: Bench) -> None:
    model = joined(bench.home / "joined.onnx", TensorProto.INT64)
    (bench.home / "in").mkdir()
    for name in ("one", "two"):
        np.savez(bench.home / "in" / f"{name}.npz", a=np.array([1, 2]), b=np.array([3, 4]))
    words = ("run", "--runner", "onnxruntime", "--model", str(model), *FAST)
    (run,) = bench.json(*words, "--set", "inputs=in", "--set", "graph_level=0")
    timed = [r for r in run["requests"] if r["role"] == "timed"]
    assert sorted(r["item"] for r in timed) == ["one.npz"] * 20 + ["two.npz"] * 20
    assert {r["detail"] for r in run["requests"] if r["detail"]} == {"a int64 2, b int64 2"}
    np.save(bench.home / "a.npy", np.ones((1, 3, 9, 9), np.float32))
    single = detector(bench.home / "detector.onnx", [1, 3, 9, 9])
    (run,) = bench.json(*words[:4], str(single), *FAST, "--set", "inputs=a.npy")
    assert run["outcome"] == "done"


def test_a_dimension_that_nobody_gives_is_one_and_told(bench: Bench) -> None:
    model = detector(bench.home / "detector.onnx", ["batch", 3, 9, "w"])
    (run,) = bench.json("run", "--runner", "onnxruntime", "--model", str(model), *FAST)
    assert run["requests"][0]["detail"] == "made: images float32 1x3x9x1 (batch, w not given: 1)"


def _npz(path: Path, **arrays: Any) -> str:
    np.savez(path, **arrays)
    return f"file {path}"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("shape image:1x3x9x9", "the model has no input 'image'; it has images"),
        ("shape images:3x9x9", "input images has 4 dimensions (batchx3x9xw), 3 are given (3x9x9)"),
        ("shape images:1x4x9x9", "input images is batchx3x9xw, 1x4x9x9 is given"),
        ("npz x", "the model has no input 'x'"),
        ("npz none", "has no array 'images', which the model wants"),
        ("npz double", "images is float64, the model wants float32"),
        ("npz rank", "input images has 4 dimensions"),
        ("npy of objects", "onnxruntime: "),
        ("no onnx", "onnxruntime: "),
        ("strings", "input a is tensor(string): only tensors of numbers can be given"),
        ("sequence", "input s is seq(tensor(float)): only tensors of numbers can be given"),
    ],
)
def test_what_cannot_be_given_is_one_line(tmp_path: Path, settings: str, words: str) -> None:
    model = detector(tmp_path / "detector.onnx", ["batch", 3, 9, "w"])
    path, good = tmp_path / "x.npz", np.ones((1, 3, 9, 9), np.float32)
    match settings:
        case "npz x":
            settings = _npz(path, x=good)
        case "npz none":
            settings = _npz(path)
        case "npz double":
            settings = _npz(path, images=good.astype(np.float64))
        case "npz rank":
            settings = _npz(path, images=good[0])
        case "npy of objects":
            np.save(tmp_path / "o.npy", np.array([{"a": 1}], object), allow_pickle=True)
            settings = f"file {tmp_path / 'o.npy'}"
        case "no onnx":
            model.write_bytes(b"this is no model")
        case "strings":
            joined(model, TensorProto.STRING)
        case "sequence":
            value = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
            out = helper.make_tensor_value_info("n", TensorProto.INT64, [])
            graph = helper.make_graph([helper.make_node("SequenceLength", ["s"], ["n"])], "g", [value], [out])
            saved(model, graph)
    given = {"shapes": shapes(settings.split(" ")[1:])} if settings.startswith("shape ") else {"shapes": {}}
    if settings.startswith("file "):
        given = {"path": settings.removeprefix("file ")}
    said = asked(tmp_path, model, given)
    assert said.returncode == 1
    assert said.stdout == ""
    last = said.stderr.splitlines()[-1]
    assert last.startswith("onnxruntime: ")
    assert words in last
    assert "Traceback" not in said.stderr


def test_a_model_that_takes_any_shape_is_given_the_one_that_is_asked_for(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"])
    free = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    model = saved(tmp_path / "any.onnx", helper.make_graph([node], "any", free[:1], free[1:]))
    done = asked(tmp_path, model, {"shapes": {"x": [2, 5]}})
    assert done.returncode == 0, done.stderr
    loaded, inference = [json.loads(line) for line in done.stdout.splitlines()]
    assert loaded == {"event": "loaded"}
    assert (inference["in"], inference["out"]) == ("made: x float32 2x5", "y float32 2x5")
    assert 0 < inference["t0"] < inference["t1"]


def test_a_provider_that_the_build_lacks_is_named_with_those_it_has(tmp_path: Path) -> None:
    model = detector(tmp_path / "detector.onnx", [1, 3, 9, 9])
    done = asked(tmp_path, model, {"shapes": {}}, "--provider", "Abacus")
    assert done.returncode == 1
    assert "no execution provider 'Abacus'; it has " in done.stderr
    assert "CPU" in done.stderr.partition("it has")[2]
    assert asked(tmp_path, model, {"shapes": {}}, "--provider", "cpu").returncode == 0


def test_what_the_script_refuses_is_stored_with_the_run(bench: Bench) -> None:
    model = detector(bench.home / "detector.onnx", [1, 3, 9, 9])
    model.write_bytes(b"this is no model")
    (run,) = bench.json(
        *("run", "--runner", "onnxruntime", "--model", str(model), *FAST, "--set", "provider=cpu"), code=1
    )
    assert (run["outcome"], run["validity"]) == ("failed", "invalid")
    assert run["failure_log"].startswith("onnxruntime: ")


def test_runners_are_not_given_what_they_cannot_do(bench: Bench) -> None:
    model = str(detector(bench.home / "detector.onnx", [1, 3, 9, 9]))
    for words, said in (
        (("--workload", "infer"), "runner llamacpp does workloads of kind generate"),
        (("--runner", "onnxruntime"), "this engine takes an .onnx file"),
        (("--runner", "onnxruntime", "--model", model, "--workload", "quick"), "does workloads of kind infer"),
        (("--runner", "onnxruntime", "--model", model, "--set", "repeat=5000"), "at most 4000 can be"),
        (("--runner", "onnxruntime", "--model", model, "--set", "max_tokens=5"), "max_tokens is no setting"),
    ):
        done = bench.run("run", *words)
        assert done.returncode == 2, done.stdout
        assert said in done.stderr
