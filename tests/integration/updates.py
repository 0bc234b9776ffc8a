"""A fleet of one: a device that was enrolled by hand, and what the controller says to it."""

from __future__ import annotations

import time
from pathlib import Path

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion

from agent.bundle.documents import REPORT, Report
from agent.bundle.dsse import key_of_pem, verify
from agent.bundle.filekeys import make_keys
from agent.bundle.seal import Packed
from agent.wire.topics import FleetTopics, Topics
from tests.fakes.updating import DEVICE, Controller
from tests.integration.agents import settings
from tests.integration.subscriber import Received

VIDEO = Path(__file__).parents[2] / "examples" / "conveyor" / "sample.mp4"

FAST = {"backend": "onnxruntime", "precision": "fp32", "threads": 1}
"""Nothing to choose: builds take seconds."""

QUICK = {
    "shadow": {"seconds": 0.5},
    "canary": {"seconds": 0.5, "min_fps_ratio": 0.1, "max_latency_ratio": 100.0},
}
"""Rules of bundles whose quality is not what is tested, on a machine that is busy with tests."""


def publish(port: int, messages: dict[str, bytes], *, retain: bool = True) -> None:
    """Publish with QoS 1, and wait until the broker on a loopback port has it all."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(100)
    client.connect("127.0.0.1", port)
    client.loop_start()
    sent = [client.publish(topic, data, 1, retain) for topic, data in messages.items()]
    for info in sent:
        info.wait_for_publish(30)
    client.disconnect()
    client.loop_stop()


class Fleet:
    """The controller's side, by a plain MQTT client, and one enrolled device.

    Args:
        folder: for everything.
        port: of the broker, on loopback.
        prefix: of topics.
        device: device id.
        controller: of several devices; each has its own if there is none.
    """

    def __init__(
        self,
        folder: Path,
        port: int,
        prefix: str,
        device: str = DEVICE,
        controller: Controller | None = None,
    ) -> None:
        self.controller = controller or Controller(folder / "controller", time.time(), prefix)
        self.topics, self.fleet = Topics(prefix, device), FleetTopics(prefix)
        self.state = folder / "state"
        self.keys = make_keys(self.state, "p256")
        (self.state / "root.json").write_bytes(self.controller.repository.anchor)
        self._device = device
        self._port = port
        self._prefix = prefix

    def config(self, model: Path, cameras: dict | None = None, **sections: object) -> dict:
        """Settings of the device's agent."""
        usual = {"belt": {"source": str(VIDEO), "loop": True, "realtime": True, "fps": 5}}
        config = settings(self._port, self._prefix, model, cameras or usual)
        config["device"]["id"] = self._device
        config["models"]["main"] |= FAST
        return {**config, "updates": {"state_dir": str(self.state)}, **sections}

    def publish(self, messages: dict[str, bytes], *, retain: bool = True) -> None:
        """Publish with QoS 1, and wait until the broker has it all."""
        publish(self._port, messages, retain=retain)

    def offer(self, packed: Packed) -> None:
        """Publish a bundle, and what makes it known."""
        self.publish({**self.controller.pieces(packed), self.fleet.trust: self.controller.trust()})

    def assign(self, packed: Packed, **changes: object) -> None:
        envelope = self.controller.assign(
            packed, self.keys.kem_public, device=self._device, **changes
        )
        self.publish({self.topics.assignment: envelope})

    def push(self, packed: Packed, **changes: object) -> None:
        self.offer(packed)
        self.assign(packed, **changes)

    def reports(self, messages: list[Received]) -> list[Report]:
        """Verified reports of the device, each counter once."""
        key = key_of_pem(self.keys.sign_public_pem)
        found = {
            report.counter: report
            for m in messages
            if m.topic == self.topics.update_report("main")
            for report in [verify(m.payload, REPORT, Report, [key])]
        }
        return [found[counter] for counter in sorted(found)]

    def states(self, messages: list[Received], slot: str = "main") -> list[dict]:
        return [m.json for m in messages if m.topic == self.topics.update_state(slot)]
