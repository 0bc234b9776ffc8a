"""What each precision costs in mean average precision, on the demo model's own ground truth."""

from __future__ import annotations

import hashlib
import json

import cv2
import numpy as np
import onnx
import onnxruntime as ort
import pytest

from agent.vision.decode import Decoder, PostprocessSettings
from agent.vision.metrics import Labelled, mean_average_precision
from agent.vision.preprocess import Preprocessor
from engines.describe import describe
from engines.graph import INPUT_NAME
from engines.source import Source
from tests.engines.networks import CONVEYOR, can_be_judged

CALIBRATION = range(2, 500, 8)
JUDGED = range(0, 500, 4)
MAX_LOSS = 0.01
"""Absolute, of mAP50-95."""

LEAST_DROP = 0.03
"""What quantising the whole graph costs at least."""


class Frames:
    """Frames of the sample video, as the model takes them."""

    def __init__(self, arrays):
        self.arrays = arrays
        self.digest = "sha256:" + hashlib.sha256(b"".join(a.tobytes() for a in arrays)).hexdigest()

    def __len__(self):
        return len(self.arrays)

    def __iter__(self):
        return iter(self.arrays)


class Bench:
    def __init__(self):
        self.info = describe(CONVEYOR)
        self.decoder = Decoder(self.info, PostprocessSettings(confidence=0.001))
        prepare = Preprocessor(self.info.resize, self.info.width, self.info.height)
        truth = json.loads((CONVEYOR.parent / "sample.json").read_text("utf-8"))["frames"]
        calibration, self.judged, self.truths = [], [], []
        capture = cv2.VideoCapture(str(CONVEYOR.parent / "sample.mp4"))
        for number, rows in enumerate(truth):
            ok, frame = capture.read()
            assert ok
            image = np.empty((self.info.height, self.info.width, 3), np.uint8)
            if number in CALIBRATION:
                prepare.write(frame, image)
                calibration.append(image)
            elif number in JUDGED:
                self.judged.append((image, prepare.write(frame, image)))
                table = np.array(rows, np.float32).reshape(-1, 5)
                ones = np.ones(len(table), np.float32)
                self.truths.append(Labelled(table[:, :4], table[:, 4].astype(np.int32), ones))
        capture.release()
        model = onnx.load(CONVEYOR)
        self.source = Source(model, self.info, Frames(calibration), threads=2)

    def precision(self, model):
        """mAP50-95 of a graph."""
        settings = ort.SessionOptions()
        settings.intra_op_num_threads = 2
        settings.log_severity_level = 3
        session = ort.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        names = [o.name for o in session.get_outputs()]
        found = []
        for image, placement in self.judged:
            outputs = dict(zip(names, session.run(names, {INPUT_NAME: image[None]}), strict=True))
            result = self.decoder(outputs, 0, placement)
            found.append(Labelled(result.boxes, result.class_ids, result.scores))
        return mean_average_precision(found, self.truths).map50_95


@pytest.fixture(scope="module")
def bench():
    return Bench()


@pytest.fixture(scope="module")
def reference(bench):
    return bench.precision(bench.source.graph("host"))


@pytest.mark.slow
def test_calibration_and_judgement_use_different_frames(bench):
    assert len(bench.source.calibration) == len(CALIBRATION)
    assert len(bench.judged) == len(set(JUDGED) - set(CALIBRATION))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("style", "kind"),
    [("device", "fp16"), ("host", "qdq_host"), ("device", "qdq"), ("device", "fp16_qdq")],
)
def test_no_precision_costs_more_than_a_hundredth(bench, reference, style, kind):
    can_be_judged(kind)
    model = getattr(bench.source.variants(style, bench.source.head()), kind)()
    assert reference - bench.precision(model) <= MAX_LOSS


@pytest.mark.slow
def test_quantising_the_head_too_shows(bench, reference):
    model = bench.source.variants("host", frozenset()).qdq_host()
    assert reference - bench.precision(model) >= LEAST_DROP
