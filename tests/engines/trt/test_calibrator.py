"""Callbacks of a calibration: TensorRT's bindings lose exceptions and trust lengths."""

import numpy as np
import pytest

from engines import calibcache
from engines.errors import CalibrationError
from engines.trt.api import TrtApi
from engines.trt.calibrator import Calibration, make_calibrator
from tests.fakes.tensorrt.release import make

SHAPE = (2, 3, 4, 4)
VERSION = "8.6.1"


class Upload:
    """Keeps every batch alive and gives its address."""

    def __init__(self):
        self.kept = []

    def __call__(self, batch):
        self.kept.append(np.ascontiguousarray(batch))
        return self.kept[-1].ctypes.data


def calibration(*batches, **changes):
    values = {"batches": iter(batches), "upload": Upload()} | changes
    return Calibration(VERSION, "x", SHAPE, **values)


def ones(shape=SHAPE):
    return np.ones(shape, np.float32)


def test_one_address_a_name_until_the_end():
    taken = calibration(ones(), ones())
    assert [len(taken.batch(["x"])) for _ in range(3)] == [1, 1, 0]
    assert (taken.used, taken.error) == (2, None)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (ones((1, 3, 4, 4)), "profile has"),
        (np.full(SHAPE, np.nan, np.float32), "not finite"),
        (np.full(SHAPE, np.inf, np.float32), "not finite"),
    ],
)
def test_bad_batch_ends_calibration_and_is_remembered(bad, words):
    taken = calibration(ones(), bad, ones())
    assert [len(taken.batch(["x"])) for _ in range(3)] == [1, 0, 0]
    assert isinstance(taken.error, CalibrationError)
    assert words in str(taken.error)


def test_pictures_that_fail_are_remembered():
    def broken():
        yield ones()
        raise CalibrationError("the disk went away")

    taken = calibration(batches=broken())
    assert [len(taken.batch(["x"])) for _ in range(2)] == [1, 0]
    assert str(taken.error) == "the disk went away"


def test_other_names_never_get_a_short_list():
    taken = calibration(ones())
    assert taken.batch(["x", "y"]) == []
    assert "'x' alone" in str(taken.error)


def test_cache_of_another_version_is_refused_before_the_build():
    with pytest.raises(CalibrationError):
        calibration(cache=calibcache.encode({"x": 1.0}, "10.3.0"))


def test_batches_are_not_asked_for_where_a_cache_was_given():
    cache = calibcache.encode({"x": 1.0}, VERSION)
    taken = Calibration(VERSION, "x", SHAPE, cache=cache)
    assert taken.read() == cache
    assert taken.batch(["x"]) == []
    assert "did not take the calibration cache" in str(taken.error)


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "10.13.3.9", "10.16.1.11"])
def test_written_cache_is_a_copy(version):
    api = TrtApi(make(version))
    taken = calibration()
    calibrator = make_calibrator(api, taken)
    memory = bytearray(b"TRT-1-x")
    calibrator.write_calibration_cache(memoryview(memory))
    memory[:] = bytes(len(memory))
    assert taken.written == b"TRT-1-x"
    assert calibrator.get_batch_size() == 1
    assert calibrator.read_calibration_cache() is None


def test_cache_that_cannot_be_copied_is_remembered():
    taken = calibration()
    taken.write(object())
    assert isinstance(taken.error, TypeError)
