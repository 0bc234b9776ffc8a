"""Plans whose frames are prepared by the kernel: frame in, answers out, with the real pycuda."""

import threading
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest

from agent.vision.preprocess import Preprocessor
from engines.backend import Options, RunOptions, TensorRtOptions
from engines.base import FrameContext
from engines.errors import BackendError, InferenceError
from engines.model import Resize
from engines.trt import kernel, routes, run
from engines.trt.build import GIB, build
from engines.trt.order import Order
from tests.engines.graphs import SIZE, convolution, info
from tests.fakes import libcuda
from tests.fakes.trtorders import api
from tests.fakes.watch import watched

VERSION = "10.3.0"
SHAPES = {"images": ((1, 3, SIZE, SIZE), (2, 3, SIZE, SIZE), (4, 3, SIZE, SIZE))}
FRAMES = [
    np.random.default_rng(n).integers(0, 256, (11 + 3 * n, 17 - n, 3), np.uint8) for n in range(4)
]
INFO = replace(
    info(max_batch=None), resize=Resize.LETTERBOX, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7)
)


@pytest.fixture(autouse=True)
def driver(monkeypatch):
    libcuda.require()
    monkeypatch.setattr(kernel, "compile_source", lambda source, _: libcuda.host_kernel(source))
    with watched() as driver:
        yield driver


@pytest.fixture
def port(driver):
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    port = PycudaPort(0)
    yield port
    port.close()


def loaded(port, facts=INFO, **changes):
    content = convolution(batch="n").SerializeToString()
    order = Order(routes.FP32, SHAPES)
    made, _ = build(api(VERSION), order, content, port.board, 8 * GIB, ranges=None, tell=print)
    wanted = TensorRtOptions(preprocess="cuda", **changes)
    return run.load(api(VERSION), port, made, facts, Options(RunOptions(batch=4), wanted))


def write(context, index, frame):
    pixels = frame.copy()
    window, _ = Preprocessor(INFO.resize, SIZE, SIZE).fit(frame.shape[1], frame.shape[0])
    context.write_frame(index, pixels, window.source, window.target)
    # The caller's from here on.
    pixels[...] = 0


def expected(frames):
    pictures = np.zeros((len(frames), SIZE, SIZE, 3), np.uint8)
    for frame, picture in zip(frames, pictures, strict=True):
        Preprocessor(INFO.resize, SIZE, SIZE).write(frame, picture)
    values = (pictures[..., ::-1].astype(np.float32) / 255 - np.array(INFO.mean)) / INFO.std
    session = onnxruntime.InferenceSession(convolution(batch="n").SerializeToString())
    feed = {"images": values.transpose(0, 3, 1, 2).astype(np.float32)}
    return session.run(None, feed)[0]


def close_to(found, frames):
    # One level of one pixel may differ, times the sum of the convolution's weights.
    np.testing.assert_allclose(found, expected(frames), atol=0.15)


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("integrated", [True, False])
def test_frames_go_in_and_answers_come_out(driver, port, integrated, graphs):
    driver.integrated(integrated)
    engine = loaded(port, cuda_graphs=graphs)
    context = engine.create_context(4)
    assert isinstance(context, FrameContext)
    for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
        for index, number in enumerate(order):
            write(context, index, FRAMES[number])
        close_to(context.infer()["output0"], [FRAMES[number] for number in order])
    assert engine.graph_failures == 0
    context.close()
    engine.close()


def test_newer_frame_takes_the_place_of_one_that_was_not_inferred(port):
    engine = loaded(port)
    context = engine.create_context(1)
    write(context, 0, FRAMES[0])
    write(context, 0, FRAMES[3])
    close_to(context.infer()["output0"], [FRAMES[3]])
    context.close()
    engine.close()


def test_places_that_were_never_written_are_grey(port):
    engine = loaded(port)
    context = engine.create_context(2)
    write(context, 1, FRAMES[1])
    grey = np.full((SIZE, SIZE, 3), 114, np.uint8)
    close_to(context.infer()["output0"], [grey, FRAMES[1]])
    context.close()
    engine.close()


def test_plain_contexts_are_not_for_frames(port):
    content = convolution(batch="n").SerializeToString()
    order = Order(routes.FP32, SHAPES)
    made, _ = build(api(VERSION), order, content, port.board, 8 * GIB, ranges=None, tell=print)
    engine = run.load(api(VERSION), port, made, INFO, Options(RunOptions(batch=4)))
    context = engine.create_context(1)
    assert not isinstance(context, FrameContext)
    context.close()
    engine.close()


def test_two_workers_prepare_frames_of_their_own(port):
    engine, failures = loaded(port), []

    def work(number):
        try:
            context = engine.create_context(1)
            for _ in range(30):
                write(context, 0, FRAMES[number])
                close_to(context.infer()["output0"], [FRAMES[number]])
            context.close()
        except Exception as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine.close()


def test_frame_that_waits_when_the_context_closes_harms_nothing(port):
    engine = loaded(port)
    context = engine.create_context(1)
    write(context, 0, FRAMES[0])
    context.close()
    engine.close()


def test_memory_that_runs_out_anywhere_leaks_nothing(driver, port):
    engine = loaded(port)
    before = driver.live()
    reasons = []
    for allowed in range(50):
        driver.budget(allowed)
        try:
            context = engine.create_context(2)
            write(context, 0, FRAMES[0])
        except InferenceError as error:
            driver.budget(None)
            reasons.append(str(error))
            if "context" in locals():
                context.close()
                del context
            assert driver.live() == before
        else:
            break
    driver.budget(None)
    assert len(reasons) >= 6
    assert all("out of memory" in reason for reason in reasons)
    context.close()
    engine.close()


def test_memory_short_while_the_kernel_is_loaded_is_told(driver, port):
    driver.budget(0)
    with pytest.raises((BackendError, InferenceError), match="out of memory"):
        loaded(port)


def test_windows_outside_are_refused_and_the_context_lives_on(port):
    engine = loaded(port)
    context = engine.create_context(1)
    with pytest.raises(InferenceError, match="cannot fill"):
        context.write_frame(0, FRAMES[0], (0, 0, 99, 99), (0, 0, SIZE, SIZE))
    write(context, 0, FRAMES[0])
    close_to(context.infer()["output0"], [FRAMES[0]])
    context.close()
    engine.close()


def test_swap_beside_a_running_engine(port):
    first = loaded(port)
    old = first.create_context(1)
    second = loaded(port)
    new = second.create_context(1)
    for context in (old, new):
        write(context, 0, FRAMES[2])
        close_to(context.infer()["output0"], [FRAMES[2]])
    old.close()
    first.close()
    write(new, 0, FRAMES[1])
    close_to(new.infer()["output0"], [FRAMES[1]])
    new.close()
    second.close()
