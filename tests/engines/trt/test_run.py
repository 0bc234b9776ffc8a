"""Plans are run: on the module with TensorRT's names, with the real pycuda on host memory."""

import threading

import numpy as np
import pytest

from engines.backend import Options, RunOptions, TensorRtOptions
from engines.errors import BackendError, InferenceError, PlanError
from engines.graph import bake
from engines.trt import routes, run
from engines.trt.build import GIB, build
from engines.trt.order import Order
from engines.trt.profile import layer_times, stage_times
from tests.engines.graphs import SIZE, convolution, info
from tests.fakes import libcuda
from tests.fakes.tensorrt.release import VERSIONS
from tests.fakes.trtorders import api
from tests.fakes.watch import watched


@pytest.fixture(autouse=True)
def _pycuda():
    libcuda.require()


SHAPES = {"frames_bgr_u8": ((1, SIZE, SIZE, 3), (4, SIZE, SIZE, 3), (4, SIZE, SIZE, 3))}
FRAME = np.random.default_rng(0).integers(0, 255, (4, SIZE, SIZE, 3), np.uint8)


def options(**changes):
    return Options(RunOptions(batch=4), TensorRtOptions(**changes))


@pytest.fixture
def cuda():
    """The stand-in for the driver; what a test leaves alive is its failure."""
    with watched() as driver:
        yield driver


@pytest.fixture
def port(cuda):
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    port = PycudaPort(0)
    before = cuda.depth
    yield port
    assert cuda.depth == before
    port.close()


def graph():
    return bake(convolution(batch="n"), info(max_batch=None), "device")


def plan(version, port):
    route = routes.FP32_STRONG if version == VERSIONS[-1] else routes.FP32
    order = Order(route, SHAPES)
    content = graph().SerializeToString()
    made, _ = build(api(version), order, content, port.board, 8 * GIB, ranges=None, tell=print)
    return made


def loaded(version, port, **changes):
    made = plan(version, port)
    return run.load(api(version), port, made, info(max_batch=None), options(**changes))


def expected(batch=4):
    import onnxruntime  # noqa: PLC0415 - the reference alone needs it

    session = onnxruntime.InferenceSession(graph().SerializeToString())
    return session.run(None, {"frames_bgr_u8": FRAME[:batch]})[0]


@pytest.mark.parametrize("graphs", [True, False])
@pytest.mark.parametrize("integrated", [True, False])
@pytest.mark.parametrize("version", VERSIONS)
def test_every_release_gives_the_graphs_answers(cuda, version, integrated, graphs):
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    cuda.integrated(integrated)
    port = PycudaPort(0)
    engine = loaded(version, port, cuda_graphs=graphs)
    context = engine.create_context(4)
    for _ in range(2):
        context.inputs["frames_bgr_u8"][...] = FRAME
        np.testing.assert_allclose(context.infer()["output0"], expected(), rtol=1e-4, atol=1e-3)
    assert engine.precision == "fp32"
    assert engine.graph_failures == 0
    context.close()
    context.close()
    engine.close()
    port.close()


def test_batch_outside_the_profile_is_told_with_what_to_do(port):
    engine = loaded("10.3.0", port)
    with pytest.raises(InferenceError, match=r"batch 8 is outside 1\.\.4.*build it again"):
        engine.create_context(8)
    engine.close()


def test_graph_that_cannot_be_captured_is_done_without(cuda, port, caplog):
    cuda.refuse_captures(True)
    engine = loaded("10.3.0", port)
    contexts = [engine.create_context(1) for _ in range(2)]
    contexts[0].inputs["frames_bgr_u8"][...] = FRAME[:1]
    np.testing.assert_allclose(contexts[0].infer()["output0"], expected(1), rtol=1e-4, atol=1e-3)
    assert engine.graph_failures == 2
    assert caplog.text.count("no CUDA graph") == 1
    for context in contexts:
        context.close()
    engine.close()


def test_two_threads_run_contexts_of_their_own(port):
    engine = loaded("10.13.3.9", port)
    wanted = [expected()[:1], None]
    failures = []

    def work(index):
        try:
            context = engine.create_context(1)
            for _ in range(50):
                context.inputs["frames_bgr_u8"][...] = FRAME[index]
                found = context.infer()["output0"].copy()
                np.testing.assert_allclose(found[0], expected_all[index], rtol=1e-4, atol=1e-3)
            context.close()
        except Exception as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    expected_all = expected()
    assert wanted[0].shape == expected_all[:1].shape
    threads = [threading.Thread(target=work, args=(n,)) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    engine.close()


def test_context_may_be_closed_in_another_thread(port):
    engine = loaded("10.3.0", port)
    context = engine.create_context(1)
    thread = threading.Thread(target=context.close)
    thread.start()
    thread.join()
    engine.close()


def test_engine_closes_contexts_that_were_left_open_before_itself(port, caplog):
    engine = loaded("10.3.0", port)
    context = engine.create_context(1)
    engine.close()
    context.close()
    assert "1 contexts were open" in caplog.text
    with pytest.raises(InferenceError, match="closed"):
        engine.create_context(1)


def test_memory_that_runs_out_anywhere_leaks_nothing(cuda, port):
    engine = loaded("10.3.0", port)
    before = cuda.live()
    allowed, reasons = 0, []
    while True:
        cuda.budget(allowed)
        try:
            context = engine.create_context(1)
        except InferenceError as error:
            reasons.append(str(error))
            assert cuda.live() == before
        else:
            break
        finally:
            cuda.budget(None)
        allowed += 1
    assert allowed >= 3
    assert all("memory" in reason for reason in reasons)
    context.close()
    engine.close()


def test_contexts_do_not_grow(cuda, port):
    engine = loaded("8.6.1", port)
    context = engine.create_context(1)
    context.infer()
    before = cuda.live()
    for _ in range(100):
        context.infer()
    assert cuda.live() == before
    context.close()
    engine.close()


@pytest.mark.parametrize(
    ("fault", "error", "text"),
    [
        ("no-driver", BackendError, "could not start its Runtime"),
        ("out-of-memory:load", BackendError, "out of memory"),
        ("sm:75", PlanError, "incompatible device"),
    ],
)
def test_plan_that_cannot_be_loaded_is_told(port, monkeypatch, fault, error, text):
    made = plan("10.3.0", port)
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", fault)
    with pytest.raises(error, match=text):
        run.load(api("10.3.0"), port, made, info(max_batch=None), options())


@pytest.mark.parametrize("fault", ["context-none", "out-of-memory:context", "enqueue"])
def test_context_that_cannot_be_made_leaves_nothing(cuda, port, monkeypatch, fault):
    engine = loaded("10.3.0", port)
    before = cuda.live()
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", fault)
    with pytest.raises(InferenceError):
        engine.create_context(1)
    assert cuda.live() == before
    engine.close()


def test_plan_of_another_version_or_damaged_is_refused(port):
    made = plan("10.3.0", port)
    for bad in (made[: len(made) // 2], b"", b"x" * 100):
        with pytest.raises(PlanError):
            run.load(api("10.3.0"), port, bad, info(max_batch=None), options())
    with pytest.raises(PlanError, match=r"8\.6\.1"):
        run.load(api("8.6.1"), port, made, info(max_batch=None), options())


def test_precision_is_what_the_inspector_says(port, monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "precision:FP16")
    engine = loaded("10.3.0", port)
    assert engine.precision == "fp16"
    engine.close()


def test_layers_and_stages_are_timed(port):
    engine = loaded("10.16.1.11", port)
    layers = layer_times(api("10.16.1.11"), engine, 1, 3)
    assert layers == sorted(layers, key=lambda row: -row.ms)
    assert any(row.precision == "fp32" for row in layers)
    stages = stage_times(engine, 1, 3)
    assert len(stages) == 3
    assert all(s.compute_ms > 0 for s in stages)
    engine.close()
