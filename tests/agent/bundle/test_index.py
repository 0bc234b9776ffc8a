import hashlib
import json
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.bundle.index import HASH_BYTES, HEADER, BlockIndex
from agent.bundle.manifest import BLOCK_BYTES, parse_manifest
from agent.errors import ManifestError
from tests.vectors.bundles import alter, make_bundle, read_bundle, tiny_model

FILES = {"model.onnx": tiny_model()}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle")
    make_bundle(folder, FILES)
    return folder


def test_the_bytes_are_those_of_the_document():
    index = BlockIndex(65_536, 65_537, b"\x11" * 32 + b"\x22" * 32)
    assert index.encode() == (
        b"VGIX\x01\x01\x00\x00"
        b"\x00\x01\x00\x00"
        b"\x00\x00\x00\x02"
        b"\x00\x00\x00\x00\x00\x01\x00\x01" + bytes(8) + b"\x11" * 32 + b"\x22" * 32
    )


def test_it_describes_the_payload(bundle):
    opened = read_bundle(bundle)
    payload = opened.payload.read_bytes()
    index = opened.index
    assert index.blocks == -(-len(payload) // BLOCK_BYTES) == 2
    assert sum(index.length_of(n) for n in range(index.blocks)) == len(payload)
    for n in range(index.blocks):
        block = payload[index.offset_of(n) : index.offset_of(n) + index.length_of(n)]
        assert index.fits(n, block)
        assert index.fits(n, memoryview(block))
        assert not index.fits(n, block[:-1])
        assert not index.fits(n, block + b"\0")
        assert not index.fits(n, bytes(len(block)))
    assert not index.fits(0, payload[index.offset_of(1) :])


def test_a_block_that_does_not_exist_never_fits(bundle):
    opened = read_bundle(bundle)
    index, first = opened.index, opened.payload.read_bytes()[:BLOCK_BYTES]
    for number in (-index.blocks, -1, index.blocks, 2**40):
        for block in (first, b"x", b""):
            assert not index.fits(number, block)


@given(st.integers(1, 1000), st.integers(1, 5000))
def test_blocks_cover_the_payload_without_gaps(block_bytes, length):
    blocks = -(-length // block_bytes)
    index = BlockIndex(block_bytes, length, bytes(blocks * HASH_BYTES))
    ends = [index.offset_of(n) + index.length_of(n) for n in range(index.blocks)]
    assert [index.offset_of(n) for n in range(index.blocks)] == [0, *ends[:-1]]
    assert ends[-1] == length
    assert all(index.length_of(n) >= 1 for n in range(index.blocks))


def test_another_index_is_refused_before_it_is_read(bundle):
    manifest = read_bundle(bundle).manifest
    data = (bundle / "index").read_bytes()
    for wrong in (b"", data[:-1], data + b"\0", bytes(len(data)), data[:-1] + b"\0"):
        with pytest.raises(ManifestError):
            BlockIndex.parse(wrong, manifest)


def pinned(bundle, data, **changes):
    """The manifest with an index pinned that its signers should not have signed."""

    def change(document):
        document["index"] |= {"sha256": hashlib.sha256(data).hexdigest()}
        document["ciphertext"] |= changes

    return parse_manifest(alter((bundle / "manifest.json").read_bytes(), change))


@pytest.mark.parametrize(
    ("at", "put", "message"),
    [
        (0, b"XXXX", "does not begin"),
        (4, b"\x02", "version 2 with hash 1"),
        (5, b"\x02", "version 1 with hash 2"),
        (6, b"\x00\x01", "reserved"),
        (8, struct.pack(">I", 32_768), "bytes of hashes"),
        (8, struct.pack(">I", 0), "at least one"),
        (8, struct.pack(">I", BLOCK_BYTES + 1), "block size, blocks and length"),
        (12, struct.pack(">I", 3), "it says 3 blocks"),
        (16, struct.pack(">Q", 0), "at least one"),
        (16, struct.pack(">Q", 2**64 - 1), "bytes of hashes"),
        (16, struct.pack(">Q", BLOCK_BYTES + 1), "block size, blocks and length"),
        (24, b"\x01", "reserved"),
    ],
)
def test_a_pinned_index_that_contradicts_itself_or_the_manifest(bundle, at, put, message):
    data = bytearray((bundle / "index").read_bytes())
    data[at : at + len(put)] = put
    with pytest.raises(ManifestError, match=message):
        BlockIndex.parse(bytes(data), pinned(bundle, data))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_anything_of_the_right_size_is_refused_or_is_the_payloads(bundle, data):
    original = (bundle / "index").read_bytes()
    head = data.draw(st.binary(min_size=HEADER.size, max_size=HEADER.size))
    wrong = head + original[HEADER.size :]
    with pytest.raises(ManifestError):
        BlockIndex.parse(wrong, pinned(bundle, wrong))


def test_what_is_shorter_than_a_header_is_refused(bundle):
    manifest = parse_manifest((bundle / "manifest.json").read_bytes())
    short = b"VGIX"
    reference = manifest.index.model_copy(
        update={"length": len(short), "sha256": hashlib.sha256(short).hexdigest()}
    )
    with pytest.raises(ManifestError, match="less than its header"):
        BlockIndex.parse(short, manifest.model_copy(update={"index": reference}))


def test_a_manifest_whose_index_has_another_size_is_refused(bundle):
    document = json.loads((bundle / "manifest.json").read_bytes())
    document["index"]["length"] += HASH_BYTES
    with pytest.raises(ManifestError, match="an index of 2 blocks"):
        parse_manifest(json.dumps(document).encode())
