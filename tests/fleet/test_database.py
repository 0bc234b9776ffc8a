import threading

import pytest
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from agent.errors import StoreError
from fleet.database import (
    MAX_COUNTER,
    Bundle,
    Database,
    Device,
    Group,
    Membership,
    next_counter,
    read_setting,
    write_setting,
)


def device(name="line-1", **changes):
    facts = {
        "id": name,
        "kem": "p256",
        "kem_key": "QQ==",
        "sign_key": "pem",
        "key_level": "L0",
        "hw_class": "orin-nano",
        "certificate": "pem",
        "serial": "1f",
        "fingerprint": "aa",
        "enrolled_at": 1,
    }
    return Device(**{**facts, **changes})


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/fleet.db"


@pytest.fixture
def database(url):
    database = Database(url)
    database.create()
    yield database
    database.close()


def test_rows_stay_readable_after_their_session(database):
    with database.session() as session:
        session.add(device())
    with database.reading() as session:
        row = session.get_one(Device, "line-1")
    assert (row.id, row.counter, row.revoked_at) == ("line-1", 0, None)


def test_an_error_undoes_the_whole_transaction(database):
    def fail():
        with database.session() as session:
            session.add(device())
            session.flush()
            raise KeyError("half-way")

    with pytest.raises(KeyError):
        fail()
    with database.reading() as session:
        assert session.get(Device, "line-1") is None


def test_looking_changes_nothing(database):
    with database.reading() as session:
        session.add(device())
        session.flush()
    with database.reading() as session:
        assert session.get(Device, "line-1") is None


def test_its_file_is_for_its_owner_only(database, tmp_path):
    with database.session() as session:
        session.add(device())
        found = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert found["fleet.db"] == 0o600
    assert set(found.values()) == {0o600}


def test_counters_go_up_also_when_several_ask_at_once(database):
    with database.session() as session:
        session.add(device())
    taken = []

    def take():
        for _ in range(5):
            with database.session() as session:
                taken.append(next_counter(session, "line-1"))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == list(range(1, 21))


def test_counters_end_before_they_overflow(database):
    with database.session() as session:
        session.add(device(counter=MAX_COUNTER - 1))
        assert next_counter(session, "line-1") == MAX_COUNTER
        with pytest.raises(StoreError, match="used up its counters"):
            next_counter(session, "line-1")


def test_an_unknown_device_has_no_counter(database):
    with pytest.raises(StoreError, match="no device 'nobody'"), database.session() as session:
        next_counter(session, "nobody")


def test_a_version_of_a_family_stands_once(database):
    facts = {"family": "belt", "version": "1", "release_counter": 1, "target": "t", "folder": "f"}
    with database.session() as session:
        session.add(Bundle(digest="a", data_key=b"", packed_at=1, **facts))
    with pytest.raises(StoreError, match="UNIQUE"), database.session() as session:
        session.add(Bundle(digest="b", data_key=b"", packed_at=1, **facts))


def test_members_of_a_group_that_is_removed_are_no_members_any_more(database):
    with database.session() as session:
        session.add_all([device(), Group(name="hall", created_at=1)])
        session.flush()
        session.add(Membership(group="hall", device="line-1"))
    with database.session() as session:
        session.delete(session.get_one(Group, "hall"))
    with database.reading() as session:
        assert session.scalars(select(Membership)).all() == []


def test_a_stranger_is_no_member(database):
    with pytest.raises(StoreError, match="FOREIGN KEY"), database.session() as session:
        session.add(Membership(group="hall", device="nobody"))


def test_settings_are_kept(database):
    with database.session() as session:
        write_setting(session, "a", {"b": [1, None]})
        write_setting(session, "a", {"b": [2]})
    with database.reading() as session:
        assert read_setting(session, "a", None) == {"b": [2]}
        assert read_setting(session, "c", "default") == "default"


def test_errors_do_not_repeat_the_values(database):
    with database.session() as session:
        session.add(device(kem_key="secret-value"))
    with pytest.raises(StoreError) as caught, database.session() as session:
        session.add(device(kem_key="secret-value"))
    assert isinstance(caught.value.__cause__, IntegrityError)
    assert "secret-value" not in str(caught.value)


def test_a_database_is_made_once(database):
    with pytest.raises(StoreError, match="exists"):
        database.create()


def test_a_missing_file_is_not_made_anew_when_looked_for(url, tmp_path):
    database = Database(url)
    with pytest.raises(StoreError, match="is missing; bring it back"):
        database.check()
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_refused(url, tmp_path):
    (tmp_path / "fleet.db").write_bytes(b"garbage " * 100)
    database = Database(url)
    with pytest.raises(StoreError, match="not a database"):
        database.check()
    database.close()


def test_another_version_is_refused(database):
    database.check()
    with database.session() as session:
        write_setting(session, "schema", 99)
    with pytest.raises(StoreError, match="has schema 99"):
        database.check()


@pytest.mark.parametrize("url", ["no url", "nosuchdb:///x", "postgresql+nosuchdriver://u:pw@h/db"])
def test_a_url_that_names_no_database_is_refused_without_repeating_it(url):
    with pytest.raises(StoreError, match="cannot be used") as caught:
        Database(url)
    assert "pw" not in str(caught.value)
