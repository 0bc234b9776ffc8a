from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bundle.manifest import Compat
from agent.update import preflight
from agent.update.machine import Failed
from agent.update.preflight import RESERVE_BYTES, Device, incompatible, no_room, refusal, too_large
from tests.fakes.updates import digest_of, drive, manifest, way

DEVICE = Device(hw_class="orin-nx", agent="0.3.1", jetpack="6.1", tensorrt="10.3.0.30")
PLAIN = Device(hw_class="x86-64", agent="0.3.1")


@pytest.mark.parametrize(
    ("compat", "device", "words"),
    [
        (Compat(), DEVICE, None),
        (Compat(), PLAIN, None),
        (Compat(hw_class=("agx", "orin-nx")), DEVICE, None),
        (Compat(hw_class=("agx",)), DEVICE, "it is for hardware class agx; here is orin-nx"),
        (Compat(hw_class=()), DEVICE, "it is for hardware class none; here is orin-nx"),
        (Compat(jetpack=("6.1", "6.2")), DEVICE, None),
        (Compat(jetpack=("5", "6")), DEVICE, None),
        (Compat(jetpack=("6.1.1",)), DEVICE, "JetPack 6.1.1; here is 6.1"),
        (Compat(jetpack=("new",)), DEVICE, "JetPack new; here is 6.1"),
        (Compat(jetpack=("5.1",)), DEVICE, "it is for JetPack 5.1; here is 6.1"),
        (Compat(jetpack=("6.1",)), PLAIN, "it is for JetPack 6.1; here is none"),
        (Compat(tensorrt_min="10.3"), DEVICE, None),
        (Compat(tensorrt_min="10.3.0.30"), DEVICE, None),
        (Compat(tensorrt_min="9"), DEVICE, None),
        (Compat(tensorrt_min="10.3.1"), DEVICE, "needs TensorRT 10.3.1 or newer; here is 10.3.0.3"),
        (Compat(tensorrt_min="8.5"), PLAIN, "needs TensorRT 8.5 or newer; here is none"),
        (Compat(tensorrt_max="10.3"), DEVICE, None),
        (Compat(tensorrt_max="10"), DEVICE, None),
        (Compat(tensorrt_max="10.2"), DEVICE, "needs TensorRT 10.2 or older; here is 10.3.0.30"),
        (Compat(tensorrt_max="8.6"), DEVICE, "TensorRT 8.6 or older"),
        (Compat(tensorrt_max="8.6"), PLAIN, "TensorRT 8.6 or older; here is none"),
        (Compat(tensorrt_min="new"), DEVICE, "TensorRT new or newer"),
        (Compat(agent_min="0.3"), DEVICE, None),
        (Compat(agent_min="0.3.1"), DEVICE, None),
        (Compat(agent_min="0.10"), DEVICE, "needs agent 0.10 or newer; here is 0.3.1"),
    ],
)
def test_a_bundle_is_for_the_devices_it_names(compat, device, words):
    found = incompatible(compat, device)
    assert (found is None) if words is None else (found is not None and words in found)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=4), st.integers(0, 3))
def test_a_version_is_within_itself_however_long_it_is_written(parts, zeros):
    version = ".".join(map(str, parts))
    longer = version + ".0" * zeros
    for limit, here in ((version, longer), (longer, version), (version, version + "rc1")):
        device = Device("x", here, tensorrt=here)
        assert incompatible(Compat(tensorrt_min=limit, tensorrt_max=limit), device) is None
        assert incompatible(Compat(agent_min=limit), device) is None


def test_a_bundle_is_not_larger_than_configured():
    bundle = manifest(1, length=2 * 2**20)
    assert too_large(bundle, 3) is None
    # Encryption adds a little.
    assert too_large(bundle, 2) == "it has 3 MB; updates.max_bundle_mb allows 2 MB"


def test_the_disk_holds_it_and_the_rest_of_the_device_too():
    bundle = manifest(1, length=10 * 2**20)
    needed = bundle.ciphertext.length + bundle.index.length
    assert no_room(bundle, free=needed + RESERVE_BYTES, staged=0) is None
    assert no_room(bundle, free=needed + RESERVE_BYTES - 1, staged=0) == (
        "it needs 75 MB on the disk, 74 MB are free; remove something"
    )
    # What lies there already is not needed again.
    assert no_room(bundle, free=RESERVE_BYTES, staged=needed) is None
    assert no_room(bundle, free=RESERVE_BYTES - 1, staged=2 * needed) is not None


def refused(store, tmp_path, number, **other):
    return refusal(
        manifest(number, **other),
        PLAIN,
        digest=digest_of(number),
        store=store,
        max_bundle_mb=100,
        folder=tmp_path / "bundles",
    )


def test_nothing_speaks_against_a_good_bundle(store, tmp_path):
    assert refused(store, tmp_path, 1) is None
    assert not (tmp_path / "bundles").exists()


def test_the_floor_holds_for_what_is_older_only(store, tmp_path):
    drive(store, "main", way(5))
    assert refused(store, tmp_path, 4) == (
        "release 4 of line is older than release 5, which was committed here"
    )
    assert refused(store, tmp_path, 5) is None
    assert refused(store, tmp_path, 6) is None
    store.roll_back("main", "worse")
    assert "is older" in refused(store, tmp_path, 4)


def test_what_failed_here_is_not_tried_again(store, tmp_path):
    drive(store, "main", (*way(5)[:6], Failed("score 0.1 is below 0.8")))
    assert refused(store, tmp_path, 5) == (
        "this bundle was tried here already and failed: score 0.1 is below 0.8"
    )


def test_size_and_device_are_looked_at_too(store, tmp_path):
    assert "max_bundle_mb" in refused(store, tmp_path, 1, length=101 * 2**20)
    assert "hardware class" in refused(store, tmp_path, 1, compat=Compat(hw_class=("agx",)))


def test_the_disk_is_looked_at(store, tmp_path, monkeypatch):
    folder = tmp_path / "bundles" / digest_of(1)
    folder.mkdir(parents=True)
    with (folder / "payload").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 2**20)
    with (folder / "holes").open("wb") as file:
        file.truncate(2**30)
    assert preflight._staged(folder) == pytest.approx(2**20, abs=16384)
    assert preflight._free(folder) > 0
    assert preflight._free(tmp_path / "not" / "there") > 0
    monkeypatch.setattr(preflight, "_free", lambda _folder: RESERVE_BYTES)
    assert "remove something" in refused(store, tmp_path, 1, length=3 * 2**20)
    assert refused(store, tmp_path, 1, length=2**19) is None
