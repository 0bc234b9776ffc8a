"""Which versions a machine has, and whether its libraries can be imported.

Libraries are imported in processes of their own: the kernel kills what is for another processor.
"""

from __future__ import annotations

import platform
import re
import signal
import sys
from typing import TYPE_CHECKING

from agent.check import Finding
from agent.deepmatrix import SYSTEM_PACKAGES, judge
from agent.doctor_host import HostFiles
from agent.versions import LIBRARIES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.deepmachine import Machine, Ran

IMPORT_TIMEOUT_S = 60.0
"""The first import of a large library from a slow card."""

NEEDED = ("numpy", "cv2", "onnx", "onnxruntime", "cryptography.hazmat.bindings._rust")
OPTIONAL = ("tensorrt", "pycuda.driver", "openvino")

CODE = """
import importlib, sys
module = importlib.import_module(sys.argv[1])
version = getattr(module, "__version__", None) or getattr(module, "VERSION_TEXT", None)
if not version:
    version = importlib.import_module(sys.argv[1].partition(".")[0]).__version__
print(version.partition("-")[0])
if sys.argv[1] == "cv2":
    lines = module.getBuildInformation().splitlines()
    print("gstreamer" if any("GStreamer" in l and "YES" in l for l in lines) else "-")
"""

ANSWERS: tuple[tuple[str, str], ...] = (
    (r"numpy\.core\.multiarray|compiled using NumPy 1|_ARRAY_API",
     "pip install 'numpy<2': JetPack 6's OpenCV was built for NumPy 1"),
    (r"libGL\.so|libgthread", "pip install opencv-python-headless instead of opencv-python"),
    (r"libnv\w+\.so|libcuda\w*\.so|libcudart|libcudla|libcudnn",
     "install JetPack's packages (sudo apt install nvidia-jetpack), or NVIDIA's driver elsewhere"),
    (r"GLIBC(XX)?_", "the wheel is for a newer system: install the release for this one"),
    (r"static TLS block", "set LD_PRELOAD to the library that the message names"),
    (r"No module named", "pip install it in the environment that runs the agent"),
)  # fmt: skip
"""Words of a failed import, and what helps."""


def look(machine: Machine) -> Iterator[Finding]:
    """Wheels, then what belongs to this machine's JetPack."""
    l4t = HostFiles(machine.root).read().l4t
    ran = {name: _import(machine, name) for name in (*NEEDED, *OPTIONAL)}
    yield from wheels(ran, jetson=bool(l4t))
    found: dict[str, str | None] = {name: _version(ran.get(m)) for name, m in LIBRARIES.items()}
    found["pycuda"] = _version(ran["pycuda.driver"])
    found["python"] = platform.python_version()
    found["cuda"] = cuda(machine)
    yield from judge(l4t, found)


def wheels(ran: Mapping[str, Ran | None], *, jetson: bool) -> Iterator[Finding]:
    """Pure: what imports say.

    Args:
        ran: by module, what its import said; None if it took too long.
        jetson: whether OpenCV must know GStreamer.
    """
    good: list[str] = []
    for name, import_ in ran.items():
        if import_ is not None and import_.code == 0:
            good.append(f"{name.partition('.')[0]} {_version(import_)}")
        elif name not in OPTIONAL or not _absent(name, import_):
            status = "warn" if name in OPTIONAL else "fail"
            yield Finding(f"wheels.{name.partition('.')[0]}", status, *_why(import_))  # type: ignore[arg-type]
    yield Finding("wheels", "ok", f"imported: {', '.join(good)}")
    opencv = ran.get("cv2")
    if jetson and opencv is not None and opencv.code == 0 and "gstreamer" not in opencv.out:
        what = "this OpenCV has no GStreamer: streams are decoded by the processor"
        yield Finding("wheels.cv2", "warn", what, f"pip uninstall it, and {SYSTEM_PACKAGES}")


def cuda(machine: Machine) -> str | None:
    """CUDA's version, by the file that its packages install."""
    found = re.search(r'"cuda"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"',
                      machine.text("usr/local/cuda/version.json"))  # fmt: skip
    return found[1] if found else None


def _import(machine: Machine, module: str) -> Ran | None:
    return machine.run([sys.executable, "-c", CODE, module], IMPORT_TIMEOUT_S)


def _version(ran: Ran | None) -> str | None:
    lines = ran.out.split() if ran is not None and ran.code == 0 else []
    return lines[0] if lines else None


def _absent(module: str, ran: Ran | None) -> bool:
    """Whether it simply is not installed."""
    package = module.partition(".")[0]
    return ran is not None and f"No module named '{package}'" in ran.err


def _why(ran: Ran | None) -> tuple[str, str]:
    if ran is None:
        return f"its import took more than {IMPORT_TIMEOUT_S:g} s", "look whether the disk is slow"
    if ran.code == -signal.SIGILL:
        return (
            "its import was killed: an instruction that this processor does not have",
            "set OPENBLAS_CORETYPE=ARMV8 on a Jetson; else install a build for this processor",
        )
    if ran.code < 0:
        return f"its import was killed by signal {-ran.code}", "install it anew for this system"
    words = (ran.err.strip().splitlines() or ["it cannot be imported"])[-1]
    fix = next((fix for pattern, fix in ANSWERS if re.search(pattern, ran.err)), "")
    return words[:300], fix or "install it anew in the environment that runs the agent"
