"""CUDA graphs by the driver's own calls, on a stream that pycuda made."""

import threading

import numpy as np
import pytest

from engines.errors import InferenceError
from tests.fakes import libcuda

SIZE = 64


@pytest.fixture
def driver():
    libcuda.require()
    driver = libcuda.load()
    before = driver.live()
    yield driver
    driver.budget(None)
    driver.refuse_captures(False)
    assert driver.live() == before


@pytest.fixture
def port(driver):
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    port = PycudaPort(0)
    yield port
    port.close()


class Lane:
    """A stream with a way through the GPU and back."""

    def __init__(self, port):
        self.port, self.stream, self.memory = port, port.stream(), port.alloc(SIZE)
        self.source, self.target = port.pinned(SIZE), port.pinned(SIZE)
        self.source.array[:], self.target.array[:] = 1, 0

    def work(self):
        self.port.copy_in(self.memory, self.source, SIZE, self.stream)
        self.port.copy_out(self.target, self.memory, SIZE, self.stream)

    def close(self):
        self.stream.synchronize()
        for thing in (self.memory, self.source, self.target, self.stream):
            thing.close()


@pytest.fixture
def lane(port):
    with port.pushed():
        lane = Lane(port)
        yield lane
        lane.close()


def runs(lane, graph, value):
    lane.source.array[:] = value
    graph.launch(lane.stream)
    lane.stream.synchronize()
    return bool((lane.target.array == value).all())


def test_captured_work_runs_at_launch_and_not_before(port, lane):
    graph = port.capture(lane.stream, lane.work)
    lane.stream.synchronize()
    assert not lane.target.array.any()
    assert all(runs(lane, graph, value) for value in (3, 4, 5))
    graph.close()
    graph.close()


@pytest.mark.parametrize("forbidden", ["alloc", "pinned", "wait"])
def test_what_cannot_be_captured_leaves_the_stream_usable(port, lane, forbidden):
    calls = {
        "alloc": lambda: port.alloc(SIZE),
        "pinned": lambda: port.pinned(SIZE),
        "wait": lane.stream.synchronize,
    }

    def work():
        lane.work()
        calls[forbidden]()

    with pytest.raises(InferenceError, match="capturing"):
        port.capture(lane.stream, work)
    lane.work()
    lane.stream.synchronize()
    assert lane.target.array.all()
    graph = port.capture(lane.stream, lane.work)
    assert runs(lane, graph, 9)
    graph.close()


def test_any_failure_inside_ends_the_capture(port, lane):
    def work():
        lane.work()
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        port.capture(lane.stream, work)
    graph = port.capture(lane.stream, lane.work)
    assert runs(lane, graph, 9)
    graph.close()


def test_driver_that_refuses_at_the_end_is_told(driver, port, lane):
    driver.refuse_captures(True)
    with pytest.raises(InferenceError, match=r"cuStreamEndCapture failed: .* \(901\)"):
        port.capture(lane.stream, lane.work)
    lane.work()
    lane.stream.synchronize()
    np.testing.assert_array_equal(lane.target.array, lane.source.array)


def test_memory_short_while_instantiating_leaks_nothing(driver, port, lane):
    before = driver.live()
    driver.budget(0)
    with pytest.raises(InferenceError, match="cuGraphInstantiateWithFlags failed: out of memory"):
        port.capture(lane.stream, lane.work)
    driver.budget(None)
    assert driver.live() == before


def test_other_workers_may_allocate_and_wait_meanwhile(port, lane):
    failures = []

    def other():
        try:
            with port.pushed():
                mine = Lane(port)
                mine.work()
                mine.close()
        except InferenceError as error:
            failures.append(error)

    def work():
        lane.work()
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()

    graph = port.capture(lane.stream, work)
    assert failures == []
    assert runs(lane, graph, 7)
    graph.close()


def test_driver_without_graphs_is_told(monkeypatch, port, lane):
    from engines.trt import cudagraph  # noqa: PLC0415 - beside the driver

    monkeypatch.setattr(cudagraph, "LIBRARY", "libnone.so.1")
    cudagraph._function.cache_clear()
    with pytest.raises(InferenceError, match="cuda_graphs: false"):
        port.capture(lane.stream, lane.work)
    cudagraph._function.cache_clear()
