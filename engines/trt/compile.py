"""Compiles a CUDA source on the device: NVRTC if its library is there, else nvcc."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from engines.errors import BackendError

ADVICE = "install the CUDA toolkit of this JetPack, or set tensorrt.preprocess: cpu"

NVRTC = ("libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so.11.2", "libnvrtc.so")
"""Names of NVRTC's library, newest first."""

FOLDERS = (Path("/usr/local/cuda/lib64"), *(Path(p, "nvidia") for p in sys.path if p))
"""Where it may lie unknown to the loader: in JetPack's toolkit, in NVIDIA's Python packages."""

NVCC = ("/usr/local/cuda/bin/nvcc",)
"""Where JetPack has it, beside PATH."""

TIMEOUT_S = 120.0

MAX_TEXT_BYTES = 1 << 20
"""Of a log or a cubin; ours has some kilobytes."""


def compile_source(source: str, compute_capability: str) -> bytes:
    """Compile for one GPU.

    Args:
        source: CUDA C.
        compute_capability: like "8.7".

    Returns:
        A cubin. PTX would be refused by a driver that is older than the compiler.

    Raises:
        BackendError: there is no compiler, or it refuses the source.
    """
    arch = compute_capability.replace(".", "")
    library = find_nvrtc()
    if library is not None:
        return by_nvrtc(library, source, arch)
    nvcc = find_nvcc()
    if nvcc is None:
        raise BackendError(f"there is no compiler for the GPU's kernel; {ADVICE}")
    return by_nvcc(nvcc, source, arch)


def find_nvrtc() -> ctypes.CDLL | None:
    """NVRTC, or None."""
    for name in NVRTC:
        with contextlib.suppress(OSError):
            return ctypes.CDLL(name)
    for place in (p for folder in FOLDERS for name in NVRTC for p in folder.glob(f"**/{name}")):
        with contextlib.suppress(OSError):
            # It opens this one by name when it compiles, and would not look beside itself.
            for builtins in place.parent.glob("libnvrtc-builtins.so*"):
                ctypes.CDLL(str(builtins))
            return ctypes.CDLL(str(place))
    return None


def find_nvcc() -> str | None:
    """Path of nvcc, or None."""
    return shutil.which("nvcc") or next((p for p in NVCC if os.access(p, os.X_OK)), None)


def by_nvcc(nvcc: str, source: str, arch: str) -> bytes:
    """Compile to a cubin with nvcc; see `compile_source`."""
    with tempfile.TemporaryDirectory(prefix="vigia-kernel-") as name:
        folder = Path(name)
        (folder / "kernel.cu").write_text(source)
        out = folder / "kernel.cubin"
        command = [nvcc, "-cubin", f"-arch=sm_{arch}", "-o", str(out), str(folder / "kernel.cu")]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S)  # noqa: S603 - a compiler found on PATH, with arguments of our own
            return out.read_bytes()
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or str(error).encode()
            line = said.decode("utf-8", "replace").strip().splitlines()[0]
            raise BackendError(
                f"nvcc does not compile the GPU's kernel: {line}; {ADVICE}"
            ) from error


def by_nvrtc(library: ctypes.CDLL, source: str, arch: str) -> bytes:
    """Compile to a cubin with NVRTC of CUDA 11.1 or newer; see `compile_source`."""
    program = ctypes.c_void_p()
    _check(
        library.nvrtcCreateProgram(
            ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None
        )
    )
    try:
        options = (ctypes.c_char_p * 1)(f"--gpu-architecture=sm_{arch}".encode())
        code = library.nvrtcCompileProgram(program, 1, options)
        if code:
            _check(code, _text(library.nvrtcGetProgramLogSize, library.nvrtcGetProgramLog, program))
        return _text(library.nvrtcGetCUBINSize, library.nvrtcGetCUBIN, program)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _text(size_of: object, read: object, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    _check(size_of(program, ctypes.byref(size)))  # type: ignore[operator]
    if size.value > MAX_TEXT_BYTES:
        raise BackendError(f"NVRTC gave {size.value} bytes; {ADVICE}")
    buffer = ctypes.create_string_buffer(size.value)
    _check(read(program, buffer))  # type: ignore[operator]
    return buffer.raw


def _check(code: int, said: bytes = b"") -> None:
    if code:
        lines = said.decode("utf-8", "replace").strip("\0 \n").splitlines()
        reason = lines[0] if lines else f"it answered {code}"
        raise BackendError(f"NVRTC does not compile the GPU's kernel: {reason}; {ADVICE}")
