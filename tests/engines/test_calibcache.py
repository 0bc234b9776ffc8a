"""TensorRT's calibration cache: written, read back, and refused where it is another's."""

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engines.calibcache import MIN_SCALE, decode, encode, header
from engines.errors import CalibrationError

NAMES = st.text(
    st.characters(codec="utf-8", exclude_characters="\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"),
    min_size=1,
)


@pytest.mark.parametrize(
    ("version", "line"),
    [
        ("8.2.3", "TRT-8203-EntropyCalibration2"),
        ("8.6.1", "TRT-8601-EntropyCalibration2"),
        ("8.6.1.6", "TRT-8601-EntropyCalibration2"),
        ("10.3.0", "TRT-100300-EntropyCalibration2"),
        ("10.7.0", "TRT-100700-EntropyCalibration2"),
        ("10.16.1.11", "TRT-101601-EntropyCalibration2"),
    ],
)
def test_header_names_the_version(version, line):
    assert header(version) == line


@pytest.mark.parametrize("version", ["", "10", "10.3", "ten.three.0", "10.3.0rc1"])
def test_what_is_no_version_is_refused(version):
    with pytest.raises(CalibrationError, match="no version"):
        header(version)


def test_scale_is_a_big_endian_float_in_hexadecimal():
    """3c009976 stands in published caches for a picture of 0..1: amax 0.99684."""
    amax = 127 * struct.unpack(">f", bytes.fromhex("3c009976"))[0]
    assert encode({"images": amax}, "8.6.1").decode().splitlines()[1] == "images: 3c009976"


@given(st.dictionaries(NAMES, st.floats(2**-10, 2**20, width=32), max_size=8))
def test_what_was_written_is_read(amax):
    found = decode(encode(amax, "10.3.0"), "10.3.0")
    assert list(found) == list(amax)
    np.testing.assert_allclose(list(found.values()), list(amax.values()), rtol=1e-6)


def test_scale_of_a_dead_tensor_is_above_zero():
    assert decode(encode({"dead": 0.0}, "8.6.1"), "8.6.1") == {"dead": 127 * MIN_SCALE}


def test_cache_of_another_version_is_refused():
    with pytest.raises(CalibrationError, match=r"TRT-8601.*TRT-100300.*calibrate anew"):
        decode(encode({"a": 1.0}, "8.6.1"), "10.3.0")


@pytest.mark.parametrize(
    "cache",
    [
        b"",
        b"\xff\xfe",
        b"TRT-8601-MinMaxCalibration\na: 3c009976\n",
        b"TRT-8601-EntropyCalibration2\na 3c009976\n",
        b"TRT-8601-EntropyCalibration2\na: 3c0099\n",
        b"TRT-8601-EntropyCalibration2\n\n",
    ],
)
def test_damaged_cache_is_refused(cache):
    with pytest.raises(CalibrationError, match="calibrate anew"):
        decode(cache, "8.6.1")


@given(st.binary(max_size=80))
def test_any_bytes_are_a_cache_or_one_error(cache):
    try:
        decode(cache, "8.6.1")
    except CalibrationError:
        return
    assert cache.startswith(b"TRT-8601-EntropyCalibration2")


@pytest.mark.parametrize("name", ["", "a\nb", "a\rb"])
def test_name_that_would_break_the_form_is_refused(name):
    with pytest.raises(CalibrationError, match="cannot be named"):
        encode({name: 1.0}, "8.6.1")
