import pytest
from securesystemslib.signer import CryptoSigner

from fleet.database import Database
from fleet.errors import FleetError, NotPermittedError
from fleet.operators import (
    acting,
    active,
    add_operator,
    all_keys,
    find_operator,
    remove_operator,
    signing_keys,
)
from fleet.roles import Permission, Role

KEYS = {name: CryptoSigner.generate_ed25519().public_key for name in ("ann", "bob", "cyd")}


@pytest.fixture
def session(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/fleet.db")
    database.create()
    with database.session() as session:
        add_operator(session, "ann", Role.ADMIN, 1, key=KEYS["ann"], holds=["root-1"])
        yield session
    database.close()


def test_the_only_operator_need_not_say_who_acts(session):
    add_operator(session, "vic", Role.VIEWER, 1)
    assert acting(session, None, Permission.ENROLL).name == "ann"


def test_one_of_several_must_say_who_acts(session):
    add_operator(session, "bob", Role.OPERATOR, 1, key=KEYS["bob"])
    with pytest.raises(FleetError, match=r"Say --as NAME .*: ann, bob"):
        acting(session, None, Permission.ASSIGN)
    assert acting(session, "bob", Permission.ASSIGN).name == "bob"


def test_a_role_that_does_not_allow_it_is_told_which_does(session):
    add_operator(session, "bob", Role.OPERATOR, 1, key=KEYS["bob"])
    with pytest.raises(NotPermittedError, match="bob is an operator and may not enrol devices; "):
        acting(session, "bob", Permission.ENROLL)
    with pytest.raises(NotPermittedError, match="that takes a releaser"):
        acting(session, "bob", Permission.RELEASE)


def test_a_viewer_has_nothing_to_act_with(session):
    add_operator(session, "vic", Role.VIEWER, 1)
    with pytest.raises(NotPermittedError, match="can only look"):
        acting(session, "vic", Permission.VIEW)


def test_who_was_removed_acts_no_more_but_stays_known_to_the_audit_log(session):
    add_operator(session, "bob", Role.OPERATOR, 1, key=KEYS["bob"])
    remove_operator(session, "bob", 2)
    with pytest.raises(FleetError, match="'bob' was removed"):
        acting(session, "bob", Permission.ASSIGN)
    assert [row.name for row in active(session)] == ["ann"]
    assert signing_keys(session) == [KEYS["ann"]]
    assert all_keys(session) == {"ann": [KEYS["ann"]], "bob": [KEYS["bob"]]}
    with pytest.raises(FleetError, match="names are used once"):
        add_operator(session, "bob", Role.OPERATOR, 3, key=KEYS["cyd"])


def test_the_last_admin_stays(session):
    with pytest.raises(FleetError, match="only admin"):
        remove_operator(session, "ann", 2)
    add_operator(session, "cyd", Role.ADMIN, 1, key=KEYS["cyd"])
    assert remove_operator(session, "ann", 2).removed_at == 2


@pytest.mark.parametrize(
    ("name", "role", "key", "fault"),
    [
        ("ann", Role.OPERATOR, KEYS["bob"], "is or was"),
        ("bob", Role.OPERATOR, KEYS["ann"], "another operator's"),
        ("bob", Role.OPERATOR, None, "an operator needs a key"),
        ("bob", Role.VIEWER, KEYS["bob"], "a viewer has no key"),
        ("controller", Role.ADMIN, KEYS["bob"], "cannot be called"),
        ("a b", Role.ADMIN, KEYS["bob"], "cannot be called"),
    ],
)
def test_mistakes_are_named(session, name, role, key, fault):
    with pytest.raises(FleetError, match=fault):
        add_operator(session, name, role, 1, key=key)


def test_nobody_is_found_by_a_wrong_name(session):
    with pytest.raises(FleetError, match="is no operator"):
        find_operator(session, "eve")
