"""A hostile broker between the controller's bytes and a device that fetches them.

It is a real Mosquitto behind a relay that alters what it delivers; see `tests.fakes.adversary`. The
fetcher alone meets such a broker in tests/integration/test_fetch.py.
"""

from __future__ import annotations

import os
import random

import pytest

from agent.bundle.manifest import BLOCK_BYTES, bundle_id, parse_manifest
from agent.config import MqttConfig
from agent.update.fetch import Fetcher
from agent.update.staging import FOLDER
from agent.wire.topics import FleetTopics
from tests.fakes.adversary import EVIL, forge_payload
from tests.fakes.updating import DEVICE
from tests.integration.agents import detections, has
from tests.integration.mqttrelay import Mangler, MqttRelay
from tests.integration.pieces import Pieces
from tests.integration.updates import QUICK, Fleet
from tests.vectors import conveyors
from tests.vectors.bundles import tiny_model

BLOCKS = 20
STALL_S = 0.3
HUGE_BYTES = 4 * 2**20
TOPICS = FleetTopics("vigia/v1")


class Impatient(Fetcher):
    """Asks again soon for what the broker has swallowed."""

    def blocks(self, bundle, index, staging, window, _stall_s, tell, cancelled):
        return super().blocks(bundle, index, staging, window, STALL_S, tell, cancelled)


class Broker:
    """The hostile broker.

    Attributes:
        attack: gives the messages that are delivered in the place of one; None: it is honest.
    """

    def __init__(self, stand, port):
        self.attack = None
        self.packed = stand.release(EVIL, BLOCKS * BLOCK_BYTES)
        self.pieces = stand.controller.pieces(self.packed)
        self.other = stand.controller.pieces(stand.before)
        self._port = port
        self._topic = TOPICS.block(bundle_id(self.packed.digest), 0).rpartition("/")[0]

    def answer(self, _request=None):
        """The controller publishes everything again."""
        with Pieces(self._port, TOPICS) as made:
            made.put(self.pieces.items())

    def mangler(self):
        broker = self

        class Hostile(Mangler):
            def __init__(self):
                self._held = []
                self._random = random.Random(1)

            def take(self, message):
                if broker.attack == "lossy":
                    return self._lossy(message)
                return (message,) if broker.attack is None else broker.attack(message)

            def idle(self):
                out, self._held = self._held, []
                self._random.shuffle(out)
                return out

            def _lossy(self, message):
                """Loses, repeats, empties and holds back until they are in another order."""
                if message.block is None:
                    return (message, message)
                fate = self._random.random()
                if fate < 0.05:
                    return ()
                self._held += [message, message] if fate < 0.3 else [message]
                if fate > 0.8:
                    self._held.append(message.saying(b""))
                return self.idle() if len(self._held) > 5 else ()

        return Hostile()

    def block(self, number):
        return self.pieces[f"{self._topic}/{number}"]


@pytest.fixture
def broker(stand, own_mosquitto):
    port = own_mosquitto().port
    made = Broker(stand, port)
    made.answer()
    stand.site.stop()
    with MqttRelay(port, made.mangler) as relay:
        config = MqttConfig(host="127.0.0.1", port=relay.port, reconnect_initial_s=0.02)
        stand.site.fetcher = Impatient(config, DEVICE, TOPICS, made.answer)
        stand.site.start()
        stand.site.trust()
        yield made
        stand.site.proofs.cancel()
        stand.site.fetcher.close()


def test_a_broker_that_loses_repeats_and_reorders_delays_only(stand, broker):
    broker.attack = "lossy"
    stand.commit(broker.packed)
    stand.no_plaintext()


def only_blocks(change):
    """An attack that says something else in the place of blocks."""

    def make(broker, stand):
        def attack(message):
            if message.block is None:
                return (message,)
            return (message.saying(change(broker, stand, message)),)

        return attack

    return make


def forged_by_an_insider(broker, _stand, message):
    manifest = parse_manifest(broker.packed.manifest)
    ballast = random.Random(0).randbytes(BLOCKS * BLOCK_BYTES)
    forged = forge_payload(manifest, broker.packed.data_key, tiny_model(EVIL + 1) + ballast)
    assert len(forged) == manifest.ciphertext.length
    at = message.block * BLOCK_BYTES
    return forged[at : at + BLOCK_BYTES]


def other_piece(kind):
    """A manifest or an index that is another bundle's."""

    def make(broker, _stand):
        def attack(message):
            if not message.topic.endswith(f"/{kind}"):
                return (message,)
            (other,) = (data for topic, data in broker.other.items() if topic.endswith(kind))
            return (message.saying(other),)

        return attack

    return make


LIES = {
    "truncated": only_blocks(lambda _broker, _stand, message: message.payload[:-1]),
    "lengthened": only_blocks(lambda _broker, _stand, message: message.payload + b"x"),
    "one bit": only_blocks(
        lambda _broker, _stand, message: message.payload[:-1] + bytes([message.payload[-1] ^ 1])
    ),
    "garbage": only_blocks(lambda *_: os.urandom(BLOCK_BYTES)),
    "swapped": only_blocks(
        lambda broker, _stand, message: broker.block((message.block + 1) % BLOCKS)
    ),
    "replayed": only_blocks(
        lambda broker, _stand, _message: next(
            data for topic, data in broker.other.items() if topic.endswith("/block/0")
        )
    ),
    "forged by an insider": only_blocks(forged_by_an_insider),
    "another manifest": other_piece("manifest"),
    "another index": other_piece("index"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_broker_that_delivers_something_else_gets_nothing_in_and_bans_nothing(stand, broker, lie):
    broker.attack = LIES[lie](broker, stand)
    reason = stand.rejected(stand.assigned(broker.packed))
    assert "somebody" in reason
    assert stand.site.store.quarantined(broker.packed.digest) is None
    assert stand.site.proofs.stages.count("build") == 2
    assert not (stand.site.state / FOLDER / broker.packed.digest).exists()
    # It is honest again: the same bundle gets in.
    broker.attack = None
    stand.commit(broker.packed)
    stand.no_plaintext()


# --- the real agent -------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_huge_and_garbage_messages_on_all_that_an_agent_hears_keep_no_update_out(
    tmp_path, mosquitto, prefix, subscriber, agents
):
    fleet = Fleet(tmp_path, mosquitto.port, prefix)
    configured = conveyors.write(tmp_path, "configured.onnx", conveyors.original())
    model = conveyors.retrained()
    packed = fleet.controller.release(
        1, files={"model.onnx": model, **conveyors.golden(12)}, **QUICK
    )
    agents.start(fleet.config(configured))
    subscriber.wait_for(has("belt", 3), 60)
    heard = [
        fleet.fleet.trust,
        fleet.topics.assignment,
        *(fleet.topics.command(verb) for verb in ("rollback", "pause", "restart", "x")),
        *fleet.controller.pieces(packed),
    ]
    garbage = [os.urandom(1000), b"{}", b"[" * 60_000, bytes(HUGE_BYTES)]
    for payload in garbage:
        for retain in (False, True):
            fleet.publish(dict.fromkeys(heard, payload), retain=retain)
    fleet.push(packed)
    messages = subscriber.wait_for(fleet.reports, 60)
    assert [report.outcome for report in fleet.reports(messages)] == ["COMMITTED"]
    counted = subscriber.wait_for(
        lambda got: [m for m in telemetry(got) if len(m["updates"]["refused"]) == 3], 60
    )
    updates = telemetry(counted)[-1]["updates"]
    assert set(updates["refused"]) == {"trust message", "assignment", "command"}
    found = detections(counted, "belt")
    assert [m["seq"] for m in found] == list(range(len(found)))


def telemetry(messages):
    return [m.json for m in messages if m.topic.endswith("/telemetry")]
