"""Prepares frames on the GPU: resize, border, channel order, scaling and layout in one pass."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from engines.errors import BackendError, InferenceError
from engines.graph import PIXEL_MAX
from engines.model import Resize
from engines.trt.compile import compile_source
from engines.trt.kernelsource import FUNCTION, SOURCE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.model import ModelInfo
    from engines.trt.cuda import CudaPort, DeviceMemory, Event, HostMemory, Stream

Window = tuple[int, int, int, int]
"""Left, top, right, bottom, in pixels."""

BLOCK = (32, 8, 1)
"""Threads of a block: neighbours in a row read neighbouring pixels."""

MAX_FRAME_BYTES = 3 * 16_384 * 16_384
"""Larger frames than any camera gives."""

CHANNELS = 3


class FrameKernel:
    """The compiled kernel of one model.

    Args:
        cuda: the GPU; must be pushed.
        info: gives size, resize and normalisation.
        dtype: of the model's input: float32 or float16.

    Raises:
        BackendError: it cannot be compiled here, or does not do what the model needs.
        InferenceError: the driver does not take it.
    """

    def __init__(self, cuda: CudaPort, info: ModelInfo, dtype: np.dtype[np.generic]) -> None:
        if dtype not in (np.float32, np.float16):
            raise BackendError(
                f"frames cannot be prepared on the GPU for an input of type {dtype}; "
                "set tensorrt.preprocess: cpu"
            )
        self._cuda = cuda
        self._info = info
        self._half = dtype == np.float16
        self._factors = [1 / (PIXEL_MAX * s) for s in info.std]
        self._shifts = [-m / s for m, s in zip(info.mean, info.std, strict=True)]
        self.picture_bytes = CHANNELS * info.width * info.height * dtype.itemsize
        image = compile_source(SOURCE, cuda.board.compute_capability)
        self._kernel = cuda.kernel(image, FUNCTION)

    def writer(self, memory: DeviceMemory) -> FrameWriter:
        """What writes frames into one context's input, [batch, 3, height, width]."""
        return FrameWriter(self._cuda, self, memory)

    def enqueue(
        self, stream: Stream, window: int, width: int, height: int, target: Window, out: int
    ) -> None:
        """Start it.

        Args:
            stream: where.
            window: address of BGR pixels on the GPU, row after row.
            width: of the window, pixels.
            height: of the window, pixels.
            target: which pixels of the input it fills; the others become grey.
            out: address of the picture's place in the input.

        Raises:
            InferenceError: the driver refuses it.
        """
        info = self._info
        # The same rule as agent.vision.preprocess has.
        averaged = info.resize is Resize.CENTER_CROP and width > info.width
        integers = (CHANNELS * width, width, height, *target, info.width, info.height)
        args = [
            np.uint64(window),
            np.uint64(out),
            *(np.int32(value) for value in (*integers, averaged, self._half)),
            *(np.float32(value) for value in (*self._factors, *self._shifts)),
        ]
        grid = (-(-info.width // BLOCK[0]), -(-info.height // BLOCK[1]), 1)
        self._kernel.launch(stream, grid, BLOCK, args)

    def require(self, pixels: NDArray[np.uint8], source: Window, target: Window) -> None:
        """Refuse windows that lie outside of frame or input: the GPU would read foreign memory.

        Raises:
            InferenceError: they do, or the frame is too large.
        """
        height, width = pixels.shape[:2]
        if not (_inside(source, width, height) and _inside(target, *self._size)):
            raise InferenceError(
                f"window {source} of a frame of {width}x{height} pixels cannot fill {target} of "
                f"an input of {self._size[0]}x{self._size[1]}"
            )
        if pixels.nbytes > MAX_FRAME_BYTES:
            raise InferenceError(f"a frame of {width}x{height} pixels is too large for the GPU")

    @property
    def _size(self) -> tuple[int, int]:
        return self._info.width, self._info.height


def _inside(window: Window, width: int, height: int) -> bool:
    left, top, right, bottom = window
    return 0 <= left < right <= width and 0 <= top < bottom <= height


@dataclass(slots=True)
class _Slot:
    """Buffers of one place of the batch."""

    host: HostMemory
    device: DeviceMemory
    copied: Event

    def close(self) -> None:
        for resource in (self.copied, self.device, self.host):
            resource.close()


class FrameWriter:
    """Brings frames to one context's input; its buffers grow with the largest frame.

    Each place of the batch has buffers of its own, so that writing one frame does not wait for the
    kernel of another. Frames are copied to the GPU where it shares the host's memory, too: the
    kernel reads most pixels several times, and mapped memory is not cached everywhere.

    Args:
        cuda: the GPU.
        kernel: prepares frames.
        memory: the input.
    """

    def __init__(self, cuda: CudaPort, kernel: FrameKernel, memory: DeviceMemory) -> None:
        self._cuda = cuda
        self._kernel = kernel
        self._memory = memory
        self._slots: dict[int, _Slot] = {}

    def write(
        self, stream: Stream, index: int, pixels: NDArray[np.uint8], source: Window, target: Window
    ) -> None:
        """Prepare a frame into place `index`; the GPU must be pushed.

        Returns once `pixels` is free; the stream's next work finds the picture.

        Raises:
            InferenceError: memory is short, the driver refuses, or a window lies outside.
        """
        self._kernel.require(pixels, source, target)
        left, top, right, bottom = source
        window = pixels[top:bottom, left:right]
        slot = self._slot(stream, index, window.nbytes)
        # A frame that was written before this one may still be on its way out of the buffer.
        slot.copied.synchronize()
        slot.host.array[: window.nbytes].reshape(window.shape)[...] = window
        self._cuda.copy_in(slot.device, slot.host, window.nbytes, stream)
        slot.copied.record(stream)
        self._kernel.enqueue(
            stream, slot.device.address, right - left, bottom - top, target, self._place(index)
        )

    def clear(self, stream: Stream, index: int) -> None:
        """Make place `index` grey.

        Raises:
            InferenceError: the driver refuses it.
        """
        # Nothing is read of a window that fills nothing.
        self._kernel.enqueue(stream, self._memory.address, 1, 1, (0, 0, 0, 0), self._place(index))

    def close(self) -> None:
        """Free the buffers; may be called twice."""
        while self._slots:
            self._slots.popitem()[1].close()

    def _place(self, index: int) -> int:
        return self._memory.address + index * self._kernel.picture_bytes

    def _slot(self, stream: Stream, index: int, nbytes: int) -> _Slot:
        slot = self._slots.get(index)
        if slot is not None and slot.device.nbytes < nbytes:
            stream.synchronize()
            self._slots.pop(index).close()
            slot = None
        if slot is None:
            slot = self._slots[index] = self._made(nbytes)
        return slot

    def _made(self, nbytes: int) -> _Slot:
        cuda = self._cuda
        with contextlib.ExitStack() as undo:
            host = cuda.pinned(nbytes)
            undo.callback(host.close)
            device = cuda.alloc(nbytes)
            undo.callback(device.close)
            event = cuda.event()
            undo.pop_all()
        return _Slot(host, device, event)
