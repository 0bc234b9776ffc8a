"""The conveyor model quantised as a whole, as tools do it that know nothing of detectors."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from engines.describe import describe
from tests.vectors.faults import MODEL


class _Reader(CalibrationDataReader):
    def __init__(self, images: Iterable[NDArray[np.uint8]], name: str) -> None:
        self._name = name
        self._images = iter(images)

    def get_next(self):
        picture = next(self._images, None)
        if picture is None:
            return None
        tensor = np.ascontiguousarray(picture[None, ..., ::-1].transpose(0, 3, 1, 2))
        return {self._name: tensor.astype(np.float32) / 255}


def whole_graph_int8(images: Iterable[NDArray[np.uint8]], path: Path) -> Path:
    """Quantise every operator that ONNX Runtime's own tool can, the last concatenation included."""
    quantize_static(
        str(MODEL),
        str(path),
        _Reader(images, describe(MODEL).input.name),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QInt8,
        weight_type=QuantType.QInt8,
        calibrate_method=CalibrationMethod.MinMax,
        extra_options={"ActivationSymmetric": True, "WeightSymmetric": True},
    )
    # The tool keeps the metadata that says what the outputs mean, but only if it is asked to.
    model, original = onnx.load(path), onnx.load(MODEL)
    del model.metadata_props[:]
    model.metadata_props.extend(original.metadata_props)
    onnx.save(model, path)
    return path
