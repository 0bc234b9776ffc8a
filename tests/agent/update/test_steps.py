import threading

import pytest

from agent.errors import DamageError, ExpiredError, SignatureError, StoreError
from agent.update.machine import Failed, Fetched, Stopped
from agent.update.ports import UpdateCancelled
from agent.update.record import Record, State
from agent.update.steps import StepRunner
from engines.errors import BuildError

FETCHING = Record("main", State.FETCHING, counter=1)


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Steps:
    """A runner whose work waits for a word, or for its end."""

    def __init__(self, *, heeds: bool = True):
        self.clock = Clock()
        self.go = threading.Event()
        self.ended = threading.Event()
        self.cancels = 0
        self.result = Fetched()
        self._heeds = heeds
        self._cancelled = threading.Event()
        self.runner = StepRunner(self._work, self._cancel, self.ended.set, self.clock)

    def _work(self, _record, cancelled):
        if self._heeds:
            self._cancelled.wait(10)
            assert cancelled.is_set()
            raise UpdateCancelled
        self.go.wait(10)
        if isinstance(self.result, Exception):
            raise self.result
        return self.result

    def _cancel(self):
        self.cancels += 1
        self._cancelled.set()

    def finish(self):
        self.go.set()
        assert self.ended.wait(10)
        return self.runner.take()


def test_a_step_ends_with_what_its_work_says():
    steps = Steps(heeds=False)
    steps.runner.start(FETCHING, 60)
    assert steps.runner.record == FETCHING
    assert steps.runner.take() is None
    assert steps.finish() == (FETCHING, Fetched())
    assert steps.runner.record is None
    assert steps.runner.take() is None


@pytest.mark.parametrize(
    ("error", "blame"),
    [
        (SignatureError("forged"), True),
        (ExpiredError("late"), False),
        (DamageError("a bit has flipped"), False),
        (StoreError("full"), False),
        (BuildError("no memory"), False),
    ],
)
def test_a_failure_bans_the_bundle_only_if_the_bundle_is_at_fault(error, blame):
    steps = Steps(heeds=False)
    steps.result = error
    steps.runner.start(FETCHING, 60)
    assert steps.finish() == (FETCHING, Failed(str(error), blame=blame))


def test_a_mistake_of_ours_is_told_and_blames_nobody(caplog):
    steps = Steps(heeds=False)
    steps.result = ZeroDivisionError("oops")
    steps.runner.start(FETCHING, 60)
    _, event = steps.finish()
    assert event.reason.startswith("internal error: ZeroDivisionError")
    assert not event.blame
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("later", [Failed("later"), Stopped()])
def test_a_step_is_broken_off_with_the_first_event_given(later):
    steps = Steps()
    steps.runner.start(FETCHING, 60)
    steps.runner.break_off(Failed("first"))
    steps.runner.break_off(later)
    assert steps.ended.wait(10)
    assert steps.runner.take() == (FETCHING, Failed("first"))
    assert steps.cancels == 1


def test_a_step_that_was_to_rest_can_still_be_given_up():
    steps = Steps()
    steps.runner.start(FETCHING, 60)
    steps.runner.break_off(Stopped())
    steps.runner.break_off(Failed("an operator asked for it"))
    assert steps.ended.wait(10)
    assert steps.runner.take() == (FETCHING, Failed("an operator asked for it"))


def test_a_step_that_has_ended_meanwhile_is_still_broken_off():
    steps = Steps(heeds=False)
    steps.runner.start(FETCHING, 60)
    steps.go.set()
    assert steps.ended.wait(10)
    steps.runner.break_off(Failed("an operator asked for it"))
    assert steps.runner.take() == (FETCHING, Failed("an operator asked for it"))


def test_a_step_that_has_not_heard_is_told_again(caplog):
    steps = Steps(heeds=False)
    steps.runner.start(FETCHING, 60)
    steps.runner.break_off(Stopped())
    steps.runner.look()
    steps.runner.look()
    assert steps.cancels == 3
    assert steps.finish() == (FETCHING, Stopped())
    steps.runner.look()
    assert steps.cancels == 3


def test_nothing_is_broken_off_where_nothing_runs():
    steps = Steps()
    steps.runner.break_off(Stopped())
    assert steps.cancels == 0


def test_a_step_that_takes_too_long_fails():
    steps = Steps()
    steps.runner.start(FETCHING, 5.0)
    steps.runner.look()
    assert steps.cancels == 0
    steps.clock.now = 5.1
    steps.runner.look()
    assert steps.ended.wait(10)
    assert steps.runner.take() == (FETCHING, Failed("FETCHING took too long", blame=False))
