"""Graphs as they stand in their files, and where two of them part."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from engines.errors import BackendError, InferenceError
from engines.orttensors import PlainModel, feed, first_difference, relative_difference
from tests.engines.graphs import convolution
from tests.vectors import faults


def test_a_model_gives_its_outputs_and_whatever_else_is_wanted():
    model = convolution()
    image = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    found = PlainModel(model, wanted=["conv"]).run({"images": image})
    assert set(found) == {"output0", "conv"}
    np.testing.assert_array_equal(found["conv"], found["output0"])
    assert len(model.graph.output) == 1


def test_the_image_is_given_as_the_graph_takes_it():
    image = np.ones((1, 3, 8, 8), np.float32)
    (fed,) = feed(convolution(TensorProto.FLOAT16, batch=4), "images", image).values()
    assert (fed.shape, fed.dtype) == ((4, 3, 8, 8), np.float16)
    (fed,) = feed(convolution(batch="batch"), "images", image).values()
    assert fed.shape == (1, 3, 8, 8)


def test_what_the_runtime_refuses_is_our_error():
    model = convolution()
    model.graph.node[0].op_type = "Konv"
    with pytest.raises(BackendError, match="refuses the model as it is"):
        PlainModel(model)
    with pytest.raises(InferenceError):
        PlainModel(convolution()).run({"images": np.zeros((1, 3, 5, 5), np.float32)})


def test_two_equal_models_do_not_part():
    model = convolution(branch=True)
    image = np.random.default_rng(0).random((1, 3, 8, 8), np.float32)
    feeds = feed(model, "images", image)
    assert first_difference(model, model, (feeds, feeds), 1e-6) is None


def test_they_part_at_the_changed_node():
    model, changed = onnx.load(faults.MODEL), faults.perturbed(onnx.load(faults.MODEL))
    image = np.random.default_rng(0).random((1, 3, 320, 320), np.float32)
    feeds = feed(model, model.graph.input[0].name, image)
    found = first_difference(model, changed, (feeds, feeds), 1e-3)
    assert found is not None
    assert (found.op, "down16" in found.node) == ("Conv", True)
    assert found.compared > 1
    assert found.relative > 0.1


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, -4.0], [1.0, -4.0], 0.0),
        ([1.0, -4.0], [1.0, -3.0], 0.25),
        ([0.0, 0.0], [0.0, 0.0], 0.0),
        ([1.0, np.nan], [1.0, np.nan], 0.0),
        ([1.0, np.inf], [1.0, 2.0], np.inf),
        ([1.0], [1.0, 2.0], np.inf),
    ],
)
def test_relative_difference(a, b, expected):
    assert relative_difference(np.array(a, np.float32), np.array(b, np.float32)) == expected
