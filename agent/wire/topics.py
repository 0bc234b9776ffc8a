"""The topic tree (docs/mqtt.md). Pure."""

from __future__ import annotations


class Topics:
    """Topics of one device.

    Args:
        prefix: `mqtt.prefix`, without a slash at its end.
        device: the device's id, or `+` for a reader of all devices.
    """

    def __init__(self, prefix: str, device: str) -> None:
        self._root = f"{prefix}/{device}"

    @property
    def status(self) -> str:
        """Online, degraded, stopping, offline: retained, and the will."""
        return f"{self._root}/status"

    @property
    def info(self) -> str:
        """What the device is: retained."""
        return f"{self._root}/info"

    @property
    def telemetry(self) -> str:
        """Load, rates and latencies, regularly."""
        return f"{self._root}/telemetry"

    @property
    def check(self) -> str:
        """Where `vigia check` sends itself a message."""
        return f"{self._root}/check"

    def camera_status(self, camera: str) -> str:
        """How a camera is: retained."""
        return f"{self._root}/cam/{camera}/status"

    def detections(self, camera: str) -> str:
        """One message for each analysed frame."""
        return f"{self._root}/cam/{camera}/detections"

    def events(self, camera: str) -> str:
        """What happened before a camera: tracks, zones, lines."""
        return f"{self._root}/cam/{camera}/events"

    def model_state(self, slot: str) -> str:
        """Which model a slot runs: retained."""
        return f"{self._root}/model/{slot}/state"
