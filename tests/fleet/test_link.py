import threading

import pytest

from agent.config import MqttConfig
from agent.errors import BrokerError
from fleet.link import MAX_INBOX_MESSAGE_BYTES, SENDER_MESSAGES, Inbox, Outlet
from tests.integration.mosquitto import Mosquitto
from tests.integration.ports import free_port
from tests.integration.subscriber import Subscriber

BLOCK = bytes(65_536)


@pytest.fixture
def broker(tmp_path):
    with Mosquitto(tmp_path / "broker", {"plain": ("allow_anonymous true",)}) as running:
        yield running


@pytest.fixture
def outlet(broker):
    with Outlet(MqttConfig(host="127.0.0.1", port=broker.port), patience_s=10) as made:
        yield made


class TestOutlet:
    def test_more_messages_than_the_queue_holds_all_arrive(self, broker, outlet):
        _send(outlet, 500)
        outlet.settle()
        with Subscriber(broker.port, "t/#", qos=1) as reader:
            messages = reader.wait_count(500)
        assert {m.topic for m in messages} == {f"t/{n}" for n in range(500)}
        assert all(m.retain and m.payload == BLOCK for m in messages)

    def test_outlives_a_restart_of_the_broker(self, tmp_path):
        broker = Mosquitto(tmp_path / "b", {"plain": ("allow_anonymous true",)})
        broker.start()
        config = MqttConfig(host="127.0.0.1", port=broker.port, reconnect_initial_s=0.1)
        with Outlet(config, patience_s=20) as outlet, Subscriber(broker.port, "t/#", 1) as reader:
            outlet.send("t/1", b"1")
            reader.wait_count(1)
            broker.kill()
            broker.start()
            reader.wait_subscribed()
            outlet.send("t/2", b"2")
            outlet.settle()
            reader.wait_for(lambda messages: any(m.payload == b"2" for m in messages))
        broker.kill()

    def test_no_broker_is_told_at_once(self):
        outlet = Outlet(MqttConfig(host="127.0.0.1", port=free_port()), patience_s=10)
        with pytest.raises(BrokerError, match="nothing listens"), outlet:
            pass

    def test_a_broker_that_takes_nothing_is_given_up(self, broker):
        config = MqttConfig(host="127.0.0.1", port=broker.port)
        with Outlet(config, patience_s=0.3) as outlet:
            broker.pause()
            with pytest.raises(BrokerError, match=r"nothing for 0\.3 s"):
                _send(outlet, 2000)
            broker.resume()

    def test_what_the_broker_refuses_is_an_error(self, tmp_path):
        acl = tmp_path / "acl"
        acl.write_text("topic write allowed/#\n")
        lines = ("allow_anonymous true", f"acl_file {acl}")
        with Mosquitto(tmp_path / "b", {"plain": lines}) as broker:
            config = MqttConfig(host="127.0.0.1", port=broker.port)
            with Outlet(config, patience_s=10) as outlet:
                outlet.send("allowed/1", b"1")
                outlet.settle()
                outlet.send("elsewhere", b"1")
                with pytest.raises(BrokerError, match=r"1 refused.*access list"):
                    outlet.settle()

    def test_what_is_heard_is_in_the_inbox(self, broker, outlet):
        inbox = Inbox()
        outlet.hear(("t/+",), inbox)
        outlet.send("t/1", b"retained")
        assert inbox.take(10) == [("t/1", b"retained")]


def _send(outlet, count):
    for number in range(count):
        outlet.send(f"t/{number}", BLOCK)


class TestInbox:
    def test_a_flood_is_bounded_and_counted(self):
        inbox = Inbox("p", room=10)
        for number in range(1000):
            inbox.put(f"p/d{number}/update/report/main", b"")
        assert len(inbox.take(0)) == 10
        assert inbox.dropped == {"too many": 990}

    def test_nobody_fills_it_alone(self):
        inbox = Inbox("p")
        for number in range(10_000):
            inbox.put(f"p/rogue/update/state/{number}", b"")
        inbox.put("p/honest/update/report/main", b"1")
        messages = inbox.take(0)
        assert len(messages) == SENDER_MESSAGES + 1
        assert messages[-1] == ("p/honest/update/report/main", b"1")
        assert inbox.dropped == {"too many of one device": 10_000 - SENDER_MESSAGES}

    def test_what_was_taken_makes_room(self):
        inbox = Inbox("p", room=2)
        for _ in range(3):
            inbox.put("p/d/a", b"1")
            assert inbox.take(0) == [("p/d/a", b"1")]
        assert inbox.dropped == {}

    def test_what_is_too_large_never_gets_in(self):
        inbox = Inbox()
        inbox.put("t", bytes(MAX_INBOX_MESSAGE_BYTES + 1))
        assert inbox.take(0) == []
        assert inbox.dropped == {"too large": 1}

    def test_waits_for_a_message(self):
        inbox = Inbox()
        threading.Timer(0.05, inbox.put, ("t", b"1")).start()
        assert inbox.take(10) == [("t", b"1")]
