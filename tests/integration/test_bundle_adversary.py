"""Hostile bundles that go the whole way: the release keys have signed them just as they are.

A trainer's machine was broken into, or somebody was fooled. What such a bundle says and holds must
harm nothing, whoever signed it; see `tests.fakes.adversary`.
"""

from __future__ import annotations

import hashlib
import re

import pytest

from agent.bundle.cipher import ciphertext_bytes
from agent.bundle.index import HASH_BYTES, HEADER
from agent.bundle.manifest import BLOCK_BYTES, MAX_BLOCKS, bundle_id, parse_manifest
from agent.bundle.seal import INDEX, PAYLOAD
from agent.update.staging import FOLDER
from tests.fakes.adversary import EVIL, NEXT, SERVING, forge_payload
from tests.vectors import hostileonnx
from tests.vectors.bundles import tiny_model


def put(path, value):
    """A change of a manifest: `files.0.name` is set to a value."""

    def change(document):
        *parts, last = (int(part) if part.isdigit() else part for part in path.split("."))
        for part in parts:
            document = document[part]
        document[last] = value

    return change


def twice(document):
    document["files"].append(
        dict(document["files"][0], role="card", length=0, offset=_end(document))
    )


def overlapping(document):
    document["files"].append(
        {"name": "x.bin", "offset": 0, "length": 0, "sha256": "0" * 64, "role": "card"}
    )


def as_large_as_can_be(document):
    """Everything agrees: four gigabytes of model."""
    length = BLOCK_BYTES * (MAX_BLOCKS - 100)
    assert ciphertext_bytes(length) <= BLOCK_BYTES * MAX_BLOCKS
    _claim(document, length)


def larger_than_can_be(document):
    _claim(document, 2**40)


def _claim(document, length):
    document["files"][0]["length"] = length
    sealed = ciphertext_bytes(length)
    document["ciphertext"]["length"] = sealed
    document["index"]["blocks"] = blocks = -(-sealed // BLOCK_BYTES)
    document["index"]["length"] = HEADER.size + HASH_BYTES * blocks


def _end(document):
    return sum(file["length"] for file in document["files"])


MANIFESTS = {
    "path: parent folder": (put("files.0.name", "../model.onnx"), "files.0.name"),
    "path: absolute": (put("files.0.name", "/etc/cron.d/x"), "files.0.name"),
    "path: inner folder": (put("files.0.name", "a/b"), "files.0.name"),
    "path: dots": (put("files.0.name", ".."), "files.0.name"),
    "path: NUL": (put("files.0.name", "a\0b"), "files.0.name"),
    "path: an option": (put("files.0.name", "-rf"), "files.0.name"),
    "path: taken by a folder": (put("files.0.name", "golden"), "no file may be called"),
    "path: of the family": (put("family", "../conveyor"), "family"),
    "a name twice": (twice, "stands twice"),
    "overlapping offsets": (overlapping, "the file before ends at"),
    "an offset below nothing": (put("files.0.offset", -1), "files.0.offset"),
    "an offset above all": (put("files.0.offset", 2**70), "files.0.offset"),
    "a size above all": (put("files.0.length", 2**62), "files.0.length"),
    "a size that is no number": (put("files.0.length", "1e99"), "files.0.length"),
    "sizes that disagree": (put("ciphertext.length", 2**31), "bytes of ciphertext"),
    "blocks without end": (put("index.blocks", 2**31), "index.blocks"),
    "blocks of another size": (put("index.block_bytes", 2**31), "index.block_bytes"),
    "larger than a bundle can be": (larger_than_can_be, "files.0.length"),
    "as large as a bundle can be": (as_large_as_can_be, r"max_bundle_mb|on the disk"),
    "an engine": (put("files.0.role", "engine"), "files.0.role"),
    "another cipher": (put("encryption.alg", "none"), "encryption.alg"),
    "a counter of its own": (put("release_counter", 2**63), "says that it is another release"),
    "another family": (put("family", "other"), "context|another release"),
    "a floor above itself": (put("min_release_counter", 2**63), "above the bundle's own counter"),
    "what nobody knows": (put("surprise", 1), "surprise"),
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_that_says_something_absurd_is_refused_before_its_blocks_are_fetched(
    stand, name
):
    change, reason = MANIFESTS[name]
    kept, fetched = sealed(stand), len(stand.site.fetcher.fetched)
    assert re.search(reason, stand.rejected(stand.forged(EVIL, change)()))
    assert list(stand.site.fetcher.fetched)[fetched:] == ["manifest"]
    assert sealed(stand) == kept
    stand.unharmed()


KINDS = sorted({name.split(":")[0] for name in hostileonnx.MAKERS})


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_no_device_may_use_is_refused_before_anything_converts_it(stand, kind):
    built = stand.site.proofs.stages.count("build")
    cases = [name for name in hostileonnx.MAKERS if name.startswith(f"{kind}:")]
    for number, name in enumerate(cases, EVIL):
        files = {"model.onnx": hostileonnx.hostile(name), "weights.bin": bytes(64)}
        packed = stand.controller.release(number, files=files)
        stand.site.trust()
        reason = stand.rejected(stand.assigned(packed))
        assert hostileonnx.MAKERS[name][1] in reason, name
        assert stand.site.store.quarantined(packed.digest), name
    assert stand.site.proofs.stages.count("build") == built
    stand.unharmed(also_committed=EVIL + len(cases) < NEXT)


# --- a device that was taken apart ----------------------------------------------------------------
# It holds the data key, as every device does that was granted the bundle.


def test_an_insider_with_the_data_key_forges_no_block(stand):
    """A valid ciphertext of another plaintext, with the same salt and commitment."""
    packed = stand.release(EVIL)
    folder = stand.controller.folder / bundle_id(packed.digest)
    evil = forge_payload(parse_manifest(packed.manifest), packed.data_key, tiny_model(EVIL + 1))
    assert evil[:56] == (folder / PAYLOAD).read_bytes()[:56]
    assert len(evil) == (folder / PAYLOAD).stat().st_size
    (folder / PAYLOAD).write_bytes(evil)
    stand.site.trust()
    assert "block 0" in stand.rejected(stand.assigned(packed))
    assert stand.site.proofs.stages.count("build") == 2
    stand.unharmed()


def test_an_insider_with_the_data_key_forges_no_index(stand):
    """Blocks and index agree with each other, but not with what was signed."""
    packed = stand.release(EVIL)
    folder = stand.controller.folder / bundle_id(packed.digest)
    evil = forge_payload(parse_manifest(packed.manifest), packed.data_key, tiny_model(EVIL + 1))
    (folder / PAYLOAD).write_bytes(evil)
    hashes = b"".join(
        hashlib.sha256(evil[at : at + BLOCK_BYTES]).digest()
        for at in range(0, len(evil), BLOCK_BYTES)
    )
    (folder / INDEX).write_bytes((folder / INDEX).read_bytes()[: HEADER.size] + hashes)
    stand.site.trust()
    assert "index" in stand.rejected(stand.assigned(packed))
    assert stand.site.proofs.stages.count("build") == 2
    stand.unharmed()


def test_an_insider_who_swaps_what_lies_on_the_disk_is_found_out(stand):
    """The active bundle's payload is exchanged for a valid ciphertext of another model."""
    site = stand.site
    evil = forge_payload(parse_manifest(stand.now.manifest), stand.now.data_key, tiny_model(EVIL))
    site.stop()
    (site.state / FOLDER / stand.now.digest / PAYLOAD).write_bytes(evil)
    site.start()
    assert site.proofs.serving == "configured"
    assert site.store.floor("conveyor") == SERVING


def sealed(stand):
    return {path.name for path in (stand.site.state / FOLDER).iterdir()}
