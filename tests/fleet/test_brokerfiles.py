from pathlib import Path

import pytest

from agent.wire.topics import Topics
from fleet.brokerfiles import (
    DEVICE_READS,
    DEVICE_WRITES,
    access_list,
    broker_config,
    is_reserved,
)
from fleet.errors import FleetError


def fits(topic, pattern, device):
    levels = pattern.replace("%u", device).split("/")
    found = topic.split("/")
    if levels[-1] == "#":
        return found[: len(levels) - 1] == levels[:-1]
    return found == levels


def test_a_device_may_write_each_topic_of_its_own_but_the_controllers():
    topics = Topics("", "line-1")
    own = {
        topics.status,
        topics.info,
        topics.telemetry,
        topics.check,
        topics.camera_status("door"),
        topics.detections("door"),
        topics.events,
        topics.config_state,
        topics.model_state("main"),
        topics.update_request,
        topics.update_report("main"),
        topics.update_state("main"),
        topics.reply("a" * 32),
    }
    for topic in own:
        assert any(fits(topic[1:], pattern, "line-1") for pattern in DEVICE_WRITES), topic
    for topic in (topics.assignment, topics.command("rollback")):
        assert not any(fits(topic[1:], pattern, "line-1") for pattern in DEVICE_WRITES), topic
        assert any(fits(topic[1:], pattern, "line-1") for pattern in DEVICE_READS), topic


def test_all_that_a_device_writes_is_below_its_own_name():
    assert all(pattern.startswith("%u/") for pattern in DEVICE_WRITES)


def test_viewers_and_the_revoked_stand_in_the_list():
    text = access_list("vigia/v1", ["ann"], ["line-2"])
    assert "user viewer-ann\ntopic deny vigia/v1/viewer-ann/#\ntopic read vigia/v1/#\n" in text
    assert "user line-2\ntopic deny #\n" in text
    assert "topic readwrite" not in text


@pytest.mark.parametrize("name", ["trust", "bundles", "fleet-controller", "viewer-ann"])
def test_names_that_would_give_a_device_more_rights_are_reserved(name):
    assert is_reserved(name)
    assert not is_reserved(name.upper())


def test_the_configuration_asks_for_certificates_and_names_each_file():
    text = broker_config(Path("/srv/fleet one/broker"), 8884, "vigia")
    for line in (
        "listener 8884",
        "user vigia",
        "require_certificate true",
        "use_identity_as_username true",
        "allow_anonymous false",
        "tls_version tlsv1.2",
        "acl_file /srv/fleet one/broker/acl",
        "crlfile /srv/fleet one/broker/crl.pem",
        "persistence_location /srv/fleet one/broker/data/",
    ):
        assert f"\n{line}\n" in text


@pytest.mark.parametrize("folder", ["relative", "/srv/a\nuser root"])
def test_a_path_that_cannot_stand_in_the_file_is_refused(folder):
    with pytest.raises(FleetError, match="cannot be told the path"):
        broker_config(Path(folder), 8883, "vigia")
