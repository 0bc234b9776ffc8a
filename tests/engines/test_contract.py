"""What every engine promises, tried on each of them: see `engines.base`."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable

import numpy as np
import pytest

from engines import ort
from engines.backend import RunOptions
from engines.base import Engine, TensorSpec
from engines.errors import InferenceError
from engines.graph import INPUT_NAME, bake
from tests.engines.graphs import SIZE, convolution, info
from tests.fakes.engine import FakeEngine

OUTPUT = "output0"
TOLERANCE = 2e-4
"""Largest absolute difference from ONNX Runtime: sums of 27 products near 1, in another order."""

Make = Callable[[int | None, int], Engine]
"""Takes a batch size, None for any, and lanes; gives an engine of the convolution graph."""


def graph(batch: int | None) -> bytes:
    model = convolution(batch="n" if batch is None else batch)
    return bake(model, info(max_batch=batch)).SerializeToString()


def run_options(lanes: int) -> RunOptions:
    return RunOptions(arrangement="throughput" if lanes > 1 else "latency", threads=lanes)


def onnxruntime(batch: int | None, lanes: int) -> Engine:
    return ort.load(graph(batch), "fp32", run_options(lanes))


def openvino(batch: int | None, lanes: int) -> Engine:
    pytest.importorskip("openvino", reason="the extra `openvino` is not installed")
    from engines import openvino as library  # noqa: PLC0415 - optional

    return library.load(graph(batch), "fp32", run_options(lanes))


def fake(batch: int | None, lanes: int) -> Engine:
    if batch is not None:
        pytest.skip("the fake takes every batch")
    real = onnxruntime(None, lanes)

    def function(images: np.ndarray) -> np.ndarray:
        context = real.create_context(len(images))
        context.inputs[INPUT_NAME][:] = images
        return context.infer()[OUTPUT].copy()

    engine = FakeEngine(function, size=SIZE, lanes=lanes)
    engine.inputs = (TensorSpec(INPUT_NAME, (None, SIZE, SIZE, 3), np.dtype(np.uint8)),)
    engine.outputs = (TensorSpec(OUTPUT, (None, 4, SIZE, SIZE), np.dtype(np.float32)),)
    return engine


ENGINES: dict[str, Make] = {"fake": fake, "onnxruntime": onnxruntime, "openvino": openvino}


@pytest.fixture(params=ENGINES)
def make(request) -> Make:
    return ENGINES[request.param]


def pictures(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, SIZE, SIZE, 3), np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    context = onnxruntime(None, 1).create_context(len(images))
    context.inputs[INPUT_NAME][:] = images
    return context.infer()[OUTPUT].copy()


def test_inputs_and_outputs_are_described_as_in_the_graph(make):
    engine = make(None, 1)
    assert engine.inputs == (TensorSpec(INPUT_NAME, (None, SIZE, SIZE, 3), np.dtype(np.uint8)),)
    assert engine.outputs == (TensorSpec(OUTPUT, (None, 4, SIZE, SIZE), np.dtype(np.float32)),)
    assert engine.precision == "fp32"
    engine.close()


def test_a_fixed_batch_is_described_and_is_the_only_one(make):
    engine = make(2, 1)
    assert [spec.shape[0] for spec in (*engine.inputs, *engine.outputs)] == [2, 2]
    context = engine.create_context(2)
    assert context.inputs[INPUT_NAME].shape == (2, SIZE, SIZE, 3)
    assert context.infer()[OUTPUT].shape == (2, 4, SIZE, SIZE)
    context.close()
    for wrong in (1, 3):
        with pytest.raises(InferenceError, match=f"not batches of {wrong}"):
            engine.create_context(wrong)
    engine.close()


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_an_open_batch_gives_what_onnx_runtime_gives(make, batch):
    engine = make(None, 1)
    context = engine.create_context(batch)
    array = context.inputs[INPUT_NAME]
    assert (array.shape, array.dtype) == ((batch, SIZE, SIZE, 3), np.uint8)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    array[:] = pictures(batch)
    outputs = context.infer()
    assert list(outputs) == [OUTPUT]
    assert outputs[OUTPUT].dtype == np.float32
    np.testing.assert_allclose(outputs[OUTPUT], expected(pictures(batch)), atol=TOLERANCE)
    context.close()
    engine.close()


def test_contexts_of_several_sizes_live_beside_each_other(make):
    engine = make(None, 1)
    contexts = [engine.create_context(batch) for batch in (1, 3, 2)]
    for _ in range(2):
        for context in contexts:
            array = context.inputs[INPUT_NAME]
            array[:] = pictures(len(array))
            found = context.infer()[OUTPUT]
            np.testing.assert_allclose(found, expected(pictures(len(array))), atol=TOLERANCE)
    for context in contexts:
        context.close()
    engine.close()


def test_each_call_takes_what_the_input_holds_then(make):
    engine = make(None, 1)
    context = engine.create_context(1)
    for seed in range(4):
        context.inputs[INPUT_NAME][:] = pictures(1, seed)
        found = context.infer()[OUTPUT]
        np.testing.assert_allclose(found, expected(pictures(1, seed)), atol=TOLERANCE)
    context.close()
    engine.close()


def test_outputs_stay_until_the_next_call_of_their_own_context(make):
    engine = make(None, 2)
    first, second = engine.create_context(1), engine.create_context(1)
    first.inputs[INPUT_NAME][:] = pictures(1, 1)
    kept = first.infer()[OUTPUT]
    copy = kept.copy()
    # Neither writing the next picture nor another context's work may change them.
    first.inputs[INPUT_NAME][:] = 0
    second.inputs[INPUT_NAME][:] = pictures(1, 2)
    second.infer()
    second.close()
    np.testing.assert_array_equal(kept, copy)
    first.close()
    engine.close()


def test_as_many_threads_as_lanes_infer_at_once_without_mixing_up(make):
    engine = make(None, 2)
    assert engine.lanes == 2
    wrong: list[int] = []

    def lane(seed: int) -> None:
        context = engine.create_context(1)
        right = expected(pictures(1, seed))
        for _ in range(40):
            context.inputs[INPUT_NAME][:] = pictures(1, seed)
            if not np.allclose(context.infer()[OUTPUT], right, atol=TOLERANCE):
                wrong.append(seed)
        context.close()

    threads = [threading.Thread(target=lane, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert wrong == []
    engine.close()


def test_one_lane_is_said_to_be_one(make):
    engine = make(None, 1)
    assert engine.lanes == 1
    engine.close()


def test_a_context_may_be_closed_twice_and_arrays_outlive_it(make):
    engine = make(None, 1)
    context = engine.create_context(1)
    context.inputs[INPUT_NAME][:] = pictures(1)
    array, found = context.inputs[INPUT_NAME], context.infer()[OUTPUT]
    copy = found.copy()
    context.close()
    context.close()
    engine.close()
    del context, engine
    gc.collect()
    array[:] = 1
    np.testing.assert_array_equal(found, copy)


def test_many_engines_may_come_and_go(make):
    for seed in range(5):
        engine = make(None, 1)
        context = engine.create_context(1)
        context.inputs[INPUT_NAME][:] = pictures(1, seed)
        found = context.infer()[OUTPUT]
        np.testing.assert_allclose(found, expected(pictures(1, seed)), atol=TOLERANCE)
        context.close()
        engine.close()
