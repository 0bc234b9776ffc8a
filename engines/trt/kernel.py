"""Prepares frames on the GPU: resize, border, channel order, scaling and layout in one pass.

The arithmetic stands once, in a source that a GPU's compiler and a C compiler both take, so that it
is tested against the processor's preprocessing without a GPU. Bilinear with half-pixel centres, as
OpenCV's INTER_LINEAR, rounded to whole pixel values as OpenCV does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from engines.errors import BackendError, InferenceError
from engines.graph import PIXEL_MAX
from engines.model import Resize
from engines.trt.compile import compile_source

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.model import ModelInfo
    from engines.trt.cuda import CudaPort, DeviceMemory, HostMemory, Stream

FUNCTION = "vigia_frame"

SOURCE = r"""
#ifdef VIGIA_HOST
#include <math.h>
#define DEVICE static
#else
#define DEVICE __device__ static __forceinline__
#endif

/* One value of the input: channel c (RGB) of pixel (x, y). `frame` is BGR with rows of `pitch`
   bytes; the window (sl, st, sw, sh) of it fills the window tl..tr, tt..tb, the rest is grey 114. */
DEVICE float vigia_value(const unsigned char *frame, int pitch, int sl, int st, int sw, int sh,
                         int tl, int tt, int tr, int tb, int c, int x, int y)
{
    if (x < tl || x >= tr || y < tt || y >= tb) return 114.0f;
    float fx = (x - tl + 0.5f) * ((float)sw / (float)(tr - tl)) - 0.5f;
    float fy = (y - tt + 0.5f) * ((float)sh / (float)(tb - tt)) - 0.5f;
    int x0 = (int)floorf(fx), y0 = (int)floorf(fy);
    float ax = fx - x0, ay = fy - y0;
    int x1 = x0 + 1, y1 = y0 + 1;
    if (x0 < 0) x0 = 0;
    if (y0 < 0) y0 = 0;
    if (x1 < 0) x1 = 0;
    if (y1 < 0) y1 = 0;
    if (x0 > sw - 1) x0 = sw - 1;
    if (y0 > sh - 1) y0 = sh - 1;
    if (x1 > sw - 1) x1 = sw - 1;
    if (y1 > sh - 1) y1 = sh - 1;
    const unsigned char *a = frame + (long long)(st + y0) * pitch + 3 * sl + 2 - c;
    const unsigned char *b = frame + (long long)(st + y1) * pitch + 3 * sl + 2 - c;
    float top = a[3 * x0] + ax * (a[3 * x1] - a[3 * x0]);
    float bottom = b[3 * x0] + ax * (b[3 * x1] - b[3 * x0]);
    return rintf(top + ay * (bottom - top));
}

#define PARAMETERS const unsigned char *frame, int pitch, int sl, int st, int sw, int sh, \
    int tl, int tt, int tr, int tb, int w, int h, \
    float g0, float g1, float g2, float o0, float o1, float o2, int half, void *out
#define VALUE(c, g, o) \
    ((g) * vigia_value(frame, pitch, sl, st, sw, sh, tl, tt, tr, tb, c, x, y) + (o))

#ifdef VIGIA_HOST
void vigia_frame(PARAMETERS)
{
    float *values = (float *)out;
    (void)half;
    for (int y = 0; y < h; y++)
        for (int x = 0; x < w; x++) {
            values[y * w + x] = VALUE(0, g0, o0);
            values[(h + y) * w + x] = VALUE(1, g1, o1);
            values[(2 * h + y) * w + x] = VALUE(2, g2, o2);
        }
}
#else
__device__ static __forceinline__ void put(void *out, long long at, float value, int half)
{
    if (half) {
        unsigned short bits;
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
        ((unsigned short *)out)[at] = bits;
    } else {
        ((float *)out)[at] = value;
    }
}

extern "C" __global__ void vigia_frame(PARAMETERS)
{
    int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= w || y >= h) return;
    long long plane = (long long)w * h, at = (long long)y * w + x;
    put(out, at, VALUE(0, g0, o0), half);
    put(out, plane + at, VALUE(1, g1, o1), half);
    put(out, 2 * plane + at, VALUE(2, g2, o2), half);
}
#endif
"""
"""Parameters end with, per RGB channel, factor and offset of a pixel value; `out` is [3, h, w]."""

BLOCK = (32, 8, 1)
"""Threads of a block: neighbours in a row read neighbouring pixels."""

MAX_FRAME_BYTES = 3 * 16_384 * 16_384
"""Larger frames than any camera gives."""


class FrameKernel:
    """The compiled kernel of one model.

    Args:
        cuda: the GPU; must be pushed.
        info: gives size, resize and normalisation.
        dtype: of the model's input: float32 or float16.

    Raises:
        BackendError: it cannot be compiled here, or does not do what the model needs.
    """

    def __init__(self, cuda: CudaPort, info: ModelInfo, dtype: np.dtype[np.generic]) -> None:
        if dtype not in (np.float32, np.float16):
            raise BackendError(
                f"frames cannot be prepared on the GPU for an input of type {dtype}; "
                "set tensorrt.preprocess: cpu"
            )
        if info.resize is Resize.CENTER_CROP:
            raise BackendError(
                "center-crop averages areas, which the GPU's kernel does not; "
                "set tensorrt.preprocess: cpu"
            )
        self._cuda = cuda
        self._half = dtype == np.float16
        self._itemsize = dtype.itemsize
        self._size = (info.width, info.height)
        self._scale = [1 / (PIXEL_MAX * s) for s in info.std]
        self._offset = [-m / s for m, s in zip(info.mean, info.std, strict=True)]
        image = compile_source(SOURCE, cuda.board.compute_capability)
        self._kernel = cuda.kernel(image, FUNCTION)

    def writer(self, memory: DeviceMemory) -> FrameWriter:
        """What writes frames into one context's input, [batch, 3, height, width]."""
        return FrameWriter(self._cuda, self, memory)

    def enqueue(
        self,
        stream: Stream,
        frame: int,
        pitch: int,
        source: tuple[int, int, int, int],
        target: tuple[int, int, int, int],
        out: int,
    ) -> None:
        """Start it.

        Args:
            stream: where.
            frame: address of BGR pixels on the GPU.
            pitch: bytes of one of their rows.
            source: window of the frame: left, top, right, bottom.
            target: window of the input.
            out: address of the picture's place in the input.
        """
        width, height = self._size
        left, top, right, bottom = source
        integers = (pitch, left, top, right - left, bottom - top, *target, width, height)
        args = [
            np.uint64(frame),
            *(np.int32(value) for value in integers),
            *(np.float32(value) for value in (*self._scale, *self._offset)),
            np.int32(self._half),
            np.uint64(out),
        ]
        grid = (-(-width // BLOCK[0]), -(-height // BLOCK[1]), 1)
        self._kernel.launch(stream, grid, BLOCK, args)

    @property
    def picture_bytes(self) -> int:
        """Bytes of one picture of the input."""
        return 3 * self._size[0] * self._size[1] * self._itemsize


class FrameWriter:
    """Brings frames to one context's input; grows with the largest frame.

    Args:
        cuda: the GPU.
        kernel: prepares frames.
        memory: the input.
    """

    def __init__(self, cuda: CudaPort, kernel: FrameKernel, memory: DeviceMemory) -> None:
        self._cuda = cuda
        self._kernel = kernel
        self._memory = memory
        self._host: HostMemory | None = None
        self._device: DeviceMemory | None = None

    def write(
        self,
        stream: Stream,
        index: int,
        pixels: NDArray[np.uint8],
        source: tuple[int, int, int, int],
        target: tuple[int, int, int, int],
    ) -> None:
        """Prepare a frame into place `index`; the GPU must be pushed.

        Raises:
            InferenceError: memory is short, the driver refuses, or the frame is too large.
        """
        # The frame before may still be on its way out of the buffer.
        stream.synchronize()
        host, device = self._buffers(pixels.nbytes)
        host.array[: pixels.nbytes].reshape(pixels.shape)[...] = pixels
        self._cuda.copy_in(device, host, pixels.nbytes, stream)
        out = self._memory.address + index * self._kernel.picture_bytes
        self._kernel.enqueue(stream, device.address, 3 * pixels.shape[1], source, target, out)

    def close(self) -> None:
        """Free the buffers; may be called twice."""
        for buffer in (self._host, self._device):
            if buffer is not None:
                buffer.close()
        self._host = self._device = None

    def _buffers(self, nbytes: int) -> tuple[HostMemory, DeviceMemory]:
        if nbytes > MAX_FRAME_BYTES:
            raise InferenceError(f"a frame of {nbytes} bytes is too large for the GPU's buffers")
        if self._host is None or self._device is None or self._device.nbytes < nbytes:
            self.close()
            self._host = self._cuda.pinned(nbytes)
            self._device = self._cuda.alloc(nbytes)
        return self._host, self._device
