"""Which versions belong together on a Jetson: a table, and what it says of a machine. Pure.

NVIDIA builds each JetPack for one Python, one CUDA and one TensorRT. A mixture imports badly or not
at all, and says so in words that nobody understands.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.check import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


@dataclass(frozen=True, slots=True)
class Release:
    """One JetPack.

    Attributes:
        jetpack: its version, for people.
        l4t: Jetson Linux, first and last release, as (major, minor, patch).
        python: of its packages.
        cuda: versions as "major.minor"; empty where no source could be had.
        tensorrt: prefixes of its versions.
        opencv: prefix of its version; empty where no source could be had.
        source: where this is from.
    """

    jetpack: str
    l4t: tuple[tuple[int, ...], tuple[int, ...]]
    python: str
    cuda: tuple[str, ...]
    tensorrt: tuple[str, ...]
    opencv: str
    source: str


RELEASES = (
    Release(
        "4.6", ((32, 6), (32, 7, 99)), "3.6", ("10.2",), ("8.0", "8.2"), "4.1",
        "developer.nvidia.com/embedded/jetpack-sdk-46x",
    ),
    Release(
        "5.1", ((35, 2, 1), (35, 6, 99)), "3.8", ("11.4",), ("8.5",), "4.5",
        "developer.nvidia.com/embedded/jetpack-sdk-51x",
    ),
    Release(
        "6.0", ((36, 2), (36, 3, 99)), "3.10", ("12.2", "12.4"), ("8.6",), "4.8",
        "ultralytics/ultralytics#14068 (TensorRT), dusty-nv/jetson-containers (CUDA)",
    ),
    Release(
        "6.1 to 6.2", ((36, 4), (36, 99)), "3.10", ("12.6",), ("10.3", "10.7"), "4.8",
        "NVIDIA/TensorRT#4797 and #4347",
    ),
    Release(
        "7.0 to 7.1", ((38, 2), (38, 99)), "3.12", ("13.0",), ("10.13",), "",
        "NVIDIA/TensorRT-Edge-LLM#105 and its support matrix",
    ),
    Release(
        "7.2", ((39, 2), (39, 99)), "3.12", ("13.2",), ("10.16", "11.4"), "",
        "OE4T/meta-tegra#2224; TensorRT 11.4.1, Migrating on Jetson",
    ),
)  # fmt: skip
"""In the order of Jetson Linux. OpenCV's versions come from packages'
lists, not from NVIDIA's pages: another one is a warning only."""

FIRST_SUPPORTED = (36,)
"""Below it Python is older than 3.10."""

UPGRADE = "flash JetPack 6.2 or newer: https://developer.nvidia.com/embedded/jetpack"

SYSTEM_PACKAGES = "use JetPack's own: create the environment with --system-site-packages"


def release_of(l4t: str) -> Release | None:
    """The JetPack of a Jetson Linux version like "36.4.3"; None if the table has none."""
    number = _number(l4t)
    return next((r for r in RELEASES if r.l4t[0] <= number <= r.l4t[1]), None)


def judge(l4t: str, found: Mapping[str, str | None]) -> Iterator[Finding]:
    """What the table says.

    Args:
        l4t: version of Jetson Linux, or empty on another machine.
        found: versions by name: python, cuda, tensorrt, pycuda, opencv; None or absent for what is
            not there.
    """
    if not l4t:
        yield Finding("jetpack", "ok", "no Jetson: models run on the processor, or on its own GPU")
        return
    number = _number(l4t)
    release = release_of(l4t)
    if number < FIRST_SUPPORTED:
        name = release.jetpack if release else "of before 6"
        what = f"Jetson Linux {l4t} (JetPack {name}) is older than the agent supports"
        yield Finding("jetpack", "fail", what, UPGRADE)
        return
    if release is None:
        what = f"Jetson Linux {l4t} is not in this version's table; what belongs to it is not known"
        yield Finding("jetpack", "warn", what, "look for a newer Vigia, and report how it works")
        return
    yield Finding("jetpack", "ok", f"Jetson Linux {l4t}: JetPack {release.jetpack}")
    yield _python(release, found.get("python") or "")
    yield _one("cuda", release, found.get("cuda"), release.cuda, "sudo apt install nvidia-cuda")
    yield _one(
        "tensorrt", release, found.get("tensorrt"), release.tensorrt,
        "sudo apt install nvidia-tensorrt; packages of the index are not for Jetsons; "
        f"{SYSTEM_PACKAGES}",
    )  # fmt: skip
    opencv = (release.opencv,) if release.opencv else ()
    yield _one("opencv", release, found.get("opencv"), opencv, f"{SYSTEM_PACKAGES}", must=False)
    if not found.get("pycuda"):
        yield Finding(
            "pycuda", "warn", "is not installed: TensorRT cannot be used",
            "sudo apt install python3-pycuda, or pip install pycuda in the agent's environment",
        )  # fmt: skip


def _python(release: Release, python: str) -> Finding:
    if _starts(python, release.python):
        return Finding("python", "ok", f"{python}, as JetPack's packages are built for")
    what = f"{python or 'unknown'}, but JetPack {release.jetpack} builds its packages for "
    what += f"{release.python}: TensorRT and OpenCV of the system cannot be imported"
    fix = f"create the environment with python{release.python} -m venv --system-site-packages"
    return Finding("python", "fail", what, fix)


def _one(
    name: str,
    release: Release,
    version: str | None,
    wanted: tuple[str, ...],
    fix: str,
    *,
    must: bool = True,
) -> Finding:
    if not version:
        what = f"is not installed; JetPack {release.jetpack} has {' or '.join(wanted) or 'one'}"
        return Finding(name, "warn", what, fix)
    if not wanted:
        return Finding(name, "ok", f"{version}; not known what JetPack {release.jetpack} ships")
    if any(_starts(version, prefix) for prefix in wanted):
        return Finding(name, "ok", f"{version}, as JetPack {release.jetpack} has it")
    what = f"{version}, but JetPack {release.jetpack} has {' or '.join(wanted)}"
    return Finding(name, "fail" if must else "warn", what, fix)


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _starts(version: str, prefix: str) -> bool:
    """Whether a version is of a series: 10.3.0 is of 10.3, 10.30 is not."""
    return version == prefix or version.startswith(f"{prefix}.")
