from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.intake import Ticket
from agent.pipeline.order import Sequencer
from tests.fakes.frames import frame, result
from tests.fakes.sink import ListSink


def ticket(order: int, skipped: int = 0, camera: str = "a") -> Ticket:
    return Ticket(frame(camera, order), order, skipped)


def test_a_result_waits_for_its_predecessor():
    sink = ListSink()
    sequencer = Sequencer(["a"], sink)
    first, second = ticket(0), ticket(1)
    sequencer.complete(second, result(second.frame))
    assert sink.results == []
    sequencer.complete(first, result(first.frame))
    assert [r.frame_index for r in sink.results] == [0, 1]


def test_one_camera_does_not_wait_for_another():
    sink = ListSink()
    sequencer = Sequencer(["a", "b"], sink)
    late = ticket(1, camera="a")
    sequencer.complete(late, result(late.frame))
    other = ticket(0, camera="b")
    sequencer.complete(other, result(other.frame))
    assert [r.camera for r in sink.results] == ["b"]


def test_dropped_and_skipped_frames_are_told_by_the_next_result():
    sink = ListSink()
    sequencer = Sequencer(["a"], sink)
    sequencer.complete(ticket(0, skipped=2), None)
    shown = ticket(1, skipped=1)
    sequencer.complete(shown, result(shown.frame))
    following = ticket(2)
    sequencer.complete(following, result(following.frame))
    assert [r.dropped for r in sink.results] == [4, 0]


@given(st.data(), st.integers(0, 30))
def test_any_order_of_finishing_gives_the_cameras_order_and_a_full_account(data, count):
    tickets = [ticket(i, data.draw(st.integers(0, 3))) for i in range(count)]
    kept = {i for i in range(count) if data.draw(st.booleans())}
    sink = ListSink()
    sequencer = Sequencer(["a"], sink)
    for t in data.draw(st.permutations(tickets)):
        sequencer.complete(t, result(t.frame) if t.order in kept else None)
    assert [r.frame_index for r in sink.results] == sorted(kept)
    last = max(kept, default=-1)
    told = sum(1 + r.dropped for r in sink.results)
    assert told == sum(1 + t.skipped for t in tickets[: last + 1])
