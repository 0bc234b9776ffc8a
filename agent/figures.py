"""What the parts of one run count: told as telemetry, and looked at by the status page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.device import HostProbe
from agent.wire import messages
from agent.wire.schema import TELEMETRY

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.governorrun import Governor
    from agent.mqtt import MqttClient
    from agent.pipeline.pipeline import Pipeline
    from agent.publish import Publisher
    from agent.spool import Spool
    from agent.updates import Updates
    from agent.wire.topics import Topics


class Figures:
    """See the module.

    Args:
        client: where telemetry is told.
        topics: of this device.
        device: device id.
        boot: id of this run of the agent.
        pipeline: counts frames.
        publisher: counts detections.
        spool: counts what it keeps.
        governor: tells its state.
        updates: counts transfers and refusals; None where there are none.
    """

    def __init__(
        self,
        *,
        client: MqttClient,
        topics: Topics,
        device: str,
        boot: str,
        pipeline: Pipeline,
        publisher: Publisher,
        spool: Spool,
        governor: Governor,
        updates: Updates | None,
    ) -> None:
        self._client = client
        self._topics = topics
        self._device = device
        self._boot = boot
        self._host = HostProbe()
        self._pipeline = pipeline
        self._publisher = publisher
        self._spool = spool
        self._governor = governor
        self._updates = updates

    def tell(self) -> None:
        """Publish telemetry."""
        self._client.publish(
            self._topics.telemetry,
            messages.encode_telemetry(
                device=self._device,
                boot=self._boot,
                host=self._host.look(),
                cameras=self._pipeline.stats.recent(),
                publisher=self._publisher.counters(),
                broker=self._client.counters(),
                spool=self._spool.counters(),
                updates=self._update_counts(),
                governor=self._governor.state(),
            ),
            qos=0,
            schema=TELEMETRY,
        )

    def looks(self) -> dict[str, Callable[[], Any]]:
        """The same for `agent.http.ports.Sources`, by its names there."""
        return {
            # A look of its own: shares of the processor are since the look before.
            "host": HostProbe().look,
            "broker": self._broker,
            "publisher": self._publisher.counters,
            "spool": self._spool.counters,
            "governor": self._governor.state,
            "updates": self._update_counts,
        }

    def _broker(self) -> dict[str, Any]:
        reason = self._client.reason
        told = {"connected": self._client.connected, **self._client.counters()}
        return {**told, "reason": reason} if reason else told

    def _update_counts(self) -> dict[str, Any] | None:
        return None if self._updates is None else self._updates.counters()
