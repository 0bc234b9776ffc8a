"""What the controller makes of what devices say.

`Board` keeps what they tell of themselves while they work: unsigned, for people only. `Reports`
judges their signed reports, the only thing that counts: right key, device, slot, campaign, digest
and counter. Both are bounded by the devices that are enrolled, whatever is sent.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.bundle.documents import REPORT, Report
from agent.bundle.dsse import verify
from agent.errors import BundleError, WireError
from agent.wire.updatestate import UpdateState, parse_update_state
from fleet.allowance import Allowances

if TYPE_CHECKING:
    from collections.abc import Collection

    from securesystemslib.signer import Key

MAX_STATE_BYTES = 16 * 2**10
MAX_SLOTS = 16
"""Slots of one device that are shown."""

REPORTS_PER_S = 1.0
REPORTS_BURST = 16
"""A device reports each update once, and again after a lost connection."""

STATES_PER_S = 10.0
STATES_BURST = 100


@dataclass(frozen=True, slots=True)
class Expected:
    """The report that an assignment calls for.

    Attributes:
        key: of the device.
        sha256: of the manifest.
    """

    key: Key
    device: str
    slot: str
    campaign: str
    counter: int
    sha256: str
    release_counter: int

    def fits(self, report: Report) -> bool:
        """Whether a report is of this very assignment."""
        return (
            report.device == self.device
            and report.slot == self.slot
            and report.campaign == self.campaign
            and report.counter == self.counter
            and report.sha256 == self.sha256
            and report.release_counter == self.release_counter
        )


class Reports:
    """Judges reports of the devices that were assigned something.

    Attributes:
        counts: what became of the messages.
    """

    def __init__(self) -> None:
        self._expected: dict[str, Expected] = {}
        self._allowed = Allowances(REPORTS_PER_S, REPORTS_BURST)
        self.counts: Counter[str] = Counter()

    def expect(self, expected: Expected) -> None:
        """From now on, of this device only this report counts."""
        self._expected[expected.device] = expected

    def judge(self, device: str, payload: bytes, now: float) -> Report | None:
        """Look at a message on a device's report topic; never raises for what it says.

        Args:
            device: whose topic it came on.
            payload: an envelope, from outside.
            now: monotonic seconds.

        Returns:
            The report, if it is the one that was expected.
        """
        expected = self._expected.get(device)
        if expected is None:
            self.counts["of strangers"] += 1
            return None
        if not self._allowed.take(device, 1, now):
            self.counts["too soon"] += 1
            return None
        try:
            report = verify(payload, REPORT, Report, [expected.key])
        except BundleError:
            self.counts["not signed by the device"] += 1
            return None
        if not expected.fits(report):
            self.counts["of another assignment"] += 1
            return None
        self.counts["counted"] += 1
        return report


class Board:
    """What devices last said of their updates.

    Args:
        devices: the enrolled ones; others are counted only.

    Attributes:
        rows: by device and slot.
        counts: messages that were not shown, by cause.
    """

    def __init__(self, devices: Collection[str]) -> None:
        self._devices = frozenset(devices)
        self._allowed = Allowances(STATES_PER_S, STATES_BURST)
        self._slots: Counter[str] = Counter()
        self.rows: dict[tuple[str, str], UpdateState] = {}
        self.counts: Counter[str] = Counter()

    def take(self, device: str, slot: str, payload: bytes, now: float) -> None:
        """Take a message on a device's state topic; never raises for what it says."""
        if device not in self._devices:
            self.counts["of strangers"] += 1
            return
        if not self._allowed.take(device, 1, now):
            self.counts["too soon"] += 1
            return
        state = _state(payload)
        if state is None or state.slot != slot:
            self.counts["garbage"] += 1
        elif (device, slot) in self.rows or self._slots[device] < MAX_SLOTS:
            self._slots[device] += (device, slot) not in self.rows
            self.rows[device, slot] = state
        else:
            self.counts["too many slots"] += 1


def _state(payload: bytes) -> UpdateState | None:
    if len(payload) > MAX_STATE_BYTES:
        return None
    try:
        return parse_update_state(payload)
    except WireError:
        return None
