"""The GPU's preprocessing kernel: its arithmetic on the processor, and GPU compilers take it."""

import ctypes
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from agent.vision.preprocess import Preprocessor
from engines.errors import BackendError
from engines.model import Resize
from engines.trt import compile as compiling
from engines.trt.kernel import SOURCE, FrameKernel
from tests.engines.graphs import info

GCC = shutil.which("gcc")
NVCC = compiling.find_nvcc()


@pytest.fixture(scope="module")
def on_host(tmp_path_factory):
    """The kernel's source, compiled for the processor."""
    if GCC is None:
        pytest.skip("needs gcc")
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernel.c").write_text(SOURCE)
    library = folder / "kernel.so"
    subprocess.run(
        [GCC, "-shared", "-fPIC", "-O1", "-DVIGIA_HOST", "-Wall", "-Werror",
         "-o", str(library), str(folder / "kernel.c"), "-lm"],
        check=True,
    )  # fmt: skip
    return ctypes.CDLL(str(library)).vigia_frame


def run(function, frame, source, target, width, height, mean, std):
    out = np.full((3, height, width), np.nan, np.float32)
    left, top, right, bottom = source
    integers = (frame.shape[1] * 3, left, top, right - left, bottom - top, *target, width, height)
    function(
        ctypes.c_void_p(frame.ctypes.data),
        *(ctypes.c_int(n) for n in integers),
        *(ctypes.c_float(1 / (255 * s)) for s in std),
        *(ctypes.c_float(-m / s) for m, s in zip(mean, std, strict=True)),
        ctypes.c_int(0),
        ctypes.c_void_p(out.ctypes.data),
    )
    return out


@pytest.mark.parametrize("resize", [Resize.LETTERBOX, Resize.STRETCH])
@pytest.mark.parametrize(
    ("width", "height", "in_w", "in_h"),
    [
        (1280, 720, 640, 640),
        (640, 480, 320, 320),
        (97, 301, 64, 64),
        (33, 17, 96, 64),
        (8, 8, 8, 8),
    ],
)
def test_kernel_equals_the_processors_preprocessing(on_host, resize, width, height, in_w, in_h):
    frame = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    expected = np.zeros((in_h, in_w, 3), np.uint8)
    preprocessor = Preprocessor(resize, in_w, in_h)
    preprocessor.write(frame, expected)
    place, _ = preprocessor.fit(width, height)
    mean, std = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
    found = run(on_host, frame, place.source, place.target, in_w, in_h, mean, std)
    wanted = expected[..., ::-1].transpose(2, 0, 1).astype(np.float32) / 255
    pixels = found * np.reshape(std, (3, 1, 1)) + np.reshape(mean, (3, 1, 1))
    assert np.abs(pixels - wanted).max() <= 1 / 255 + 1e-5


def test_every_value_is_written(on_host):
    frame = np.zeros((4, 4, 3), np.uint8)
    found = run(on_host, frame, (0, 0, 4, 4), (2, 2, 6, 6), 8, 8, (0, 0, 0), (1, 1, 1))
    assert np.isfinite(found).all()
    assert found[0, 0, 0] == pytest.approx(114 / 255)


@pytest.mark.parametrize("arch", ["87", "90", "110"])
def test_gpu_compiler_takes_the_source(arch):
    if NVCC is None:
        pytest.skip("needs nvcc")
    known = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    if f"compute_{arch}" not in known.stdout:
        pytest.skip(f"this nvcc does not know compute_{arch}")
    assert compiling.by_nvcc(NVCC, SOURCE, arch).startswith(b"\x7fELF")


def test_source_that_is_refused_is_told():
    if NVCC is None:
        pytest.skip("needs nvcc")
    with pytest.raises(BackendError, match="preprocess: cpu"):
        compiling.by_nvcc(NVCC, "this is no CUDA", "87")


def test_missing_compiler_is_told(monkeypatch):
    monkeypatch.setattr(compiling, "NVRTC", ())
    monkeypatch.setattr(compiling, "find_nvcc", lambda: None)
    with pytest.raises(BackendError, match="preprocess: cpu"):
        compiling.compile_source(SOURCE, "8.7")


@pytest.mark.parametrize(
    ("changes", "dtype", "reason"),
    [({}, np.uint8, "type uint8"), ({"resize": Resize.CENTER_CROP}, np.float32, "averages areas")],
)
def test_what_the_kernel_cannot_do_is_refused(changes, dtype, reason):
    with pytest.raises(BackendError, match=reason):
        FrameKernel(None, replace(info(), **changes), np.dtype(dtype))
