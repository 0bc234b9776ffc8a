"""Assignments and steps of an update, as the updater would make them."""

from __future__ import annotations

import base64
import itertools

from agent.bundle.cipher import ciphertext_bytes
from agent.bundle.documents import Grant
from agent.bundle.manifest import (
    BLOCK_BYTES,
    BundleFile,
    CiphertextRef,
    Compat,
    Encryption,
    IndexRef,
    Manifest,
    context_of,
)
from agent.update.machine import (
    Admitted,
    Built,
    Event,
    Fetched,
    Healthy,
    Judged,
    Offered,
    Opened,
    Shadowed,
    Trusted,
    advance,
)
from agent.update.record import Record, State

GRANT = Grant(kem="p256", key_id="0123456789abcdef", sealed="AAAA").encode()


def digest_of(number: int) -> str:
    return f"{number:064x}"


def offered(counter: int, bundle: int | None = None, release: int | None = None) -> Offered:
    """Assignment `counter` of bundle number `bundle`."""
    bundle = counter if bundle is None else bundle
    return Offered(
        campaign=f"c{counter}",
        counter=counter,
        digest=digest_of(bundle),
        target=f"models/line/{bundle}/manifest.json",
        release_counter=bundle if release is None else release,
        assignment=b"envelope %d" % counter,
        grant=GRANT,
    )


def way(counter: int, bundle: int | None = None, release: int | None = None, least: int = 0):
    """The events from an assignment to its commit."""
    bundle = counter if bundle is None else bundle
    return (
        offered(counter, bundle, release),
        Trusted("line", str(bundle)),
        Admitted(least),
        Fetched(),
        Opened(),
        Built('{"seconds":1}'),
        Judged('{"score":0.9}'),
        Shadowed('{"agreement":0.99}'),
        Healthy('{"fps":30}'),
    )


def walk(record: Record, events) -> Record:
    """The record after these events."""
    for event in events:
        record = advance(record, event)
    return record


def at(state: State, slot: str = "main", counter: int = 1) -> Record:
    """A record that came to a state by the straight way."""
    record = Record(slot)
    for event in itertools.chain(way(counter), [None]):
        if record.state is state:
            return record
        assert event is not None, f"{state} is not on the straight way"
        record = advance(record, event)
    raise AssertionError(state)


def drive(store, slot: str, events: tuple[Event, ...]) -> Record:
    """Take a slot through events, saving each step as the updater does."""
    record = store.record(slot)
    for event in events:
        record = store.save(advance(record, event))
    return record


def manifest(number: int, length: int = 2**20, compat: Compat | None = None) -> Manifest:
    """A manifest of release `number`, with one file of `length` bytes."""
    payload = ciphertext_bytes(length)
    blocks = -(-payload // BLOCK_BYTES)
    return Manifest(
        family="line",
        version=str(number),
        release_counter=number,
        compat=compat or Compat(),
        files=(
            BundleFile(
                name="model.onnx", offset=0, length=length, sha256=digest_of(1), role="model"
            ),
        ),
        encryption=Encryption(
            alg="c2sp.org/chunked-encryption@v1+AEAD_AES_256_GCM",
            context=context_of("line", str(number)),
            salt=base64.b64encode(bytes(24)).decode(),
            commitment=base64.b64encode(bytes(32)).decode(),
        ),
        index=IndexRef(
            sha256=digest_of(2), length=32 + 32 * blocks, block_bytes=BLOCK_BYTES, blocks=blocks
        ),
        ciphertext=CiphertextRef(sha256=digest_of(3), length=payload),
        created=0,
        expires=4_000_000_000,
    )
