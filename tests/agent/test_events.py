from agent.events import KEPT, Events


def test_what_is_told_is_handed_on_kept_and_counted():
    handed = []
    events = Events(handed.append)
    events.tell("stall", "error", "camera door: no frame", age_s=3.0)
    assert handed == list(events.recent())
    assert (handed[0].kind, handed[0].data) == ("stall", {"age_s": 3.0})
    assert events.counters() == {"stall": 1}


def test_only_the_newest_are_kept():
    events = Events(lambda _event: None)
    for number in range(KEPT + 5):
        events.tell("agent", "info", str(number))
    assert next(e.what for e in events.recent()) == "5"
    assert events.counters() == {"agent": KEPT + 5}


def test_a_failure_of_who_hands_on_does_not_reach_who_tells(caplog):
    def broken(_event):
        raise RuntimeError("no")

    events = Events(broken)
    events.tell("agent", "info", "started")
    assert "could not be handed on" in caplog.text
    assert events.counters() == {"agent": 1, "untold": 1}
