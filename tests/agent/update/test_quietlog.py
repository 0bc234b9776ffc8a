import logging

from agent.update.quietlog import BURST, EVERY_S, SAME_S, QuietLog

log = logging.getLogger("tests.quiet")


def lines(caplog):
    return [record.getMessage() for record in caplog.records]


def test_a_flood_of_different_lines_is_logged_now_and_then(caplog):
    now = [0.0]
    quiet = QuietLog(log, lambda: now[0])
    for number in range(1000):
        quiet.say(logging.WARNING, "assignment", f"line {number}")
    assert lines(caplog) == [f"updates: line {number}" for number in range(BURST)]
    now[0] += EVERY_S
    for number in range(1000, 1010):
        quiet.say(logging.WARNING, "assignment", f"line {number}")
    assert lines(caplog)[BURST:] == ["updates: line 1000 (990 lines like it were left out)"]


def test_what_stays_the_same_is_logged_once_an_hour(caplog):
    now = [0.0]
    quiet = QuietLog(log, lambda: now[0])
    for second in range(0, int(2 * SAME_S), 2):
        now[0] = float(second)
        quiet.say(logging.ERROR, "state", "the disk is full")
    left_out = int(SAME_S / 2) - 1
    assert lines(caplog) == [
        "updates: the disk is full",
        f"updates: the disk is full ({left_out} lines like it were left out)",
    ]


def test_one_kind_does_not_silence_another(caplog):
    quiet = QuietLog(log, lambda: 0.0)
    for number in range(100):
        quiet.say(logging.WARNING, "command", f"line {number}")
    quiet.say(logging.ERROR, "state", "the disk is full")
    assert lines(caplog)[-1] == "updates: the disk is full"
