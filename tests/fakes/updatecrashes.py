"""Takes a device through many updates while its process is killed again and again.

A program of its own, so that it can fork: `python -m tests.fakes.updatecrashes FOLDER SEED`. The
forked child is the agent; it is killed with SIGKILL where `VIGIA_FAILPOINT` says, or at any moment.
After each kill the parent looks at what was left.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import time
from collections import Counter
from pathlib import Path

from agent.update import fallback
from agent.update.failpoints import VARIABLE
from agent.update.machine import Failed, advance, resume
from agent.update.record import State
from agent.update.store import Store
from tests.fakes.updates import way

PLACES = ("save.inside", "save.done", "fallback.written")
LAST = 30
"""Assignments of a device's life."""

STRAIGHT = 2
"""Assignments where each boundary is tried by itself."""

MAX_RUNS = 600
STATES = [State.IDLE, *(s for s in State if s.name not in {"IDLE", "REJECTED", "ROLLED_BACK"})]
SLOTS = ("a", "b")


class Plan:
    """How each assignment is to end, if no crash ends it otherwise; the same for one seed."""

    def __init__(self, seed: int, last: int = LAST) -> None:
        chance = random.Random(seed)
        ends = ["commit", "commit", "reject", "canary", "undo", "replaced"]
        self.counters = range(1, last + 1)
        self.ends = {n: chance.choice(ends) for n in self.counters}
        self.fails_at = {n: chance.choice(STATES[1:8]) for n in self.counters}
        self.slots = {n: chance.choice(SLOTS) for n in self.counters}


def live(folder: Path, plan: Plan) -> None:
    """The agent: goes on from what it finds, to the end of the plan."""
    store = Store(folder, time.time)
    for slot in SLOTS:
        store.save(resume(store.record(slot)))
    for counter in plan.counters:
        slot = plan.slots[counter]
        if store.last_counter(slot) < counter:
            store.save(advance(store.record(slot), way(counter)[0]))
        if store.record(slot).counter != counter:
            continue
        while not store.record(slot).resting:
            store.save(advance(store.record(slot), _next(plan, store, slot, counter)))
        undo = plan.ends[counter] == "undo" and store.record(slot).state is State.COMMITTED
        if undo and store.rollback_refusal(slot) is None:
            store.roll_back(slot, "undone")
    store.close()


def _next(plan, store, slot, counter):
    state = store.record(slot).state
    end = plan.ends[counter]
    if end in {"reject", "replaced"} and state is plan.fails_at[counter]:
        return Failed("as planned", blame=end == "reject")
    if end == "canary" and state is State.CANARY:
        return Failed("as planned")
    return way(counter)[STATES.index(state)]


class Watch:
    """What must hold after every kill."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.floors: dict[str, int] = {}
        self.counters = dict.fromkeys(SLOTS, 0)
        self.ended: list[tuple[str, int, State]] = []

    def look(self) -> None:
        store = Store(self.folder, time.time)
        try:
            floors = store.floors()
            assert all(floors[family] >= floor for family, floor in self.floors.items()), floors
            self.floors = floors
            past = list(reversed(store.history(1000)))
            ended = [(p.slot, p.counter, p.state) for p in past]
            assert ended[: len(self.ended)] == self.ended, "the history has changed"
            assert len(set(ended)) == len(ended), f"told twice: {ended}"
            self.ended = ended
            assert [p.id for p in store.unsigned_reports()] == [p.id for p in past]
            committed = [p.release_counter for p in past if p.state is State.COMMITTED]
            assert floors == ({"line": max(committed)} if committed else {})
            for slot in SLOTS:
                self._look_at(store, slot, ended)
            active = [store.active(slot) for slot in SLOTS]
            # The copy keeps whole seconds.
            assert list(fallback.read(self.folder)) == [
                dataclasses.replace(i, at=float(int(i.at))) for i in active if i is not None
            ]
        finally:
            store.close()

    def _look_at(self, store: Store, slot: str, ended: list[tuple[str, int, State]]) -> None:
        counter = store.last_counter(slot)
        assert counter >= self.counters[slot], "the counter fell"
        self.counters[slot] = counter
        record = store.record(slot)
        outcomes = {(c, s) for name, c, s in ended if name == slot}
        if record.resting and record.state is not State.IDLE:
            assert (record.counter, record.state) in outcomes, "an outcome without a report"
        else:
            assert not any(c == record.counter for c, _ in outcomes), "a report without outcome"
        undone = {c for c, s in outcomes if s is State.ROLLED_BACK}
        serving = [c for c, s in sorted(outcomes) if s is State.COMMITTED and c not in undone]
        active, previous = store.active(slot), store.previous(slot)
        assert (active.counter if active else None) == (serving[-1] if serving else None)
        if previous is not None:
            assert active is not None
            assert previous.counter < active.counter
        assert active is None or active.digest in store.kept()


def run_once(folder: Path, plan: Plan, order: str | None, delay_s: float | None) -> bool:
    """One life of the process; True if it came to the end of the plan."""
    child = os.fork()
    if child == 0:
        try:
            if order is not None:
                os.environ[VARIABLE] = order
            live(folder, plan)
        except BaseException:  # noqa: BLE001 - the exit code tells it
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    if delay_s is not None:
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in {0, -signal.SIGKILL}, f"the agent ended with {code} ({order})"
    return code == 0


def main(folder: Path, seed: int) -> None:
    chance = random.Random(seed)
    plan, watch, kills = Plan(seed), Watch(folder), 0
    for _ in range(MAX_RUNS):
        if chance.random() < 0.2:
            order, delay_s = None, chance.uniform(0, 0.05)
        else:
            order, delay_s = f"{chance.choice(PLACES)}:{chance.randint(1, 7)}", None
        done = run_once(folder, plan, order, delay_s)
        watch.look()
        kills += not done
        if done:
            break
    else:
        raise AssertionError(f"seed {seed}: no end after {MAX_RUNS} lives: {plan.ends}")
    outcomes = dict(Counter(state.value for _, _, state in watch.ended))
    sys.stdout.write(f"seed {seed}: {kills} kills, {outcomes}\n")


def boundaries(folder: Path) -> None:
    """A straight update, killed once at each place of each of its steps."""
    plan = Plan(0, STRAIGHT)
    plan.ends = dict.fromkeys(plan.counters, "undo")
    plan.slots = dict.fromkeys(plan.counters, "a")
    for place in PLACES:
        for count in range(1, 1000):
            state = folder / f"{place}.{count}"
            watch = Watch(state)
            done = run_once(state, plan, f"{place}:{count}", None)
            watch.look()
            if done:
                sys.stdout.write(f"{place}: {count - 1} boundaries\n")
                sys.stdout.flush()
                break
            assert run_once(state, plan, None, None)
            watch.look()
            finals = [s for _, c, s in watch.ended]
            assert finals == [State.COMMITTED, State.ROLLED_BACK] * STRAIGHT, (place, count)


if __name__ == "__main__":
    if sys.argv[2] == "boundaries":
        boundaries(Path(sys.argv[1]))
    else:
        main(Path(sys.argv[1]), int(sys.argv[2]))
