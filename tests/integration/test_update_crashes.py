"""kill -9 of the real agent at every place of an update, C0 to C11, and what holds afterwards.

The table is in docs/update-lifecycle.md. Several devices go through their crashes at once, each
with a folder of its own; a test waits for its device and judges it. `VIGIA_SEEDS=20` has each
point tried 20 times, at other moments.
"""

from __future__ import annotations

import os
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from agent.update import requests
from agent.update.record import State
from tests.fakes.updating import SLOT
from tests.integration.crashground import Ground
from tests.integration.crashing import SOON_S, WINDOW, Device, Seen
from tests.integration.mosquitto import Mosquitto
from tests.integration.relay import Relay
from tests.integration.subscriber import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from agent.bundle.documents import Report

SEEDS = int(os.environ.get("VIGIA_SEEDS", "2"))
"""How often each point is tried; 20 in the long run."""

AT_ONCE = 5
"""Devices. They wait more than they compute: two processors are kept busy by them."""

BLOCKS = 27

PLACES: Mapping[str, tuple[str, ...]] = {
    "C0": ("C0.refreshed", "C0.saving", "C0.saved"),
    "C1": ("C1.fetching", "C1.block:20"),
    "C2": ("C2.fetched",),
    "C3": ("C3.opening", "C3.opened"),
    "C4": ("C4.building",),
    "C5": ("C5.built",),
    "C6": ("C6.gating", "C6.shadowing"),
    "C7": ("C7.canary", "C7.healthy"),
    "C8": ("C8.committing", "C8.committed"),
    "C9": ("C9.restoring", "C9.switching"),
    "C11": ("C11.unsent", "C11.sent"),
}

AFTER_COMMIT = {"C8.committed", "C11.unsent", "C11.sent"}
"""Places where the commit was made. Everywhere else the previous model must serve."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def orders(point: str, count: int) -> list[str]:
    """Where the agent is killed: exactly at each place first, then at moments after it."""
    places = PLACES[point]
    if point == "C1":
        # All blocks come within milliseconds: so at other blocks.
        others = random.Random(1).sample(range(1, BLOCKS), BLOCKS - 1)
        later = [f"C1.block:{number}" for number in others if f"C1.block:{number}" not in places]
    else:
        later = [f"{places[seed % len(places)]}@{seed}" for seed in range(1, 1 + count)]
    return [*places, *later][: max(count, len(places))]


STRAIGHT = [order for point in PLACES if point != "C9" for order in orders(point, SEEDS)]
BACK = orders("C9", SEEDS)

DAMAGES: Mapping[str, Callable[[bytes], bytes]] = {
    "C5.built, half of it written": lambda plan: plan[: len(plan) // 2],
    "C5.built, a bit turned": lambda plan: plan[:-1] + bytes([plan[-1] ^ 1]),
}
"""What the power cut has left of the engine that was built last."""

BUILDS = "C4.building, C4.building"
TRIALS = "C7.canary, C7.canary"


@dataclass(frozen=True)
class Life:
    """One that was ended by a kill.

    Attributes:
        pid: of its process.
        seen: what the device remembers.
        leaks: files on its disk with plaintext or a key.
        open: whether plaintext was found where it left it in memory.
    """

    pid: int
    seen: Seen
    leaks: list[str]
    open: bool


@dataclass
class Evidence:
    """What a device is judged by."""

    before: Seen
    counter: int
    killed: list[Life] = field(default_factory=list)
    after: Seen | None = None
    served: list[list[str]] = field(default_factory=list)
    gaps: list[list[int]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    pulled: Mapping[int, int] = field(default_factory=dict)
    leaks: list[str] = field(default_factory=list)
    left: list[Path] = field(default_factory=list)
    replayed: set[str] = field(default_factory=set)
    plans: list[bytes] = field(default_factory=list)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    folder = tmp_path_factory.mktemp("crashes")
    with Mosquitto(folder / "broker", {"plain": ("allow_anonymous true",)}) as broker:
        made = Ground(folder, broker, "test/crashes")
        made.offer()
        yield made


@pytest.fixture(scope="module")
def evidence(ground: Ground, request: pytest.FixtureRequest) -> Iterator[Callable[[str], Evidence]]:
    """What has become of a device, by the name of its crash; all begin at once."""
    ours = [item for item in request.session.items if item.path == request.path]
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = {
            name: pool.submit(CRASHES[name], ground, name)
            for name in (item.callspec.params["crash"] for item in ours)
        }
        yield lambda name: running[name].result()
        pool.shutdown(cancel_futures=True)


# --- what happens -------------------------------------------------------------------------------


def once(ground: Ground, name: str) -> Evidence:
    """Assigned release 2, killed once."""
    with Device(ground, name) as device:
        found = begin(device)
        found.killed.append(life(device, name))
        device.start()
        return finish(device, found, "COMMITTED")


def twice(ground: Ground, name: str) -> Evidence:
    """Killed at the same place in two lives."""
    with Device(ground, name) as device:
        found = begin(device)
        for order in name.split(", "):
            found.killed.append(life(device, order))
        device.start()
        return finish(device, found, "REJECTED")


def twice_without_network(ground: Ground, name: str) -> Evidence:
    """Likewise, and then there is no broker until it has decided."""
    with Device(ground, name) as device, Relay(ground.broker.port) as relay:
        found = begin(device)
        for order in name.split(", "):
            found.killed.append(life(device, order))
        relay.cut()
        device.port = relay.port
        device.start()
        until(lambda: device.look().record.state is State.ROLLED_BACK, SOON_S)
        relay.join()
        finish(device, found, "ROLLED_BACK")
        found.replayed = device.replayed()
        return found


def torn(ground: Ground, name: str) -> Evidence:
    """The power cut has left a damaged engine in the cache."""
    with Device(ground, name) as device:
        found = begin(device)
        found.killed.append(life(device, "C5.built"))
        (plan,) = device.plans()
        found.plans.append(plan.read_bytes())
        damaged = DAMAGES[name](found.plans[0])
        plan.write_bytes(damaged)
        found.plans.append(damaged)
        device.start()
        finish(device, found, "COMMITTED")
        found.plans += [path.read_bytes() for path in device.plans()]
        return found


def rolled_back(ground: Ground, name: str) -> Evidence:
    """Release 2 is active, and somebody at the command line wants release 1 back."""
    with Device(ground, name) as device:
        device.commit(ground.old)
        device.commit(ground.new)
        found = Evidence(device.look(), device.counter)
        asked = requests.Request(slot=SLOT, digest=ground.new.digest, reason="asked for", at=1)
        requests.ask(device.fleet.state, asked)
        found.killed.append(life(device, name))
        device.start()
        return finish(device, found, "ROLLED_BACK")


def begin(device: Device) -> Evidence:
    device.commit(device.ground.old)
    device.assign(device.ground.new)
    return Evidence(device.look(), device.counter)


def life(device: Device, order: str) -> Life:
    device.start(order)
    pid = device.wait_killed()
    return Life(pid, device.look(), device.leaks(), device.shows(device.opened(pid)))


def finish(device: Device, found: Evidence, ends: str) -> Evidence:
    device.wait_serving()
    device.wait_outcome(ends)
    last = device.ground.digest(2 if ends == "COMMITTED" else 1)
    device.wait(lambda _: device.lives_served()[-1][-1] == last)
    found.left = [folder for killed in found.killed for folder in device.opened(killed.pid)]
    device.stop()
    found.after = device.look()
    found.served = device.lives_served()
    found.gaps = device.gaps()
    found.reports = device.reports()
    found.pulled = device.pulled()
    found.leaks = device.leaks()
    return found


CRASHES: Mapping[str, Callable[[Ground, str], Evidence]] = {
    **dict.fromkeys(STRAIGHT, once),
    **dict.fromkeys(BACK, rolled_back),
    **dict.fromkeys(DAMAGES, torn),
    BUILDS: twice,
    TRIALS: twice_without_network,
}


# --- what holds ---------------------------------------------------------------------------------


def check(ground: Ground, found: Evidence, ends: State) -> None:
    """What holds whatever the crash."""
    old, new = ground.old.digest, ground.new.digest
    after, last = found.after, found.before
    assert after is not None
    for killed in found.killed:
        seen = killed.seen
        assert seen.floor >= last.floor, "the floor fell"
        assert seen.time_floor >= last.time_floor, "the time floor fell"
        assert seen.trust in (found.before.trust, after.trust), "metadata were mixed"
        assert killed.leaks == [], "plaintext or a key is on the disk"
        # Else a search that finds nothing says nothing.
        assert killed.open, "no plaintext was found where it was"
        last = seen
    assert after.floor >= last.floor, "the floor fell"
    assert after.time_floor >= last.time_floor, "the time floor fell"
    assert after.record.state is ends
    assert after.active == (new if ends is State.COMMITTED else old)
    assert found.leaks == [], "plaintext or a key is on the disk"
    assert found.left == [], "what the dead had opened in memory was left"
    assert found.gaps == [], "frames were lost"
    reported = [r.outcome for r in found.reports if r.counter == found.counter]
    assert reported == [ends.value], "not exactly one report"
    outcomes = [p.state for p in after.history if p.counter == found.counter]
    assert outcomes.count(ends) == 1, "not exactly one line of history"


@pytest.mark.parametrize("crash", STRAIGHT)
def test_an_update_goes_on_after_a_crash_as_if_there_was_none(ground, evidence, crash):
    found = evidence(crash)
    check(ground, found, State.COMMITTED)
    (killed,) = found.killed
    committed = is_committed(ground, found, killed.seen)
    if "@" not in crash:
        assert committed == (crash in AFTER_COMMIT)
    models = [ground.digest(2)] if committed else [ground.digest(1), ground.digest(2)]
    assert found.served[-1] == models, "something else served after the crash"
    fetching = killed.seen.record.state is State.FETCHING and crash != "C2.fetched"
    again = sum(found.pulled.values()) - len(found.pulled)
    assert len(found.pulled) == BLOCKS
    assert again <= (WINDOW if fetching else 0), "too many blocks were pulled twice"


def is_committed(ground: Ground, found: Evidence, seen: Seen) -> bool:
    """Whether the commit was made; with it, everything that belongs to it, else nothing."""
    committed = seen.active == ground.new.digest
    outcome = (seen.record.state, seen.record.counter) == (State.COMMITTED, found.counter)
    assert outcome == committed
    assert seen.floor == (2 if committed else 1)
    assert seen.previous == (ground.old.digest if committed else None)
    assert [p.counter for p in seen.history].count(found.counter) == committed
    return committed


@pytest.mark.parametrize("crash", DAMAGES)
def test_an_engine_that_was_not_written_whole_is_built_again(ground, evidence, crash):
    found = evidence(crash)
    check(ground, found, State.COMMITTED)
    _, damaged, *after = found.plans
    assert len(after) == 1
    assert damaged not in after


@pytest.mark.parametrize("crash", BACK)
def test_a_rollback_goes_on_after_a_crash(ground, evidence, crash):
    found = evidence(crash)
    check(ground, found, State.ROLLED_BACK)
    (killed,) = found.killed
    done = killed.seen.active == ground.old.digest
    assert done == (killed.seen.record.state is State.ROLLED_BACK)
    if "@" not in crash:
        assert done == (crash == "C9.switching")
    if done:
        assert found.served[-1] == [ground.digest(1)]
    assert found.after is not None
    assert found.after.floor == 2
    assert found.after.quarantined


@pytest.mark.parametrize("crash", [BUILDS])
def test_the_second_crash_of_a_build_rejects(ground, evidence, crash):
    found = evidence(crash)
    check(ground, found, State.REJECTED)
    assert all(models == [ground.digest(1)] for models in found.served)
    assert "in 2 attempts to build it" in found.after.quarantined


@pytest.mark.parametrize("crash", [TRIALS])
def test_the_second_crash_of_a_trial_rolls_back_without_a_network(ground, evidence, crash):
    found = evidence(crash)
    check(ground, found, State.ROLLED_BACK)
    assert found.served[-1] == [ground.digest(1)]
    assert found.replayed == {ground.digest(1)}
    assert "in 2 trials" in found.after.quarantined
