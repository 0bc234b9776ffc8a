"""Measures the detector on the sample video.

python examples/conveyor/evaluate.py
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cv2
import numpy as np

from agent.config import ModelConfig
from agent.models import load_model
from agent.vision.metrics import Labelled, MeanAveragePrecision, mean_average_precision
from agent.vision.preprocess import Preprocessor

HERE = Path(__file__).parent
LEAST_SCORE = 0.001
"""mAP counts detections of every score; precision at high scores is not hurt by low ones."""


def truths(path: Path) -> list[Labelled]:
    """Ground truth of a video, by frame."""
    frames = json.loads(path.read_text("utf-8"))["frames"]
    found = []
    for rows in frames:
        table = np.array(rows, np.float32).reshape(-1, 5)
        scores = np.ones(len(table), np.float32)
        found.append(Labelled(table[:, :4], table[:, 4].astype(np.int32), scores))
    return found


def evaluate(model: Path, video: Path, truth: Path, step: int = 1) -> MeanAveragePrecision:
    """Mean average precision of a model on every `step`th frame of a video."""
    loaded = load_model("main", ModelConfig(path=model, confidence=LEAST_SCORE), live=True)
    context = loaded.engine.create_context(1)
    preprocessor = Preprocessor(loaded.info.resize, loaded.info.width, loaded.info.height)
    (images,) = context.inputs.values()
    expected, kept, found = truths(truth), [], []
    capture = cv2.VideoCapture(str(video))
    for number in range(len(expected)):
        ok, frame = capture.read()
        if not ok:
            raise SystemExit(f"{video} has {number} frames, {truth} {len(expected)}")
        if number % step:
            continue
        placement = preprocessor.write(frame, images[0])
        result = loaded.decoder(context.infer(), 0, placement)
        found.append(Labelled(result.boxes, result.class_ids, result.scores))
        kept.append(expected[number])
    capture.release()
    context.close()
    loaded.engine.close()
    return mean_average_precision(found, kept)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=HERE / "conveyor-n.onnx")
    args = parser.parse_args()
    figures = evaluate(args.model, HERE / "sample.mp4", HERE / "sample.json")
    print(f"mAP50 {figures.map50:.4f}, mAP50-95 {figures.map50_95:.4f}, {figures.truths} boxes")
    for class_id, value in figures.ap50.items():
        print(f"class {class_id}: AP50 {value:.4f}")


if __name__ == "__main__":
    main()
