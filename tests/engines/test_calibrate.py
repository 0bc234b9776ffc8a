from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from engines import calibrate as module
from engines.backend import Progress
from engines.calibrate import Probe, calibrate
from engines.errors import CalibrationError
from engines.graph import bake
from engines.prepare import prepare
from tests.engines.graphs import SIZE, convolution, info
from tests.engines.networks import Pictures, run

PICTURES = Pictures(5, SIZE)
TENSORS = ["images", "conv", "output0"]


def graph(batch: int | str = 1):
    fixed = batch if isinstance(batch, int) else None
    return bake(prepare(convolution(batch=batch)), info(max_batch=fixed))


def found(method="max", pictures=PICTURES, model=None, tell=lambda progress: None):
    return calibrate(model or graph(), TENSORS, pictures, method=method, threads=1, tell=tell)


def outputs():
    return np.stack([run(graph(), a[None])[0] for a in PICTURES])


def test_the_maximum_is_that_of_all_values_of_all_pictures():
    reach = found()["output0"]
    assert reach.amax == pytest.approx(np.abs(outputs()).max())
    assert reach.least == pytest.approx(max(outputs().min(), -reach.amax))
    pixels = found()["images"]
    assert pixels.amax == max(a.max() for a in PICTURES)
    assert pixels.least == 0


def test_the_percentile_lies_just_under_the_maximum():
    largest, percentile = found()["conv"].amax, found("percentile")["conv"].amax
    assert 0.9 * largest < percentile <= largest


def test_no_method_goes_beyond_what_was_seen():
    largest = found()
    for method in ("percentile", "entropy"):
        for name, reach in found(method).items():
            assert 0 < reach.amax <= largest[name].amax
            assert -reach.amax <= reach.least <= 0


@pytest.mark.parametrize("batch", [3, "n"])
def test_any_batch_gives_the_same_ranges(batch):
    one, other = found(), found(model=graph(batch))
    for name in TENSORS:
        assert other[name] == pytest.approx(one[name], rel=1e-5)


def test_progress_is_told_picture_by_picture():
    told: list[Progress] = []
    found(tell=told.append)
    assert [(p.step, p.done, p.total) for p in told] == [("calibrating", n, 5) for n in range(1, 6)]


def test_tensors_that_do_not_fit_into_memory_together_take_more_rounds(monkeypatch):
    whole = found("entropy")
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 4 * SIZE * SIZE)
    pictures, told = Pictures(5, SIZE), []
    assert found("entropy", pictures, tell=told.append) == whole
    assert pictures.rounds == 3
    assert told[-1] == Progress("calibrating", 15, 15)


@pytest.mark.parametrize("value", [1e38, np.nan])
def test_a_tensor_that_is_not_finite_is_named(value):
    model = graph()
    for weight in model.graph.initializer:
        if weight.name.endswith("first_conv_0"):
            bad = numpy_helper.to_array(weight) + np.float32(value)
            weight.CopyFrom(numpy_helper.from_array(bad, weight.name))
    with pytest.raises(CalibrationError, match=r"'conv'.*NaN or infinite"):
        found(model=model)


def test_a_dead_tensor_has_range_zero():
    model = graph()
    for weight in model.graph.initializer:
        if weight.name.endswith("first_conv_0"):
            zeros = np.zeros(list(weight.dims), np.float32)
            weight.CopyFrom(numpy_helper.from_array(zeros, weight.name))
    for method in ("max", "percentile", "entropy"):
        assert found(method, model=model)["conv"] == (0, 0)


def test_no_pictures_is_an_error_with_what_to_do():
    with pytest.raises(CalibrationError, match=r"quantize\.calibration"):
        found(pictures=Pictures(0, SIZE))


def test_a_picture_of_another_size_is_an_error():
    with pytest.raises(CalibrationError, match="16, 16, 3"):
        found(pictures=Pictures(1, 16))


def test_a_graph_that_onnx_runtime_refuses_is_an_error():
    model = onnx.ModelProto()
    model.CopyFrom(graph())
    model.graph.node[-1].op_type = "NoSuchOperation"
    with pytest.raises(CalibrationError, match="refuses"):
        Probe(model, TENSORS, 1)


def test_a_failure_while_running_is_an_error():
    model = graph("n")
    # Fits any batch by its types and shapes, and fails when it is run.
    shape = numpy_helper.from_array(np.array([7, 11]), "shape")
    model.graph.initializer.append(shape)
    model.graph.node.append(helper.make_node("Reshape", ["output0", "shape"], ["odd"]))
    probe = Probe(model, ["odd"], 1)
    with pytest.raises(CalibrationError, match="failed while calibrating"):
        probe.run(next(iter(PICTURES)))
