"""Timing caches: shared, combined, and never a reason to fail."""

import logging
import threading

import pytest

from engines.trt import routes, timing
from engines.trt.build import build
from tests.engines.graphs import convolution
from tests.fakes.cudaport import DESKTOP
from tests.fakes.trtorders import api, content, order

GIB = 1 << 30


def built(path, version="10.3.0", model=None):
    _, figures = build(
        api(version),
        order(routes.FP32, timing=path),
        model or content(routes.FP32),
        DESKTOP,
        GIB,
        tell=lambda progress: None,
    )
    return figures["timing_cache"]


def times(path, version="10.3.0"):
    """How many kernels the file knows."""
    config = api(version).started("Builder").create_builder_config()
    assert timing.attach(config, path) == "loaded"
    return len(config.get_timing_cache()._content["times"])


@pytest.fixture
def path(tmp_path):
    return tmp_path / "timing" / "x.timing"


def test_second_build_starts_from_the_first(path):
    assert built(path) == "empty"
    assert built(path) == "loaded"
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_no_folder_means_no_cache():
    assert built(None) == "none"


def test_builds_that_ran_together_lose_nothing(path):
    """Both began with the empty file; each adds what it has measured."""
    first, second = (api("10.3.0").started("Builder").create_builder_config() for _ in range(2))
    for number, config in enumerate((first, second)):
        timing.attach(config, path)
        config.get_timing_cache()._content["times"][f"kernel {number}"] = 1.0
    assert timing.save(first, path)
    assert timing.save(second, path)
    assert times(path) == 2


def test_threads_that_save_together_lose_nothing(path):
    configs = [api("10.3.0").started("Builder").create_builder_config() for _ in range(8)]
    for number, config in enumerate(configs):
        timing.attach(config, path)
        config.get_timing_cache()._content["times"][f"kernel {number}"] = 1.0
    threads = [threading.Thread(target=timing.save, args=(c, path)) for c in configs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert times(path) == 8


def test_cache_of_another_release_is_begun_anew(path, caplog):
    built(path, "10.16.1.11")
    caplog.set_level(logging.WARNING)
    assert built(path, "10.3.0") == "empty"
    assert "begun anew" in caplog.text
    assert times(path, "10.3.0") == 1


def test_cache_of_another_gpu_is_begun_anew(path, monkeypatch):
    built(path)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "sm:75")
    assert built(path) == "empty"


@pytest.mark.parametrize("damage", [b"", b"\0" * 10, b"\0" * 4000, "flip", "cut"])
def test_damaged_cache_never_reaches_tensorrt(path, damage, monkeypatch, caplog):
    built(path)
    whole = path.read_bytes()
    bad = {"flip": whole[:40] + bytes([whole[40] ^ 4]) + whole[41:], "cut": whole[:-1]}
    path.write_bytes(bad.get(damage, damage))
    seen = []
    config = api("10.3.0").started("Builder").create_builder_config()
    real = type(config).create_timing_cache
    monkeypatch.setattr(
        type(config), "create_timing_cache", lambda self, c: seen.append(c) or real(self, c)
    )
    assert timing.attach(config, path) == "empty"
    assert seen == [b""]
    assert "damaged" in caplog.text
    assert built(path) == "empty"
    assert built(path) == "loaded"


def test_cache_that_tensorrt_refuses_costs_nothing_else(path, monkeypatch):
    built(path)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "timing-refused")
    assert built(path) == "none"


def test_full_disk_is_a_warning(path, monkeypatch, caplog):
    def full(place, data):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engines.durable.write_new", full)
    assert built(path) == "empty"
    assert "No space left on device" in caplog.text
    assert list(path.parent.iterdir()) == []


def test_folder_that_cannot_be_made_is_a_warning(tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    assert built(tmp_path / "file" / "x.timing") == "empty"
    assert "cannot be" in caplog.text


def test_lock_that_others_hold_is_a_warning(path, monkeypatch, caplog):
    built(path)
    before = path.read_bytes()
    monkeypatch.setattr(timing, "LOCK_TIMEOUT_S", 0.05)
    with timing.file_lock(path.with_suffix(".lock"), 1.0) as held:
        assert held
        other = convolution(branch=True).SerializeToString()
        assert built(path, model=other) == "loaded"
    assert "locked" in caplog.text
    assert path.read_bytes() == before


def test_link_in_place_of_the_cache_is_not_followed(path, tmp_path, caplog):
    secret = tmp_path / "secret"
    secret.write_text("keep me")
    path.parent.mkdir()
    path.symlink_to(secret)
    assert built(path) == "empty"
    assert secret.read_text() == "keep me"
    assert not path.is_symlink()


def test_every_release_gpu_and_driver_has_its_own_file(tmp_path):
    names = {
        timing.cache_path(tmp_path, *parts).name
        for parts in [
            ("10.3.0", "8.7", "12.6"),
            ("10.3.1", "8.7", "12.6"),
            ("10.3.0", "8.6", "12.6"),
            ("10.3.0", "8.7", "13.0"),
        ]
    }
    assert len(names) == 4
