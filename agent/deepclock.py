"""Whether the clock is right: certificates, signatures and times in messages hang on it.

Asked are systemd (is it kept by NTP?) or the kernel, the broker's host and the configured time
server by one SNTP packet each (RFC 4330), and the agent's own files, which cannot be from the
future.
"""

from __future__ import annotations

import ctypes
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING

from agent.check import Finding

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.deepmachine import Machine

NTP_PORT = 123
NTP_TIMEOUT_S = 1.5
PACKET_BYTES = 48
CLIENT = b"\x23" + bytes(PACKET_BYTES - 1)
"""Version 4, mode 3."""

SERVER_MODE = 4
UNSYNCHRONISED = (0, 16)
"""Strata of a server that does not know the time itself."""

NTP_EPOCH_S = 2_208_988_800
"""1900 to 1970."""

NTP_ERA_S = 2**32
FRACTION = 2**32

SKEW_WARN_S = 1.0
"""Above it times of events of several devices cannot be compared."""

SKEW_FAIL_S = 60.0
"""Above it updates can be refused as expired, or as not valid yet."""

TIMEX_BYTES = 512
TIME_ERROR = 5

KEEP = "sudo apt install chrony; in a container or a virtual machine, on its host"

NTP = "sudo timedatectl set-ntp true, and allow UDP port 123 to a time server"


def look(machine: Machine, hosts: tuple[str, ...]) -> Iterator[Finding]:
    """Everything that can be found out.

    Args:
        machine: for `timedatectl`.
        hosts: asked for their time beside the configured server; who does not answer is left out.
    """
    yield synchronised(machine)
    yield not_before(Path(__file__).stat().st_mtime, time.time())
    server = _server(machine)
    for host in dict.fromkeys((*hosts, *((server,) if server else ()))):
        skew = ask(host)
        if skew is not None:
            yield judge(host, skew)


def kernel_keeps() -> bool | None:
    """Whether the kernel's clock is kept by somebody: adjtimex(2); None if it does not tell."""
    try:
        # With `modes` 0 it only tells. The structure is smaller everywhere.
        state: int = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(TIMEX_BYTES))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != TIME_ERROR


def synchronised(machine: Machine, kernel: Callable[[], bool | None] = kernel_keeps) -> Finding:
    """What systemd says of NTP; in a container, what the kernel does."""
    ran = machine.run(
        ["timedatectl", "show", "--property=NTP", "--property=NTPSynchronized"]
    )  # fmt: skip
    said = dict(line.partition("=")[::2] for line in ran.out.splitlines()) if ran else {}
    if said.get("NTPSynchronized") == "yes":
        return Finding("clock", "ok", "kept by NTP")
    if not said:
        kept = kernel()
        if kept:
            return Finding("clock", "ok", "kept right, says the kernel")
        what = "nobody has set the clock right since the start, says the kernel"
        if kept is None:
            what = "whether the clock is kept right is not known: timedatectl does not answer"
        return Finding("clock", "warn", what, KEEP)
    off = said.get("NTP") == "no"
    what = "NTP is off" if off else "the clock has not been set by NTP since the start"
    return Finding("clock", "warn", what, NTP)


def not_before(built_s: float, now_s: float) -> Finding:
    """The agent was installed in the past."""
    behind = built_s - now_s
    if behind > SKEW_FAIL_S:
        what = f"the clock is at least {behind / 86_400:.1f} days behind: the agent is newer"
        return Finding("clock.plausible", "fail", what, NTP)
    day = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now_s))
    return Finding("clock.plausible", "ok", f"{day}, later than the installation")


def judge(host: str, skew_s: float) -> Finding:
    """A difference in seconds; more than 0: this clock is behind."""
    side = "behind" if skew_s > 0 else "ahead of"
    what = f"{abs(skew_s):.3f} s {side} {host}"
    if abs(skew_s) >= SKEW_FAIL_S:
        return Finding("clock.skew", "fail", what, NTP)
    if abs(skew_s) >= SKEW_WARN_S:
        return Finding("clock.skew", "warn", what, NTP)
    return Finding("clock.skew", "ok", what)


def ask(host: str, port: int = NTP_PORT, timeout_s: float = NTP_TIMEOUT_S) -> float | None:
    """How far a host's clock is ahead of ours, seconds; None if it tells no time."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)[0]
        with socket.socket(family, kind) as link:
            link.settimeout(timeout_s)
            link.connect(address)
            sent = time.time()
            link.send(CLIENT)
            answer = link.recv(PACKET_BYTES)
            came = time.time()
    except OSError:
        return None
    return offset(answer, sent, came)


def offset(answer: bytes, sent_s: float, came_s: float) -> float | None:
    """Pure: what a packet says; None if it is no answer of a server that knows the time."""
    if len(answer) < PACKET_BYTES or answer[0] & 7 != SERVER_MODE or answer[1] in UNSYNCHRONISED:
        return None
    received, transmitted = (_seconds(answer, start) for start in (32, 40))
    if transmitted is None or received is None:
        return None
    # RFC 4330 section 5; the way there and the way back are taken for equally long.
    return ((received - sent_s) + (transmitted - came_s)) / 2


def _seconds(packet: bytes, start: int) -> float | None:
    seconds, fraction = struct.unpack_from(">II", packet, start)
    if not seconds:
        return None
    # The first bit is set until 2036; then the count begins anew.
    era = 0 if seconds & 0x8000_0000 else NTP_ERA_S
    return float(seconds + era - NTP_EPOCH_S + fraction / FRACTION)


def _server(machine: Machine) -> str:
    ran = machine.run(["timedatectl", "show-timesync", "--property=ServerAddress", "--value"])
    return ran.out.strip() if ran is not None and ran.code == 0 else ""
