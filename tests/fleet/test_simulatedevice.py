"""A simulated device believes nobody: what it is for would be worth nothing otherwise."""

import pytest

from agent.wire.topics import Topics
from tests.fakes.smallfleet import PREFIX, SmallFleet


@pytest.fixture
def fleet(tmp_path):
    fleet = SmallFleet(tmp_path, count=2)
    fleet.publish()
    fleet.create()
    fleet.rollout().advance(0)
    yield fleet
    fleet.database.close()


def run(fleet, name="d0", **options):
    device = fleet.device(name, **options)
    device.run()
    return device.device


def test_everything_in_place_it_reports(fleet):
    device = run(fleet)
    assert (device.reported, device.failure) == (True, "")
    assert device.counts["bytes"] > fleet.files.manifest.ciphertext.length


def test_an_altered_block_is_no_block(fleet):
    topic = fleet.topics.block(fleet.files.id, 1)
    good = fleet.air.retained[topic]
    fleet.air.retained[topic] = good[:-1] + bytes([good[-1] ^ 1])
    device = fleet.device("d0")
    device.run()
    for _ in range(2):
        # The same again, as somebody would who wants it to be believed.
        device.inbox.append((topic, fleet.air.retained[topic]))
        device.run()
    assert "not what the signed index says" in device.device.failure
    assert not device.device.reported


@pytest.mark.parametrize("piece", ["manifest", "index"])
def test_an_altered_manifest_or_index_is_refused(fleet, piece):
    topic = getattr(fleet.topics, piece)(fleet.files.id)
    fleet.air.retained[topic] = fleet.air.retained[topic].replace(b"e", b"f", 1) + b" "
    device = run(fleet)
    assert device.failure.startswith("ManifestError")


def test_swapped_pieces_are_refused(fleet):
    first, second = (fleet.topics.block(fleet.files.id, n) for n in (0, 1))
    retained = fleet.air.retained
    retained[first], retained[second] = retained[second], retained[first]
    device = run(fleet)
    assert not device.reported


def test_metadata_that_nobody_signed_is_refused(fleet):
    trust = fleet.air.retained[fleet.topics.trust]
    fleet.air.retained[fleet.topics.trust] = trust.replace(b"release_counter", b"release_counteR")
    device = run(fleet)
    assert "Error: " in device.failure
    assert not device.reported


def test_another_devices_keys_open_nothing(fleet):
    device = run(fleet, keys=fleet.keys["d1"])
    assert device.failure.startswith("BundleError")


def test_an_assignment_whose_time_is_over_is_not_begun(fleet):
    fleet.house.now += 3601
    assert run(fleet).failure.startswith("ExpiredError")


def test_garbage_on_its_topics_ends_in_a_failure_with_a_reason(fleet):
    topics = Topics(PREFIX, "d0")
    fleet.air.retained[topics.assignment] = b"\xff" * 1000
    device = run(fleet)
    assert device.failure.startswith("ManifestError")


def test_a_connection_lost_in_the_middle_is_gone_on_with(fleet):
    device = fleet.device("d0")
    while device.inbox and not device.device.counts["messages"] > 4:
        device.obey(device.device.received(*device.inbox.popleft()))
    device.inbox.clear()
    fleet.air.clients[device] = set()
    device.obey(device.device.connected())
    device.run()
    assert device.device.reported


def test_a_manifest_that_is_not_there_is_asked_for(fleet):
    del fleet.air.retained[fleet.topics.manifest(fleet.files.id)]
    rollout = fleet.rollout()
    device = fleet.device("d0")
    device.run()
    fleet.house.now += 61
    device.obey(device.device.tick())
    rollout.advance(0)
    device.run()
    assert device.device.reported
