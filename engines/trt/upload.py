"""Brings calibration batches to the GPU, in the process that builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from engines.trt.cuda import CudaPort, DeviceMemory, HostMemory, Stream


class Uploader:
    """One buffer on each side, made at the first batch; see `engines.trt.calibrator.Upload`.

    What it holds is freed with the process, which ends with the build.

    Args:
        port: the GPU.
    """

    def __init__(self, port: CudaPort) -> None:
        self._port = port
        self._buffers: tuple[HostMemory, DeviceMemory, Stream] | None = None

    def __call__(self, batch: NDArray[Any]) -> int:
        """Copy a batch; all have the size of the first."""
        port = self._port
        with port.pushed():
            if self._buffers is None:
                self._buffers = (
                    port.pinned(batch.nbytes),
                    port.alloc(batch.nbytes),
                    port.stream(),
                )
            host, device, stream = self._buffers
            host.array[:] = np.ascontiguousarray(batch).reshape(-1).view(np.uint8)
            port.copy_in(device, host, batch.nbytes, stream)
            # TensorRT reads the batch on a stream of its own.
            stream.synchronize()
            return device.address
