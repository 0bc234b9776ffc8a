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

    @property
    def events(self) -> str:
        """What happened on the device; kept on disk while the broker is away."""
        return f"{self._root}/events"

    @property
    def config_state(self) -> str:
        """Which settings are in force, and why wanted ones are not: retained."""
        return f"{self._root}/config/state"

    @property
    def config_desired(self) -> str:
        """Which settings an operator wants over those of the file: retained, signed."""
        return f"{self._root}/config/desired"

    def model_state(self, slot: str) -> str:
        """Which model a slot runs: retained."""
        return f"{self._root}/model/{slot}/state"

    @property
    def assignment(self) -> str:
        """What the device is to run: retained, from the controller."""
        return f"{self._root}/update/assignment"

    @property
    def update_request(self) -> str:
        """Pieces of a bundle that the broker does not hold."""
        return f"{self._root}/update/request"

    def update_state(self, slot: str) -> str:
        """How the update of a slot goes: retained."""
        return f"{self._root}/update/state/{slot}"

    def update_report(self, slot: str) -> str:
        """How the last update of a slot ended: retained, signed by the device; `+` for all."""
        return f"{self._root}/update/report/{slot}"

    def command(self, verb: str) -> str:
        """A signed command; `+` for all."""
        return f"{self._root}/cmd/{verb}"

    def reply(self, nonce: str) -> str:
        """The answer to the command with this nonce."""
        return f"{self._root}/reply/{nonce}"


class FleetTopics:
    """Topics that all devices read.

    Args:
        prefix: `mqtt.prefix`, without a slash at its end.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    @property
    def trust(self) -> str:
        """The whole current metadata set: retained."""
        return f"{self._prefix}/trust"

    def manifest(self, bundle: str) -> str:
        """A bundle's manifest: retained. `bundle` as `agent.bundle.manifest.bundle_id` gives it."""
        return f"{self._prefix}/bundles/{bundle}/manifest"

    def index(self, bundle: str) -> str:
        """The hashes of a bundle's blocks: retained."""
        return f"{self._prefix}/bundles/{bundle}/index"

    def block(self, bundle: str, number: int | str) -> str:
        """One block of a bundle: retained; `+` for all."""
        return f"{self._prefix}/bundles/{bundle}/block/{number}"
