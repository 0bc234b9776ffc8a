from __future__ import annotations

import numpy as np
import onnx
import pytest

from engines.prepare import prepare
from engines.regions import full, head, last, sensitive, tail
from tests.engines.networks import CONVEYOR, attention, by_name, model_of, node, yolo

RNG = np.random.default_rng(0)


def conveyor():
    return prepare(onnx.load(CONVEYOR))


def weights(*shape):
    return RNG.standard_normal(shape).astype("f")


def kinds(model, names):
    return sorted(by_name(model)[n].op_type for n in names)


def test_the_demo_models_head_is_its_six_last_convolutions_and_decoding():
    model = conveyor()
    expected = {f"/heads.{i}/{b}/{b}.2/Conv" for i in range(3) for b in ("distances", "scores")}
    assert last(model) == expected
    assert expected <= head(model)
    assert {"/heads.0/Softplus", "/Sigmoid", "/Concat_6", "/Transpose_1"} <= tail(model)
    # Every other layer with weights stays in int8, sigmoids of the body among them.
    rest = set(by_name(model)) - head(model)
    assert kinds(model, rest).count("Conv") == 68 - 6
    assert kinds(model, rest).count("Sigmoid") == 63 - 1


def test_a_yolov8_head_is_its_six_convolutions_and_the_expectation_behind_them():
    model = prepare(yolo()[0])
    convolutions = [n.name for n in model.graph.node if n.op_type == "Conv"]
    assert len(convolutions) == 64
    floats = [n for n in convolutions if n in head(model)]
    # Box and class layers of three levels, by position: each third of the last eighteen.
    assert floats == [*convolutions[-19:-1][2::3], convolutions[-1]]
    assert last(model) == set(floats[:-1])
    assert floats[-1] in tail(model)
    assert kinds(model, tail(model)).count("Sigmoid") == 1


def test_a_selection_of_candidates_at_the_end_belongs_to_the_head():
    arrays = {
        "w1": weights(6, 4, 3, 3),
        "w2": weights(6, 6, 1, 1),
        "shape": np.array([1, 6, -1]),
        "zero": np.array([0]),
        "one": np.array([1]),
        "four": np.array([4]),
        "k": np.array([5]),
    }
    nodes = [
        node("Conv", "x w1", "body"),
        node("Relu", "body", "active"),
        node("Conv", "active w2", "ends"),
        node("Reshape", "ends shape", "flat"),
        node("Slice", "flat zero one one", "score"),
        node("TopK", "score k", "best"),
        node("GatherElements", "score order", "y", axis=2),
    ]
    nodes[5].output.append("order")
    model = prepare(model_of(nodes, arrays))
    assert head(model) == {"ends", "flat", "score", "best", "y"}
    assert last(model) == {"ends"}


def test_the_sizes_of_early_tensors_lead_nowhere():
    arrays = {"w1": weights(4, 4, 1, 1), "w2": weights(4, 4, 1, 1)}
    nodes = [
        node("Conv", "x w1", "early"),
        node("Shape", "early", "size"),
        node("Conv", "early w2", "late"),
        node("Reshape", "late size", "y"),
    ]
    assert head(prepare(model_of(nodes, arrays))) == {"late", "y"}


def test_every_output_has_its_own_last_layer():
    arrays = {"w1": weights(4, 4, 1, 1), "w2": weights(4, 4, 1, 1), "w3": weights(64 * 4, 3)}
    nodes = [
        node("Conv", "x w1", "body"),
        node("ConvTranspose", "body w2", "masks"),
        node("Flatten", "body", "flat"),
        node("MatMul", "flat w3", "classes"),
    ]
    model = prepare(model_of(nodes, arrays, outputs=("masks", "classes")))
    assert last(model) == {"masks", "classes"}


def test_a_normalisation_in_pieces_is_one_region():
    model = prepare(attention())
    assert sensitive(model) == {
        "mean", "centred", "squares", "variance", "safe", "deviation", "normal",
        "scaled", "shifted", "shares",
    }  # fmt: skip


def test_average_pooling_by_a_mean_is_no_reason_to_keep_what_follows():
    arrays = {"w": weights(3, 4, 1, 1)}
    nodes = [node("ReduceMean", "x", "m", axes=[2, 3]), node("Conv", "m w", "c"),
             node("Sigmoid", "c", "y")]  # fmt: skip
    assert sensitive(prepare(model_of(nodes, arrays))) == {"m"}


def test_what_lies_between_float32_nodes_is_float32():
    model = prepare(yolo()[0])
    # The expectation's convolution takes a softmax and gives to decoding.
    assert [n.name for n in model.graph.node if n.op_type == "Conv" and n.name in full(model)] == [
        [n.name for n in model.graph.node if n.op_type == "Conv"][-1]
    ]
    assert full(model) >= tail(model)
    assert not last(model) & full(model)


@pytest.mark.parametrize("load", [conveyor, lambda: prepare(yolo()[0])])
def test_regions_name_nodes_of_the_graph(load):
    model = load()
    for region in (head, last, tail, sensitive, full):
        assert region(model) <= set(by_name(model))
