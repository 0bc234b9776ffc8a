"""What the agent says of itself in retained messages: what it is, its models, its cameras.

Whoever knows that something has changed calls in, from any thread; what is told is asked for anew
each time, so that the newest news always comes last.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Protocol

from agent.capture.camera import Camera
from agent.device import hardware
from agent.versions import versions
from agent.wire import messages
from agent.wire.configstate import encode_config_state
from agent.wire.schema import CAMERA_STATUS, CONFIG_STATE, INFO, MODEL_STATE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agent.capture.camera import CameraStatus
    from agent.detection import ModelRef
    from agent.mqtt import MqttClient
    from agent.wire.buildstate import BuildState
    from agent.wire.configstate import ConfigState
    from agent.wire.topics import Topics


class Told(Protocol):
    """What is asked for whenever something is told."""

    def cameras(self) -> Mapping[str, bool]:
        """All cameras of the configuration by name, and whether each is enabled."""

    def models(self) -> Mapping[str, ModelRef | None]:
        """What serves each slot in use."""

    def build(self, slot: str) -> BuildState | None:
        """How the building of a slot's engine goes."""

    def reasons(self) -> Iterable[str]:
        """Why the device is degraded; none if it is not."""


class Herald:
    """Tells, until the agent begins to stop.

    Args:
        client: where it is told.
        topics: of this device.
        device: device id.
        boot: id of this run of the agent.
        told: what is told.
    """

    def __init__(
        self, client: MqttClient, topics: Topics, device: str, boot: str, told: Told
    ) -> None:
        self._client = client
        self._topics = topics
        self._device = device
        self._boot = boot
        self._told = told
        self._stopping = False
        # Held while a retained message is made and handed over, or an older one could come later.
        self._telling = threading.Lock()

    def announce(self) -> None:
        """What this device is, which models it runs, which cameras are not used."""
        with self._telling:
            models = self._told.models()
            cameras = self._told.cameras()
            payload = messages.encode_info(
                device=self._device,
                boot=self._boot,
                hardware=hardware(),
                versions=versions(),
                models={slot: ref for slot, ref in models.items() if ref is not None},
                cameras=sorted(cameras),
            )
            self._client.set_retained(self._topics.info, payload, INFO)
        for slot in models:
            self.model(slot)
        for name, enabled in cameras.items():
            if not enabled:
                self.camera(name, Camera.disabled())

    def model(self, slot: str) -> None:
        """What a slot runs and how the building of its engine goes."""
        with self._telling:
            model = self._told.models().get(slot)
            build = self._told.build(slot)
            if model is None and build is None:
                return
            payload = messages.encode_model_state(self._device, self._boot, slot, model, build)
            self._client.set_retained(self._topics.model_state(slot), payload, MODEL_STATE)

    def camera(self, name: str, status: CameraStatus) -> None:
        """How a camera is."""
        payload = messages.encode_camera_status(
            self._device,
            self._boot,
            name,
            state=status.state,
            reason=status.reason,
            since=status.since_wall_s,
            attempts=status.attempts,
        )
        self._client.set_retained(self._topics.camera_status(name), payload, CAMERA_STATUS)

    def config(self, state: ConfigState) -> None:
        """Which settings are in force."""
        payload = encode_config_state(self._device, self._boot, state, ts=time.time())
        self._client.set_retained(self._topics.config_state, payload, CONFIG_STATE)

    def state(self) -> None:
        """Whether the device is online or degraded, and all of `announce`."""
        if self._stopping:
            return
        reasons = list(self._told.reasons())
        self._client.set_state("degraded" if reasons else "online", "; ".join(reasons))
        # A model that was loaded late, or anew, is to be told.
        self.announce()

    def stopping(self) -> None:
        """The agent begins to stop."""
        self._stopping = True
        self._client.set_state("stopping")
