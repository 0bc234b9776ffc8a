"""Ports for servers that tests start, stop and start again."""

from __future__ import annotations

import random
import socket

FIRST, LAST = 20_000, 32_000
"""Below those that Linux gives to outgoing connections (ip_local_port_range, from 32768): a server
that is away for a moment must not find its port taken when it comes back."""

TRIES = 100


def free_port() -> int:
    """A loopback port that nobody uses at this moment.

    Raises:
        OSError: none was found.
    """
    # Not the seeded one: test processes that share a seed would all try the same ports.
    for port in random.SystemRandom().sample(range(FIRST, LAST), TRIES):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError(f"no free port from {FIRST} to {LAST} in {TRIES} tries")
