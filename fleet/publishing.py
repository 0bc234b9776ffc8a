"""Puts a bundle onto the broker as retained messages, and takes it off again.

What the broker has acknowledged is noted beside the bundle, so that a publication that was broken
off goes on there. The note says what was once held, not what is: a broker that has lost it is told
again by `fleet.answering`, or with `anew`.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Protocol

from agent.errors import StoreError
from engines.durable import read_bounded, sync_folder, write_new

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.wire.topics import FleetTopics
    from fleet.bundlefiles import BundleFiles

SETTLE_BLOCKS = 256
"""Blocks (16 MiB) after which it is waited for the broker and noted how far it is."""

NOTE = "published.json"
MAX_NOTE_BYTES = 4096


class Sender(Protocol):
    """What `fleet.link.Outlet` does."""

    def send(self, topic: str, payload: bytes, *, retain: bool = True, schema: str = "") -> None:
        """Send a message, waiting for room."""

    def settle(self) -> None:
        """Wait until everything is acknowledged."""


def publish_trust(sender: Sender, topics: FleetTopics, message: bytes) -> None:
    """Tell the current metadata.

    Raises:
        BrokerError: the broker does not take it.
    """
    sender.send(topics.trust, message)
    sender.settle()


def publish_bundle(
    sender: Sender,
    topics: FleetTopics,
    files: BundleFiles,
    broker: str,
    tell: Callable[[int, int], None],
    *,
    anew: bool = False,
) -> int:
    """Have the broker hold a whole bundle.

    Args:
        sender: to the broker.
        topics: that all devices read.
        files: the bundle.
        broker: which broker it is, e.g. "host:port/prefix"; what one holds, another does not.
        tell: called with the blocks that are there, and all.
        anew: send also what the broker should hold already.

    Returns:
        Blocks that were sent.

    Raises:
        BrokerError: the broker does not take it all; what it took is noted.
        StoreError: the bundle cannot be read.
    """
    note = _Note(files.folder / NOTE, broker)
    begin = 0 if anew else min(note.blocks, files.blocks)
    sender.send(topics.manifest(files.id), files.manifest_bytes)
    sender.send(topics.index(files.id), files.index())
    for number in range(begin, files.blocks):
        sender.send(topics.block(files.id, number), files.block(number))
        done = number + 1
        tell(done, files.blocks)
        if done % SETTLE_BLOCKS == 0:
            sender.settle()
            note.write(done)
    sender.settle()
    note.write(files.blocks)
    return files.blocks - begin


def withdraw_bundle(
    sender: Sender, topics: FleetTopics, files: BundleFiles, tell: Callable[[int, int], None]
) -> None:
    """Have the broker forget a bundle; devices that have it keep it.

    Raises:
        BrokerError: the broker does not take it.
        StoreError: the manifest cannot be read.
    """
    # First of all the note: what is half withdrawn must not pass for published.
    with contextlib.suppress(FileNotFoundError):
        (files.folder / NOTE).unlink()
        sync_folder(files.folder)
    for number in range(files.blocks):
        sender.send(topics.block(files.id, number), b"")
        tell(number + 1, files.blocks)
    sender.send(topics.index(files.id), b"")
    sender.send(topics.manifest(files.id), b"")
    sender.settle()


class _Note:
    """How many blocks, from the first on, a broker has acknowledged."""

    def __init__(self, path: Path, broker: str) -> None:
        self._path = path
        self._broker = broker

    @property
    def blocks(self) -> int:
        """As noted; 0 where nothing of use is."""
        try:
            value = json.loads(read_bounded(self._path, MAX_NOTE_BYTES) or b"{}")
            blocks = value["blocks"] if value["broker"] == self._broker else 0
        except (OSError, ValueError, LookupError, TypeError):
            return 0
        return blocks if isinstance(blocks, int) and blocks >= 0 else 0

    def write(self, blocks: int) -> None:
        part = self._path.with_suffix(f".{os.getpid()}")
        try:
            write_new(part, json.dumps({"broker": self._broker, "blocks": blocks}).encode())
            part.replace(self._path)
        except OSError as error:
            raise StoreError(f"{self._path} cannot be written: {error.strerror}") from error
