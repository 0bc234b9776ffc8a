import json

import pytest
from cryptography import x509

from agent.errors import KeyStoreError
from fleet.errors import FleetError
from fleet.operators import find_operator
from fleet.releasing import sign_pending
from fleet.roles import Permission, Role
from fleet.rotating import (
    Offline,
    renew,
    replace_offline,
    rotate_controller,
    rotate_director,
    rotate_online,
    rotate_server,
)
from fleet.signing import add_signature
from fleet.staffing import ask_approvals, let_go, take_on
from fleet.vault import Vault


@pytest.fixture
def ann(fleet):
    return fleet.act(Permission.ADMINISTER)


def settle(fleet, *names):
    """Sign what is pending with these offline keys, complete and publish it."""
    sign_pending(fleet, names, lambda _review: None)
    fleet.repository.complete()
    fleet.publish_metadata()


def ids(signers):
    return {signer.public_key.keyid for signer in signers}


def crl_size(fleet):
    return len(x509.load_pem_x509_crl((fleet.layout.broker / "crl.pem").read_bytes()))


def test_the_old_director_assigns_until_the_new_one_is_published(fleet, ann):
    old = ids(fleet.directors())
    done = rotate_director(fleet, ann)
    assert done.made == ("director-2",)
    assert ids(fleet.directors()) == old
    settle(fleet, "release-1", "release-2")
    new = ids(fleet.directors())
    assert len(new) == 1
    assert new != old


def test_without_the_directors_key_nothing_is_assigned(fleet):
    fleet.layout.online_keys.joinpath("director.key").unlink()
    with pytest.raises(KeyStoreError, match=r"director.*bring it back"):
        fleet.directors()


def test_one_release_key_alone_does_not_change_the_director(fleet, ann):
    rotate_director(fleet, ann)
    with pytest.raises(FleetError, match="needs 1 more of the release keys"):
        settle(fleet, "release-1")


def test_new_online_keys_publish_once_root_keys_have_signed(fleet, ann):
    before = fleet.repository.published()
    rotate_online(fleet, ann)
    settle(fleet, "root-1", "root-3")
    after = fleet.repository.published()
    assert after.root.version == 2
    for role in ("snapshot", "timestamp"):
        assert set(after.root.roles[role].keyids).isdisjoint(before.root.roles[role].keyids)
    assert not fleet.publish_metadata()


def test_a_release_key_is_replaced_also_when_its_file_is_elsewhere(fleet, ann):
    (fleet.layout.offline_keys / "release-1.key").unlink()
    done = replace_offline(fleet, ann, Offline.RELEASE, "release-1")
    assert done.made == ("release-3",)
    settle(fleet, "root-1", "root-2", "release-2", "release-3")
    wanted = {fleet.keys.offline.public_key(n).keyid for n in ("release-2", "release-3")}
    assert set(fleet.repository.published().root.roles["targets"].keyids) == wanted
    with fleet.database.reading() as session:
        holds = json.loads(find_operator(session, "ann").holds)
    assert "release-3" in holds
    assert "release-1" not in holds


def test_a_root_key_is_replaced_by_one_made_elsewhere(fleet, ann, tmp_path):
    elsewhere = Vault(tmp_path / "elsewhere")
    public = elsewhere.create_key("dora", "her own secret")
    replace_offline(fleet, ann, Offline.ROOT, "root-2", public)
    (request,) = fleet.repository.pending()
    fleet.repository.attach(add_signature(request, elsewhere.signer("dora", "her own secret")))
    settle(fleet, "root-1", "root-3")
    assert public.keyid in fleet.repository.published().root.roles["root"].keyids
    assert fleet.repository.published().root.roles["root"].threshold == 2


@pytest.mark.parametrize(
    ("kind", "first", "second", "signers"),
    [
        (Offline.ROOT, "root-1", "root-2", ("root-2", "root-3", "root-4")),
        (
            Offline.RELEASE,
            "release-1",
            "release-2",
            ("root-1", "root-2", "release-3", "release-4"),
        ),
    ],
)
def test_a_second_replacement_does_not_bring_the_first_key_back(
    fleet, ann, kind, first, second, signers
):
    gone = {fleet.keys.offline.public_key(name).keyid for name in (first, second)}
    replace_offline(fleet, ann, kind, first)
    with pytest.raises(FleetError, match=f"'{first}' is no {kind.value} key in force"):
        replace_offline(fleet, ann, kind, first)
    replace_offline(fleet, ann, kind, second)
    settle(fleet, *signers)
    root = fleet.repository.published().root
    assert not gone & set(root.keys)


@pytest.mark.parametrize("name", ["release-9", "root-1", "director"])
def test_a_key_that_is_none_of_its_kind_is_refused(fleet, ann, name):
    with pytest.raises(FleetError, match="those are release-1, release-2"):
        replace_offline(fleet, ann, Offline.RELEASE, name)


def test_the_controllers_old_certificate_is_revoked(fleet, ann):
    old = (fleet.layout.controller / "controller.pem").read_bytes()
    rotate_controller(fleet, ann)
    assert (fleet.layout.controller / "controller.pem").read_bytes() != old
    assert crl_size(fleet) == 1
    rotate_controller(fleet, ann)
    assert crl_size(fleet) == 2


def test_the_brokers_files_are_written_anew_for_a_moved_folder(fleet, ann):
    old = (fleet.layout.broker / "server.pem").read_bytes()
    config = fleet.layout.broker / "mosquitto.conf"
    config.write_text("")
    rotate_server(fleet, ann)
    assert (fleet.layout.broker / "server.pem").read_bytes() != old
    assert f"cafile {fleet.layout.broker.resolve()}/ca.pem\n" in config.read_text()


def test_renewal_changes_nothing_but_the_expiry(fleet, ann):
    before = fleet.repository.published()
    renew(fleet, ann)
    settle(fleet, "root-1", "root-2", "release-1", "release-2")
    after = fleet.repository.published()
    assert (after.root.version, after.targets.version) == (2, 2)
    assert {k: r.to_dict() for k, r in after.root.roles.items()} == {
        k: r.to_dict() for k, r in before.root.roles.items()
    }
    assert after.targets.targets == before.targets.targets


def operators_known_to_devices(fleet):
    targets = fleet.repository.published().targets
    return set(targets.delegations.roles["operators"].keyids)


def test_devices_know_a_new_operator_when_release_keys_have_signed(fleet, ann):
    done = take_on(fleet, ann, "bob", Role.OPERATOR)
    assert fleet.act(Permission.ASSIGN, "bob").signer.public_key.keyid == done.operator.key_id
    assert done.operator.key_id not in operators_known_to_devices(fleet)
    settle(fleet, "release-1", "release-2")
    assert done.operator.key_id in operators_known_to_devices(fleet)
    let_go(fleet, ann, "bob")
    settle(fleet, "release-1", "release-2")
    assert done.operator.key_id not in operators_known_to_devices(fleet)
    with pytest.raises(FleetError, match="'bob' was removed"):
        fleet.act(Permission.ASSIGN, "bob")


def test_a_viewer_gets_a_certificate_and_loses_it(fleet, ann):
    done = take_on(fleet, ann, "vic", Role.VIEWER)
    assert done.viewer is not None
    assert done.requests == ()
    acl = fleet.layout.broker / "acl"
    assert "user viewer-vic\ntopic deny vigia/v1/viewer-vic/#" in acl.read_text()
    let_go(fleet, ann, "vic")
    assert "user viewer-vic\ntopic deny #\n" in acl.read_text()
    assert crl_size(fleet) == 1


def test_a_taken_name_makes_no_key(fleet, ann):
    with pytest.raises(FleetError, match="names are used once"):
        take_on(fleet, ann, "ann", Role.OPERATOR)
    assert fleet.keys.operators.names() == ["ann"]


def test_approvals_are_demanded_once_signed_and_never_more_than_there_are_operators(fleet, ann):
    with pytest.raises(FleetError, match="only 1 operators have keys"):
        ask_approvals(fleet, ann, 2)
    ask_approvals(fleet, ann, 1)
    settle(fleet, "release-1", "release-2")
    assert fleet.repository.published().policy.approvals == 1


def test_nobody_leaves_without_whom_too_few_could_approve(fleet, ann):
    take_on(fleet, ann, "bob", Role.OPERATOR)
    ask_approvals(fleet, ann, 2)
    with pytest.raises(FleetError, match="2 approvals, but only 1 operators have keys"):
        let_go(fleet, ann, "bob")
    assert fleet.act(Permission.ASSIGN, "bob")


def test_everything_stands_in_the_audit_log_which_verifies(fleet, ann):
    rotate_director(fleet, ann)
    take_on(fleet, ann, "bob", Role.ADMIN, holds=["root-2"])
    bob = fleet.act(Permission.ADMINISTER, "bob")
    let_go(fleet, bob, "ann")
    keys, audit_key = fleet.audit_keys()
    assert fleet.audit.verify(keys, audit_key).count == 4
    assert [(e.operator, e.action) for e in fleet.audit.entries()][1:] == [
        ("ann", "keys.rotate"),
        ("ann", "operator.add"),
        ("bob", "operator.remove"),
    ]
