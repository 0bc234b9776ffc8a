"""The profiler of ONNX Runtime, run and read."""

import numpy as np
import onnx
import pytest

from engines.errors import BackendError, InferenceError
from engines.ortprofile import profile, read_events
from tests.engines.graphs import convolution


def event(name, op, us, kind="float", shape=(1, 4, 8, 8), given=None):
    return {
        "cat": "Node",
        "name": f"{name}_kernel_time",
        "dur": us,
        "args": {
            "op_name": op,
            "output_type_shape": [{kind: list(shape)}],
            "input_type_shape": [{given or kind: [1, 3, 8, 8]}],
        },
    }


def run(us):
    return {"cat": "Session", "name": "model_run", "dur": us, "args": {}}


def test_a_model_is_profiled_and_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    found = profile(
        convolution().SerializeToString(),
        {"images": np.zeros((1, 3, 8, 8), np.float32)},
        runs=5,
        threads=1,
    )
    assert found.runs == 5
    assert "Conv" in {node.op for node in found.nodes}
    assert {node.dtype for node in found.nodes} == {"fp32"}
    assert 0 < sum(node.ms for node in found.nodes) <= found.run_ms
    assert list(tmp_path.iterdir()) == []


def test_means_are_of_all_runs_but_the_first():
    events = [run(900), event("a", "Conv", 500), run(100), event("a", "Conv", 20)]
    events += [run(200), event("a", "Conv", 40)]
    found = read_events(events, skip=1)
    assert (found.runs, found.run_ms) == (2, pytest.approx(0.15))
    assert [(n.name, n.ms) for n in found.nodes] == [("a", pytest.approx(0.03))]


def test_a_node_in_a_loop_costs_all_its_rounds():
    events = [run(900), event("a", "Add", 10), event("a", "Add", 10)]
    events += [run(900), event("a", "Add", 30), event("a", "Add", 50)]
    assert read_events(events, skip=1).nodes[0].ms == pytest.approx(0.08)


def test_a_node_is_of_the_type_that_it_computes_in():
    events = [
        run(100),
        event("half", "Conv", 1, "float16"),
        event("whole", "QLinearConv", 1, "uint8", given="int8"),
        event("in", "QuantizeLinear", 1, "uint8", given="float"),
        event("out", "DequantizeLinear", 1, "float", given="uint8"),
        event("cast", "Cast", 1, "float", given="uint8"),
    ]
    kinds = {node.name: node.dtype for node in read_events(events).nodes}
    assert kinds == {"half": "fp16", "whole": "int8", "in": "uint8", "out": "fp32", "cast": "fp32"}


@pytest.mark.parametrize(
    "events", [[], [{"name": "session_initialization", "cat": "Session", "dur": 5}], [run(1)]]
)
def test_no_operations_are_no_nodes(events):
    assert read_events(events, skip=1).nodes == ()


def test_failures_are_our_errors():
    broken = onnx.ModelProto.FromString(convolution().SerializeToString())
    broken.graph.node[0].op_type = "Konv"
    with pytest.raises(BackendError):
        profile(broken.SerializeToString(), {}, runs=1, threads=1)
    wrong = {"images": np.zeros((1, 3, 5, 5), np.float32)}
    with pytest.raises(InferenceError):
        profile(convolution().SerializeToString(), wrong, runs=1, threads=1)
