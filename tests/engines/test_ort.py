from __future__ import annotations

import platform
import threading
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from engines import ort
from engines.backend import RunOptions
from engines.describe import describe_model
from engines.errors import BackendError, InferenceError
from engines.graph import INPUT_NAME, bake
from engines.onnxfile import read_model
from tests.engines.graphs import SIZE, convolution, info
from tests.vectors import conveyors


def baked(batch: int | str = 1) -> bytes:
    max_batch = batch if isinstance(batch, int) else None
    return bake(convolution(batch=batch), info(max_batch=max_batch)).SerializeToString()


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def test_outputs_are_written_into_the_same_memory_each_time():
    engine = ort.load(baked(), "fp32", RunOptions())
    context = engine.create_context(1)
    context.inputs[INPUT_NAME][0] = picture(0)
    first = context.infer()["output0"]
    kept = first.copy()
    context.inputs[INPUT_NAME][0] = picture(1)
    second = context.infer()["output0"]
    assert second is first
    assert not np.array_equal(second, kept)
    context.close()
    engine.close()


def test_contexts_of_one_engine_infer_at_once_without_mixing_up():
    engine = ort.load(baked(), "fp32", RunOptions(arrangement="throughput", threads=3))
    assert engine.lanes == 3
    expected = {}
    for seed in range(3):
        context = engine.create_context(1)
        context.inputs[INPUT_NAME][0] = picture(seed)
        expected[seed] = context.infer()["output0"].copy()
    wrong: list[int] = []

    def lane(seed: int) -> None:
        context = engine.create_context(1)
        for _ in range(50):
            context.inputs[INPUT_NAME][0] = picture(seed)
            if not np.array_equal(context.infer()["output0"], expected[seed]):
                wrong.append(seed)
        context.close()

    threads = [threading.Thread(target=lane, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []


def test_the_latency_arrangement_has_one_lane():
    assert ort.load(baked(), "fp32", RunOptions(threads=2)).lanes == 1


def test_a_dynamic_batch_runs_at_every_size_and_a_fixed_one_only_at_its_own():
    engine = ort.load(baked("n"), "fp32", RunOptions())
    for batch in (1, 3):
        assert len(engine.create_context(batch).infer()["output0"]) == batch
    with pytest.raises(InferenceError, match="not batches of 2"):
        ort.load(baked(), "fp32", RunOptions()).create_context(2)


def test_an_output_whose_shape_depends_on_the_data_is_returned_too():
    model = convolution()
    model.graph.node.append(helper.make_node("NonZero", ["output0"], ["where"]))
    shape = [4, "found"]
    model.graph.output.append(helper.make_tensor_value_info("where", TensorProto.INT64, shape))
    engine = ort.load(bake(model, info()).SerializeToString(), "fp32", RunOptions())
    context = engine.create_context(1)
    context.inputs[INPUT_NAME][0] = picture(0)
    outputs = context.infer()
    assert outputs["where"].shape == (4, np.count_nonzero(outputs["output0"]))


def test_a_provider_that_is_not_installed_is_named_with_those_that_are():
    with pytest.raises(BackendError, match=r"Nonsense.*CPUExecutionProvider"):
        ort.load(baked(), "fp32", RunOptions(providers=("Nonsense",)))


def test_more_memory_than_there_is_is_an_error_of_ours():
    engine = ort.load(baked("n"), "fp32", RunOptions())
    with pytest.raises(InferenceError, match="not enough memory"):
        engine.create_context(1 << 50)


def test_a_model_that_asks_for_more_memory_than_there_is_while_it_runs_is_an_error_of_ours(
    tmp_path,
):
    file = read_model(conveyors.write(tmp_path, "m.onnx", conveyors.hungry(2**20)))
    graph = bake(file.model, describe_model(file))
    context = ort.load(graph.SerializeToString(), "fp32", RunOptions()).create_context(1)
    with pytest.raises(InferenceError, match="allocate memory"):
        context.infer()


def test_float16_weights_are_reported_as_what_the_processor_makes_of_them():
    model = bake(convolution(TensorProto.FLOAT16), info(TensorProto.FLOAT16))
    # ONNX Runtime has float16 convolutions of its own for Arm; elsewhere it casts.
    computed = "fp16" if platform.machine() == "aarch64" else "fp32"
    assert ort.load(model.SerializeToString(), "fp16", RunOptions()).precision == computed


def test_without_weights_the_word_of_the_file_is_taken():
    node = helper.make_node("Identity", ["a"], ["b"])
    a, b = (helper.make_tensor_value_info(n, TensorProto.FLOAT16, [1, 2]) for n in "ab")
    model = helper.make_model(
        helper.make_graph([node], "g", [a], [b]), opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )  # fmt: skip
    assert ort.load(model.SerializeToString(), "fp16", RunOptions()).precision == "fp16"


def test_looking_at_the_graph_writes_no_file_and_leaks_no_descriptor(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(20):
        ort.load(baked(), "fp32", RunOptions())
    assert len(list(Path("/proc/self/fd").iterdir())) <= before + 1
    assert list(tmp_path.iterdir()) == []


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(BackendError, match="refuses the model"):
        ort.load(b"\x08garbage", "fp32", RunOptions())
