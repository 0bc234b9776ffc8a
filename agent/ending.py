"""How one run of the agent ends: in the order of a frame's road, each step with its own time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.builder import Builder
    from agent.events import Events
    from agent.governorrun import Governor
    from agent.healthwatch import Watch
    from agent.herald import Herald
    from agent.http.server import HttpServer
    from agent.mqtt import MqttClient
    from agent.pipeline.pipeline import Pipeline
    from agent.publish import Publisher
    from agent.spool import Spool
    from agent.updates import Updates

log = logging.getLogger(__name__)

LAST_INFERENCE_S = 0.3
"""Time for the inference that runs when the rest is thrown away."""

FLUSH_TIMEOUT_S = 0.6
"""Time, twice, for the broker to acknowledge; with `pipeline.shutdown_timeout_s` below 5 s."""

BUILDER_STOP_S = 0.3
"""Time for a build that was ended at the beginning of the stop to be cleared away."""

UPDATES_STOP_S = 0.5
"""Time for the step of an update that was ended at the beginning of the stop; what is cut off is
begun again at the next start."""

GOVERNOR_STOP_S = 0.2
"""Time for a look at the sensors; a change of engines is not waited for."""

HTTP_STOP_S = 0.3
"""Time for answers that are being given; streams end at once."""

SPOOL_STOP_S = 0.3
"""Time for the broker to acknowledge events; what it does not is kept on the disk."""


@dataclass(frozen=True, slots=True)
class Ending:
    """The parts that are to end; see their own modules.

    Attributes:
        telemetry: tells the last figures.
        shutdown_timeout_s: time for what the pipeline has begun.
    """

    pipeline: Pipeline
    client: MqttClient
    spool: Spool
    publisher: Publisher
    events: Events
    herald: Herald
    builder: Builder
    governor: Governor
    watch: Watch
    updates: Updates | None
    http: HttpServer | None
    telemetry: Callable[[], None]
    shutdown_timeout_s: float

    def end(self, *, restart: bool) -> None:
        """End everything.

        Args:
            restart: the agent is to be started anew.

        Raises:
            BaseException: the error that a thread of the pipeline died of.
        """
        self.watch.stopping()
        self.events.tell("agent", "info", "stopping", restart=restart)
        self.herald.stopping()
        if self.updates is not None:
            self.updates.cancel()
        self.builder.cancel()
        self.pipeline.stop()
        try:
            if not self.pipeline.wait(self.shutdown_timeout_s):
                log.warning("stopping takes too long; frames that wait are thrown away")
                self.pipeline.abandon()
            if self.pipeline.wait(LAST_INFERENCE_S):
                self.pipeline.close()
        finally:
            # Also where a thread of the pipeline has crashed: no plaintext stays behind.
            self._end_helpers()

    def _end_helpers(self) -> None:
        try:
            if self.http is not None:
                self.http.close(HTTP_STOP_S)
            if self.updates is not None:
                self.updates.close(UPDATES_STOP_S)
            self.builder.close(BUILDER_STOP_S)
            self.governor.close(GOVERNOR_STOP_S)
            self.watch.close()
        finally:
            self.publisher.close(FLUSH_TIMEOUT_S)
            self.telemetry()
            try:
                self.spool.close(SPOOL_STOP_S)
            finally:
                self.client.close(FLUSH_TIMEOUT_S)
