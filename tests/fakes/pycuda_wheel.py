"""Installs the real pycuda into a test environment that has no CUDA; `scripts/test` runs this.

    python tests/fakes/pycuda_wheel.py

pycuda comes as source only. Its headers are taken from NVIDIA's wheels, and it is linked to the
stand-in of the driver that the tests run it on. The wheel is kept outside the tree, so this takes a
minute or two once. NVRTC, which compiles CUDA source on any processor, comes along.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

VERSION = "2026.1"
SHA256 = "759516160628ba06f32ce7e563e3f5b9214691dc9528a03ea99ea1073f4e14ba"
HEADERS = ("nvidia-cuda-runtime==13.0.96", "nvidia-cuda-profiler-api==13.0.85")
"""Where cuda.h and cudaProfiler.h are."""
NVRTC = "nvidia-cuda-nvrtc==13.0.88"


def cache() -> Path:
    """Where built things are kept between runs; safe to delete."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "vigia-test"


def pip(*arguments: str) -> None:
    """Run this environment's pip; its output is shown only if it fails."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit("\n".join((done.stdout + done.stderr).splitlines()[-20:]))


def main() -> None:
    """Build unless it was built before, and install."""
    if not _installed("nvidia-cuda-nvrtc", NVRTC.partition("==")[2]):
        pip("install", "--quiet", NVRTC)
    if _installed("pycuda", VERSION):
        return
    # All that a wheel depends on; the driver it was linked to is exchangeable.
    parts = (VERSION, SHA256[:8], *HEADERS, sys.implementation.cache_tag, platform.machine())
    folder = cache() / "-".join(p.replace("==", "-") for p in parts)
    if not list(folder.glob("*.whl")):
        _build(folder)
    (wheel,) = folder.glob("*.whl")
    pip("install", "--quiet", str(wheel))


def _installed(name: str, version: str) -> bool:
    try:
        return importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        return False


def _build(folder: Path) -> None:
    missing = [tool for tool in ("gcc", "g++") if shutil.which(tool) is None]
    if not Path(sysconfig.get_paths()["include"], "Python.h").exists():
        missing.append("Python.h")
    if missing:
        raise SystemExit(
            f"{', '.join(missing)} not found; on Debian: apt-get install g++ python3-dev"
        )
    print(f"building pycuda {VERSION} (once, a minute or two) ...", file=sys.stderr)  # noqa: T201 - a program
    from libcuda import build  # noqa: PLC0415 - beside this file, which runs as a program

    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        (work / "needs.txt").write_text(f"pycuda=={VERSION} --hash=sha256:{SHA256}\n")
        pip("download", "--quiet", "--no-deps", "--no-binary", "pycuda", "--dest", name,
            "--requirement", str(work / "needs.txt"))  # fmt: skip
        pip("download", "--quiet", "--no-deps", "--dest", str(work / "headers"), *HEADERS)
        for wheel in (work / "headers").glob("*.whl"):
            with zipfile.ZipFile(wheel) as file:
                file.extractall(work / "headers")
        (source,) = work.glob("pycuda-*.tar.gz")
        shutil.unpack_archive(source, work)  # its digest was checked
        (headers,) = (work / "headers").glob("nvidia/*/include")
        # The linker looks for libcuda.so.
        (work / "libcuda.so").symlink_to(build())
        (work / source.name.removesuffix(".tar.gz") / "siteconf.py").write_text(
            f"CUDA_INC_DIR = [{str(headers)!r}]\n"
            f"CUDADRV_LIB_DIR = [{name!r}]\n"
            "CUDADRV_LIBNAME = ['cuda']\n"
            "CUDA_ENABLE_CURAND = False\n"
            "USE_SHIPPED_BOOST = True\n"
        )
        pip("wheel", "--quiet", "--no-deps", "--wheel-dir", str(work / "wheel"),
            str(work / source.name.removesuffix(".tar.gz")))  # fmt: skip
        (wheel,) = (work / "wheel").glob("*.whl")
        folder.mkdir(parents=True, exist_ok=True)
        part = folder / f".{os.getpid()}.part"
        shutil.copyfile(wheel, part)
        part.rename(folder / wheel.name)


if __name__ == "__main__":
    main()
