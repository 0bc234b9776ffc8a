"""Runs in the service's sandbox and tries what must not work; prints what it could do, as JSON.

Standard library only; its arguments are the process id of somebody else's process.
"""

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

CLONE_NEWUSER = 0x10000000


def could(attempt: Callable[[], object]) -> str:
    """`yes`, or the error."""
    try:
        attempt()
    except (OSError, subprocess.SubprocessError) as error:
        return type(error).__name__
    return "yes"


def call(name: str, *arguments: object) -> None:
    """A function of the C library that returns 0, or sets errno."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


def write(path: str) -> None:
    Path(path).write_text("x")


def append(path: str) -> None:
    with Path(path).open("a"):
        pass


state = os.environ["STATE_DIRECTORY"]
attempts: dict[str, Callable[[], object]] = {
    # What must work.
    "write state": lambda: write(f"{state}/probe"),
    "write cache": lambda: write(os.environ["CACHE_DIRECTORY"] + "/probe"),
    "write runtime": lambda: write(os.environ["RUNTIME_DIRECTORY"] + "/probe"),
    "lower priority": lambda: os.nice(1),
    "internet socket": lambda: socket.socket(socket.AF_INET).close(),
    "open null device": lambda: write("/dev/null"),
    # What must not.
    "write etc": lambda: write("/etc/probe"),
    "write usr": lambda: write("/usr/probe"),
    "write opt": lambda: write("/opt/vigia/probe"),
    "write var": lambda: write("/var/probe"),
    "change configuration": lambda: append("/etc/vigia/agent.yaml"),
    "write sysctl": lambda: write("/proc/sys/kernel/hostname"),
    "write other group": lambda: write("/sys/fs/cgroup/system.slice/cgroup.procs"),
    "read home": lambda: list(Path("/root").iterdir()),
    "set user": lambda: os.setuid(0),
    "gain by setuid file": lambda: subprocess.run(
        ["/bin/su", "-s", "/bin/true", "root"], check=True, capture_output=True, timeout=5
    ),
    "make setuid file": lambda: Path(f"{state}/probe").chmod(0o4755),
    "mount": lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
    "namespace": lambda: call("unshare", CLONE_NEWUSER),
    "raw socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "packet socket": lambda: socket.socket(17, socket.SOCK_RAW),
    "set clock": lambda: call("settimeofday", (ctypes.c_long * 2)(1, 0), None),
    "set host name": lambda: socket.sethostname("probe"),
    "trace": lambda: call("ptrace", 16, int(sys.argv[1]), 0, 0),
    "signal others": lambda: os.kill(int(sys.argv[1]), 0),
    "see others": lambda: Path(f"/proc/{sys.argv[1]}").stat(),
    "load module": lambda: call("delete_module", b"probe", 0),
    "kernel log": lambda: Path("/dev/kmsg").open("rb").close(),
    "realtime": lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)),
}
print(json.dumps({name: could(attempt) for name, attempt in attempts.items()}))
