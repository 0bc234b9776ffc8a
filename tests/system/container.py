"""A Debian with a systemd of its own, in a container: made once, cached, booted on an overlay.

`systemd-nspawn --boot` needs root and no more. It runs in a mount namespace of its own in which the
tree of control groups is version 2, as on every current system, whatever the host mounts. The
container has a network of its own with a loopback only. Its systemd may load the filters (BPF) by
which version 2 restricts devices. What it lacks are the controllers that the host keeps for
version 1.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACE = Path(os.environ.get("VIGIA_SYSTEM_CACHE", "/var/cache/vigia-test"))
SUITE = "bookworm"
PYTHON = (3, 11)
"""Of that suite; wheels are made on the host, so its Python must be the same."""

PACKAGES = (
    "systemd,systemd-sysv,dbus,python3,python3-venv,ca-certificates,mosquitto,mosquitto-clients"
)
SYSTEM_PACKAGES = "usr/local/lib/python3.11/dist-packages"
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "unshare")
SOURCES = ("agent", "engines", "fleet", "systemd", "scripts", "setup.py", "pyproject.toml",
           "README.md", "LICENSE")  # fmt: skip

BOOT_S = 60.0
MAKE_S = 900.0
RUN_S = 240.0
LOOK_S = 0.1

BOOT = """
mount --make-rprivate /
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir -p "/sys/fs/cgroup/$1"
echo $$ >"/sys/fs/cgroup/$1/cgroup.procs"
mount -t overlay overlay -o "lowerdir=$2,upperdir=$3/upper,workdir=$3/work" "$3/root"
exec systemd-nspawn --quiet -D "$3/root" --boot --register=no --keep-unit --private-network \
  --system-call-filter=bpf --capability=CAP_BPF,CAP_PERFMON,CAP_NET_ADMIN \
  --machine="$1" --console=read-only --bind-ro="$4:/wheels" --bind-ro="$5:/src"
"""


def missing() -> str | None:
    """Why no container can be booted here, or None."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if absent:
        return f"{', '.join(absent)} missing; apt-get install systemd-container debootstrap"
    if os.geteuid() != 0:
        return "booting a container needs root"
    if sys.version_info[:2] != PYTHON:
        return f"wheels for Debian {SUITE} need Python {'.'.join(map(str, PYTHON))}"
    return None


def base() -> Path:
    """The cached root, made if there is none: Debian, and every dependency of the agent."""
    folder = wheels()
    key = hashlib.sha256(f"{SUITE} {PACKAGES} {folder.name}".encode()).hexdigest()[:12]
    root = PLACE / f"root-{key}"
    if not root.is_dir():
        making = PLACE / f".making-{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, str(making)]
        subprocess.run(command, check=True, timeout=MAKE_S, stdout=subprocess.DEVNULL)
        # As on a Jetson, where OpenCV and TensorRT are the system's.
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
        target = making / SYSTEM_PACKAGES
        names = [str(wheel) for wheel in sorted(folder.glob("*.whl"))]
        subprocess.run([*pip, "--no-index", "--no-deps", "--target", str(target), *names],
                       check=True, timeout=MAKE_S)  # fmt: skip
        making.rename(root)
    return root


def sources(folder: Path, version: str | None = None) -> Path:
    """A copy of what is installed from, with another version number if one is given."""
    folder.mkdir()
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignore)
        else:
            shutil.copy(ROOT / name, folder / name)
    if version is not None:
        for name, mark in (
            ("pyproject.toml", "version = "),
            ("agent/__init__.py", "__version__ = "),
        ):
            file = folder / name
            lines = [
                f'{mark}"{version}"' if line.startswith(mark) else line
                for line in file.read_text().splitlines()
            ]
            file.write_text("\n".join(lines) + "\n")
    return folder


def wheels() -> Path:
    """Wheels of everything but the agent; made anew when the dependencies have changed."""
    text = (ROOT / "pyproject.toml").read_text().partition("[project.scripts]")[0]
    folder = PLACE / f"wheels-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    if not folder.is_dir():
        making = PLACE / f".wheels-{os.getpid()}"
        shutil.rmtree(making, ignore_errors=True)
        copy = PLACE / f".source-{os.getpid()}"
        shutil.rmtree(copy, ignore_errors=True)
        PLACE.mkdir(parents=True, exist_ok=True)
        sources(copy)
        pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
        subprocess.run(
            [*pip, "wheel", "-w", str(making), f"{copy}[opencv]"], check=True, timeout=MAKE_S
        )
        subprocess.run([*pip, "wheel", "-w", str(making), "setuptools>=77", "wheel"], check=True,
                       timeout=MAKE_S)  # fmt: skip
        for own in making.glob("vigia_agent-*.whl"):
            own.unlink()
        shutil.rmtree(copy)
        making.rename(folder)
    return folder


class Container:
    """One booted container.

    Args:
        folder: for what it writes.
        source: a folder that it sees as `/src`, read-only.
        name: of the machine and of its control group.
    """

    def __init__(self, folder: Path, source: Path, name: str = "vigia-test") -> None:
        self._folder = folder
        self._group = f"{name}-{os.getpid()}"
        for part in ("upper", "work", "root"):
            (folder / part).mkdir(parents=True)
        self._log = (folder / "console.log").open("wb")
        command = ["unshare", "--mount", "bash", "-euc", BOOT, "boot", self._group, str(base()),
                   str(folder), str(wheels()), str(source)]  # fmt: skip
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log
        )
        self._leader = self._find_leader()
        self.run("systemctl", "is-system-running", "--wait", check=False)

    def _find_leader(self) -> int:
        """Process 1 of the container, by its number outside."""
        deadline = time.monotonic() + BOOT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children")
            for pid in map(int, children.read_text().split()):
                if self._can_ask(pid):
                    return pid
            time.sleep(LOOK_S)
        self.close()
        raise RuntimeError(f"the container did not boot: {self.console()}")

    @staticmethod
    def _can_ask(pid: int) -> bool:
        asked = subprocess.run(
            ["nsenter", "-t", str(pid), "-a", "systemctl", "show", "-p", "Version"],
            capture_output=True, check=False, timeout=BOOT_S,
        )  # fmt: skip
        return asked.returncode == 0

    def run(
        self, *command: str, check: bool = True, timeout_s: float = RUN_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the container, and wait for it."""
        done = subprocess.run(
            self._entering(command), capture_output=True, text=True, errors="replace",
            check=False, timeout=timeout_s, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if check and done.returncode != 0:
            raise AssertionError(
                f"{' '.join(command)} gave {done.returncode}\n{done.stdout}\n{done.stderr}"
            )
        return done

    def _entering(self, command: Sequence[str]) -> list[str]:
        clean = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                 "HOME=/root", "LANG=C.UTF-8"]  # fmt: skip
        return ["nsenter", "-t", str(self._leader), "-a", *clean, *command]

    def shell(self, script: str, *, check: bool = True) -> str:
        """Run a script; what it printed."""
        return self.run("bash", "-euo", "pipefail", "-c", script, check=check).stdout

    def write(self, path: str, text: str) -> None:
        """Make a file."""
        subprocess.run(
            self._entering(["bash", "-c", f"mkdir -p $(dirname {path}) && cat >{path}"]),
            input=text, text=True, check=True, timeout=RUN_S,
        )  # fmt: skip

    def show(self, name: str, unit: str = "vigia-agent") -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", unit, f"--property={name}", "--value").stdout.strip()

    def until(self, script: str, timeout_s: float) -> float:
        """Wait until a script succeeds; the seconds that it took."""
        began = time.monotonic()
        while self.run("bash", "-c", script, check=False).returncode != 0:
            if time.monotonic() - began > timeout_s:
                raise AssertionError(f"not within {timeout_s:g} s: {script}\n{self.journal()}")
            time.sleep(LOOK_S)
        return time.monotonic() - began

    def journal(self, unit: str = "vigia-agent", lines: int = 60) -> str:
        """The end of a unit's journal."""
        return self.run(
            "journalctl", "-u", unit, "-n", str(lines), "--no-pager", check=False
        ).stdout

    def console(self) -> str:
        """What the container printed while it booted."""
        return (self._folder / "console.log").read_text(errors="replace")[-4000:]

    def close(self) -> None:
        """Halt the container and remove what it wrote."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(BOOT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._log.close()
        for part in ("upper", "work"):
            shutil.rmtree(self._folder / part, ignore_errors=True)
