from __future__ import annotations

import dataclasses
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.bundle.strict import MAX_U64
from agent.errors import StoreError
from agent.update import fallback
from agent.update.record import Installed
from agent.update.store import Store
from tests.fakes.updates import GRANT, digest_of, drive, way

ONE = Installed(
    slot="main",
    digest=digest_of(7),
    family="line",
    version="1.2",
    release_counter=MAX_U64,
    min_release_counter=3,
    target="models/line/1.2/manifest.json",
    campaign="spring",
    counter=9,
    grant=GRANT,
    at=1_800_000_000.0,
)
TWO = dataclasses.replace(ONE, slot="other", digest=digest_of(8))


@pytest.mark.parametrize("active", [(), (ONE,), (ONE, TWO)])
def test_what_was_written_is_read(tmp_path, active):
    fallback.write(tmp_path, active)
    assert fallback.read(tmp_path) == active
    assert (tmp_path / "fallback.json").stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["fallback.json"]


def test_a_new_one_takes_the_place_of_the_old_one(tmp_path):
    fallback.write(tmp_path, (ONE,))
    (tmp_path / "fallback.json.new").write_bytes(b"left by a power cut")
    fallback.write(tmp_path, (TWO,))
    assert fallback.read(tmp_path) == (TWO,)


def test_a_missing_one_is_told(tmp_path):
    assert not fallback.exists(tmp_path)
    with pytest.raises(StoreError, match=r"fallback.json: cannot read: No such file"):
        fallback.read(tmp_path)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_is_one_error(tmp_path, data):
    fallback.write(tmp_path, (ONE,))
    path = tmp_path / "fallback.json"
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        broken = whole[: data.draw(st.integers(0, len(whole) - 2))]
    else:
        place = data.draw(st.integers(0, len(whole) - 2))
        broken = bytearray(whole)
        broken[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(broken)
    with pytest.raises(StoreError, match="the configured models serve"):
        fallback.read(tmp_path)


@given(st.binary(max_size=300))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_garbage_is_one_error(tmp_path, content):
    (tmp_path / "fallback.json").write_bytes(content)
    with pytest.raises(StoreError):
        fallback.read(tmp_path)


def test_a_huge_one_and_a_pipe_are_not_read(tmp_path):
    (tmp_path / "fallback.json").write_bytes(bytes(fallback.MAX_BYTES + 1))
    with pytest.raises(StoreError):
        fallback.read(tmp_path)
    (tmp_path / "fallback.json").unlink()
    os.mkfifo(tmp_path / "fallback.json")
    with pytest.raises(StoreError, match="no ordinary file"):
        fallback.read(tmp_path)


def test_one_that_lags_or_is_damaged_is_renewed_from_the_state(folder, clock, caplog):
    store = Store(folder, clock)
    drive(store, "main", way(1))
    old = (folder / "fallback.json").read_bytes()
    drive(store, "main", way(2))
    store.close()
    for content in (old, b"garbage"):
        (folder / "fallback.json").write_bytes(content)
        store = Store(folder, clock)
        assert [i.version for i in fallback.read(folder)] == ["2"]
        store.close()
    assert "damaged" in caplog.text


def test_a_lagging_copy_that_cannot_be_renewed_does_not_keep_the_state_from_use(folder, clock):
    store = Store(folder, clock)
    drive(store, "main", way(1))
    store.close()
    (folder / "fallback.json").unlink()
    (folder / "fallback.json").mkdir()
    (folder / "fallback.json" / "in the way").touch()
    store = Store(folder, clock)
    active = store.active("main")
    assert active is not None
    assert active.version == "1"
    store.close()


def test_a_copy_that_cannot_be_written_does_not_undo_the_step(folder, clock, caplog):
    store = Store(folder, clock)
    drive(store, "main", way(1)[:-1])
    (folder / "fallback.json").unlink()
    (folder / "fallback.json").mkdir()
    (folder / "fallback.json" / "in the way").touch()
    drive(store, "main", way(1)[-1:])
    active = store.active("main")
    assert active is not None
    assert active.version == "1"
    assert "fallback.json: cannot write" in caplog.text
    store.close()
