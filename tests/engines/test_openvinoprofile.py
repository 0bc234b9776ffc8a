"""OpenVINO's own counters, layer by layer."""

import numpy as np
import pytest

pytest.importorskip("openvino")

from engines.errors import BackendError
from engines.openvinoprofile import profile
from tests.engines.graphs import convolution


def test_a_model_is_profiled():
    images = np.zeros((1, 3, 8, 8), np.float32)
    found = profile(convolution().SerializeToString(), "fp32", images, runs=5, threads=1)
    layers = {layer.kind: layer for layer in found.layers}
    assert "Convolution" in layers
    assert layers["Convolution"].precision == "fp32"
    assert layers["Convolution"].shape == (1, 4, 8, 8)
    assert found.run_ms > 0
    assert all(layer.ms >= 0 for layer in found.layers)


def test_what_the_library_refuses_is_our_error():
    images = np.zeros((1, 3, 8, 8), np.float32)
    with pytest.raises(BackendError, match="OpenVINO refuses"):
        profile(b"nothing", "fp32", images, runs=1, threads=1)
