"""The contract of every inference engine.

An engine is a loaded model. A context is what one thread needs to run it: input arrays to write
into, output arrays to read from, and whatever the backend needs beside them. Contexts of one engine
may infer at the same time up to `Engine.lanes`; the caller keeps that limit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, shape and type of one tensor.

    Attributes:
        name: the tensor's name in the graph.
        shape: sizes in elements; None where the graph leaves it open.
        dtype: element type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: np.dtype[Any]


class Context(Protocol):
    """One thread's way to run an engine; not shared between threads."""

    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]:
        """Preallocated arrays by input name; write the batch into them before `infer`."""

    def infer(self) -> Mapping[str, NDArray[Any]]:
        """Run the model on what `inputs` holds.

        Returns:
            Outputs by name, valid until this context's next `infer` or `close`.

        Raises:
            InferenceError: the runtime failed.
        """

    def close(self) -> None:
        """Give the buffers back; may be called twice."""


@runtime_checkable
class FrameContext(Context, Protocol):
    """A context that takes whole frames and brings them to the input's size itself."""

    def write_frame(
        self,
        index: int,
        pixels: NDArray[np.uint8],
        source: tuple[int, int, int, int],
        target: tuple[int, int, int, int],
    ) -> None:
        """Resize part of a frame into place `index` of the batch; returns once `pixels` is free.

        Args:
            index: place in the batch.
            pixels: BGR, uint8, [h, w, 3].
            source: which pixels of the frame: left, top, right, bottom.
            target: which pixels of the input they fill; the others become grey 114.

        Raises:
            InferenceError: the runtime failed.
        """


class Engine(Protocol):
    """A loaded model, ready to run."""

    @property
    def backend(self) -> str:
        """Library that runs the model: "onnxruntime", "openvino" or "tensorrt"."""

    @property
    def precision(self) -> str:
        """What was proven to run: "fp32", "bf16", "fp16", "int8" or "mixed"."""

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        """Input tensors."""

    @property
    def outputs(self) -> tuple[TensorSpec, ...]:
        """Output tensors."""

    @property
    def lanes(self) -> int:
        """How many contexts may infer at the same time."""

    def create_context(self, batch: int) -> Context:
        """Allocate the buffers to run batches of `batch` images.

        Raises:
            InferenceError: the model cannot run this batch size, or memory is short.
        """

    def close(self) -> None:
        """Unload; every context must be closed before."""
