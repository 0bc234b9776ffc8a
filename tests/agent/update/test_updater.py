"""The shell of updates: real store, trust, keys and bundles; see tests/fakes/updating.py."""

import base64
import contextlib
import json
import shutil
import threading
from dataclasses import replace

import pytest

from agent.bundle.documents import Assignment
from agent.bundle.manifest import bundle_id
from agent.bundle.seal import INDEX, MANIFEST, PAYLOAD
from agent.errors import GateError
from agent.update import requests
from agent.update.database import FILE
from agent.update.ports import Finding, UpdateCancelled
from agent.update.record import State
from agent.update.staging import FOLDER
from engines.errors import BuildError
from tests.fakes.tufrepository import DAY, NOW, key
from tests.fakes.updating import SLOT, Controller, Site
from tests.vectors.hostileonnx import hostile


@pytest.fixture
def controller(tmp_path):
    return Controller(tmp_path / "controller")


@pytest.fixture
def site(tmp_path, controller):
    made = Site(tmp_path, controller)
    made.start()
    yield made
    made.proofs.hold.clear()
    made.stop()


def sealed(site) -> set[str]:
    """Bundles on the device's disk."""
    folder = site.state / FOLDER
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def committed(site, number: int, **facts: object):
    """Bring a release onto the device."""
    packed = site.controller.release(number, **facts)
    site.trust()
    count = len(site.reports) + 1
    site.assign(packed)
    assert site.wait_outcome(count).outcome == "COMMITTED"
    return packed


def looked(site) -> None:
    """Until the updater has looked at what has arrived."""
    count = len(site.replies) + 1
    site.inbox.command("", site.controller.command("resume"))
    assert site.wait_reply(count)["done"]


# --- the whole way --------------------------------------------------------------------------------


def test_a_release_is_proven_committed_and_reported(site):
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed)
    report = site.wait_outcome(1)
    assert (report.outcome, report.sha256, report.counter) == ("COMMITTED", packed.digest, 1)
    assert set(json.loads(report.figures)) == {"build", "gate", "shadow", "canary"}
    assert site.proofs.stages == ["build", "gate", "shadow", "canary"]
    assert site.proofs.serving == packed.digest
    assert site.store.floor("conveyor") == 1
    states = list(dict.fromkeys(m["state"] for m in site.told))
    assert states == ["IDLE", "OFFERED", "TRUSTED", "FETCHING", "SEALED", "BUILDING", "GATING",
                      "SHADOWING", "CANARY", "COMMITTED"]  # fmt: skip


def test_what_was_committed_serves_after_a_restart(site):
    packed = committed(site, 1)
    site.stop()
    site.start()
    assert site.proofs.serving == packed.digest


def test_the_last_two_releases_stay_on_disk_and_one_in_memory(site):
    digests = [committed(site, number).digest for number in (1, 2, 3)]
    assert sealed(site) == set(digests[1:])
    (home,) = site.memory._homes
    assert set(home.path.iterdir()) == {site.active[SLOT].files}


def test_reports_wait_for_the_broker(site):
    site.online = False
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed)
    site.wait_state("COMMITTED")
    assert site.reports == []
    site.stop()
    site.online = True
    site.start()
    assert site.wait_outcome(1).outcome == "COMMITTED"


def test_an_acknowledged_report_is_not_kept(site):
    committed(site, 1)
    site.inbox.poke()
    committed(site, 2)
    assert len(site.store.reports()) <= 1
    assert [r.release_counter for r in site.reports] == [1, 2]


# --- what is refused before it is kept ------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signers": [key("mallory")]}, "0 of the 1 keys"),
        ({"device": "d2"}, "for d2, this is d1"),
        ({"slot": "nowhere"}, "slot nowhere"),
        ({"deadline": int(NOW - 1)}, "ended 1 s ago"),
    ],
)
def test_an_assignment_that_does_not_count_is_refused_and_not_kept(site, changes, reason):
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed, **changes)
    assert reason in site.wait_refused("assignment")
    assert site.record().state is State.IDLE
    assert sealed(site) == set()


def test_a_director_key_alone_cannot_bring_in_a_bundle(site):
    packed = site.controller.release(1)
    site.controller.repository.targets.targets.clear()
    site.trust()
    site.assign(packed)
    site.controller.release(2)
    site.assign(packed, signers=[key("mallory")])
    site.wait_refused("assignment")
    assert site.record().state is State.IDLE


def test_an_assignment_of_another_manifest_than_was_signed_is_not_begun(site):
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed, sha256="0" * 64)
    site.assign(packed, signers=[key("mallory")])
    site.wait_refused("assignment")
    assert site.record().state is State.IDLE


def test_an_assignment_waits_for_the_metadata_that_knows_its_bundle(site):
    site.trust()
    packed = site.controller.release(1)
    site.assign(packed)
    site.assign(packed, signers=[key("mallory")])
    site.wait_refused("assignment")
    site.assign(packed)
    site.trust()
    assert site.wait_outcome(1).outcome == "COMMITTED"


def test_an_assignment_waits_while_the_metadata_is_out_of_date(site):
    packed = site.controller.release(2)
    committed(site, 1)
    site.clock += 8 * DAY
    envelope = site.assign(packed, deadline=int(site.clock + 60))
    site.assign(packed, signers=[key("mallory")])
    site.wait_refused("assignment")
    assert site.record().release_counter == 1
    site.controller.repository.now = site.clock
    site.inbox.assignment("", envelope)
    site.trust()
    assert site.wait_outcome(2).outcome == "COMMITTED"


def test_an_assignment_that_comes_before_the_first_metadata_is_looked_at_again(site):
    packed = site.controller.release(1)
    site.assign(packed)
    site.wait_refused("assignment")
    site.trust()
    assert site.wait_outcome(1).outcome == "COMMITTED"


def test_an_assignment_of_a_director_whom_newer_metadata_names_is_looked_at_again(site):
    site.trust()
    packed = site.controller.release(1)
    site.controller.repository.set_directors([key("new director")])
    message = site.controller.trust()
    site.assign(packed)
    site.wait_refused("assignment")
    site.inbox.trust("", message)
    assert site.wait_outcome(1).outcome == "COMMITTED"


def test_an_assignment_waits_for_its_time_whatever_comes_meanwhile(site):
    packed = site.controller.release(1)
    site.trust()
    older = site.controller.assign(packed, site.keys.kem_public)
    site.assign(packed, not_before=int(NOW + 5))
    looked(site)
    site.assign(packed, signers=[key("mallory")])
    site.wait_refused("assignment")
    site.inbox.assignment("", older)
    looked(site)
    site.clock += 5
    site.inbox.poke()
    assert site.wait_outcome(1).counter == 2


def test_an_assignment_that_was_taken_back_is_not_begun(site):
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed, not_before=int(NOW + 5))
    looked(site)
    site.inbox.assignment("", b"")
    looked(site)
    site.clock += 5
    looked(site)
    looked(site)
    assert site.record().state is State.IDLE


def test_an_assignment_waits_for_metadata_that_names_its_approvers(site):
    repository = site.controller.repository
    repository.targets.unrecognized_fields["x-vigia-policy"] = {"approvals": 1}
    packed = site.controller.release(1)
    approval = site.controller.approve(packed, 0)
    before = repository.keys["operators"]
    repository.set_operators([key("somebody")])
    site.trust()
    site.assign(packed, approvals=(approval,))
    assert "0 operators" in site.wait_refused("assignment")
    repository.set_operators(before)
    site.trust()
    assert site.wait_outcome(1).outcome == "COMMITTED"


def test_an_assignment_is_obeyed_once(site):
    packed = site.controller.release(1)
    site.trust()
    envelope = site.assign(packed)
    site.wait_outcome(1)
    committed(site, 2)
    site.inbox.assignment("", envelope)
    assert "comes after 2" in site.wait_refused("assignment")


def test_the_same_retained_assignment_at_every_connection_is_no_refusal(site):
    packed = site.controller.release(1)
    site.trust()
    envelope = site.assign(packed)
    site.wait_outcome(1)
    site.inbox.assignment("", envelope)
    committed(site, 2)
    assert site.teller.counters()["refused"] == {}


def test_garbage_on_every_topic_is_counted_and_changes_nothing(site):
    for hear in (site.inbox.trust, site.inbox.assignment, site.inbox.command):
        hear("", b"\xff{")
    site.wait_refused("assignment")
    assert set(site.teller.counters()["refused"]) == {"trust message", "assignment", "command"}
    committed(site, 1)


def test_operators_must_approve_where_the_release_keys_say_so(site):
    repository = site.controller.repository
    repository.targets.unrecognized_fields["x-vigia-policy"] = {"approvals": 2}
    packed = site.controller.release(1)
    site.trust()
    first = site.controller.approve(packed, 0)
    site.assign(packed, approvals=(first, first))
    assert "1 operators have approved" in site.wait_refused("assignment")
    other = site.controller.approve(packed, 1, campaign="c2")
    site.assign(packed, approvals=(first, other))
    site.wait_refused("assignment", 2)
    site.assign(packed, approvals=(first, site.controller.approve(packed, 1)))
    assert site.wait_outcome(1).outcome == "COMMITTED"


# --- what is refused for what it is ---------------------------------------------------------------


def test_an_older_release_is_refused_for_ever(site):
    old = site.controller.release(1)
    committed(site, 2)
    site.assign(old)
    report = site.wait_outcome(2)
    assert report.outcome == "REJECTED"
    assert "older than release 2" in report.reason
    assert site.proofs.serving != old.digest


def test_a_refused_release_that_is_the_way_back_stays_the_way_back(site):
    first = committed(site, 1)
    committed(site, 2)
    site.assign(first)
    assert site.wait_outcome(3).outcome == "REJECTED"
    site.inbox.command("", site.controller.command("rollback"))
    assert site.wait_reply()["done"]
    assert site.proofs.serving == first.digest


def test_a_committed_release_that_was_damaged_on_disk_is_brought_again(site):
    packed = committed(site, 1)
    site.stop()
    for name in (MANIFEST, INDEX, PAYLOAD):
        damage(site.state / FOLDER / packed.digest / name)
    site.start()
    assert site.proofs.serving == "configured"
    site.assign(packed)
    assert site.wait_outcome(2).outcome == "COMMITTED"
    assert site.proofs.serving == packed.digest
    site.stop()
    site.start()
    assert site.proofs.serving == packed.digest


def test_what_a_disk_has_damaged_is_not_the_fault_of_the_bundle(site):
    packed = site.controller.release(1)
    site.trust()
    site.fetcher.damaged = True
    site.assign(packed)
    assert "block 0" in site.wait_outcome(1).reason
    assert site.store.quarantined(packed.digest) is None


def test_a_bundle_for_other_devices_is_refused_before_its_blocks_are_fetched(site):
    packed = site.controller.release(1, compat={"hw_class": ("orin",)})
    site.trust()
    site.assign(packed)
    assert "hardware class orin" in site.wait_outcome(1).reason
    assert list(site.fetcher.fetched) == ["manifest"]
    assert sealed(site) == set()


def test_an_expired_bundle_is_refused(site):
    packed = site.controller.release(1, expires=NOW - 1)
    site.trust()
    site.assign(packed)
    assert "expired" in site.wait_outcome(1).reason


def test_expiry_does_not_stop_what_was_accepted(site):
    packed = committed(site, 1, expires=NOW + DAY)
    site.clock += 1000 * DAY
    site.stop()
    site.start()
    assert site.proofs.serving == packed.digest


def test_a_grant_for_another_device_ends_the_update_and_does_not_ban_the_bundle(site):
    packed = site.controller.release(1)
    other = site.controller.release(2)
    site.trust()
    foreign = Assignment.model_validate_json(
        _payload(site.controller.assign(other, site.keys.kem_public))
    ).grant
    site.assign(packed, grant=foreign)
    assert "grant" in site.wait_outcome(1).reason
    assert site.store.quarantined(packed.digest) is None
    site.assign(packed)
    assert site.wait_outcome(2).outcome == "COMMITTED"


def test_a_payload_damaged_on_disk_is_found_when_it_is_opened(site):
    packed = site.controller.release(1)
    payload = site.controller.folder / bundle_id(packed.digest) / PAYLOAD
    data = bytearray(payload.read_bytes())
    data[100] ^= 1
    payload.write_bytes(data)
    site.trust()
    site.assign(packed)
    report = site.wait_outcome(1)
    assert (report.outcome, "block 0" in report.reason) == ("REJECTED", True)
    assert site.proofs.stages == []


def test_a_model_that_reaches_outside_is_refused_before_anything_converts_it(site):
    packed = site.controller.release(1, files={"model.onnx": hostile("external: parent folder")})
    site.trust()
    site.assign(packed)
    assert site.wait_outcome(1).outcome == "REJECTED"
    assert site.proofs.stages == []
    assert site.store.quarantined(packed.digest)


# --- what fails while it is proven ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("stage", "outcome"),
    [
        ("build", "REJECTED"),
        ("gate", "REJECTED"),
        ("shadow", "REJECTED"),
        ("canary", "ROLLED_BACK"),
    ],
)
def test_a_stage_that_is_not_passed_leaves_what_was_there_before(site, stage, outcome):
    before = committed(site, 1)
    site.proofs.findings[stage] = Finding(False, "score 0.2 is below 0.5", {"score": 0.2})
    packed = site.controller.release(2)
    site.trust()
    site.assign(packed)
    report = site.wait_outcome(2)
    assert (report.outcome, report.reason) == (outcome, "score 0.2 is below 0.5")
    assert json.loads(report.figures)[stage] == {"score": 0.2}
    assert site.proofs.serving == before.digest
    assert site.store.floor("conveyor") == 1
    assert sealed(site) == {before.digest}
    site.assign(packed)
    assert "failed" in site.wait_outcome(3).reason


@pytest.mark.parametrize("error", [GateError("no frames"), BuildError("no memory")])
def test_a_stage_that_could_not_be_carried_out_does_not_ban_the_bundle(site, error):
    site.proofs.findings["gate"] = error
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed)
    assert site.wait_outcome(1).outcome == "REJECTED"
    site.proofs.findings.clear()
    site.assign(packed)
    assert site.wait_outcome(2).outcome == "COMMITTED"


# --- while one is under way -----------------------------------------------------------------------


def test_a_newer_assignment_takes_the_place_of_one_that_is_fetched(site):
    first, second = site.controller.release(1), site.controller.release(2)
    site.trust()
    site.fetcher.hold.clear()
    site.assign(first)
    assert site.fetcher.fetching.wait(10)
    site.assign(second)
    assert "took its place" in site.wait_outcome(1).reason
    site.fetcher.hold.set()
    assert site.wait_outcome(2).sha256 == second.digest


def test_an_update_of_one_slot_takes_nothing_from_that_of_another(site):
    first, second = site.controller.release(1), site.controller.release(2)
    site.trust()
    go_on = site.proofs.until["gate"] = threading.Event()
    site.assign(second, slot="other")
    assert site.proofs.begun.wait(10)
    site.assign(first)
    site.wait_state("OFFERED", SLOT)
    del site.proofs.until["gate"]
    go_on.set()
    assert [site.wait_outcome(n).outcome for n in (1, 2)] == ["COMMITTED", "COMMITTED"]


def test_a_bundle_that_fails_in_one_slot_is_not_taken_from_another(site):
    packed = committed(site, 1)
    files = site.active[SLOT].files
    site.fetcher.damaged = True
    site.assign(packed, slot="other")
    assert site.wait_outcome(2).outcome == "REJECTED"
    assert (files / "model.onnx").is_file()


def test_a_forged_assignment_breaks_nothing_off(site):
    packed = site.controller.release(1)
    site.trust()
    site.proofs.hold.add("build")
    site.assign(packed)
    assert site.proofs.begun.wait(10)
    site.assign(packed, signers=[key("mallory")])
    site.wait_refused("assignment")
    assert site.record().state is State.BUILDING


@pytest.mark.parametrize("stage", ["build", "gate", "shadow", "canary"])
def test_a_stop_in_a_stage_is_no_failure_and_goes_on_at_the_next_start(site, stage):
    packed = site.controller.release(1)
    site.trust()
    site.proofs.hold.add(stage)
    site.assign(packed)
    assert site.proofs.begun.wait(10)
    site.stop()
    site.proofs.hold.clear()
    site.start()
    assert site.proofs.serving == "configured"
    report = site.wait_outcome(1)
    assert (report.outcome, report.sha256) == ("COMMITTED", packed.digest)
    assert site.record().canaries == 1


def test_a_stop_while_blocks_are_fetched_goes_on_at_the_next_start(site):
    packed = site.controller.release(1)
    site.trust()
    site.fetcher.hold.clear()
    site.assign(packed)
    assert site.fetcher.fetching.wait(10)
    site.stop()
    site.fetcher.hold.set()
    site.start()
    assert site.wait_outcome(1).outcome == "COMMITTED"
    assert list(site.fetcher.fetched).count("manifest") == 1


# --- commands -------------------------------------------------------------------------------------


def test_an_operator_can_have_the_release_before_back(site):
    first, second = committed(site, 1), committed(site, 2)
    site.inbox.command("", site.controller.command("rollback"))
    assert site.wait_reply()["done"]
    report = site.wait_outcome(3)
    assert (report.outcome, report.sha256) == ("ROLLED_BACK", second.digest)
    assert site.proofs.serving == first.digest
    assert site.store.floor("conveyor") == 2
    site.stop()
    site.start()
    assert site.proofs.serving == first.digest


def test_from_the_first_release_it_goes_back_to_the_configured_model(site):
    committed(site, 1)
    site.inbox.command("", site.controller.command("rollback"))
    assert site.wait_reply()["done"]
    assert site.proofs.serving == "configured"
    site.inbox.command("", site.controller.command("rollback"))
    reply = site.wait_reply(2)
    assert (reply["done"], "configured model" in reply["reason"]) == (False, True)


def test_a_rollback_gives_up_what_is_under_way(site):
    before = committed(site, 1)
    packed = site.controller.release(2)
    site.trust()
    site.proofs.hold.add("canary")
    site.assign(packed)
    assert site.proofs.begun.wait(10)
    site.inbox.command("", site.controller.command("rollback"))
    assert site.wait_outcome(2).outcome == "ROLLED_BACK"
    assert site.proofs.serving == before.digest


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"signers": [key("mallory")]}, "0 of the 2 keys"),
        ({"signers": [key("director")]}, "0 of the 2 keys"),
        ({"device": "d2"}, "for d2"),
        ({"slot": "nowhere"}, "slot nowhere"),
        ({"expires": int(NOW - 1)}, "ended"),
        ({"expires": int(NOW + 2 * DAY)}, "valid for"),
    ],
)
def test_a_command_that_does_not_count_is_refused(site, changes, reason):
    packed = committed(site, 1)
    site.inbox.command("", site.controller.command("rollback", **changes))
    assert reason in site.wait_refused("command")
    assert site.proofs.serving == packed.digest


def test_a_command_is_obeyed_once(site):
    committed(site, 1)
    second = committed(site, 2)
    command = site.controller.command("rollback")
    site.inbox.command("", command)
    site.wait_outcome(3)
    third = committed(site, 3)
    site.inbox.command("", command)
    assert "before" in site.wait_refused("command")
    assert site.proofs.serving == third.digest != second.digest


def test_updates_rest_while_they_are_paused_also_over_a_restart(site):
    site.trust()
    site.inbox.command("", site.controller.command("pause"))
    assert site.wait_reply()["done"]
    packed = site.controller.release(1)
    site.trust()
    site.assign(packed)
    site.wait_state("OFFERED")
    site.stop()
    site.start()
    assert site.record().state is State.OFFERED
    site.inbox.command("", site.controller.command("resume"))
    assert site.wait_outcome(1).outcome == "COMMITTED"


def test_a_restart_is_asked_for_once(site):
    site.trust()
    command = site.controller.command("restart")
    site.inbox.command("", command)
    assert site.wait_reply()["done"]
    site.inbox.command("", command)
    assert not site.wait_reply(2)["done"]
    assert site.restarts == 1


def test_the_command_line_of_the_device_can_roll_back(site):
    first, second = committed(site, 1), committed(site, 2)
    requests.ask(
        site.state,
        requests.Request(slot=SLOT, digest=second.digest, reason="flickers", at=int(NOW)),
    )
    site.inbox.poke()
    report = site.wait_outcome(3)
    assert (report.outcome, report.reason) == ("ROLLED_BACK", "flickers")
    assert site.proofs.serving == first.digest
    assert requests.waiting(site.state) == ()


def test_a_request_of_the_command_line_waits_while_a_release_is_proven(site):
    first = committed(site, 1)
    packed = site.controller.release(2)
    site.trust()
    site.proofs.hold.add("build")
    site.assign(packed)
    assert site.proofs.begun.wait(10)
    requests.ask(
        site.state,
        requests.Request(slot=SLOT, digest=first.digest, reason="flickers", at=int(NOW)),
    )
    site.assign(packed, signers=[key("mallory")])
    site.wait_refused("assignment")
    assert site.record().state is State.BUILDING
    site.proofs.hold.clear()
    site.proofs.cancel()
    site.wait_outcome(2)
    assert site.store.quarantined(packed.digest) is None


def test_a_pause_rests_the_network_at_once(site):
    packed = site.controller.release(1)
    site.trust()
    site.fetcher.hold.clear()
    site.assign(packed)
    assert site.fetcher.fetching.wait(10)
    site.inbox.command("", site.controller.command("pause"))
    assert site.wait_reply()["done"]
    site.fetcher.fetching.clear()
    site.inbox.command("", site.controller.command("resume"))
    assert site.wait_reply(2)["done"]
    assert site.fetcher.fetching.wait(10)
    site.fetcher.hold.set()
    assert site.wait_outcome(1).outcome == "COMMITTED"


def test_an_update_that_was_paused_can_still_be_given_up(site):
    packed = site.controller.release(1)
    site.trust()
    site.fetcher.hold.clear()
    site.assign(packed)
    assert site.fetcher.fetching.wait(10)
    for verb in ("pause", "rollback"):
        site.inbox.command("", site.controller.command(verb))
    assert site.wait_reply(2)["done"]
    assert site.wait_outcome(1).outcome == "REJECTED"


# --- what stands in the way -----------------------------------------------------------------------


def test_a_candidate_that_failed_does_not_serve_on_because_the_disk_is_full(site):
    before = committed(site, 1)
    site.proofs.findings["canary"] = Finding(False, "too slow")
    go_on = site.proofs.until["canary"] = threading.Event()
    packed = site.controller.release(2)
    site.trust()
    site.proofs.begun.clear()
    site.assign(packed)
    assert site.proofs.begun.wait(10)
    assert site.proofs.serving == packed.digest
    with site.unwritable():
        go_on.set()
        site.wait_trouble("locked")
        assert site.proofs.serving == before.digest
    site.inbox.poke()
    assert site.wait_outcome(2).outcome == "ROLLED_BACK"
    site.wait_trouble(None)


def test_an_operator_is_told_that_nothing_can_be_written(site):
    committed(site, 1)
    with site.unwritable():
        site.inbox.command("", site.controller.command("rollback"))
        reply = site.wait_reply()
    assert (reply["done"], "locked" in reply["reason"]) == (False, True)


def test_a_trial_that_was_cut_off_is_counted_before_anything_is_begun_again(site):
    packed = site.controller.release(1)
    site.trust()
    site.proofs.hold.add("canary")
    site.assign(packed)
    assert site.proofs.begun.wait(10)
    kept = {name: (site.state / name).read_bytes() for name in (FILE, f"{FILE}-wal")}
    site.stop()
    site.proofs.hold.clear()
    for name, content in kept.items():
        (site.state / name).write_bytes(content)
    with contextlib.ExitStack() as stack:
        site.prepared = lambda: stack.enter_context(site.unwritable())
        site.start()
        site.wait_trouble("locked")
        assert (site.record().state, site.record().canaries) == (State.CANARY, 1)
        assert site.proofs.stages.count("canary") == 1
    site.inbox.poke()
    report = site.wait_outcome(1)
    assert (report.outcome, site.record().canaries) == ("COMMITTED", 2)


def test_a_mistake_of_ours_ends_no_updates(site):
    site.trust()
    site.restart_fails = True
    site.inbox.command("", site.controller.command("restart"))
    site.wait_refused("state")
    assert "internal error" in str(site.teller.counters()["last_refusal"])
    site.wait_trouble(None)
    committed(site, 1)


def test_what_is_no_bundle_is_left_alone_among_the_bundles(site):
    foreign = site.state / FOLDER / "lost+found"
    foreign.mkdir(parents=True)
    committed(site, 1)
    assert foreign.is_dir()
    assert site.teller.counters()["refused"] == {}


def test_opening_ends_when_it_is_no_longer_wanted(site):
    packed = committed(site, 1)
    record = replace(site.record(), state=State.SEALED, slot="other")
    (home,) = site.memory._homes
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(UpdateCancelled):
        site.course.step(record, cancelled)
    assert {p.name for p in home.path.rglob("*")} >= {f"{packed.digest}.other"}
    assert not list((home.path / f"{packed.digest}.other").iterdir())


# --- the disk -------------------------------------------------------------------------------------


def test_a_previous_release_that_is_damaged_is_nothing_to_go_back_to(site):
    first, second = committed(site, 1), committed(site, 2)
    shutil.rmtree(site.state / FOLDER / first.digest)
    site.inbox.command("", site.controller.command("rollback"))
    reply = site.wait_reply()
    assert (reply["done"], "missing" in reply["reason"]) == (False, True)
    assert site.proofs.serving == second.digest


def damage(path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _payload(envelope: bytes) -> bytes:
    return base64.b64decode(json.loads(envelope)["payload"])
