"""A bad line between the agent and its broker: slow, stuttering, cut.

What TCP makes of loss is waiting: a lost segment comes after a retransmission timeout. A kernel
without netem cannot lose packets on loopback, so the waiting itself is made here.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

from tests.integration.relay import Relay

if TYPE_CHECKING:
    import socket

RETRANSMISSION_S = 0.2
"""Linux's least retransmission timeout."""


class Link(Relay):
    """Relays to a loopback port; `delay_s` and `loss` may be changed at any time.

    Attributes:
        delay_s: how long every chunk takes.
        loss: share of chunks that take a retransmission more.
    """

    def __init__(self, target: int, seed: int = 0) -> None:
        super().__init__(target)
        self._random = random.Random(seed)
        self.delay_s = 0.0
        self.loss = 0.0

    def _pass_on(self, data: bytes, sink: socket.socket, record: bool) -> None:
        # Nothing is recorded: half an hour of it would be too much.
        wait_s = self.delay_s
        if self._random.random() < self.loss:
            wait_s += RETRANSMISSION_S
        if wait_s:
            time.sleep(wait_s)
        sink.sendall(data)
