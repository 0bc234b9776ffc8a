"""Attacks on what director, operators and devices sign, against the whole updater.

Store, metadata, keys and bundles are real. The attacker is the broker, or holds stolen keys.
Whatever it does, see `tests.fakes.adversary`.
"""

from __future__ import annotations

from contextlib import suppress

import pytest

from agent.bundle.documents import APPROVAL, Approval, Grant
from agent.bundle.dsse import sign
from agent.bundle.grant import grant_info, seal_grant
from agent.bundle.manifest import parse_manifest
from agent.bundle.softkeys import SoftKeys
from agent.bundle.trustmessage import MAX_MESSAGE_BYTES
from agent.update.ports import Finding
from agent.update.record import State
from tests.fakes.adversary import EVIL, SERVING, THIEVES
from tests.fakes.tufrepository import DAY, NOW, key
from tests.fakes.updating import DEVICE

# --- the director's key is stolen -----------------------------------------------------------------


def test_a_stolen_director_key_does_not_bring_in_a_bundle(stand):
    _, evil = stand.thief(EVIL)
    path = parse_manifest(stand.now.manifest).target
    stand.attacked(stand.assigned(evil))
    # Under the name of one that the release keys have signed, and in its place.
    stand.attacked(stand.assigned(evil, target=path, release_counter=SERVING))
    stand.attacked(stand.assigned(evil, target="director/evil"))
    stand.unharmed()


def test_a_stolen_director_key_does_not_go_below_the_floor(stand):
    assert "older than release 3" in stand.rejected(stand.assigned(stand.old))
    # Nor by calling it something else, nor on another slot.
    stand.attacked(stand.assigned(stand.old, release_counter=SERVING + 1))
    assert "older than release 3" in stand.rejected(stand.assigned(stand.before, slot="other"))
    assert stand.site.proofs.stages.count("build") == 2
    stand.unharmed()


def test_a_stolen_director_key_does_not_bring_back_what_has_failed(stand):
    packed = stand.release(EVIL)
    stand.site.trust()
    stand.site.proofs.findings["gate"] = Finding(False, "score 0.2 is below 0.5")
    assert stand.rejected(stand.assigned(packed)) == "score 0.2 is below 0.5"
    stand.site.proofs.findings.clear()
    assert "tried here already" in stand.rejected(stand.assigned(packed))
    stand.unharmed()


def test_what_the_director_signed_before_its_key_was_taken_away_counts_no_more(stand):
    packed = stand.release(EVIL)
    stolen = stand.controller.repository.keys["director"]
    stand.controller.repository.set_directors([key("new director")])
    stand.site.trust()
    stand.heard()
    stand.attacked(stand.assigned(packed, signers=stolen))
    assert stand.site.teller.counters()["refused"]["assignment"] == 1
    stand.unharmed()


# --- assignments ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"device": "d2"},
        {"slot": "nowhere"},
        {"counter": 1},
        {"counter": 2},
        {"deadline": int(NOW - 1)},
        {"signers": THIEVES},
        {"signers": []},
        {"signers": [key("operator0"), key("release0"), key("root0"), key("timestamp")]},
        {"sha256": "0" * 64},
        {"release_counter": EVIL + 1},
        {"target": "../../etc/passwd"},
        {"campaign": "c\x1b[2J"},
    ],
    ids=lambda changes: next(f"{k} {v}"[:30] for k, v in changes.items()),
)
def test_an_assignment_of_something_else_is_not_begun(stand, changes):
    packed = stand.release(EVIL)
    stand.site.trust()
    with suppress(ValueError):
        stand.attacked(stand.assigned(packed, **changes))
    stand.unharmed()


def test_an_assignment_is_not_obeyed_again_after_a_rollback(stand):
    """Replayed, it would undo what the operator wanted."""
    packed = stand.release(EVIL)
    stand.site.trust()
    envelope = stand.assigned(packed)
    stand.site.inbox.assignment("", envelope)
    assert stand.site.wait_outcome(3).outcome == "COMMITTED"
    stand.site.inbox.command("", stand.controller.command("rollback"))
    assert stand.site.wait_reply()["done"]
    assert stand.site.proofs.serving == stand.now.digest
    stand.site.inbox.assignment("", envelope)
    stand.heard()
    stand.site.stop()
    stand.site.start()
    stand.site.inbox.assignment("", envelope)
    stand.site.inbox.command("", b"noise")
    stand.site.wait_refused("command")
    assert stand.site.record().state is State.ROLLED_BACK
    assert stand.site.proofs.serving == stand.now.digest
    assert stand.site.store.floor("conveyor") == EVIL


# --- grants ---------------------------------------------------------------------------------------


def other_device(stand, packed):
    info = grant_info(packed.digest, DEVICE, stand.controller.counter + 1)
    return seal_grant("p256", SoftKeys.generate().kem_public, packed.data_key, info)


def copied_from_other_device(stand, packed):
    """As it was sealed for it, under this device's key id."""
    info = grant_info(packed.digest, "d2", stand.controller.counter + 1)
    grant = seal_grant("p256", SoftKeys.generate().kem_public, packed.data_key, info)
    return grant.model_copy(update={"key_id": stand.grant(packed).key_id})


def other_bundle(stand, _packed):
    return stand.grant(stand.before)


def other_assignment(stand, packed):
    info = grant_info(packed.digest, DEVICE, stand.controller.counter)
    return seal_grant("p256", stand.site.keys.kem_public, packed.data_key, info)


def other_key(stand, packed):
    info = grant_info(packed.digest, DEVICE, stand.controller.counter + 1)
    return seal_grant("p256", stand.site.keys.kem_public, bytes(32), info)


def nonsense(stand, packed):
    return Grant(kem="p256", key_id=stand.grant(packed).key_id, sealed="A" * 152)


@pytest.mark.parametrize(
    "grant",
    [other_device, copied_from_other_device, other_bundle, other_assignment, other_key, nonsense],
)
def test_a_grant_for_something_else_opens_nothing(stand, grant):
    packed = stand.release(EVIL)
    stand.site.trust()
    assert stand.rejected(stand.assigned(packed, grant=grant(stand, packed)))
    assert stand.site.proofs.stages.count("build") == 2
    assert stand.site.proofs.serving == stand.now.digest
    stand.no_plaintext()
    stand.unharmed()


# --- approvals ------------------------------------------------------------------------------------


def test_approvals_are_of_so_many_operators_for_this_bundle_and_campaign(stand):
    """The director's key is stolen, and one operator is in it."""
    repository = stand.controller.repository
    repository.targets.unrecognized_fields["x-vigia-policy"] = {"approvals": 2}
    packed = stand.release(EVIL)
    stand.site.trust()
    stand.heard()
    insider, honest = repository.keys["operators"]

    def approval(signer, *, sha256=packed.digest, campaign="c1", at=NOW, kind=APPROVAL):
        document = Approval(campaign=campaign, sha256=sha256, at=int(at))
        return sign(kind, document, [signer]).decode()

    mine = approval(insider)
    for approvals in (
        (),
        (mine,),
        (mine, mine),
        (mine, approval(insider, at=NOW + 1)),
        (mine, approval(honest, campaign="another")),
        (mine, approval(honest, sha256=stand.now.digest)),
        (mine, approval(key("director"))),
        (mine, approval(key("release0"))),
        (mine, approval(key("mallory"))),
        (mine, stand.controller.command("resume", signers=[honest]).decode()),
        (mine, "{}"),
    ):
        stand.attacked(stand.assigned(packed, approvals=approvals))
    refused = stand.site.teller.counters()["refused"]
    assert refused["assignment"] == 11
    stand.site.inbox.assignment("", stand.assigned(packed, approvals=(mine, approval(honest))))
    assert stand.site.wait_outcome(3).outcome == "COMMITTED"


# --- commands -------------------------------------------------------------------------------------


def test_a_command_is_obeyed_once_also_after_a_restart_and_with_the_clock_set_back(stand):
    stand.site.inbox.command("", pause := stand.controller.command("pause"))
    assert stand.site.wait_reply()["done"]
    stand.site.inbox.command("", stand.controller.command("resume"))
    assert stand.site.wait_reply(2)["done"]
    stand.site.stop()
    stand.site.clock -= 365 * DAY
    stand.site.start()
    stand.site.inbox.command("", pause)
    assert "before" in stand.site.wait_refused("command")
    assert not stand.site.store.paused()
    stand.site.clock += 365 * DAY
    stand.unharmed()


def test_what_no_operator_ordered_of_this_device_is_not_done(stand):
    controller = stand.controller
    operator = controller.repository.keys["operators"][0]
    orders = [
        controller.command("rollback", device="d2"),
        controller.command("rollback", slot="nowhere"),
        controller.command("rollback", expires=int(NOW - 1)),
        controller.command("rollback", expires=int(NOW + 3 * DAY)),
        controller.command("rollback", signers=THIEVES),
        controller.command("rollback", signers=controller.repository.keys["director"]),
        controller.command("rollback", signers=controller.repository.keys["targets"]),
        # Signed by an operator, but something else.
        controller.approve(stand.before, 0).encode(),
        stand.assigned(stand.before, signers=[operator]),
        controller.command("rollback")[:-20],
    ]
    for number, order in enumerate(orders, 1):
        stand.site.inbox.command("", order)
        stand.site.wait_refused("command", number)
    assert stand.site.replies == []
    assert stand.site.record().state is State.COMMITTED
    stand.site.stop()
    stand.site.start()
    stand.unharmed()


# --- floods ---------------------------------------------------------------------------------------


def test_huge_and_garbage_messages_on_every_topic_are_counted_and_change_nothing(stand):
    garbage = [b"", b"\xff" * 100, b"{}", b"[" * 100_000, b'"' + b"x" * 90_000, b"null", b"\x00"]
    for _ in range(50):
        inbox = stand.site.inbox
        for hear in (inbox.trust, inbox.assignment, inbox.command, inbox.settings):
            hear("", bytes(2 * MAX_MESSAGE_BYTES))
            for message in garbage:
                hear("", message)
    for what in ("trust message", "assignment", "command", "settings"):
        stand.site.wait_refused(what)
    # A large one that comes when the inbox is full of commands counts as one too many.
    not_taken = stand.site.inbox.refused
    assert not_taken["too_large"] >= 2 * 50
    assert not_taken["too_large"] + not_taken["too_many"] > 2 * 50 + 50
    assert stand.site.settings == []
    stand.unharmed()
