"""Which settings of operators a device takes: the updater's part."""

from __future__ import annotations

import pytest

from agent.update.desired import MAX_LIFE_S
from tests.fakes.tufrepository import NOW
from tests.fakes.updating import Controller, Site


@pytest.fixture
def site(tmp_path):
    site = Site(tmp_path, Controller(tmp_path / "controller"))
    site.start()
    site.trust()
    yield site
    site.stop()


def send(site: Site, envelope: bytes) -> None:
    site.inbox.settings("", envelope)


def test_settings_that_an_operator_signed_are_taken(site):
    send(site, site.controller.desired({"log": {"level": "debug"}}))
    assert site.wait_settings(1).settings == '{"log": {"level": "debug"}}'


def test_settings_that_come_before_the_metadata_wait_for_it(tmp_path):
    site = Site(tmp_path, Controller(tmp_path / "controller"))
    site.start()
    send(site, site.controller.desired())
    site.wait_refused("settings")
    site.trust()
    site.wait_settings(1)
    site.stop()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"device": "other"}, "are for other"),
        ({"expires": int(NOW - 1)}, "ended 1 s ago"),
        ({"expires": int(NOW + MAX_LIFE_S + 1000)}, "at most"),
        ({"signers": "director"}, "0 of the"),
        ({"signers": "targets"}, "0 of the"),
    ],
)
def test_what_is_not_for_this_device_now_by_an_operator_is_refused_and_told(site, changes, said):
    if "signers" in changes:
        changes = {"signers": site.controller.repository.keys[changes["signers"]]}
    send(site, site.controller.desired(**changes))
    assert said in site.wait_refused("settings")
    assert said in site.doubts[0]
    assert site.settings == []
    assert site.store.settings_seen() == (0, "")


def test_a_command_is_no_settings(site):
    send(site, site.controller.command("restart"))
    assert "holds" in site.wait_refused("settings")
    send(site, b"{")
    site.wait_refused("settings", 2)
    assert site.settings == []


def test_older_ones_are_never_taken_again_also_after_a_restart(site):
    first, second = site.controller.desired(), site.controller.desired({"log": {}})
    send(site, second)
    site.wait_settings(1)
    send(site, first)
    assert "not above 2" in site.wait_refused("settings")
    site.stop()
    site.start()
    site.trust()
    send(site, first)
    assert "not above 2" in site.wait_refused("settings")
    assert len(site.settings) == 1


def test_others_with_the_same_counter_are_refused(site):
    send(site, site.controller.desired(counter=5))
    site.wait_settings(1)
    send(site, site.controller.desired({"log": {}}, counter=5))
    assert "not above 5" in site.wait_refused("settings")


def test_the_same_come_again_at_every_connection_also_when_their_time_is_over(site):
    envelope = site.controller.desired()
    send(site, envelope)
    site.wait_settings(1)
    site.clock += 7200
    send(site, envelope)
    site.wait_settings(2)
    assert site.doubts == []


def test_an_empty_message_on_the_topic_says_nothing(site):
    send(site, b"")
    send(site, site.controller.desired())
    site.wait_settings(1)
    assert site.doubts == []
