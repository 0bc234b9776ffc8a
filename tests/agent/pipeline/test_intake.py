from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from agent.pipeline.intake import Intake
from tests.fakes.frames import frame


def live(*names: str) -> Intake:
    return Intake(dict.fromkeys(names, False), queue_frames=2)


def test_the_newest_live_frame_wins_and_the_others_are_counted():
    intake = live("a")
    for index in range(4):
        assert intake.put(frame("a", index))
    (ticket,) = intake.take(1)
    assert (ticket.frame.index, ticket.order, ticket.skipped) == (3, 0, 3)


def test_a_lossless_camera_waits_for_room():
    intake = Intake({"a": True}, queue_frames=2)
    assert intake.put(frame("a", 0))
    assert intake.put(frame("a", 1))
    third = threading.Thread(target=lambda: intake.put(frame("a", 2)))
    third.start()
    assert [t.frame.index for t in intake.take(1)] == [0]
    third.join(10)
    assert not third.is_alive()
    assert [t.frame.index for t in intake.take(4)] == [1, 2]


def test_closing_wakes_a_camera_that_waits_for_room_and_refuses_its_frame():
    intake = Intake({"a": True}, queue_frames=1)
    intake.put(frame("a", 0))
    taken: list[bool] = []
    waiting = threading.Thread(target=lambda: taken.append(intake.put(frame("a", 1))))
    waiting.start()
    intake.close()
    waiting.join(10)
    assert taken == [False]


def test_what_waits_at_closing_is_still_given_out_and_then_the_end():
    intake = live("a")
    intake.put(frame("a", 7))
    intake.close()
    assert [t.frame.index for t in intake.take(1)] == [7]
    assert intake.take(1) == []


def test_a_worker_that_waits_is_told_when_the_last_camera_ends():
    intake = live("a", "b")
    ended: list[list[object]] = []
    worker = threading.Thread(target=lambda: ended.append(list(intake.take(1))))
    worker.start()
    intake.end("a")
    intake.end("b")
    worker.join(10)
    assert ended == [[]]


def test_cameras_take_turns_however_fast_one_is():
    intake = live("fast", "slow")
    seen = []
    for index in range(6):
        intake.put(frame("fast", 2 * index))
        intake.put(frame("slow", index))
        intake.put(frame("fast", 2 * index + 1))
        seen += [t.frame.camera for t in intake.take(1)]
    assert seen.count("fast") == seen.count("slow") == 3


def test_frames_that_wait_together_are_taken_together_one_a_camera_first():
    intake = Intake({"a": False, "b": False, "file": True}, queue_frames=4)
    for index in range(3):
        intake.put(frame("file", index))
    intake.put(frame("a"))
    intake.put(frame("b"))
    tickets = intake.take(4)
    assert [t.frame.camera for t in tickets] == ["a", "b", "file", "file"]


def test_a_newer_live_frame_takes_the_tickets_place_and_the_old_one_is_counted():
    intake = live("a")
    intake.put(frame("a", 0))
    (ticket,) = intake.take(1)
    assert intake.newer(ticket) is None
    intake.put(frame("a", 1))
    intake.put(frame("a", 2))
    newer = intake.newer(ticket)
    assert newer is not None
    assert (newer.frame.index, newer.order, newer.skipped) == (2, 0, 2)


def test_a_lossless_frame_is_never_exchanged():
    intake = Intake({"a": True}, queue_frames=2)
    intake.put(frame("a", 0))
    intake.put(frame("a", 1))
    (ticket,) = intake.take(1)
    assert intake.newer(ticket) is None


def test_only_the_cameras_last_ticket_is_exchanged_so_that_frames_stay_in_order():
    intake = live("a")
    tickets = []
    for index in range(2):
        intake.put(frame("a", index))
        tickets += intake.take(1)
    intake.put(frame("a", 2))
    assert intake.newer(tickets[0]) is None
    newer = intake.newer(tickets[1])
    assert newer is not None
    assert newer.frame.index == 2


def test_who_is_not_wanted_any_more_is_woken_and_gets_nothing():
    intake = live("a")
    wanted = threading.Event()
    wanted.set()
    taken: list[list[object]] = []
    worker = threading.Thread(target=lambda: taken.append(list(intake.take(1, wanted.is_set))))
    worker.start()
    wanted.clear()
    intake.wake()
    worker.join(10)
    assert taken == [[]]
    intake.put(frame("a", 0))
    assert intake.take(1, wanted.is_set) == []
    assert [t.frame.index for t in intake.take(1)] == [0]


def test_a_frame_that_wakes_somebody_retired_goes_to_somebody_who_is_not():
    intake = live("a")
    wanted = threading.Event()
    wanted.set()
    asked = threading.Semaphore(0)

    def retiring() -> bool:
        asked.release()
        return wanted.is_set()

    def staying() -> bool:
        asked.release()
        return True

    taken: list[int] = []

    def work(wanted) -> None:
        taken.extend(t.frame.index for t in intake.take(1, wanted))

    workers = [threading.Thread(target=work, args=(w,)) for w in (retiring, staying)]
    for worker in workers:
        worker.start()
        assert asked.acquire(timeout=10)
    # Whoever waits first is woken by the frame; he is retired and must pass it on.
    wanted.clear()
    intake.put(frame("a", 0))
    for worker in reversed(workers):
        worker.join(10)
        assert not worker.is_alive()
    assert taken == [0]


def test_discarding_counts_by_camera_and_makes_room():
    intake = Intake({"a": True, "b": False}, queue_frames=2)
    intake.put(frame("a", 0))
    intake.put(frame("a", 1))
    assert intake.discard() == {"a": 2, "b": 0}
    assert intake.put(frame("a", 2))


@given(st.lists(st.sampled_from(["put a", "put b", "take 1", "take 2", "newer"]), max_size=60))
def test_every_frame_put_is_either_taken_or_counted_as_skipped(steps: list[str]):
    intake = live("a", "b")
    put = {"a": 0, "b": 0}
    accounted = {"a": 0, "b": 0}
    held = []
    for step in steps:
        if step.startswith("put"):
            camera = step[-1]
            intake.put(frame(camera, put[camera]))
            put[camera] += 1
        elif step.startswith("take") and put["a"] + put["b"] > sum(accounted.values()) + len(held):
            waiting = sum(1 for box in intake._boxes.values() if box.waiting)
            if waiting:
                held += intake.take(int(step[-1]))
        elif step == "newer" and held:
            held[-1] = intake.newer(held[-1]) or held[-1]
    intake.close()
    while tickets := intake.take(9):
        held += tickets
    for ticket in held:
        accounted[ticket.frame.camera] += 1 + ticket.skipped
    assert accounted == put
    for camera in "ab":
        assert [t.order for t in held if t.frame.camera == camera] == list(
            range(sum(t.frame.camera == camera for t in held))
        )
