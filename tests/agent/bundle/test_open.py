import hashlib
import os
import stat
import tracemalloc
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.hashes import SHA512
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.bundle.index import BlockIndex
from agent.bundle.manifest import BLOCK_BYTES, parse_manifest
from agent.bundle.open import open_bundle, verify_payload
from agent.errors import BundleError, StoreError
from tests.vectors import chunkedencryption as reference
from tests.vectors.bundles import alter, make_bundle, read_bundle, tiny_model
from tests.vectors.hostileonnx import hostile

FILES = {
    "empty-first.txt": b"",
    "model.onnx": tiny_model(),
    "model-int8.onnx": tiny_model(1),
    "golden/a.jpg": hashlib.shake_128(b"a").digest(200_000),
    "golden/b.jpg": b"",
    "calibration/a.jpg": b"same name, other folder",
    "truth.json": b"{}",
    "labels.txt": b"box\n",
    "empty-last.txt": b"",
}


def quiet(_done, _total):
    """Nobody listens."""


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sealed")
    return folder, make_bundle(folder, FILES)


@pytest.fixture
def memory(tmp_path):
    folder = tmp_path / "memory"
    folder.mkdir(mode=0o700)
    return folder


def opened(sealed, memory, *, tell=quiet, key=None, payload=None):
    folder, packed = sealed
    found = read_bundle(folder)
    return open_bundle(
        found.manifest,
        found.index,
        payload or found.payload,
        key or packed.data_key,
        memory,
        tell,
    )


def everything(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def test_every_file_lies_at_its_place_as_it_was(sealed, memory):
    bundle = opened(sealed, memory)
    assert everything(memory) == sorted([*FILES, "calibration", "golden"])
    for place, content in FILES.items():
        assert (memory / place).read_bytes() == content
    assert bundle.digest == sealed[1].digest
    assert bundle.folder == memory
    assert bundle.model == memory / "model.onnx"
    assert bundle.model_int8 == memory / "model-int8.onnx"
    assert bundle.golden == memory / "golden"
    assert bundle.calibration == memory / "calibration"
    assert bundle.truth == memory / "truth.json"
    assert bundle.labels == memory / "labels.txt"


def test_what_a_bundle_lacks_is_none(tmp_path, memory):
    packed = make_bundle(tmp_path / "b")
    bundle = opened((tmp_path / "b", packed), memory)
    parts = (bundle.model_int8, bundle.golden, bundle.calibration, bundle.truth, bundle.labels)
    assert parts == (None,) * 5
    assert everything(memory) == ["model.onnx"]


def test_only_the_owner_reads_the_plaintext(sealed, memory):
    opened(sealed, memory)
    for path in memory.rglob("*"):
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_progress_is_told_up_to_the_end(sealed, memory):
    told = []
    opened(sealed, memory, tell=lambda *step: told.append(step))
    total = sum(map(len, FILES.values()))
    assert told[-1] == (total, total)
    assert told == sorted(told)


def test_memory_stays_constant(tmp_path):
    peaks = []
    for size in (2**20, 2**25):
        folder = tmp_path / str(size)
        packed = make_bundle(folder / "b", {"model.onnx": tiny_model(), "card": bytes(size)})
        (folder / "m").mkdir()
        tracemalloc.start()
        opened((folder / "b", packed), folder / "m")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2**18
    assert peaks[1] < 2**21


def damaged(sealed, tmp_path, change):
    """The payload with something changed."""
    content = bytearray(read_bundle(sealed[0]).payload.read_bytes())
    path = tmp_path / "payload"
    path.write_bytes(change(content))
    return path


def flipped(at):
    def change(content):
        content[at] ^= 1
        return content

    return change


@pytest.mark.parametrize("at", [0, 24, 56, BLOCK_BYTES - 1, BLOCK_BYTES, 3 * BLOCK_BYTES, -1])
def test_one_flipped_bit_is_found_and_nothing_stays(sealed, tmp_path, memory, at):
    path = damaged(sealed, tmp_path, flipped(at))
    found = read_bundle(sealed[0])
    number = (at if at >= 0 else found.manifest.ciphertext.length + at) // BLOCK_BYTES
    with pytest.raises(BundleError, match=f"block {number} of the payload is damaged"):
        verify_payload(found.manifest, found.index, path)
    with pytest.raises(BundleError, match=f"block {number} of the payload is damaged"):
        opened(sealed, memory, payload=path)
    assert everything(memory) == []


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_flipped_bit_anywhere_is_found(sealed, tmp_path_factory, data):
    found = read_bundle(sealed[0])
    at = data.draw(st.integers(0, found.manifest.ciphertext.length - 1))
    path = damaged(sealed, tmp_path_factory.mktemp("damaged"), flipped(at))
    with pytest.raises(BundleError):
        verify_payload(found.manifest, found.index, path)


@pytest.mark.parametrize(
    "change",
    [
        lambda content: b"",
        lambda content: content[:-1],
        lambda content: content[:BLOCK_BYTES],
        lambda content: content + b"\0",
        lambda content: content + content[:BLOCK_BYTES],
    ],
    ids=["empty", "a byte short", "one block", "a byte long", "a block long"],
)
def test_a_payload_of_another_length_is_refused(sealed, tmp_path, memory, change):
    path = damaged(sealed, tmp_path, change)
    found = read_bundle(sealed[0])
    with pytest.raises(BundleError, match="the manifest says"):
        verify_payload(found.manifest, found.index, path)
    with pytest.raises(BundleError, match="the manifest says"):
        opened(sealed, memory, payload=path)
    assert everything(memory) == []


def test_blocks_in_another_order_are_refused(sealed, tmp_path, memory):
    def swap(content):
        first, second = content[:BLOCK_BYTES], content[BLOCK_BYTES : 2 * BLOCK_BYTES]
        return second + first + content[2 * BLOCK_BYTES :]

    with pytest.raises(BundleError, match="block 0"):
        opened(sealed, memory, payload=damaged(sealed, tmp_path, swap))


def test_a_payload_that_verifies_is_silent(sealed):
    found = read_bundle(sealed[0])
    assert verify_payload(found.manifest, found.index, found.payload) is None


def test_another_key_is_refused_before_anything_is_written(sealed, memory):
    with pytest.raises(BundleError, match="data key is not the one"):
        opened(sealed, memory, key=bytes(32))
    assert everything(memory) == []


@pytest.mark.parametrize("size", [1, 31, 33])
def test_a_key_of_another_length_is_refused(sealed, memory, size):
    with pytest.raises(BundleError, match="32 bytes"):
        opened(sealed, memory, key=bytes(size))


def test_a_manifest_with_another_commitment_or_salt_is_refused(sealed, memory):
    folder, packed = sealed
    other = parse_manifest(make_bundle(memory / "other").manifest).encryption
    found = read_bundle(folder)
    for field in ("salt", "commitment"):
        wrong = alter(
            packed.manifest,
            lambda document, field=field: document["encryption"].update(
                {field: getattr(other, field)}
            ),
        )
        with pytest.raises(BundleError, match="data key is not the one"):
            open_bundle(
                parse_manifest(wrong), found.index, found.payload, packed.data_key, memory, quiet
            )


def insider(sealed, tmp_path, change):
    """A payload that verifies block by block, of a manifest that says something else of it."""
    folder, packed = sealed
    return parse_manifest(alter(packed.manifest, change)), read_bundle(folder)


@pytest.mark.parametrize("number", [0, 1, 3, 8])
def test_a_file_with_another_hash_is_refused_and_nothing_stays(sealed, tmp_path, memory, number):
    def change(document):
        document["files"][number]["sha256"] = "0" * 64

    manifest, found = insider(sealed, tmp_path, change)
    with pytest.raises(BundleError, match="its SHA-256 is not the manifest's"):
        open_bundle(manifest, found.index, found.payload, sealed[1].data_key, memory, quiet)
    assert everything(memory) == []


def test_a_payload_with_another_hash_as_a_whole_is_refused(sealed, tmp_path, memory):
    manifest, found = insider(
        sealed, tmp_path, lambda document: document["ciphertext"].update(sha256="0" * 64)
    )
    with pytest.raises(BundleError, match="though its blocks' are"):
        verify_payload(manifest, found.index, found.payload)
    with pytest.raises(BundleError, match="though its blocks' are"):
        open_bundle(manifest, found.index, found.payload, sealed[1].data_key, memory, quiet)
    assert everything(memory) == []


def test_an_index_that_is_not_the_manifests_is_refused(sealed, memory):
    found = read_bundle(sealed[0])
    other = BlockIndex(
        found.index.block_bytes, found.index.ciphertext_length, bytes(len(found.index.hashes))
    )
    with pytest.raises(BundleError, match="index is not the manifest's"):
        open_bundle(found.manifest, other, found.payload, sealed[1].data_key, memory, quiet)


def test_a_forger_with_the_data_key_gets_nothing_in(tmp_path, memory):
    """Every device holds the key; a payload that decrypts is still not the one that was signed."""
    packed = make_bundle(tmp_path / "signed", {"model.onnx": tiny_model(1)})
    signed = read_bundle(tmp_path / "signed")
    context = signed.manifest.encryption.context.encode()
    forged = reference.encrypt(
        tiny_model(2), packed.data_key, context, signed.manifest.encryption.salt_bytes, SHA512()
    )
    assert forged[:56] == signed.payload.read_bytes()[:56]
    assert len(forged) == signed.manifest.ciphertext.length
    assert reference.decrypt(forged, packed.data_key, context, SHA512()) == tiny_model(2)
    (tmp_path / "forged").write_bytes(forged)
    with pytest.raises(BundleError, match="block 0 of the payload is damaged"):
        open_bundle(
            signed.manifest, signed.index, tmp_path / "forged", packed.data_key, memory, quiet
        )
    assert everything(memory) == []


def test_a_folder_that_is_not_empty_is_refused_and_left_alone(sealed, memory):
    (memory / "model.onnx").write_bytes(b"mine")
    with pytest.raises(StoreError, match="must be an empty folder"):
        opened(sealed, memory)
    assert everything(memory) == ["model.onnx"]
    assert (memory / "model.onnx").read_bytes() == b"mine"


@pytest.mark.parametrize("name", ["model.onnx", "golden", "golden/a.jpg"])
def test_a_link_that_waits_in_the_folder_is_not_followed(sealed, memory, tmp_path, name):
    outside = tmp_path / "outside"
    outside.mkdir()
    if "/" in name:
        (memory / "golden").mkdir()
    (memory / name).symlink_to(outside / "x" if "." in name else outside)
    with pytest.raises(StoreError):
        opened(sealed, memory)
    assert everything(outside) == []


def test_a_folder_that_is_missing_or_a_link_is_refused(sealed, memory, tmp_path):
    with pytest.raises(StoreError):
        opened(sealed, tmp_path / "none")
    (tmp_path / "link").symlink_to(memory)
    with pytest.raises(StoreError):
        opened(sealed, tmp_path / "link")


def test_a_payload_that_is_missing_or_a_link_is_refused(sealed, memory, tmp_path):
    with pytest.raises(StoreError, match="cannot read the payload"):
        opened(sealed, memory, payload=tmp_path / "none")
    (tmp_path / "link").symlink_to(read_bundle(sealed[0]).payload)
    with pytest.raises(StoreError, match="cannot read the payload"):
        opened(sealed, memory, payload=tmp_path / "link")
    with pytest.raises(StoreError, match="cannot read the payload"):
        opened(sealed, memory, payload=tmp_path)


def test_no_room_is_told_and_nothing_stays(sealed, memory, monkeypatch):
    full = os.open("/dev/full", os.O_WRONLY)
    really_open = os.open

    def nearly_open(path, flags, *args, **kwargs):
        # The last large file goes to a device that is always full.
        descriptor = really_open(path, flags, *args, **kwargs)
        if path == "a.jpg" and flags & os.O_CREAT:
            os.dup2(full, descriptor)
        return descriptor

    monkeypatch.setattr(os, "open", nearly_open)
    with pytest.raises(StoreError, match="No space left"):
        opened(sealed, memory)
    os.close(full)
    assert everything(memory) == []


def test_an_interrupted_opening_leaves_no_plaintext(sealed, memory):
    def stop(done, _total):
        if done > 100_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        opened(sealed, memory, tell=stop)
    assert everything(memory) == []


def test_no_descriptor_stays_open(sealed, memory, tmp_path):
    before = descriptors()
    with pytest.raises(BundleError):
        opened(sealed, memory, payload=damaged(sealed, tmp_path, flipped(300_000)))
    opened(sealed, memory)
    with pytest.raises(StoreError):
        opened(sealed, memory)
    assert descriptors() == before


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.parametrize("place", ["model.onnx", "model-int8.onnx"])
def test_a_hostile_model_in_a_signed_bundle_is_refused_and_nothing_stays(tmp_path, memory, place):
    files = {"model.onnx": tiny_model(), place: hostile("external: parent folder")}
    packed = make_bundle(tmp_path / "b", files)
    with pytest.raises(BundleError, match="no file of the bundle beside it"):
        opened((tmp_path / "b", packed), memory)
    assert everything(memory) == []


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.sampled_from([0, 1, 16_383, 16_384, 65_479, 65_480, 65_536, 131_072, 262_144]),
        max_size=6,
    )
)
def test_any_lengths_come_out_as_they_went_in(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("bundle")
    files = {f"golden/{n}": os.urandom(size) for n, size in enumerate(sizes)}
    packed = make_bundle(folder / "b", {"model.onnx": tiny_model(), **files})
    (folder / "m").mkdir()
    opened((folder / "b", packed), folder / "m")
    for place, content in files.items():
        assert (folder / "m" / place).read_bytes() == content
