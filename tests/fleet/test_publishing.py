import json

import pytest

from agent.errors import BrokerError, StoreError
from agent.wire.topics import FleetTopics
from fleet.bundlefiles import BundleFiles
from fleet.publishing import (
    NOTE,
    SETTLE_BLOCKS,
    publish_bundle,
    publish_trust,
    withdraw_bundle,
)
from tests.vectors.bundles import make_bundle

TOPICS = FleetTopics("vigia/v1")


class FakeSender:
    """Keeps what is retained, as a broker; takes no more than `room` messages."""

    def __init__(self, room=10**9):
        self.retained = {}
        self.sent = []
        self.unsettled = 0
        self.most_unsettled = 0
        self._room = room

    def send(self, topic, payload, *, retain=True, schema=""):
        if len(self.sent) >= self._room:
            raise BrokerError("the broker is gone")
        self.sent.append(topic)
        self.unsettled += 1
        self.most_unsettled = max(self.most_unsettled, self.unsettled)
        assert retain
        if payload:
            self.retained[topic] = payload
        else:
            self.retained.pop(topic, None)

    def settle(self):
        self.unsettled = 0


def bundle_of(folder, size):
    make_bundle(folder, {"model.onnx": bytes(size)})
    return BundleFiles(folder)


@pytest.fixture(scope="module")
def big(tmp_path_factory):
    """A bundle of more blocks than are sent between two settlements."""
    return bundle_of(tmp_path_factory.mktemp("big"), (2 * SETTLE_BLOCKS + 10) * 65_000)


@pytest.fixture
def bundle(tmp_path):
    return bundle_of(tmp_path / "bundle", 200_000)


def publish(sender, files, broker="b:1/p", **options):
    return publish_bundle(sender, TOPICS, files, broker, lambda *_: None, **options)


class TestPublishing:
    def test_every_piece_is_retained_as_it_is(self, bundle):
        sender = FakeSender()
        told = []
        publish_bundle(sender, TOPICS, bundle, "b", lambda *progress: told.append(progress))
        assert sender.retained[TOPICS.manifest(bundle.id)] == bundle.manifest_bytes
        assert sender.retained[TOPICS.index(bundle.id)] == bundle.index()
        blocks = [sender.retained[TOPICS.block(bundle.id, n)] for n in range(bundle.blocks)]
        assert b"".join(blocks) == (bundle.folder / "payload").read_bytes()
        assert len(sender.retained) == bundle.blocks + 2
        assert told[-1] == (bundle.blocks, bundle.blocks)

    def test_what_one_broker_holds_is_not_sent_to_it_again(self, bundle):
        assert publish(FakeSender(), bundle) == bundle.blocks
        assert publish(FakeSender(), bundle) == 0
        assert publish(FakeSender(), bundle, broker="other:1/p") == bundle.blocks
        assert publish(FakeSender(), bundle, broker="other:1/p", anew=True) == bundle.blocks

    def test_goes_on_where_it_was_broken_off(self, big, tmp_path):
        (big.folder / NOTE).unlink(missing_ok=True)
        with pytest.raises(BrokerError):
            publish(FakeSender(room=SETTLE_BLOCKS + 100), big)
        assert publish(FakeSender(), big) == big.blocks - SETTLE_BLOCKS

    def test_little_is_on_its_way_at_once(self, big):
        sender = FakeSender()
        publish(sender, big, anew=True)
        assert sender.most_unsettled <= SETTLE_BLOCKS + 2

    @pytest.mark.parametrize(
        "note", [b"", b"{", b"[]", b'{"blocks": -1, "broker": "b:1/p"}', b"\xff", b"9" * 10_000]
    )
    def test_a_note_that_is_none_is_passed_over(self, bundle, note):
        (bundle.folder / NOTE).write_bytes(note)
        assert publish(FakeSender(), bundle) == bundle.blocks

    def test_a_note_of_too_many_blocks_sends_none(self, bundle):
        note = {"broker": "b:1/p", "blocks": 10**9}
        (bundle.folder / NOTE).write_text(json.dumps(note))
        assert publish(FakeSender(), bundle) == 0

    def test_trust_is_one_message(self):
        sender = FakeSender()
        publish_trust(sender, TOPICS, b"{}")
        assert sender.retained == {TOPICS.trust: b"{}"}
        assert sender.unsettled == 0


class TestWithdrawing:
    def test_nothing_stays_and_it_can_be_published_again(self, bundle):
        sender = FakeSender()
        publish(sender, bundle)
        withdraw_bundle(sender, TOPICS, bundle, lambda *_: None)
        assert sender.retained == {}
        assert publish(sender, bundle) == bundle.blocks

    def test_half_a_withdrawal_does_not_pass_for_published(self, bundle):
        publish(FakeSender(), bundle)
        with pytest.raises(BrokerError):
            withdraw_bundle(FakeSender(room=1), TOPICS, bundle, lambda *_: None)
        assert publish(FakeSender(), bundle) == bundle.blocks


class TestBundleFiles:
    def test_a_payload_that_was_cut_is_told(self, bundle):
        payload = bundle.folder / "payload"
        payload.write_bytes(payload.read_bytes()[:-1])
        bundle.block(0)
        with pytest.raises(StoreError, match="cut off"):
            bundle.block(bundle.blocks - 1)

    @pytest.mark.parametrize("number", [-1, 4, 10**9])
    def test_no_other_block_is_read(self, bundle, number):
        with pytest.raises(StoreError, match="no block"):
            bundle.block(number)

    def test_an_index_of_another_length_is_told(self, bundle):
        index = bundle.folder / "index"
        index.write_bytes(index.read_bytes()[:-1])
        with pytest.raises(StoreError, match="cut off"):
            bundle.index()
        index.write_bytes(bytes(10**6))
        with pytest.raises(StoreError, match="larger"):
            bundle.index()

    def test_links_are_not_followed(self, bundle, tmp_path):
        payload = bundle.folder / "payload"
        payload.rename(tmp_path / "elsewhere")
        payload.symlink_to(tmp_path / "elsewhere")
        with pytest.raises(StoreError):
            bundle.block(0)

    def test_a_missing_bundle_is_told(self, tmp_path):
        with pytest.raises(StoreError, match="cannot be read"):
            BundleFiles(tmp_path).manifest_bytes  # noqa: B018
