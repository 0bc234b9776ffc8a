"""An agent that spools its detections, and its broker: what the spool's benchmarks share."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from tests.integration.environment import installed
from tests.integration.mosquitto import Mosquitto

if TYPE_CHECKING:
    import argparse

    from tests.integration.subscriber import Received

ROOT = Path(__file__).parents[2]
RATE_HZ = 30
SOON_S = 60.0
DEVICE = "d"
CAMERA = "scene"


class SpoolGround:
    """A broker and the agent's lives.

    Args:
        folder: for everything.
        mqtt: more settings of the section.
        spool: more settings of the section.
        queued: Mosquitto's `max_queued_messages`; 0: as many as come, for a reader that is slower
            than a replay.
    """

    def __init__(
        self, folder: Path, mqtt: dict[str, Any], spool: dict[str, Any], queued: int = 0
    ) -> None:
        self.broker = Mosquitto(
            folder / "broker",
            {"plain": ("allow_anonymous true",)},
            (f"max_queued_messages {queued}",),
        )
        self._folder = folder
        self._path = folder / "agent.yaml"
        model = str(ROOT / "examples/conveyor/conveyor-n.onnx")
        config = {
            "device": {"id": DEVICE},
            "mqtt": {"host": "127.0.0.1", "port": self.broker.port, "prefix": "s", **mqtt},
            "cameras": {CAMERA: {"source": f"synthetic://320x240@{RATE_HZ}"}},
            "models": {
                "main": {
                    "path": model,
                    "threads": 1,
                    "backend": "onnxruntime",
                    "precision": "fp32",
                }
            },
            "spool": {"dir": str(folder / "spool"), "detections": True, **spool},
        }
        self._path.write_text(yaml.safe_dump(config))
        self.broker.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Begin a life of the agent."""
        with (self._folder / "agent.log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "agent", "run", "-c", str(self._path)],
                stderr=log,
                cwd=ROOT,
                env={**installed(), "XDG_CACHE_HOME": str(self._folder / "cache")},
            )

    def broker_says(self) -> dict[str, int]:
        """Detections by the broker's own log: taken from the agent, and given to a reader."""
        log = self.broker.log.read_text("utf-8", "replace")
        topic = re.escape(f"'s/{DEVICE}/cam/{CAMERA}/detections'")
        return {
            "taken": len(re.findall(f"Received PUBLISH from .*{topic}", log)),
            "given": len(re.findall(f"Sending PUBLISH to .*{topic}", log)),
            "readers_it_dropped_for": log.count("Outgoing messages are being dropped"),
        }


def is_detection(message: Received) -> bool:
    """Whether a camera's result."""
    return message.topic.endswith("/detections")


def write(report: dict[str, Any], options: argparse.Namespace) -> None:
    """Print a report, and write it where asked."""
    text = json.dumps(report, indent=2)
    print(text)
    if options.json is not None:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(text + "\n")
