"""The process that builds: a real one, with the fake TensorRT, and everything that may happen."""

import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from engines import calibcache
from engines.errors import BackendError, BuildError, CalibrationError
from engines.trt import process, routes
from engines.trt.process import Job, Pictures, run
from engines.trt.shortage import BuildMemoryError
from tests.fakes.cudaport import DESKTOP
from tests.fakes.tensorrt import planfile
from tests.fakes.trtorders import content, order

FAKES = Path(__file__).parents[2] / "fakes"
GIB = 1 << 30


@pytest.fixture(autouse=True)
def tensorrt(monkeypatch):
    """What the child imports as `tensorrt`."""
    monkeypatch.syspath_prepend(str(FAKES))
    monkeypatch.setenv("VIGIA_FAKE_TENSORRT", "8.6.1")


def open_descriptors():
    # What lists them is open itself while it lists.
    return {p.name for p in Path("/proc/self/fd").iterdir() if p.exists()}


def children():
    """Of this process; brokers of other tests may be among them."""
    found = Path("/proc/self/task").glob("*/children")
    return {int(pid) for path in found for pid in path.read_text().split()}


@pytest.fixture(autouse=True)
def descriptors():
    """Nothing stays open, and no child stays behind, however a build ends."""
    before = open_descriptors()
    others = children()
    threads = threading.active_count()
    yield
    assert open_descriptors() == before
    assert threading.active_count() == threads
    assert children() <= others


def job(route=routes.FP32, *, timeout_s=60.0, model=None, **changes):
    return Job(
        order(route, **changes.pop("order", {})),
        content(route) if model is None else model,
        DESKTOP,
        GIB,
        time.monotonic() + timeout_s,
        timeout_s,
        **changes,
    )


def quiet(progress):
    """Nobody listens."""


def pictures(*values, count=None):
    batches = (np.full((1, 3, 8, 8), value, np.float32) for value in values)
    return Pictures(count or len(values), (1, 3, 8, 8), "float32", batches)


def test_plan_comes_back_with_figures(monkeypatch, tmp_path):
    monkeypatch.setenv("VIGIA_FAKE_TENSORRT", "10.3.0")
    told = []
    what = job(order={"timing": tmp_path / "t.timing"})
    plan, figures = run(what, told.append)
    header, model = planfile.read(plan)
    assert (header["version"], model) == ("10.3.0", content(routes.FP32))
    assert figures["plan_bytes"] == len(plan)
    assert figures["peak_mib"] > 10
    assert figures["timing_cache"] == "empty"
    assert (told[-1].step, told[-1].done, told[-1].total) == ("building: Building", 4, 4)
    # Nothing but the timing cache is left on the disk.
    assert [p.name for p in tmp_path.iterdir()] == ["t.timing"]


def test_refusal_comes_back_with_what_was_logged(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "refuse-op:Conv")
    with pytest.raises(BuildError, match=r"node '/model/Conv' \(Conv\)"):
        run(job(), quiet)


def test_builder_that_returns_nothing(monkeypatch, caplog):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "build-none:weak")
    with pytest.raises(BuildError, match="injected: weak networks do not build"):
        run(job(), quiet)
    assert "injected" in caplog.text


def test_killed_child_is_short_memory(monkeypatch):
    # TensorRT#4258: "Killed" on boards with little memory.
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "kill")
    with pytest.raises(BuildMemoryError, match=r"memory ran out; set tensorrt.workspace_mb lower"):
        run(job(), quiet)


def test_allocation_that_fails_in_native_code_is_short_memory(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "bad-alloc")
    with pytest.raises(BuildMemoryError, match="wanted more memory than there is"):
        run(job(), quiet)


def test_crashed_child_is_named(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "crash")
    with pytest.raises(BuildError, match="crashed with SIGSEGV"):
        run(job(), quiet)


def test_build_that_never_ends_is_given_up(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "hang")
    with pytest.raises(BuildError, match=r"longer than 3 s.*build_timeout_s"):
        run(job(timeout_s=3.0), quiet)


def test_caller_that_is_cancelled_leaves_no_child(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_TENSORRT", "10.3.0")

    def tell(progress):
        if progress.step == "building":
            raise KeyboardInterrupt

    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "hang")
    with pytest.raises(KeyboardInterrupt):
        run(job(), tell)


def test_child_ends_with_its_parent(monkeypatch):
    """A parent that is killed cannot stop its child: the child sees the end of its input."""
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "hang")
    program = (
        "import sys; sys.path[:] = sys.argv[1].split(':')\n"
        "from tests.engines.trt.test_child import job\n"
        "from engines.trt.process import run\n"
        "run(job(), lambda p: print(p.step, flush=True))\n"
    )
    root = str(Path(__file__).parents[3])
    parent = subprocess.Popen(
        [sys.executable, "-c", program, ":".join([root, *sys.path])], stdout=subprocess.PIPE
    )
    with parent:
        while parent.stdout.readline().strip() != b"building":
            assert parent.poll() is None
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        (child,) = (int(pid) for pid in children)
        watched = os.pidfd_open(child)
        parent.kill()
    select.select([watched], [], [], 30)
    os.close(watched)
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"


def test_memory_cap_ends_the_build():
    with pytest.raises(BuildMemoryError, match=r"tensorrt\.build_memory_mb"):
        run(job(memory_bytes=8 << 20), quiet)


def test_memory_cap_that_is_enough_changes_nothing():
    plan, _ = run(job(memory_bytes=4 * GIB), quiet)
    assert plan


def test_child_is_modest(monkeypatch, tmp_path):
    """Nice, first to go when memory is short: read from outside while it builds."""
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "hang")
    seen = {}
    others = children()

    def tell(progress):
        if progress.step == "building":
            (pid,) = children() - others
            seen["nice"] = os.getpriority(os.PRIO_PROCESS, pid)
            seen["oom"] = int(Path(f"/proc/{pid}/oom_score_adj").read_text())
            seen["core"] = resource.prlimit(pid, resource.RLIMIT_CORE)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(job(), tell)
    mine = os.getpriority(os.PRIO_PROCESS, 0)
    assert seen["nice"] == min(19, mine + 10)
    assert seen["oom"] >= 800 or seen["oom"] == int(Path("/proc/self/oom_score_adj").read_text())
    assert seen["core"] == (0, 0)


def test_tensorrt_that_is_missing_comes_back_as_what_it_is(monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p != str(FAKES)])
    with pytest.raises(BackendError, match="No module named 'tensorrt'"):
        run(job(), quiet)


def test_interpreter_that_is_missing_is_a_build_error(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(BuildError, match="cannot start a process"):
        run(job(routes.INT8_PICTURES, pictures=pictures(1)), quiet)


def test_child_that_dies_without_a_word_is_quoted(monkeypatch):
    monkeypatch.setattr(process, "MODULE", "engines.trt.nothing")
    with pytest.raises(BuildError, match=r"ended with code 1; it printed: .*No module named"):
        run(job(), quiet)


def test_cache_goes_to_the_child():
    cache = calibcache.encode({"images": 3.0}, "8.6.1")
    _, figures = run(job(routes.INT8_CACHE, cache=cache), quiet)
    assert figures["calibration_batches"] == 0


@pytest.fixture
def host_upload(monkeypatch, tmp_path):
    """In the child, batches stay on the host: the fake TensorRT reads from there."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, types\n"
        "cudapycuda = types.ModuleType('engines.trt.cudapycuda')\n"
        "def open_port():\n"
        "    from tests.fakes.cudaport import HostPort\n"
        "    return HostPort()\n"
        "cudapycuda.open_port = open_port\n"
        "sys.modules['engines.trt.cudapycuda'] = cudapycuda\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


@pytest.mark.usefixtures("host_upload")
def test_pictures_go_to_the_child_one_batch_at_a_time():
    _, figures = run(job(routes.INT8_PICTURES, pictures=pictures(1, 2, 3)), quiet)
    assert figures["calibration_batches"] == 3


@pytest.mark.usefixtures("host_upload")
def test_picture_that_cannot_be_read_is_raised_here():
    def broken():
        yield np.ones((1, 3, 8, 8), np.float32)
        raise CalibrationError("picture 2 is gone")

    lost = Pictures(3, (1, 3, 8, 8), "float32", broken())
    with pytest.raises(CalibrationError, match="picture 2 is gone"):
        run(job(routes.INT8_PICTURES, pictures=lost), quiet)


@pytest.mark.usefixtures("host_upload")
def test_fewer_pictures_than_promised_is_an_error():
    with pytest.raises(CalibrationError, match="ended before batch 2 of 5"):
        run(job(routes.INT8_PICTURES, pictures=pictures(1, 2, count=5)), quiet)


@pytest.mark.usefixtures("host_upload")
def test_nan_in_a_picture_comes_back():
    with pytest.raises(CalibrationError, match="not finite"):
        run(job(routes.INT8_PICTURES, pictures=pictures(1, np.nan, 3)), quiet)


def test_child_that_dies_while_pictures_wait_hangs_nobody(monkeypatch):
    monkeypatch.setenv("VIGIA_FAKE_FAULTS", "kill")
    many = Pictures(
        1000, (1, 3, 64, 64), "float32", (np.zeros((1, 3, 64, 64), np.float32) for _ in range(1000))
    )
    with pytest.raises(BuildError):
        run(job(routes.INT8_PICTURES, pictures=many), quiet)


def test_memory_that_cannot_be_had_is_told(monkeypatch):
    def refuse(descriptor, content):
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(process.os, "write", refuse)
    with pytest.raises(BuildMemoryError, match="no memory for the model's"):
        run(job(), quiet)


def test_builds_in_a_row_leave_nothing_in_this_process():
    """TensorRT#3234: each build leaks; here it leaks into a process that ends."""
    assert signal.getsignal(signal.SIGPIPE) == signal.SIG_IGN
    for _ in range(3):
        plan, _ = run(job(), quiet)
        assert plan
    assert "tensorrt" not in sys.modules
