from __future__ import annotations

import numpy as np
import pytest

from engines.hostforms import expectations
from engines.prepare import prepare, raised
from tests.engines.networks import model_of, node, run, yolo

BINS = np.arange(4, dtype=np.float32).reshape(1, 4, 1, 1)
RNG = np.random.default_rng(0)


def graph(axis=1, weight=BINS, outputs=("y",), **attributes):
    nodes = [node("Softmax", "x", "s", axis=axis), node("Conv", "s w", "y", **attributes)]
    return prepare(model_of(nodes, {"w": weight}, outputs=outputs))


def kinds(model):
    return [n.op_type for n in model.graph.node]


@pytest.mark.parametrize("opset", [17, 18, 20])
@pytest.mark.parametrize("size", [1, 30, 3e4])
def test_the_expectation_is_the_same_and_nothing_overflows(opset, size):
    x = (RNG.standard_normal((1, 4, 8, 8)) * size).astype(np.float32)
    model = raised(graph(), opset)
    expected = run(model, x)[0]
    rewritten = expectations(model)
    assert "Softmax" not in kinds(rewritten)
    np.testing.assert_allclose(run(rewritten, x)[0], expected, atol=1e-5)


def test_the_convolution_keeps_its_name_and_its_result():
    model = expectations(graph())
    assert [n.name for n in model.graph.node if n.op_type == "Conv"] == ["y"]
    assert len({n.name for n in model.graph.node}) == len(model.graph.node)


@pytest.mark.parametrize(
    "other",
    [
        lambda: graph(axis=2),
        lambda: graph(weight=np.ones((2, 4, 1, 1), "f")),
        lambda: graph(weight=np.ones((1, 4, 3, 3), "f")),
        lambda: graph(outputs=("y", "s")),
        lambda: graph(strides=[2, 2]),
        lambda: graph(pads=[1] * 4),
    ],
)
def test_other_softmaxes_stay(other):
    model = other()
    assert kinds(expectations(model)) == ["Softmax", "Conv"]


def test_a_biased_convolution_stays():
    nodes = [node("Softmax", "x", "s", axis=1), node("Conv", "s w b", "y")]
    model = prepare(model_of(nodes, {"w": BINS, "b": np.ones(1, "f")}))
    assert kinds(expectations(model)) == ["Softmax", "Conv"]


def test_yolos_distances_are_found():
    model = prepare(yolo()[0])
    assert kinds(model).count("Softmax") == 1
    assert kinds(expectations(model)).count("Softmax") == 0
