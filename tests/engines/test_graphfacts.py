"""Facts of weights, and of what a graph does to its image."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.graphfacts import input_steps, weight_facts
from tests.vectors import faults

GRAPH_INPUT = "images"


@pytest.fixture(scope="module")
def conveyor():
    return onnx.load(faults.MODEL)


def copy(model):
    return onnx.ModelProto.FromString(model.SerializeToString())


def steps(model):
    return input_steps(model, model.graph.input[0].name)


def with_weights(values):
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight.flat[: len(values)] = values
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="first")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2, 4, 4])],
        [numpy_helper.from_array(weight, "w")],
    )
    return helper.make_model(graph)


def test_a_sound_model_has_sound_weights(conveyor):
    facts = weight_facts(conveyor)
    assert facts.values > 700_000
    assert (facts.not_finite, facts.subnormal, facts.dead, facts.fp16_overflow) == (0, 0, 0, 0)
    assert facts.channels > 3000


def test_every_kind_of_value_is_counted():
    facts = weight_facts(with_weights([1.0, np.nan, np.inf, 1e-39, 1e5, 1e-6]))
    assert (facts.values, facts.not_finite, facts.first_bad) == (6, 2, "w")
    assert facts.subnormal == 1
    assert facts.fp16_overflow == 1
    assert facts.fp16_vanish == 1
    assert facts.fp16_subnormal == 1


def test_a_channel_of_zeros_is_dead():
    facts = weight_facts(with_weights([1.0, 2.0, 3.0]))
    assert (facts.dead, facts.channels, facts.dead_layers) == (1, 2, ("first",))


def test_weights_in_constant_nodes_count():
    model = with_weights([1.0])
    tensor = numpy_helper.from_array(np.array([np.inf], np.float32))
    model.graph.node.insert(0, helper.make_node("Constant", [], ["c"], value=tensor))
    facts = weight_facts(model)
    assert (facts.not_finite, facts.first_bad) == (1, "c")


def test_a_model_that_leaves_its_image_alone_has_no_steps(conveyor):
    assert steps(conveyor).scales == ()
    assert steps(conveyor).shifts == ()


def test_scaling_in_the_graph_is_found(conveyor):
    assert steps(faults.divides(copy(conveyor))).scales == ("Div /pre/Div by 255",)
    assert steps(faults.multiplies(copy(conveyor))).scales == ("Mul /pre/Mul by 255",)


def test_a_mean_in_the_graph_is_found(conveyor):
    assert steps(faults.subtracts(copy(conveyor))).shifts == ("Sub /pre/Sub",)


def test_both_are_found_through_what_keeps_values(conveyor):
    model = faults.divides(faults.subtracts(copy(conveyor)))
    graph = model.graph
    # The image, turned and back, is still the image.
    image = graph.input[0].name
    for node in graph.node:
        for place, name in enumerate(node.input):
            if name == image:
                node.input[place] = "back"
    for at, (given, made, order) in enumerate(
        [(image, "turned", [0, 2, 3, 1]), ("turned", "back", [0, 3, 1, 2])]
    ):
        graph.node.insert(at, helper.make_node("Transpose", [given], [made], perm=order))
    found = steps(model)
    assert len(found.scales) == 1
    assert len(found.shifts) == 1


def test_a_change_of_channels_is_found():
    model = with_weights([1.0])
    model.graph.node[0].input[0] = "swapped"
    model.graph.initializer.append(numpy_helper.from_array(np.array([2, 1, 0]), "order"))
    model.graph.node.insert(
        0, helper.make_node("Gather", ["x", "order"], ["swapped"], axis=1, name="swap")
    )
    assert input_steps(model, "x").swaps == ("Gather swap",)
