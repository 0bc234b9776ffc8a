"""The CUDA port by the real pycuda, on a driver of host memory that is stricter than a GPU."""

import ctypes
import gc
import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest

from engines.errors import InferenceError
from tests.fakes import libcuda

SIZE = 1000


@pytest.fixture(autouse=True)
def driver():
    libcuda.require()
    driver = libcuda.load()
    before, depth = driver.live(), driver.depth
    yield driver
    driver.budget(None)
    driver.integrated(False)
    gc.collect()
    assert driver.live() == before
    assert driver.depth == depth
    assert driver.damaged == 0
    driver.recover()


@pytest.fixture
def port(driver):
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    port = PycudaPort(0)
    yield port
    port.close()


@pytest.fixture
def round_trip(port):
    """Host memory, device memory, host memory, and a stream that copies along them."""
    with port.pushed():
        source, memory, target = port.pinned(SIZE), port.alloc(SIZE), port.pinned(SIZE)
        stream = port.stream()
        source.array[:] = np.arange(SIZE) % 251
        target.array[:] = 0
        yield source, memory, target, stream
        stream.synchronize()
        for thing in (stream, target, memory, source):
            thing.close()
            thing.close()


def test_facts_of_the_gpu(driver):
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    for integrated in (False, True):
        driver.integrated(integrated)
        port = PycudaPort(0)
        assert port.board.compute_capability == "8.7"
        assert port.board.multiprocessors == 8
        assert port.board.integrated is integrated
        assert port.board.driver == "13.0"
        with port.pushed():
            free, total = port.memory()
        assert 0 < free <= total == port.board.memory_bytes
        port.close()
        port.close()


def test_one_port_for_the_process_until_it_is_closed():
    from engines.trt import cudapycuda  # noqa: PLC0415 - loads the driver

    found = []
    threads = [threading.Thread(target=lambda: found.append(cudapycuda.open_port())) for _ in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] is found[1] is cudapycuda.open_port()
    found[0].close()
    again = cudapycuda.open_port()
    assert again is not found[0]
    again.close()


def test_gpu_that_is_not_there_is_told():
    from engines.trt.cudapycuda import open_port  # noqa: PLC0415 - loads the driver

    with pytest.raises(InferenceError, match="invalid device ordinal"):
        open_port(7)


def test_copies_are_done_once_the_stream_has_been_waited_for(port, round_trip):
    source, memory, target, stream = round_trip
    port.copy_in(memory, source, SIZE, stream)
    port.copy_out(target, memory, SIZE, stream)
    assert not target.array.any()
    stream.synchronize()
    np.testing.assert_array_equal(target.array, source.array)


def test_part_of_a_buffer_is_copied(port, round_trip):
    source, memory, target, stream = round_trip
    port.copy_in(memory, source, 10, stream)
    port.copy_out(target, memory, 10, stream)
    stream.synchronize()
    np.testing.assert_array_equal(target.array[:10], source.array[:10])
    assert not target.array[10:].any()


def test_mapped_memory_has_an_address_for_the_gpu(port):
    with port.pushed():
        plain, mapped = port.pinned(SIZE), port.pinned(SIZE, mapped=True)
        assert plain.address == 0
        assert mapped.address != 0
        plain.close()
        mapped.close()


def test_events_tell_time_in_order(port, round_trip):
    source, memory, _, stream = round_trip
    with port.pushed():
        first, second = port.event(), port.event()
        first.record(stream)
        port.copy_in(memory, source, SIZE, stream)
        second.record(stream)
        with pytest.raises(InferenceError, match="not ready"):
            second.elapsed_ms(first)
        second.synchronize()
        assert second.elapsed_ms(first) >= 0
        first.close()
        second.close()


def test_thread_without_the_context_is_refused(port):
    refusals = []

    def work():
        for call in (port.stream, port.event, port.memory, lambda: port.alloc(SIZE)):
            try:
                call()
            except InferenceError as error:
                refusals.append(str(error))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert len(refusals) == 4
    assert all("invalid device context" in text for text in refusals)


def test_context_is_left_as_it_was_found(driver, port):
    with port.pushed():
        with port.pushed():
            port.memory()
        port.memory()
    with pytest.raises(KeyError), port.pushed():
        raise KeyError
    assert driver.depth == 0


def test_two_threads_at_once_and_freeing_in_another(port):
    made, failures, gate = [], [], threading.Barrier(2)

    def work(value):
        try:
            with port.pushed():
                stream, memory = port.stream(), port.alloc(SIZE)
                source, target = port.pinned(SIZE), port.pinned(SIZE)
                source.array[:] = value
                gate.wait()
                for _ in range(100):
                    port.copy_in(memory, source, SIZE, stream)
                    port.copy_out(target, memory, SIZE, stream)
                    stream.synchronize()
                    assert (target.array == value).all()
                made.extend([source, target, memory, stream])
        except Exception as error:  # noqa: BLE001 - told to the main thread
            failures.append(error)

    threads = [threading.Thread(target=work, args=(value,)) for value in (1, 2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with port.pushed():
        for thing in made:
            thing.close()


def test_what_is_left_to_the_garbage_collector_leaks(driver, port):
    """Why everything here has a `close`; where this fails, pycuda has changed for the better."""
    with port.pushed():
        made = [port.alloc(SIZE)]
        address = made[0].address
    caught = []

    def work():
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            made.clear()
        caught.extend(str(warning.message) for warning in found)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == ["device_allocation in out-of-thread context could not be cleaned up"]
    assert driver.live()["device"] == 1
    with port.pushed():
        assert ctypes.CDLL("libcuda.so.1").cuMemFree_v2(ctypes.c_uint64(address)) == 0


@pytest.mark.parametrize("name", ["alloc", "pinned", "stream", "event"])
def test_memory_that_is_short_is_told_with_what_to_do(driver, port, name):
    arguments = (SIZE,) if name in {"alloc", "pinned"} else ()
    with port.pushed():
        driver.budget(0)
        with pytest.raises(InferenceError, match=r"out of memory.*smaller batches"):
            getattr(port, name)(*arguments)


def test_lost_gpu_is_told_at_the_next_wait_and_from_then_on(driver, port):
    with port.pushed():
        stream, source, memory = port.stream(), port.pinned(SIZE), port.alloc(SIZE)
        memory.close()
        port.copy_in(memory, source, SIZE, stream)
        with pytest.raises(InferenceError, match="illegal memory access"):
            stream.synchronize()
        with pytest.raises(InferenceError, match="illegal memory access"):
            port.alloc(SIZE)
        driver.recover()
        source.close()
        stream.close()


def test_process_that_closes_nothing_ends_in_silence():
    code = (
        "from tests.fakes import libcuda; libcuda.load()\n"
        "from engines.trt.cudapycuda import open_port\n"
        "port = open_port()\n"
        "with port.pushed():\n    kept = port.stream(), port.alloc(9), port.pinned(9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
