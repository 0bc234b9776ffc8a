import threading

from agent.bundle.documents import MAX_ENVELOPE_BYTES
from agent.bundle.trustmessage import MAX_MESSAGE_BYTES
from agent.update.inbox import MAX_COMMANDS, Inbox


def test_of_trust_messages_and_assignments_the_newest_is_kept():
    inbox = Inbox()
    for payload in (b"1", b"2"):
        inbox.trust("t", payload)
        inbox.assignment("a", payload)
        inbox.command("c", payload)
    arrived = inbox.take()
    assert (arrived.trust, arrived.assignment, arrived.commands) == (b"2", b"2", (b"1", b"2"))
    again = inbox.take()
    assert (again.trust, again.assignment, again.commands) == (None, None, ())


def test_that_an_assignment_was_taken_back_arrives_too():
    inbox = Inbox()
    inbox.assignment("a", b"1")
    inbox.assignment("a", b"")
    assert inbox.take().assignment == b""
    assert inbox.take().assignment is None


def test_of_settings_the_newest_is_kept_and_an_empty_message_is_none():
    inbox = Inbox()
    for payload in (b"1", b"2", b""):
        inbox.settings("s", payload)
    assert inbox.take().settings == b"2"
    assert inbox.take().settings is None
    inbox.settings("s", bytes(MAX_ENVELOPE_BYTES + 1))
    assert inbox.take().settings is None
    assert inbox.refused == {"too_large": 1}


def test_what_is_too_large_or_too_many_is_counted_and_not_kept():
    inbox = Inbox()
    inbox.trust("t", bytes(MAX_MESSAGE_BYTES + 1))
    inbox.assignment("a", bytes(MAX_ENVELOPE_BYTES + 1))
    inbox.command("c", bytes(MAX_ENVELOPE_BYTES + 1))
    for _ in range(MAX_COMMANDS + 2):
        inbox.command("c", b"x")
    assert inbox.refused == {"too_large": 3, "too_many": 2}
    arrived = inbox.take()
    assert (arrived.trust, arrived.assignment, len(arrived.commands)) == (None, None, MAX_COMMANDS)


def test_whatever_arrives_ends_the_wait():
    for arrive in (
        lambda inbox: inbox.trust("t", b"x"),
        lambda inbox: inbox.assignment("a", b"x"),
        lambda inbox: inbox.command("c", b"x"),
        lambda inbox: inbox.poke(),
        lambda inbox: inbox.close(),
    ):
        inbox = Inbox()
        thread = threading.Thread(target=inbox.wait, args=(60,))
        thread.start()
        arrive(inbox)
        thread.join(10)
        assert not thread.is_alive()


def test_a_poke_ends_one_wait_only():
    inbox = Inbox()
    inbox.poke()
    inbox.wait(60)
    inbox.wait(0.0)
    assert not inbox.closed
