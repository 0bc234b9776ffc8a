"""Which ways lead to an engine of a precision, best first: a table, and nothing else.

What a release can do is told by capabilities, never by its number. A route is taken if the builder
makes an engine of it; whether that engine is right and fast is `engines.selection`'s business, and
so is falling back to another precision.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from engines.errors import BuildError

if TYPE_CHECKING:
    from engines.backend import Precision

Graph = Literal["fp32", "fp16", "qdq", "fp16_qdq"]
"""Which variant of the model a route builds, as `engines.precision.Variants` names them."""

Calibration = Literal["", "cache", "pictures"]
"""Where int8 ranges come from if not from the graph: our own cache text, or TensorRT's run over
the calibration pictures."""


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a TensorRT can do.

    Attributes:
        weak: precisions can be allowed by flags, and the builder chooses (before 11).
        strong: the graph's own types can be made binding (10 and newer).
        calibrator: int8 ranges can come from a calibrator (before 11).
        adjusts_for_dla: the parser rewrites a typed graph for the DLA.
    """

    weak: bool
    strong: bool
    calibrator: bool
    adjusts_for_dla: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One way to build.

    Attributes:
        name: for reports.
        graph: the variant to build.
        strong: the graph's types are binding.
        flags: names of builder flags.
        calibration: where int8 ranges come from, if not from the graph.
        pins: layers that stay in floating point are named to the builder, because the graph does
            not say so.
        parser_flags: names of parser flags.
    """

    name: str
    graph: Graph
    strong: bool = False
    flags: tuple[str, ...] = ()
    calibration: Calibration = ""
    pins: bool = False
    parser_flags: tuple[str, ...] = ()


FP32 = Route("fp32", "fp32")
FP32_STRONG = Route("strong fp32", "fp32", strong=True)
FP16_FLAG = Route("fp16 flag", "fp32", flags=("FP16",))
FP16_STRONG = Route("strong fp16", "fp16", strong=True)
INT8_STRONG = Route("strong fp16 q/dq", "fp16_qdq", strong=True)
INT8_STRONG_FP32 = Route("strong fp32 q/dq", "qdq", strong=True)
INT8_FLAGS = Route("q/dq with int8 and fp16 flags", "qdq", flags=("INT8", "FP16"))
INT8_CACHE = Route(
    "int8 flag with calibration cache",
    "fp32",
    flags=("INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS"),
    calibration="cache",
    pins=True,
)
INT8_PICTURES = Route(
    "int8 flag with calibration by TensorRT",
    "fp32",
    flags=("INT8", "FP16", "PREFER_PRECISION_CONSTRAINTS"),
    calibration="pictures",
    pins=True,
)
DLA_FP16_FLAG = Route("dla: fp16 flag", "fp32", flags=("FP16", "GPU_FALLBACK"))
DLA_FP16_STRONG = Route(
    "dla: strong fp16",
    "fp16",
    strong=True,
    flags=("GPU_FALLBACK",),
    parser_flags=("ADJUST_FOR_DLA",),
)
# DLA refuses Q/DQ: a clean graph, and ranges from outside.
DLA_INT8_CACHE = Route(
    "dla: int8 flag with calibration cache",
    "fp32",
    flags=(*INT8_CACHE.flags, "GPU_FALLBACK"),
    calibration="cache",
    pins=True,
)
DLA_INT8_PICTURES = Route(
    "dla: int8 flag with calibration by TensorRT",
    "fp32",
    flags=(*INT8_PICTURES.flags, "GPU_FALLBACK"),
    calibration="pictures",
    pins=True,
)

ROUTES = {
    route.name: route
    for route in (
        FP32,
        FP32_STRONG,
        FP16_FLAG,
        FP16_STRONG,
        INT8_STRONG,
        INT8_STRONG_FP32,
        INT8_FLAGS,
        INT8_CACHE,
        INT8_PICTURES,
        DLA_FP16_FLAG,
        DLA_FP16_STRONG,
        DLA_INT8_CACHE,
        DLA_INT8_PICTURES,
    )
}
"""Every route by its name."""


def routes(precision: Precision, can: Capabilities, *, dla: bool) -> tuple[Route, ...]:
    """The ways to an engine of this precision, best first.

    Args:
        precision: what is asked for.
        can: what this TensorRT can do.
        dla: build for a deep learning accelerator.

    Raises:
        BuildError: there is none.
    """
    found = _for_dla(precision, can) if dla else _for_gpu(precision, can)
    if not found:
        place = "a DLA" if dla else "a GPU"
        raise BuildError(
            f"this TensorRT has no way to a {precision} engine for {place}; "
            + (
                "ask for fp16, or leave tensorrt.dla_core away"
                if dla
                else "ask for fp32, fp16 or int8"
            )
        )
    return found


def _for_gpu(precision: Precision, can: Capabilities) -> tuple[Route, ...]:
    if precision == "fp32":
        return (FP32,) if can.weak else (FP32_STRONG,)
    if precision == "fp16":
        return ((FP16_STRONG,) if can.strong else ()) + ((FP16_FLAG,) if can.weak else ())
    if precision == "int8":
        if not can.strong:
            return (INT8_FLAGS, *((INT8_CACHE, INT8_PICTURES) if can.calibrator else ()))
        # No calibrator where strong typing exists: on 10.3 it dies in checkSanity (TensorRT#4797).
        # Some of these builders fail on float16 scales (TensorRT#4832), so float32 ones come next.
        return (INT8_STRONG, INT8_FLAGS if can.weak else INT8_STRONG_FP32)
    return ()


def _for_dla(precision: Precision, can: Capabilities) -> tuple[Route, ...]:
    # A DLA computes in fp16 and int8; "fp32 on a DLA" would be the GPU by another name.
    if precision == "fp16":
        if can.weak:
            return (DLA_FP16_FLAG,)
        return (DLA_FP16_STRONG,) if can.adjusts_for_dla else ()
    # Int8 on a DLA without a calibrator (TensorRT 11.4 on AGX Orin) has not been seen to work.
    if precision == "int8" and can.weak and can.calibrator:
        return (DLA_INT8_CACHE, DLA_INT8_PICTURES)
    return ()
