"""Profiles that engines print of their operators: milliseconds under a heading of microseconds, and TVM's reports."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shared import shared

from meltbench.readings import READERS
from meltbench.readings.capture import captured


def read(name, raw):
    series, seen = READERS[name].parse("log", captured(READERS[name], raw), {})
    return {one.name: one for one in series}, seen.told()


def ggml(*graphs):
    out = [b"Log start", b"llm_load_print_meta: n_layer = 4"]
    for ops in graphs:
        out += [
            b"=== GRAPH ===",
            b"n_nodes = 2",
            b" -   0: [ 64,  2,  1]  MUL_MAT (  1) cpu = 9.1 / 9.1 ms, wall = 3.0 / 3.0 ms",
        ]
        out += [b"perf_total_per_op_us[%16s] = %7.3f ms" % (op, ms) for op, ms in ops.items()]
        out += [b"========================================", b" and on"]
    return b"\n".join(out) + b"\n"


def tvm(function, devices, calls):
    metrics = {
        name: {"Duration (us)": {"microseconds": us}, "Device": {"string": name}} for name, us in devices.items()
    }
    listed = [{"Name": {"string": name}, "Duration (us)": {"microseconds": us}} for name, us in calls]
    report = json.dumps({"calls": listed, "device_metrics": metrics}, separators=(",", ":"))
    return f"[10:11:12] /src/vm.cc:973: Report from function {function}:\n{report}\n\n".encode()


def test_trap_2_a_heading_of_microseconds_over_figures_in_milliseconds():
    found, told = read("ggml_profile", ggml({b"ADD": 0.5, b"MUL_MAT": 204.25}, {b"ADD": 0.25, b"MUL_MAT": 40.0}))
    assert found["ggml.MUL_MAT_s"].value.tolist() == pytest.approx([0.20425, 0.040])
    assert found["ggml.graph_s"].value.tolist() == pytest.approx([0.20475, 0.04025])
    assert (found["ggml.graph_s"].unit, told.status) == ("s", "ok")


def test_a_graph_that_was_cut_has_no_sum():
    whole = ggml({b"ADD": 0.5, b"MUL_MAT": 2.0})
    found, _ = read("ggml_profile", whole[: whole.index(b"=====", whole.index(b"perf_total"))])
    assert found["ggml.MUL_MAT_s"].value.tolist() == pytest.approx([0.002])
    assert "ggml.graph_s" not in found


def test_reports_of_tvm_by_function_device_and_name():
    raw = tvm("decode", {"vulkan0": 1500.0, "cpu0": 900}, [("matmul", 1000.0), ("matmul", 200.0), ("split", 30)])
    found, _ = read("tvm_profile", b"Loading model...\n" + raw + tvm("prefill", {"vulkan0": 9e4}, []))
    assert found["tvm.decode.vulkan0_s"].value.tolist() == pytest.approx([0.0015])
    assert found["tvm.decode.op.matmul_s"].value.tolist() == pytest.approx([0.0012])
    assert found["tvm.prefill.vulkan0_s"].value.tolist() == pytest.approx([0.09])


def test_a_log_without_a_profile_is_no_zero():
    for name in ("ggml_profile", "tvm_profile"):
        found, told = read(name, b"Log start\nnothing of the kind\n")
        assert not found
        assert told.status == "unparsed"


@given(st.binary(max_size=400), st.integers(0, 400))
def test_any_bytes_give_values_or_none(noise, at):
    for name, raw in (
        ("ggml_profile", ggml({b"ADD": 0.5})),
        ("tvm_profile", tvm("decode", {"cpu0": 5.0}, [("a", 1.0)])),
    ):
        found, _ = read(name, raw[:at] + noise + raw[at:])
        assert all((one.value >= 0).all() for one in found.values())


def test_melts_example_logs():
    found, _ = read("ggml_profile", shared("samples/melt_llamacpp.log").read_bytes())
    graphs = found["ggml.graph_s"]
    assert len(graphs) == len(found["ggml.MUL_MAT_s"]) > 10
    assert found["ggml.MUL_MAT_s"].value[-1] == pytest.approx(0.204334)
    assert found["ggml.ADD_s"].value[-1] == pytest.approx(0.000513)
    assert graphs.value[-1] == pytest.approx(0.210340)
    found, _ = read("tvm_profile", shared("samples/melt_mlc.log").read_bytes())
    assert found["tvm.decode.metal0_s"].value[0] == pytest.approx(0.599794916)
    assert found["tvm.decode.op.rms_norm1_s"].value[0] == pytest.approx(0.07935238)
