"""Which ways to an engine are tried, and in which order, for what a TensorRT can do."""

import pytest

from engines.errors import BuildError
from engines.trt.routes import Capabilities, routes

V8 = Capabilities(weak=True, strong=False, calibrator=True)
V10 = Capabilities(weak=True, strong=True, calibrator=True)
V11 = Capabilities(weak=False, strong=True, calibrator=False, adjusts_for_dla=True)


@pytest.mark.parametrize(
    ("can", "precision", "names"),
    [
        (V8, "fp32", ["fp32"]),
        (V10, "fp32", ["fp32"]),
        (V11, "fp32", ["strong fp32"]),
        (V8, "fp16", ["fp16 flag"]),
        (V10, "fp16", ["strong fp16", "fp16 flag"]),
        (V11, "fp16", ["strong fp16"]),
        (
            V8,
            "int8",
            [
                "q/dq with int8 and fp16 flags",
                "int8 flag with calibration cache",
                "int8 flag with calibration by TensorRT",
            ],
        ),
        (V10, "int8", ["strong fp16 q/dq", "q/dq with int8 and fp16 flags"]),
        (V11, "int8", ["strong fp16 q/dq", "strong fp32 q/dq"]),
    ],
)
def test_ways_on_a_gpu(can, precision, names):
    assert [route.name for route in routes(precision, can, dla=False)] == names


@pytest.mark.parametrize(
    ("can", "precision", "names"),
    [
        (V8, "fp16", ["dla: fp16 flag"]),
        (V11, "fp16", ["dla: strong fp16"]),
        (
            V10,
            "int8",
            [
                "dla: int8 flag with calibration cache",
                "dla: int8 flag with calibration by TensorRT",
            ],
        ),
    ],
)
def test_ways_on_a_dla(can, precision, names):
    found = routes(precision, can, dla=True)
    assert [route.name for route in found] == names
    assert all("GPU_FALLBACK" in route.flags for route in found)


@pytest.mark.parametrize(
    ("can", "precision", "dla"),
    [(V11, "int8", True), (V10, "fp32", True), (V8, "bf16", False)],
)
def test_no_way_is_an_error_that_says_what_else_to_ask_for(can, precision, dla):
    with pytest.raises(BuildError, match="ask for"):
        routes(precision, can, dla=dla)


def test_calibrator_is_not_used_on_a_gpu_where_it_is_known_to_die():
    # TensorRT#4797: calibrated int8 on 10.3 dies in checkSanity.
    assert not any(route.calibration for route in routes("int8", V10, dla=False))


def test_dla_never_gets_q_dq():
    for can in (V8, V10):
        assert all("qdq" not in route.graph for route in routes("int8", can, dla=True))


@pytest.mark.parametrize("can", [V8, V10, V11])
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_strong_typing_is_never_mixed_with_precision_flags(can, precision):
    for route in routes(precision, can, dla=False):
        assert not (route.strong and set(route.flags) & {"FP16", "INT8"})
