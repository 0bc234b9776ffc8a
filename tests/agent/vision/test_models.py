"""From a file to detections: described, run by ONNX Runtime, decoded, equal to the reference."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from agent.vision.decode import Decoder, PostprocessSettings
from agent.vision.preprocess import Preprocessor
from engines.describe import describe
from engines.model import Task
from tests.agent.vision import reference
from tests.agent.vision.test_decode import IDS, KINDS, compare
from tests.vectors.models import make_model


def run(path, resize_to_batch=2):
    """Describe a model and run it on frames of noise; everything that decoding needs."""
    info = describe(path)
    preprocessor = Preprocessor(info.resize, info.width, info.height)
    rng = np.random.default_rng(0)
    pixels = np.zeros((resize_to_batch, info.height, info.width, 3), np.uint8)
    placements = [
        preprocessor.write(rng.integers(0, 256, (90, 120, 3), np.uint8), out) for out in pixels
    ]
    images = (pixels[..., ::-1].transpose(0, 3, 1, 2) / 255).astype(info.input.dtype)
    session = onnxruntime.InferenceSession(str(path))
    arrays = session.run(None, {info.input.name: images})
    outputs = {o.name: a for o, a in zip(info.outputs, arrays, strict=True)}
    return info, outputs, placements


@pytest.mark.parametrize("dynamic_size", [False, True], ids=["fixed", "dynamic"])
@pytest.mark.parametrize(("task", "layout"), KINDS, ids=IDS)
def test_detectors(tmp_path, task, layout, dynamic_size):
    path = make_model(
        tmp_path / "m.onnx",
        task,
        layout,
        size=(96, 64),
        batch="dynamic",
        dynamic_size=dynamic_size,
        prototypes=8,
    )
    info, outputs, placements = run(path)
    assert (info.task, info.layout) == (task, layout)
    settings = PostprocessSettings(max_detections=10)
    for index, placement in enumerate(placements):
        assert len(compare(info, settings, outputs, placement, index))


@pytest.mark.parametrize("logits", [False, True])
def test_classifier(tmp_path, logits):
    path = make_model(tmp_path / "m.onnx", Task.CLASSIFY, batch="dynamic", logits=logits)
    info, outputs, placements = run(path)
    settings = PostprocessSettings(confidence=0.1)
    found = Decoder(info, settings)(outputs, 1, placements[1])
    want = reference.classify(info, settings, outputs["output0"][1])
    assert found.class_ids.tolist() == [class_id for class_id, _ in want]
    np.testing.assert_allclose(found.scores, [score for _, score in want], rtol=1e-5)
