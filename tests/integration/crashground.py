"""What the devices of a crash test share: a controller, two small bundles, and a broker."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnx

from agent.wire.topics import FleetTopics
from tests.fakes.updating import Controller
from tests.integration.updates import publish
from tests.vectors.bundles import tiny_model

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.bundle.seal import Packed
    from tests.integration.mosquitto import Mosquitto

BALLAST_BYTES = 24 * 65_536
"""Makes bundles of small models take a while to arrive."""

FPS = 5

RULES = {
    "shadow": {"seconds": 0.5},
    "canary": {"seconds": 0.5, "min_fps_ratio": 0.0, "max_latency_ratio": 1000.0},
}
"""What is tested is not the quality of the bundle."""

RUN_BYTES = 64
RUNS = 16
"""Stretches of each secret that are searched for."""


class Ground:
    """What all devices share.

    Args:
        folder: for everything.
        broker: that the controller publishes to.
        prefix: of topics.
    """

    def __init__(self, folder: Path, broker: Mosquitto, prefix: str) -> None:
        self.folder = folder
        self.broker = broker
        self.prefix = prefix
        self.controller = Controller(folder / "controller", time.time(), prefix)
        self.models = {number: tiny_model(number) for number in (0, 1, 2)}
        ballast = {number: random.Random(number).randbytes(BALLAST_BYTES) for number in (1, 2)}
        pictures = {f"golden/{number}.png": _picture(number) for number in range(2)}
        self.old = self._release(1, ballast[1], pictures)
        self.old_trust = self.controller.repository.publish()
        self.new = self._release(2, ballast[2], pictures)
        self.video = _video(folder / "video.mp4")
        self.configured = folder / "configured.onnx"
        self.configured.write_bytes(self.models[0])
        self.secrets = [
            *(run for number in (1, 2) for run in _runs(_weights(self.models[number]), number)),
            *(run for number in (1, 2) for run in _runs(ballast[number], number)),
            *(form for packed in (self.old, self.new) for form in _forms(packed.data_key)),
        ]

    @property
    def blocks(self) -> dict[str, bytes]:
        """Those of release 2, by topic."""
        pieces = self.controller.pieces(self.new)
        return {topic: data for topic, data in pieces.items() if "/block/" in topic}

    def offer(self, *missing: str) -> None:
        """Publish release 2 and what makes it known, but for the blocks on these topics."""
        pieces = self.controller.pieces(self.new)
        known = {FleetTopics(self.prefix).trust: self.controller.trust()}
        self.publish({**{t: data for t, data in pieces.items() if t not in missing}, **known})

    def publish(self, messages: dict[str, bytes], *, retain: bool = True) -> None:
        """See `tests.integration.updates.Fleet`."""
        publish(self.broker.port, messages, retain=retain)

    def digest(self, number: int) -> str:
        """Of a release's model, as detections tell it; 0 is the configured one."""
        return "sha256:" + hashlib.sha256(self.models[number]).hexdigest()

    def _release(self, number: int, ballast: bytes, pictures: Mapping[str, bytes]) -> Packed:
        files = {"model.onnx": self.models[number], "ballast.bin": ballast, **pictures}
        return self.controller.release(number, files=files, **RULES)


def _picture(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8)
    return cv2.imencode(".png", pixels)[1].tobytes()


def _video(path: Path) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, (64, 64))
    pixels = np.random.default_rng(0)
    for _ in range(4 * FPS):
        writer.write(cv2.resize(pixels.integers(0, 255, (8, 8, 3), np.uint8), (64, 64)))
    writer.release()
    return path


def _weights(model: bytes) -> bytes:
    tensors = onnx.load_from_string(model).graph.initializer
    return max((t.raw_data for t in tensors), key=len)


def _runs(content: bytes, seed: int) -> list[bytes]:
    chance = random.Random(seed)
    starts = [chance.randrange(len(content) - RUN_BYTES) for _ in range(RUNS)]
    return [content[at : at + RUN_BYTES] for at in starts]


def _forms(key: bytes) -> list[bytes]:
    return [key, key.hex().encode(), base64.b64encode(key), base64.urlsafe_b64encode(key)]
