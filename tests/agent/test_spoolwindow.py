from __future__ import annotations

from agent.spoolitem import Item
from agent.spoolwindow import MAX_OFFERS, RESEND_S, Window


def test_what_is_never_acknowledged_is_offered_a_few_times_and_given_up():
    now = [0.0]
    window = Window(lambda: now[0])
    item = Item(7, "b", "", 7, 0, False, 0.0, b"")
    window.sent(item, 3, stored=True)
    offers = 1
    while window.keys():
        now[0] += RESEND_S
        for again in window.overdue(connected=True):
            window.again(again.key)
            offers += 1
        gone = window.hopeless()
    assert (offers, gone, window.given_up) == (MAX_OFFERS, [7], 1)


def test_time_without_a_connection_does_not_count():
    now = [0.0]
    window = Window(lambda: now[0])
    window.sent(Item(7, "b", "", 7, 0, False, 0.0, b""), 7, stored=False)
    for _ in range(20):
        now[0] += RESEND_S
        assert window.overdue(connected=False) == []
        assert window.hopeless() == []
    assert window.overdue(connected=True) == []
    assert window.acknowledged([7, 7, 8]) == [(7, False)]
