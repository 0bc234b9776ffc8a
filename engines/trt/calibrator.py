"""Int8 ranges for TensorRT's own calibration: from our cache text, or from pictures.

TensorRT calls back through bindings that print an exception and go on as if the data had ended: a
bad batch would silently shorten the calibration. So every callback keeps its exception, and the
builder raises it once the build has returned. It also reads as many pointers from a batch as the
network has inputs, however long the list is, and lends the written cache only during the call.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from engines import calibcache
from engines.errors import CalibrationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from engines.trt.api import TrtApi


class Upload(Protocol):
    """Brings a batch to the device."""

    def __call__(self, batch: NDArray[Any]) -> int:
        """Copy it; its address holds these values until the next call."""


class Calibration:
    """Answers to a calibrator's callbacks; keeps what goes wrong.

    Args:
        version: TensorRT's; a cache of another is refused.
        input_name: the network's only input.
        shape: of every batch: the profile's best shape (TensorRT#289: a batch dimension that
            differs from it breaks calibration).
        cache: a calibration cache, or None.
        batches: arrays of `shape`, or None.
        upload: brings a batch to the device.

    Raises:
        CalibrationError: the cache is of another version of TensorRT, which would ignore it.
    """

    def __init__(
        self,
        version: str,
        input_name: str,
        shape: Sequence[int],
        *,
        cache: bytes | None = None,
        batches: Iterator[NDArray[Any]] | None = None,
        upload: Upload | None = None,
    ) -> None:
        if cache is not None:
            calibcache.decode(cache, version)
        self._input = input_name
        self._shape = tuple(shape)
        self._cache = cache
        self._batches = batches
        self._upload = upload
        self.error: Exception | None = None
        self.used = 0
        self.written = b""

    def batch(self, names: Sequence[str]) -> list[int]:
        """Addresses of the next batch, one for each name; empty at the end."""
        try:
            return self._next(list(names))
        except Exception as error:  # noqa: BLE001 - the bindings would print it and go on
            self.error = self.error or error
            return []

    def _next(self, names: list[str]) -> list[int]:
        if self.error is not None:
            return []
        if names != [self._input]:
            raise CalibrationError(
                f"TensorRT wants to calibrate the inputs {names}, and there are pictures for "
                f"{self._input!r} alone"
            )
        if self._batches is None or self._upload is None:
            raise CalibrationError("TensorRT did not take the calibration cache that it was given")
        batch = next(self._batches, None)
        if batch is None:
            return []
        if batch.shape != self._shape:
            raise CalibrationError(
                f"a calibration batch has shape {batch.shape}, and the profile has {self._shape}"
            )
        if not np.isfinite(batch).all():
            # TensorRT#1634: one NaN ends calibration in an assertion on the ranges.
            raise CalibrationError(
                f"calibration batch {self.used} holds values that are not finite; "
                "check the model's mean and std"
            )
        address = self._upload(batch)
        self.used += 1
        return [address]

    def read(self) -> bytes | None:
        """The cache to start from, or None."""
        return self._cache

    def write(self, cache: Any) -> None:
        """Keep a copy of the cache; the memory is TensorRT's."""
        try:
            self.written = bytes(cache)
        except Exception as error:  # noqa: BLE001 - the bindings would print it and go on
            self.error = self.error or error


def make_calibrator(api: TrtApi, calibration: Calibration) -> Any:
    """An entropy calibrator of this TensorRT, the only kind that a DLA takes as well."""
    base = api.module.IInt8EntropyCalibrator2

    class Calibrator(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            # Required by the binding: without it the object cannot be made.
            base.__init__(self)

        def get_batch_size(self) -> int:
            # A leftover of networks with an implicit batch: theirs is part of the shape.
            return 1

        def get_batch(self, names: list[str]) -> list[int]:
            return calibration.batch(names)

        def read_calibration_cache(self) -> bytes | None:
            return calibration.read()

        def write_calibration_cache(self, cache: Any) -> None:
            calibration.write(cache)

    return Calibrator()
