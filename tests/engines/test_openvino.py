from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.backend import RunOptions
from engines.errors import BackendError, InferenceError
from engines.graph import INPUT_NAME, bake
from tests.engines.graphs import SIZE, convolution, info
from tests.engines.test_ortproof import quantised

pytest.importorskip("openvino", reason="the extra `openvino` is not installed")

from engines import openvino

BF16 = "BF16" in openvino.capabilities()
FP16 = "FP16" in openvino.capabilities()


def baked(batch: int | str = 1) -> bytes:
    max_batch = batch if isinstance(batch, int) else None
    return bake(convolution(batch=batch), info(max_batch=max_batch)).SerializeToString()


def test_importing_the_library_sends_and_leaves_nothing(tmp_path: Path):
    """Its converter would report the import to its maker, and keep an identity in `~/intel`."""
    code = (
        "import sys, subprocess\n"
        "def no(*a, **k): raise SystemExit('a process was started')\n"
        "subprocess.Popen.__init__ = no\n"
        "from engines import openvino\n"
        "assert openvino.capabilities()\n"
        "print('openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"},
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr, done.returncode) == ("False\n", "", 0)
    assert list(tmp_path.iterdir()) == []


def test_loading_and_running_writes_no_file(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    openvino.load(baked(), "fp32", RunOptions()).create_context(1).infer()
    assert list(tmp_path.iterdir()) == []


def test_plain_floating_point_is_proven():
    assert openvino.load(baked(), "fp32", RunOptions()).precision == "fp32"


@pytest.mark.skipif(not BF16, reason="this processor has no bfloat16 instructions")
def test_bfloat16_is_proven_and_close():
    engines = [openvino.load(baked(), p, RunOptions()) for p in ("fp32", "bf16")]
    assert engines[1].precision == "bf16"
    answers = []
    for engine in engines:
        context = engine.create_context(1)
        context.inputs[INPUT_NAME][:] = np.arange(SIZE * SIZE * 3).reshape(1, SIZE, SIZE, 3)
        answers.append(context.infer()["output0"].copy())
    assert not np.array_equal(*answers)
    np.testing.assert_allclose(*answers, atol=0.05)


@pytest.mark.skipif(FP16, reason="this processor has float16 instructions")
def test_float16_that_the_processor_lacks_is_not_claimed():
    assert openvino.load(baked(), "fp16", RunOptions()).precision != "fp16"


@pytest.mark.skipif(BF16, reason="this processor has bfloat16 instructions")
def test_bfloat16_that_the_processor_lacks_is_not_claimed():
    assert openvino.load(baked(), "bf16", RunOptions()).precision != "bf16"


def test_a_quantised_graph_is_proven_to_run_in_int8():
    model = quantised(activations=True).SerializeToString()
    assert openvino.load(model, "int8", RunOptions()).precision == "int8"


def test_int8_weights_alone_make_no_int8_engine():
    model = quantised(activations=False).SerializeToString()
    assert openvino.load(model, "int8", RunOptions()).precision == "fp32"


def test_one_int8_layer_among_others_makes_no_int8_engine_and_no_plain_one():
    model = quantised(activations=True)
    weight = numpy_helper.from_array(np.full((4, 4, 1, 1), 0.1, np.float32), "plain")
    model.graph.initializer.append(weight)
    for number in range(3):
        source = f"more{number - 1}" if number else "y"
        model.graph.node.append(helper.make_node("Conv", [source, "plain"], [f"c{number}"]))
        model.graph.node.append(helper.make_node("Tanh", [f"c{number}"], [f"more{number}"]))
    model.graph.output[0].name = "more2"
    assert openvino.load(model.SerializeToString(), "int8", RunOptions()).precision == "mixed"


def test_an_output_whose_shape_depends_on_the_data_is_returned_too():
    model = convolution()
    model.graph.node.append(helper.make_node("NonZero", ["output0"], ["where"]))
    shape = [4, "found"]
    model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, shape))
    engine = openvino.load(bake(model, info()).SerializeToString(), "fp32", RunOptions())
    context = engine.create_context(1)
    for value in (7, 0):
        context.inputs[INPUT_NAME][:] = value
        outputs = context.infer()
        assert outputs["where"].shape == (4, np.count_nonzero(outputs["output0"]))


def test_two_outputs_that_are_the_same_tensor_are_both_given():
    model = convolution()
    model.graph.node.append(helper.make_node("Identity", ["conv"], ["again"]))
    shape = [1, 4, SIZE, SIZE]
    model.graph.output.append(helper.make_tensor_value_info("again", TensorProto.FLOAT, shape))
    engine = openvino.load(bake(model, info()).SerializeToString(), "fp32", RunOptions())
    context = engine.create_context(1)
    context.inputs[INPUT_NAME][:] = 3
    outputs = context.infer()
    assert outputs["again"].any()
    np.testing.assert_array_equal(outputs["again"], outputs["output0"])


def test_inputs_are_read_and_outputs_written_where_they_are():
    context = openvino.load(baked(), "fp32", RunOptions()).create_context(1)
    array = context.inputs[INPUT_NAME]
    first = context.infer()["output0"]
    array[:] = 200
    second = context.infer()["output0"]
    assert second is first
    assert second.any()


@pytest.mark.parametrize("garbage", [b"", b"garbage", b"\x08garbage", b"\x00" * 1000])
def test_bytes_that_are_no_model_are_refused(garbage):
    with pytest.raises(BackendError, match="OpenVINO refuses the model"):
        openvino.load(garbage, "fp32", RunOptions())


def test_an_operation_that_it_does_not_know_is_named():
    model = convolution()
    model.graph.node[-1].op_type = "Mystery"
    model.graph.node[-1].domain = "own"
    model.opset_import.append(helper.make_opsetid("own", 1))
    with pytest.raises(
        BackendError, match=r"refuses the model: No conversion rule .*: own\.Mystery$"
    ):
        openvino.load(model.SerializeToString(), "fp32", RunOptions())


def test_a_closed_engine_and_a_closed_context_say_so():
    engine = openvino.load(baked(), "fp32", RunOptions())
    context = engine.create_context(1)
    context.close()
    with pytest.raises(InferenceError, match="context is closed"):
        context.infer()
    engine.close()
    with pytest.raises(InferenceError, match="engine is closed"):
        engine.create_context(1)


def test_more_memory_than_there_is_is_an_error_of_ours():
    engine = openvino.load(baked("n"), "fp32", RunOptions())
    with pytest.raises(InferenceError, match="not enough memory"):
        engine.create_context(1 << 50)
