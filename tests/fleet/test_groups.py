import pytest

from fleet.database import Database, Device
from fleet.errors import FleetError
from fleet.groups import (
    add_to_group,
    chosen_devices,
    create_group,
    groups,
    remove_group,
    take_from_group,
)


@pytest.fixture
def session(tmp_path):
    database = Database(f"sqlite:///{tmp_path}/fleet.db")
    database.create()
    with database.session() as session:
        for name in ("a", "b", "c", "gone"):
            session.add(
                Device(
                    id=name,
                    kem="p256",
                    kem_key="",
                    sign_key="",
                    key_level="L0",
                    hw_class="",
                    certificate="",
                    serial="",
                    fingerprint="",
                    enrolled_at=1,
                    revoked_at=2 if name == "gone" else None,
                )
            )
        create_group(session, "hall", 1)
        create_group(session, "yard", 1)
        add_to_group(session, "hall", ["b", "a", "gone"])
        add_to_group(session, "yard", ["b", "c"])
        session.flush()
        yield session
    database.close()


def chosen(session, *devices, of=()):
    return [device.id for device in chosen_devices(session, devices, of)]


def test_groups_know_their_devices(session):
    assert groups(session) == {"hall": ["a", "b", "gone"], "yard": ["b", "c"]}


def test_each_device_is_chosen_once_and_in_order(session):
    assert chosen(session, "c", "a", of=["hall", "yard"]) == ["a", "b", "c"]


def test_adding_twice_changes_nothing(session):
    add_to_group(session, "yard", ["b"])
    session.flush()
    assert groups(session)["yard"] == ["b", "c"]


def test_a_device_leaves_a_group(session):
    take_from_group(session, "yard", ["b"])
    session.flush()
    assert chosen(session, of=["yard"]) == ["c"]


def test_a_revoked_device_is_left_out_of_its_group_but_refused_by_name(session):
    assert chosen(session, of=["hall"]) == ["a", "b"]
    with pytest.raises(FleetError, match="'gone' is revoked"):
        chosen(session, "a", "gone")


def test_devices_stay_when_their_group_goes(session):
    remove_group(session, "hall")
    session.flush()
    assert list(groups(session)) == ["yard"]
    assert chosen(session, "a") == ["a"]


@pytest.mark.parametrize(
    ("act", "fault"),
    [
        (lambda s: chosen(s, "nobody"), "no device 'nobody'"),
        (lambda s: chosen(s, of=["nowhere"]), "no group 'nowhere'"),
        (chosen, "no device is meant"),
        (lambda s: add_to_group(s, "nowhere", ["a"]), "no group 'nowhere'"),
        (lambda s: add_to_group(s, "hall", ["nobody"]), "no device 'nobody'"),
        (lambda s: take_from_group(s, "hall", ["c"]), "'c' is not in group 'hall'"),
        (lambda s: remove_group(s, "nowhere"), "no group 'nowhere'"),
        (lambda s: create_group(s, "hall", 1), "a group 'hall' already"),
        (lambda s: create_group(s, "a/b", 1), "cannot be called 'a/b'"),
        (lambda s: create_group(s, "a\n", 1), "cannot be called"),
    ],
)
def test_mistakes_are_named(session, act, fault):
    with pytest.raises(FleetError, match=fault):
        act(session)
