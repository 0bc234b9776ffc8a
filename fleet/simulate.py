"""Rehearses a roll-out with many simulated devices, through the real broker and with its rules.

The devices exist for this run only: their keys and certificates are made for it, and what is
written of them goes into a database of its own, which is gone afterwards. The bundle, the metadata,
the director's key and the broker are the fleet's real ones.
"""

from __future__ import annotations

import json
import queue
import secrets
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.wire.topics import Topics
from fleet.answering import Answers
from fleet.assigning import Assigner
from fleet.campaign import Outcome, Plan
from fleet.campaigns import Campaigns, Offer
from fleet.controlling import inbox_for, library, publish_metadata
from fleet.database import Database
from fleet.errors import FleetError
from fleet.rollout import Rollout, Router
from fleet.simulatekeys import SLOT, SPECIFICATION, make_crowd, write_specification
from fleet.watching import Board, Reports

if TYPE_CHECKING:
    from collections.abc import Callable

    from fleet.fleetfolder import Fleet
    from fleet.link import Outlet
    from fleet.tables import Bundle

MAX_DEVICES = 10_000
GRACE_S = 10.0
"""For the crowd to take its retained messages back and say goodbye."""

PAGE_MB = 4096 / 2**20
RUN_TOKEN_BYTES = 3


@dataclass(frozen=True, slots=True)
class Simulation:
    """What is to be simulated.

    Attributes:
        devices: how many.
        window: blocks that each asks for at a time.
        timeout_s: after which it is given up.
    """

    devices: int
    window: int = 8
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Result:
    """What came of it.

    Attributes:
        outcomes: devices by what became of them, as the controller counts.
        seconds: from the first assignment to the last report.
        bytes, messages: that the devices received.
        disconnects: connections that were lost.
        failures: reasons of devices, the most frequent.
        rss_begin_mb, rss_peak_mb, rss_end_mb: memory of the controller.
        sent_again: pieces that the controller published again.
    """

    devices: int
    outcomes: dict[str, int]
    seconds: float
    bytes: int
    messages: int
    disconnects: int
    failures: dict[str, int]
    rss_begin_mb: float
    rss_peak_mb: float
    rss_end_mb: float
    sent_again: int

    @property
    def succeeded(self) -> bool:
        """Whether every device has committed."""
        return self.outcomes == {Outcome.COMMITTED.value: self.devices}

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {"succeeded": self.succeeded}


def simulate(
    fleet: Fleet,
    outlet: Outlet,
    row: Bundle,
    simulation: Simulation,
    tell: Callable[[str, int, int], None],
) -> Result:
    """Have simulated devices take a published bundle.

    Args:
        fleet: whose.
        outlet: to the broker.
        row: the bundle.
        simulation: how many, and how.
        tell: takes what is being done, how many are through, and of how many.

    Raises:
        FleetError: the bundle is not published, or there are too many devices.
        BrokerError: the broker is away.
        StoreError: the disk refuses.
    """
    if row.published_at is None:
        raise FleetError(
            f"{row.family} {row.version} is not published; say `vigia fleet publish` first"
        )
    if not 1 <= simulation.devices <= MAX_DEVICES:
        raise FleetError(f"1 to {MAX_DEVICES} devices can be simulated")
    publish_metadata(fleet, outlet)
    with tempfile.TemporaryDirectory(prefix="vigia-simulate-") as folder:
        run = _Run(fleet, outlet, row, simulation, Path(folder))
        try:
            return run.go(tell)
        finally:
            run.close()


class _Run:
    def __init__(
        self, fleet: Fleet, outlet: Outlet, row: Bundle, simulation: Simulation, folder: Path
    ) -> None:
        self.fleet = fleet
        self.outlet = outlet
        self.simulation = simulation
        self.folder = folder
        self.prefix = fleet.settings.prefix
        self.row = row
        self.token = secrets.token_hex(RUN_TOKEN_BYTES)
        self.names = [f"sim-{self.token}-{n}" for n in range(simulation.devices)]
        self.database = Database(f"sqlite:///{folder / 'simulation.db'}")
        self.process: subprocess.Popen[str] | None = None
        self.hearer: threading.Thread | None = None
        self.lines: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def go(self, tell: Callable[[str, int, int], None]) -> Result:
        count = self.simulation.devices
        self.database.create()
        crowd = make_crowd(
            self.fleet, self.folder, self.names, lambda done: tell("enrolling", done, count)
        )
        with self.database.session() as session:
            session.add_all(crowd)
            session.merge(self.row)
        write_specification(
            self.fleet,
            self.folder,
            window=self.simulation.window,
            timeout_s=self.simulation.timeout_s,
        )
        self._start()
        rollout = self._rollout()
        meter = _Meter()
        tell("connecting", 0, count)
        said: dict[str, Any] = {}
        while "opened" not in said and self.process is not None:
            said |= self._said(wait=True)
        began = time.monotonic()
        end = began + self.simulation.timeout_s
        goes_on = True
        while goes_on and time.monotonic() < end:
            goes_on = rollout.advance()
            meter.look()
            said |= self._said()
            tell("updating", rollout.campaign.tally()[Outcome.COMMITTED], count)
        seconds = time.monotonic() - began
        said |= self._finish()
        tally = rollout.campaign.tally()
        return Result(
            devices=count,
            outcomes={outcome.value: number for outcome, number in tally.items() if number},
            seconds=round(seconds, 2),
            bytes=int(said.get("bytes", 0)),
            messages=int(said.get("messages", 0)),
            disconnects=int(said.get("disconnects", 0)),
            failures=dict(said.get("reasons", {})),
            rss_begin_mb=meter.begin,
            rss_peak_mb=meter.peak,
            rss_end_mb=meter.look(),
            sent_again=rollout.router.answers.counts["sent"],
        )

    def close(self) -> None:
        """End the crowd, and take back what was told to it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.hearer is not None:
                self.hearer.join()
            assert self.process.stdout is not None
            self.process.stdout.close()
        for name in self.names:
            self.outlet.send(Topics(self.prefix, name).assignment, b"")
        self.outlet.settle()
        self.database.close()

    def _start(self) -> None:
        self.process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, "-m", "fleet.simulatecrowd", str(self.folder / SPECIFICATION)],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.hearer = threading.Thread(target=self._hear, name="crowd", daemon=True)
        self.hearer.start()

    def _hear(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def _said(self, *, wait: bool = False) -> dict[str, Any]:
        """What the crowd has told since."""
        found: dict[str, Any] = {}
        while True:
            try:
                line = self.lines.get(timeout=self.simulation.timeout_s if wait else 0.001)
            except queue.Empty:
                return found
            wait = False
            if line is None:
                raise FleetError("the simulated devices ended too soon; see what they said")
            found |= line

    def _finish(self) -> dict[str, Any]:
        """Have the crowd end, and hear its last words."""
        assert self.process is not None
        self.process.terminate()
        found: dict[str, Any] = {}
        while True:
            try:
                line = self.lines.get(timeout=GRACE_S)
            except queue.Empty:
                return found
            if line is None:
                return found
            found |= line

    def _rollout(self) -> Rollout:
        row = self.row
        offer = Offer(
            f"simulation-{self.token}",
            SLOT,
            row.digest,
            row.family,
            row.version,
            row.release_counter,
        )
        campaigns = Campaigns(self.database, self.fleet.now)
        plan = Plan(
            (tuple(self.names),), success=0, max_errors=1, deadline_s=self.simulation.timeout_s
        )
        campaigns.create(offer, plan, "simulation")
        campaign, offer = campaigns.load(offer.campaign)
        router = Router(
            self.prefix,
            SLOT,
            Board(self.names),
            Answers(self.fleet.topics, library(self.fleet), self.names),
            Reports(),
        )
        inbox = inbox_for(self.prefix, len(self.names))
        rollout = Rollout(
            campaigns=campaigns,
            campaign=campaign,
            offer=offer,
            assigner=Assigner(
                self.database,
                self.fleet.directors(),
                offer,
                self.fleet.keys.unwrap(row.data_key),
                plan.deadline_s,
                self.fleet.now,
            ),
            sender=self.outlet,
            inbox=inbox,
            router=router,
            prefix=self.prefix,
            wall=self.fleet.now,
            monotonic=time.monotonic,
        )
        self.outlet.hear(router.filters, inbox)
        rollout.begin()
        return rollout


class _Meter:
    """The memory of this process, MB."""

    def __init__(self) -> None:
        self.begin = self.peak = _rss_mb()

    def look(self) -> float:
        now = _rss_mb()
        self.peak = max(self.peak, now)
        return now


def _rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * PAGE_MB, 1)
