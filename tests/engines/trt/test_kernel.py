"""The GPU's preprocessing kernel beside the processor's preprocessing.

The kernel's own source runs on the processor here, launched by the real pycuda; GPU compilers,
which need no GPU, take it too.
"""

import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.vision.preprocess import Preprocessor
from engines.errors import BackendError, InferenceError
from engines.model import Resize
from engines.trt import compile as compiling
from engines.trt import kernel as kernels
from engines.trt.kernel import FrameKernel
from engines.trt.kernelsource import SOURCE
from tests.engines.graphs import info
from tests.fakes import libcuda

MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)
NVCC = compiling.find_nvcc()
NVRTC = compiling.find_nvrtc()


@pytest.fixture(scope="module")
def port():
    libcuda.require()
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    driver = libcuda.load()
    before = driver.live()
    port = PycudaPort(0)
    with port.pushed():
        yield port
    port.close()
    assert driver.live() == before
    assert driver.damaged == 0


@pytest.fixture(autouse=True, scope="module")
def _host_compiler():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "compile_source", lambda source, _: libcuda.host_kernel(source))
        yield


def model(resize, width, height):
    return replace(info(), resize=resize, width=width, height=height, mean=MEAN, std=STD)


def on_gpu(port, facts, frames, dtype=np.float32):
    """What a model's input holds after the frames were written."""
    kernel = FrameKernel(port, facts, np.dtype(dtype))
    nbytes = len(frames) * kernel.picture_bytes
    memory, back, stream = port.alloc(nbytes), port.pinned(nbytes), port.stream()
    writer = kernel.writer(memory)
    preprocessor = Preprocessor(facts.resize, facts.width, facts.height)
    for index, frame in enumerate(frames):
        window, _ = preprocessor.fit(frame.shape[1], frame.shape[0])
        pixels = frame.copy()
        writer.write(stream, index, pixels, window.source, window.target)
        pixels[...] = 0
    port.copy_out(back, memory, nbytes, stream)
    stream.synchronize()
    found = back.array.view(dtype).reshape(len(frames), 3, facts.height, facts.width).copy()
    for thing in (writer, memory, back, stream):
        thing.close()
    return found


def on_processor(facts, frame):
    picture = np.zeros((facts.height, facts.width, 3), np.uint8)
    Preprocessor(facts.resize, facts.width, facts.height).write(frame, picture)
    return picture[..., ::-1].transpose(2, 0, 1).astype(np.float64)


def levels(values):
    """Normalised values as the pixel values they came from."""
    column = (3, 1, 1)
    return (values.astype(np.float64) * np.reshape(STD, column) + np.reshape(MEAN, column)) * 255


def noise(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("resize", list(Resize))
@pytest.mark.parametrize(
    ("width", "height", "in_w", "in_h"),
    [
        (1280, 720, 640, 640),
        (640, 480, 320, 320),
        (97, 301, 64, 64),
        (33, 17, 96, 64),
        (8, 8, 8, 8),
        (1, 1, 5, 3),
    ],
)
def test_kernel_equals_the_processors_preprocessing(port, resize, width, height, in_w, in_h):
    facts, frame = model(resize, in_w, in_h), noise(height, width)
    found, wanted = levels(on_gpu(port, facts, [frame])[0]), on_processor(facts, frame)
    difference = found - wanted
    assert np.abs(difference).max() <= 1.001
    # OpenCV's own arithmetic; it has another for the last pixels of a row, and builds differ.
    assert np.abs(difference).mean() < 0.02


@given(
    st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.integers(1, 70),
    st.sampled_from(list(Resize)),
)  # fmt: skip
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_size_is_within_one_level(port, width, height, in_w, in_h, resize):
    facts, frame = model(resize, in_w, in_h), noise(height, width, width * height)
    found = levels(on_gpu(port, facts, [frame])[0])
    assert np.abs(found - on_processor(facts, frame)).max() <= 1.001


def test_every_frame_of_a_batch_has_its_place_and_is_free_at_once(port):
    facts = model(Resize.LETTERBOX, 32, 32)
    frames = [noise(20, 40, 1), noise(90, 60, 2), noise(32, 32, 3)]
    found = on_gpu(port, facts, frames)
    for index, frame in enumerate(frames):
        difference = np.abs(levels(found[index]) - on_processor(facts, frame))
        assert difference.max() <= 1.001


def test_newer_and_larger_frame_takes_the_place_of_an_older(port):
    facts = model(Resize.STRETCH, 16, 16)
    kernel = FrameKernel(port, facts, np.dtype(np.float32))
    memory, back = port.alloc(kernel.picture_bytes), port.pinned(kernel.picture_bytes)
    stream = port.stream()
    writer = kernel.writer(memory)
    for seed, size in enumerate((8, 16, 40, 10)):
        frame = noise(size, size, seed)
        writer.write(stream, 0, frame, (0, 0, size, size), (0, 0, 16, 16))
    port.copy_out(back, memory, kernel.picture_bytes, stream)
    stream.synchronize()
    found = levels(back.array.view(np.float32).reshape(3, 16, 16).copy())
    assert np.abs(found - on_processor(facts, frame)).max() <= 1.001
    for thing in (writer, memory, back, stream):
        thing.close()


def test_float16_is_the_nearest_of_float32(port):
    facts, frame = model(Resize.LETTERBOX, 48, 48), noise(30, 50)
    single = on_gpu(port, facts, [frame])
    np.testing.assert_array_equal(on_gpu(port, facts, [frame], np.float16), single.astype("f2"))


@pytest.mark.parametrize("exponent", [-30, -24, -15, -14, 0, 15, 16, 40])
def test_float16_of_every_size(port, exponent):
    # A pixel value of 128 is scaled to the wanted size by the model's own deviation.
    values = []
    for share in (0.5, 0.7503, 0.99999):
        std = 128 / 255 / (share * 2.0**exponent)
        facts = replace(model(Resize.STRETCH, 2, 2), mean=(0.0,) * 3, std=(std, -std, std))
        grey = np.full((2, 2, 3), 128, np.uint8)
        single, half = (on_gpu(port, facts, [grey], d) for d in (np.float32, np.float16))
        values.append((single, half))
    for single, half in values:
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(half, single.astype(np.float16))


def test_place_without_a_frame_is_grey(port):
    facts = model(Resize.LETTERBOX, 16, 16)
    kernel = FrameKernel(port, facts, np.dtype(np.float32))
    memory, back = port.alloc(kernel.picture_bytes), port.pinned(kernel.picture_bytes)
    stream = port.stream()
    writer = kernel.writer(memory)
    writer.clear(stream, 0)
    port.copy_out(back, memory, kernel.picture_bytes, stream)
    stream.synchronize()
    found = levels(back.array.view(np.float32).reshape(3, 16, 16).copy())
    np.testing.assert_allclose(found, 114, atol=1e-4)
    for thing in (writer, memory, back, stream):
        thing.close()


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((0, 0, 9, 8), (0, 0, 8, 8)),
        ((-1, 0, 8, 8), (0, 0, 8, 8)),
        ((4, 4, 4, 8), (0, 0, 8, 8)),
        ((0, 0, 8, 8), (0, 0, 8, 9)),
        ((0, 0, 8, 8), (5, 0, 4, 8)),
    ],
)
def test_windows_outside_are_refused(port, source, target):
    kernel = FrameKernel(port, model(Resize.STRETCH, 8, 8), np.dtype(np.float32))
    memory, stream = port.alloc(kernel.picture_bytes), port.stream()
    writer = kernel.writer(memory)
    with pytest.raises(InferenceError, match="cannot fill"):
        writer.write(stream, 0, noise(8, 8), source, target)
    for thing in (writer, memory, stream):
        thing.close()


def test_memory_that_runs_out_while_a_frame_is_written_leaks_nothing(port):
    driver = libcuda.load()
    kernel = FrameKernel(port, model(Resize.STRETCH, 8, 8), np.dtype(np.float32))
    memory, stream = port.alloc(kernel.picture_bytes), port.stream()
    writer, before, reasons = kernel.writer(memory), driver.live(), []
    for allowed in range(9):
        driver.budget(allowed)
        try:
            writer.write(stream, 0, noise(8, 8), (0, 0, 8, 8), (0, 0, 8, 8))
        except InferenceError as error:
            reasons.append(str(error))
            assert driver.live() == before
        else:
            break
        finally:
            driver.budget(None)
    assert len(reasons) == 3
    assert all("memory" in reason for reason in reasons)
    stream.synchronize()
    for thing in (writer, memory, stream):
        thing.close()


@pytest.mark.parametrize("arch", ["87", "90", "110"])
def test_nvcc_takes_the_source(arch):
    if NVCC is None:
        pytest.skip("needs nvcc")
    known = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, check=True)
    if f"compute_{arch}" not in known.stdout:
        pytest.skip(f"this nvcc does not know compute_{arch}")
    assert compiling.by_nvcc(NVCC, SOURCE, arch).startswith(b"\x7fELF")


@pytest.mark.parametrize("arch", ["87", "90", "110"])
def test_nvrtc_takes_the_source(arch):
    if NVRTC is None:
        pytest.skip("needs NVRTC, which scripts/test installs")
    assert compiling.by_nvrtc(NVRTC, SOURCE, arch).startswith(b"\x7fELF")


def test_source_that_is_refused_is_told_with_the_compilers_words():
    compilers = [lambda s: compiling.by_nvcc(NVCC, s, "87")] if NVCC else []
    compilers += [lambda s: compiling.by_nvrtc(NVRTC, s, "87")] if NVRTC else []
    if not compilers:
        pytest.skip("needs nvcc or NVRTC")
    for compiled in compilers:
        with pytest.raises(BackendError, match=r"kernel.cu.*error.*preprocess: cpu"):
            compiled("this is no CUDA")


def test_gpu_that_the_compiler_does_not_know_is_told():
    if NVRTC is None:
        pytest.skip("needs NVRTC, which scripts/test installs")
    with pytest.raises(BackendError, match="preprocess: cpu"):
        compiling.by_nvrtc(NVRTC, SOURCE, "999")


def test_missing_compiler_is_told(monkeypatch):
    monkeypatch.setattr(compiling, "find_nvrtc", lambda: None)
    monkeypatch.setattr(compiling, "find_nvcc", lambda: None)
    with pytest.raises(BackendError, match="preprocess: cpu"):
        compiling.compile_source(SOURCE, "8.7")


def test_input_that_is_no_float_is_refused():
    with pytest.raises(BackendError, match="type uint8"):
        FrameKernel(None, info(), np.dtype(np.uint8))


def test_machine_code_that_the_driver_does_not_take_is_told(port, monkeypatch):
    monkeypatch.setattr(kernels, "compile_source", lambda *_: b"\x7fELF nonsense\0")
    with pytest.raises(InferenceError, match="no kernel image"):
        FrameKernel(port, info(), np.dtype(np.float32))
