"""What Mosquitto is given: its configuration and the access list. Pure.

Who a client is, its certificate says: the common name becomes the user name, whatever the client
claims. Devices, the controller and viewers have certificates of the fleet's own authority; nobody
else gets in. Mosquitto grants any subscription and then delivers only what the access list lets
this user read.

Sources: mosquitto.conf(5) of version 2.0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.errors import FleetError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONFIG = "mosquitto.conf"
ACCESS_LIST = "acl"
AUTHORITY = "ca.pem"
CERTIFICATE = "server.pem"
KEY = "server.key"
REVOKED = "crl.pem"
DATA = "data"

CONTROLLER_USER = "fleet-controller"
VIEWER_PREFIX = "viewer-"

RESERVED_DEVICES = ("trust", "bundles", CONTROLLER_USER)
"""Topic levels and users that are no devices: a device of this name could write for others."""

MAX_PACKET_BYTES = 16 * 2**20
"""Has room for the block index of a 30 GiB bundle; everything else is far smaller."""

MAX_INFLIGHT = 256
"""As many unacknowledged messages to a client as a device asks for blocks at the most."""

MAX_QUEUED = 10_000
MAX_QUEUED_BYTES = 64 * 2**20
"""What is kept for a client that is away or slow; of 1,000 devices each, reports and states."""

AUTOSAVE_S = 300
"""Mosquitto writes all retained messages anew each time. What a crash loses in between, devices
ask the controller for again."""

SESSION_EXPIRY = "30d"

DEVICE_READS = (
    "trust",
    "bundles/#",
    "%u/update/assignment",
    "%u/cmd/#",
    "%u/config/desired",
    # `vigia check` on the device sends itself a message.
    "%u/check",
)
DEVICE_WRITES = (
    "%u/status",
    "%u/info",
    "%u/telemetry",
    "%u/events",
    "%u/config/state",
    "%u/check",
    "%u/cam/#",
    "%u/model/#",
    "%u/update/request",
    "%u/update/report/#",
    "%u/update/state/#",
    "%u/reply/#",
)
"""All of `agent.wire.topics.Topics` but what the controller says: a device must not be able to
take its own retained assignment or settings away."""

CONTROLLER_WRITES = ("trust", "bundles/#", "+/update/assignment", "+/cmd/#", "+/config/desired")


def is_reserved(device: str) -> bool:
    """Whether a device must not be called so."""
    return device in RESERVED_DEVICES or device.startswith(VIEWER_PREFIX)


def broker_config(folder: Path, port: int, user: str) -> str:
    """The text of `mosquitto.conf`.

    Args:
        folder: where all the broker's files lie, absolute.
        port: to listen on, all interfaces.
        user: as whom Mosquitto runs if it is started by root; owns the files.

    Raises:
        FleetError: the folder's name cannot stand in such a file.
    """
    if not str(folder).isprintable() or not folder.is_absolute():
        raise FleetError(f"Mosquitto cannot be told the path {str(folder)!r}; use a plain one")
    return f"""\
# Written by `vigia fleet`; changes are lost when it writes anew.
# Start: mosquitto -c {folder / CONFIG}
# After `vigia fleet revoke` and other changes of access: send it SIGHUP.

user {user}
per_listener_settings false

listener {port}
cafile {folder / AUTHORITY}
certfile {folder / CERTIFICATE}
keyfile {folder / KEY}
crlfile {folder / REVOKED}
tls_version tlsv1.2

# Who a client is, its certificate says.
require_certificate true
use_identity_as_username true
allow_anonymous false
acl_file {folder / ACCESS_LIST}

# Retained messages are the store of bundles: keep them over a restart.
persistence true
persistence_location {folder / DATA}/
autosave_interval {AUTOSAVE_S}
persistent_client_expiration {SESSION_EXPIRY}

max_packet_size {MAX_PACKET_BYTES}
max_inflight_messages {MAX_INFLIGHT}
max_queued_messages {MAX_QUEUED}
max_queued_bytes {MAX_QUEUED_BYTES}
set_tcp_nodelay true
"""


def access_list(prefix: str, viewers: Iterable[str], revoked: Iterable[str]) -> str:
    """The text of the access list.

    Args:
        prefix: first levels of all topics.
        viewers: names of operators who only read.
        revoked: devices that may do nothing, also over connections that are still open.
    """
    lines = [
        "# Written by `vigia fleet`; changes are lost when it writes anew.",
        "",
        f"user {CONTROLLER_USER}",
        f"topic read {prefix}/#",
        *(f"topic write {prefix}/{topic}" for topic in CONTROLLER_WRITES),
    ]
    for viewer in sorted(viewers):
        user = f"{VIEWER_PREFIX}{viewer}"
        # The patterns below count for everybody; they must give a viewer nothing.
        lines += ["", f"user {user}", f"topic deny {prefix}/{user}/#", f"topic read {prefix}/#"]
    for device in sorted(revoked):
        lines += ["", f"user {device}", "topic deny #"]
    lines += [
        "",
        "# Every device: what it reads, and what it writes of its own. %u is its common name.",
        *(f"pattern read {prefix}/{topic}" for topic in DEVICE_READS),
        *(f"pattern write {prefix}/{topic}" for topic in DEVICE_WRITES),
    ]
    return "\n".join(lines) + "\n"
