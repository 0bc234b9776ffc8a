from __future__ import annotations

import numpy as np
import onnx
import pytest

from engines.errors import CalibrationError, UnsupportedModelError
from engines.graph import INPUT_NAME, PREFIX
from engines.source import Source
from tests.engines.graphs import SIZE, convolution, info
from tests.engines.networks import Pictures, run, yolo

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STYLES = ("host", "device", "tensor")


def source(pictures=None, batch: int | str = 1, **changes):
    fixed = batch if isinstance(batch, int) else None
    return Source(convolution(batch=batch), info(max_batch=fixed, **changes), pictures)


def test_nodes_have_the_same_names_in_all_styles():
    model, about = yolo()
    made = Source(model, about, None)

    def names(style):
        return {n.name for n in made.graph(style).graph.node if not n.name.startswith(PREFIX)}

    assert names("device") == names("tensor")
    assert len(names("tensor")) == len(made.graph("tensor").graph.node)
    missing = names("tensor") - names("host")
    assert {n.split("_")[0] for n in missing} == {"softmax"}
    for style in STYLES:
        assert made.head(style) <= names("tensor")


def test_graphs_are_fresh_copies():
    made = source()
    for style in STYLES:
        graph = made.graph(style)
        before = graph.SerializeToString(deterministic=True)
        del graph.graph.node[:]
        assert made.graph(style).SerializeToString(deterministic=True) == before


def test_the_model_given_is_not_changed():
    model = convolution()
    before = model.SerializeToString(deterministic=True)
    Source(model, info(), Pictures(2, SIZE)).variants("host", frozenset()).qdq_host()
    assert model.SerializeToString(deterministic=True) == before


@pytest.mark.parametrize("batch", [1, 2, "n"])
def test_the_tensor_style_is_the_models_own_input_at_its_size(batch):
    model = convolution(batch=batch)
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_param = "side"
    about = info(max_batch=batch if isinstance(batch, int) else None)
    (image,) = Source(model, about, None).graph("tensor").graph.input
    sizes = [d.dim_value or d.dim_param for d in image.type.tensor_type.shape.dim]
    assert image.name == "images"
    assert sizes == [batch, 3, SIZE, SIZE]


def test_pixels_reach_255_where_scaling_went_into_the_weights_and_1_elsewhere():
    made = source(Pictures(3, SIZE))
    host, device, tensor = (made.ranges(style) for style in STYLES)
    assert (host.least["images"], host.amax["images"]) == (0, 255)
    assert (device.least["images"], device.amax["images"]) == (0, 1)
    assert device == tensor
    rest = {n: v for n, v in host.amax.items() if n != "images"}
    assert rest == {n: v for n, v in device.amax.items() if n != "images"}


def test_normalised_pixels_reach_from_black_to_white():
    made = source(Pictures(3, SIZE), mean=MEAN, std=STD)
    low = min(-m / s for m, s in zip(MEAN, STD, strict=True))
    high = max((1 - m) / s for m, s in zip(MEAN, STD, strict=True))
    for style in STYLES:
        ranges = made.ranges(style)
        assert ranges.least["images"] == pytest.approx(low)
        assert ranges.amax["images"] == pytest.approx(high)


def test_pictures_are_read_once_for_all_styles_and_variants():
    pictures, told = Pictures(3, SIZE), []
    made = source(pictures)
    for style in STYLES:
        made.variants(style, frozenset(), told.append).qdq()
    assert pictures.rounds == 1
    assert [p.done for p in told] == [1, 2, 3]


def test_ranges_know_what_they_were_found_with():
    pictures = Pictures(3, SIZE)
    made = Source(convolution(), info(), pictures, method="entropy")
    ranges = made.ranges("host")
    assert (ranges.method, ranges.images) == ("entropy", 3)
    assert ranges.model_digest == made.info.digest
    assert ranges.data_digest == pictures.digest


def test_floating_point_needs_no_pictures_and_int8_says_what_to_do():
    variants = source().variants("host", frozenset())
    variants.fp32()
    variants.fp16()
    for kind in (variants.qdq, variants.qdq_host, variants.fp16_qdq):
        with pytest.raises(CalibrationError, match=r"quantize\.calibration"):
            kind()


def test_a_damaged_model_is_refused_at_once():
    model = convolution()
    bad = np.full((4, 3, 3, 3), np.nan, np.float32)
    model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(bad, "w"))
    with pytest.raises(UnsupportedModelError, match="NaN"):
        Source(model, info(), None)


def test_int8_answers_pictures_in_any_batch():
    pictures = Pictures(3, SIZE)
    frames = np.stack(list(pictures))
    model = source(pictures, batch="n").variants("host", frozenset()).qdq_host()
    together = run(model, {INPUT_NAME: frames})[0]
    apart = [run(model, {INPUT_NAME: f[None]})[0] for f in frames]
    np.testing.assert_allclose(together, np.concatenate(apart), atol=1e-5)
