"""scripts/device-check: its parts run on the stand-in here, for real where there is a GPU."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from engines.trt import kernel
from tests.device import check
from tests.fakes import libcuda

ROOT = Path(__file__).parents[2]
PROBE = "import ctypes; raise SystemExit(ctypes.CDLL('libcuda.so.1').cuInit(0) != 0)"


def has_gpu():
    """Asked in another process: this one may have the stand-in loaded."""
    return not subprocess.run(
        [sys.executable, "-c", PROBE], capture_output=True, check=False
    ).returncode


def run(out, timeout):
    command = [sys.executable, "-m", "tests.device.check", "--out", str(out)]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, timeout=timeout, check=False
    )


@pytest.fixture
def port(monkeypatch):
    libcuda.require()
    from engines.trt.cudapycuda import PycudaPort  # noqa: PLC0415 - loads the driver

    monkeypatch.setattr(check, "RUNS", 20)
    monkeypatch.setattr(kernel, "compile_source", lambda source, _: libcuda.host_kernel(source))
    driver = libcuda.load()
    before = driver.live()
    port = PycudaPort(0)
    yield port
    port.close()
    assert driver.live() == before
    assert driver.damaged == 0


def test_without_a_gpu_it_says_so(tmp_path):
    if has_gpu():
        pytest.skip("this machine has a GPU")
    done = run(tmp_path / "check.json", 50)
    assert done.returncode == 2
    assert "no NVIDIA GPU can be used" in done.stderr
    report = json.loads((tmp_path / "check.json").read_text())
    assert report["parts"] == {}
    assert report["no_gpu"]


def test_part_for_the_port_runs(port):
    found = check.port(port)
    assert found["copied"]
    assert found["graph_replayed"]
    assert found["overhead_us"] > 0


def test_part_for_the_kernel_runs_and_judges(port):
    found = check.kernel(port)
    assert found["difference_255"] <= 1.001
    assert found["gpu_us"] > 0
    # The stand-in is no GPU: it is slower than OpenCV, and the check must say so.
    assert found["ratio"] < found["target"]
    assert not found["passed"]


@pytest.mark.gpu
@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_everything_on_the_gpu(tmp_path):
    if not has_gpu():
        pytest.skip("needs an NVIDIA GPU")
    done = run(tmp_path / "check.json", 3500)
    assert done.returncode == 0, done.stdout + done.stderr
