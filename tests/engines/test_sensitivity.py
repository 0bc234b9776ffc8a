from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engines import sensitivity
from engines.errors import CalibrationError
from engines.sensitivity import MAX_GROUPS, MAX_IMAGES, order
from engines.source import Source
from tests.engines.graphs import SIZE, info
from tests.engines.networks import Pictures, node, yolo


def silent(progress):
    pass


def chain(spoiled: str):
    """Three layers and a head; quantising `spoiled` hurts, as two of its inputs differ 10000-fold.

    One input channel is so large that its int8 scale leaves nothing of the others, and the layer
    takes only these.
    """
    rng = np.random.default_rng(0)
    nodes, arrays, taken = [], {}, "images"
    for number, name in enumerate(("first", "second", "third", "head")):
        channels = 3 if number == 0 else 4
        weight = rng.standard_normal((4, channels, 1, 1)).astype("f") * 0.3
        if name == spoiled:
            weight[:, 0] = 0
            scale = np.ones((1, channels, 1, 1), "f")
            scale[0, 0] = 10_000
            arrays[f"scale_{name}"] = scale
            nodes.append(node("Mul", f"{taken} scale_{name}", f"wide_{name}"))
            taken = f"wide_{name}"
        arrays[f"w_{name}"] = weight
        nodes.append(node("Conv", f"{taken} w_{name}", name))
        taken = name
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("images", onnx.TensorProto.FLOAT, [1, 3, SIZE, SIZE])],
        [value("head", onnx.TensorProto.FLOAT, [1, 4, SIZE, SIZE])],
        [numpy_helper.from_array(a, n) for n, a in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("spoiled", ["second", "third"])
def test_the_layer_that_suffers_comes_first(spoiled):
    pictures = Pictures(3, SIZE)
    source = Source(chain(spoiled), info(), pictures, method="max")
    groups = order(source, source.head(), pictures, silent)
    assert spoiled in groups[0].nodes
    assert groups[0].snr_db < 10 < groups[1].snr_db - 10
    assert [g.snr_db for g in groups] == sorted(g.snr_db for g in groups)


def test_groups_are_disjoint_and_leave_out_what_is_float_already():
    model, about = yolo()
    pictures = Pictures(MAX_IMAGES + 1, 64)
    source = Source(model, about, pictures, threads=2)
    told = []
    groups = order(source, source.head(), pictures, told.append, threads=2)
    assert 10 < len(groups) <= MAX_GROUPS
    names = [n for g in groups for n in g.nodes]
    assert len(names) == len(set(names))
    assert not source.head().intersection(names)
    layers = {n.name for n in source.graph("tensor").graph.node if n.op_type == "Conv"}
    assert layers - source.head() <= set(names)
    steps = [p for p in told if p.step == "ordering layers"]
    assert [(p.done, p.total) for p in steps] == [
        (n, len(groups)) for n in range(1, len(groups) + 1)
    ]


def test_the_cost_is_bounded(monkeypatch):
    monkeypatch.setattr(sensitivity, "MAX_GROUPS", 3)
    monkeypatch.setattr(sensitivity, "MAX_IMAGES", 1)
    pictures = Pictures(4, SIZE)
    source = Source(chain("none"), info(), pictures)
    assert len(order(source, frozenset(), pictures, silent)) <= 3


def test_nothing_to_order_where_all_is_float():
    pictures = Pictures(2, SIZE)
    source = Source(chain("none"), info(), pictures)
    everything = frozenset(n.name for n in source.graph("host").graph.node)
    assert order(source, everything, pictures, silent) == []


def test_without_calibration_pictures_there_is_no_order():
    source = Source(chain("none"), info(), None)
    with pytest.raises(CalibrationError, match=r"quantize\.calibration"):
        order(source, source.head(), Pictures(2, SIZE), silent)
