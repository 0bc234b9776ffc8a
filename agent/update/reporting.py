"""Signed reports of how updates ended: made once, kept until the broker has them."""

from __future__ import annotations

import functools
from collections import deque
from typing import TYPE_CHECKING, cast

from agent.bundle.documents import REPORT, Report
from agent.bundle.dsse import sign
from agent.update.failpoints import hit

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.documents import Outcome
    from agent.bundle.keys import DeviceKeys
    from agent.update.record import Past
    from agent.update.store import Store
    from agent.wire.topics import Topics

RESEND_S = 30.0
"""A report that the broker has not acknowledged after this is sent again; controllers count each
assignment once."""


class Reporter:
    """Makes reports, and sends those that wait.

    Args:
        store: keeps them.
        keys: of the device, which signs.
        send: publishes with QoS 1: topic, payload, and what to call once the broker has it; False
            if it was not taken.
        topics: of this device.
        device: device id.
        boot: id of this run of the agent.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        store: Store,
        keys: DeviceKeys,
        send: Callable[[str, bytes, Callable[[], None]], bool],
        topics: Topics,
        device: str,
        boot: str,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._keys = keys
        self._send = send
        self._topics = topics
        self._device = device
        self._boot = boot
        self._clock = clock
        self._sent: dict[int, float] = {}
        self._acknowledged: deque[int] = deque()

    def send(self) -> None:
        """Send what waits and is not on its way.

        Raises:
            StoreError: it cannot be read.
            KeyStoreError: the device's key cannot be used.
        """
        while self._acknowledged:
            number = self._acknowledged.popleft()
            hit("C11.sent")
            self._store.report_sent(number)
            self._sent.pop(number, None)
        for past in self._store.unsigned_reports():
            # Signed once, so that it is the same bytes each time it is sent.
            self._store.report_signed(past.id, self._sign(past))
        now = self._clock()
        for number, slot, envelope in self._store.reports():
            if now - self._sent.get(number, now - RESEND_S) < RESEND_S:
                continue
            # Acknowledgements come in the broker's thread; the store is this one's.
            told = functools.partial(self._acknowledged.append, number)
            hit("C11.unsent")
            if not self._send(self._topics.update_report(slot), envelope, told):
                return
            self._sent[number] = now

    def _sign(self, past: Past) -> bytes:
        report = Report(
            device=self._device,
            slot=past.slot,
            campaign=past.campaign,
            counter=past.counter,
            sha256=past.digest,
            release_counter=past.release_counter,
            outcome=cast("Outcome", past.state.value),
            reason=past.reason,
            figures=past.figures,
            key_level=self._keys.level,
            boot=self._boot,
            at=int(past.changed),
        )
        return sign(REPORT, report, [self._keys.signer()])
