"""What a pull does with time; the rest is tested with a real broker (tests/integration)."""

from __future__ import annotations

import pytest

from agent.update.fetchblocks import LOOK_S, Pull
from agent.update.staging import Staging
from agent.update.transfer import Transfer
from agent.wire.topics import FleetTopics
from tests.fakes.blocks import make_blocks

BUNDLE = "ab" * 16
STALL_S = 60.0
SOURCE = make_blocks(6, 64)


class EnoughError(Exception):
    """The test has seen what it wants."""


class ScriptedLink:
    """A link that is connected in those turns that a script says, each of which takes a while."""

    def __init__(self, script, turn_s):
        self.now = 0.0
        self.asked = []
        self._script = iter(script)
        self._turn_s = turn_s

    @property
    def connected(self):
        self.now += self._turn_s
        up = next(self._script, None)
        if up is None:
            raise EnoughError
        return up

    def subscribe_all(self, topics, _callback, _qos):
        self.asked.append([int(topic.rpartition("/")[2]) for topic in topics])

    def unsubscribe(self, topics):
        raise AssertionError("nothing has come")

    def counters(self):
        return {"connects": 1}


def run(tmp_path, monkeypatch, script, turn_s):
    monkeypatch.setattr("agent.update.fetchblocks.LOOK_S", 0.0)
    link = ScriptedLink(script, turn_s)
    requests = []
    with Staging(tmp_path, "a" * 64).blocks(SOURCE.index) as file:
        pull = Pull(
            topics=FleetTopics("x"),
            bundle=BUNDLE,
            index=SOURCE.index,
            transfer=Transfer(SOURCE.index, (), 2, STALL_S),
            file=file,
            window=2,
            ask=requests.append,
            tell=lambda *_: None,
            clock=lambda: link.now,
        )
        try:
            pull.over(link, lambda: None)
        except EnoughError:
            return link, requests, pull.counts(), False
        return link, requests, pull.counts(), True


@pytest.mark.parametrize(
    ("script", "stalls"),
    [
        ([True, True, True], 1),
        ([False] * 20, 0),
        # It has only just come back: what it was asked for is on its way.
        ([*[False] * 20, True], 0),
        ([*[False] * 20, True, True, True], 1),
    ],
)
def test_only_time_with_a_connection_makes_a_stall(tmp_path, monkeypatch, script, stalls):
    link, requests, counts, anew = run(tmp_path, monkeypatch, script, STALL_S / 2)
    assert not anew
    assert counts.stalls == len(requests) == stalls
    assert link.asked == [[0, 1]] * (1 + stalls)
    assert all(request.blocks == ((0, 1),) for request in requests)


def test_a_link_that_gives_nothing_is_left(tmp_path, monkeypatch):
    _, requests, counts, anew = run(tmp_path, monkeypatch, [True] * 20, STALL_S)
    assert anew
    assert len(requests) == 2
    assert counts.connects == 1


class FloodedLink(ScriptedLink):
    """Gives at once what is asked for, and time passes only while that is looked at."""

    def __init__(self, work_s):
        super().__init__([True] * 100, 0.0)
        self._work_s = work_s

    def subscribe_all(self, topics, callback, _qos):
        for topic in topics:
            callback(topic, SOURCE.blocks[int(topic.rpartition("/")[2])])

    def unsubscribe(self, topics):
        self.now += self._work_s


@pytest.mark.parametrize(("duty", "paused"), [(1.0, 0), (0.25, 0.3), (0.5, 0.1), (0.001, 0.2)])
def test_a_part_of_the_time_is_left_to_others(tmp_path, duty, paused):
    link = FloodedLink(0.1)
    pauses = []
    with Staging(tmp_path, "a" * 64).blocks(SOURCE.index) as file:
        pull = Pull(
            topics=FleetTopics("x"),
            bundle=BUNDLE,
            index=SOURCE.index,
            transfer=Transfer(SOURCE.index, (), 2, STALL_S),
            file=file,
            window=2,
            ask=lambda _request: None,
            tell=lambda *_: None,
            duty=duty,
            clock=lambda: link.now,
            pause=pauses.append,
        )
        pull.over(link, lambda: None)
    # A pause is never longer than it may take to notice that all is to stop.
    assert pauses == pytest.approx([min(paused, LOOK_S)] * 3 if paused else [])
