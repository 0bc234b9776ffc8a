from __future__ import annotations

import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import StoreError
from agent.update import trustmirror
from agent.update.store import Store

YEAR_1970, YEAR_2106 = 0.0, 4_294_967_296.0


def test_files_are_replaced_as_a_whole(folder, clock):
    store = Store(folder, clock)
    assert store.trust.load() == {}
    store.trust.save({"1.root.json": b"one", "timestamp.json": b"t1"})
    store.trust.save({"2.root.json": b"two", "timestamp.json": b"t2"})
    store.close()
    store = Store(folder, clock)
    assert store.trust.load() == {"2.root.json": b"two", "timestamp.json": b"t2"}
    store.close()


@pytest.mark.parametrize(
    "files",
    [
        {f"{n}.root.json": b"" for n in range(trustmirror.MAX_FILES + 1)},
        {"root.json": bytes(trustmirror.MAX_BYTES + 1)},
    ],
    ids=["many", "large"],
)
def test_too_much_is_refused_and_the_old_files_stay(store, files):
    store.trust.save({"timestamp.json": b"t1"})
    with pytest.raises(StoreError, match="more than the"):
        store.trust.save(files)
    assert store.trust.load() == {"timestamp.json": b"t1"}


def test_the_time_floor_does_not_ask_the_clock(folder, clock):
    store = Store(folder, clock)
    assert store.trust.time_floor() == 0.0
    store.trust.raise_time_floor(1_800_000_000.25)
    for clock.now in (YEAR_1970, YEAR_2106, -1.0, math.inf):
        assert store.trust.time_floor() == 1_800_000_000.25
        store.close()
        store = Store(folder, clock)
    store.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.floats()))
def test_the_time_floor_never_falls_and_stays_a_time(store, times):
    for t in times:
        before = store.trust.time_floor()
        store.trust.raise_time_floor(t)
        after = store.trust.time_floor()
        assert before <= after <= trustmirror.MAX_WALL_S
        assert after == before or after == min(t, trustmirror.MAX_WALL_S)
