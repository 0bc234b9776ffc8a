"""What most people write first, as the yardstick: one loop, one thread, float32 on the host.

Read a frame, letterbox it, convert it, run ONNX Runtime with its defaults, decode, NMS, publish as
JSON with QoS 1, next frame. Nothing in it is slow on purpose.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnxruntime as ort
import paho.mqtt.client as mqtt

if TYPE_CHECKING:
    from pathlib import Path

CONFIDENCE = 0.25
IOU = 0.5


class Naive:
    """The loop's parts, loaded once.

    Args:
        model: ONNX file with a [1, 84, 8400] output.
        size: its input size in pixels.
        port: of an MQTT broker on the loopback interface.
    """

    def __init__(self, model: Path, size: int, port: int) -> None:
        self.size = size
        self.session = ort.InferenceSession(str(model), providers=["CPUExecutionProvider"])
        self.input = self.session.get_inputs()[0].name
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "naive")
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def run(self, video: Path, frames: int) -> float:
        """Analyse `frames` frames of a video.

        Returns:
            Frames a second, from opening the video to the last acknowledgement.
        """
        began = time.perf_counter()
        capture = cv2.VideoCapture(str(video))
        sent = None
        for number in range(frames):
            ok, frame = capture.read()
            if not ok:
                raise SystemExit(f"{video} has only {number} frames")
            objects = self.detect(frame)
            payload = json.dumps({"frame": number, "ts": time.time(), "objects": objects})
            sent = self.client.publish("bench/naive", payload, qos=1)
        if sent is not None:
            sent.wait_for_publish(10)
        capture.release()
        return frames / (time.perf_counter() - began)

    def detect(self, frame: np.ndarray) -> list[dict[str, object]]:
        """All objects of one frame."""
        image, scale, left, top = self.letterbox(frame)
        blob = image[:, :, ::-1].transpose(2, 0, 1)[None].astype(np.float32) / 255.0
        output = self.session.run(None, {self.input: np.ascontiguousarray(blob)})[0][0].T
        scores = output[:, 4:].max(1)
        classes = output[:, 4:].argmax(1)
        keep = scores > CONFIDENCE
        boxes, scores, classes = output[keep, :4], scores[keep], classes[keep]
        xywh = np.column_stack([boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, 2:]])
        chosen = cv2.dnn.NMSBoxes(xywh.tolist(), scores.tolist(), CONFIDENCE, IOU)
        return [
            {
                "cls": int(classes[i]),
                "score": float(scores[i]),
                "box": [
                    float((xywh[i, 0] - left) / scale),
                    float((xywh[i, 1] - top) / scale),
                    float(xywh[i, 2] / scale),
                    float(xywh[i, 3] / scale),
                ],
            }
            for i in np.array(chosen).ravel()
        ]

    def letterbox(self, frame: np.ndarray) -> tuple[np.ndarray, float, int, int]:
        """Scaled and centred on grey, with the scale and the padding."""
        height, width = frame.shape[:2]
        scale = min(self.size / width, self.size / height)
        w, h = round(width * scale), round(height * scale)
        left, top = (self.size - w) // 2, (self.size - h) // 2
        image = np.full((self.size, self.size, 3), 114, np.uint8)
        image[top : top + h, left : left + w] = cv2.resize(frame, (w, h))
        return image, scale, left, top

    def close(self) -> None:
        """Disconnect."""
        self.client.disconnect()
        self.client.loop_stop()
