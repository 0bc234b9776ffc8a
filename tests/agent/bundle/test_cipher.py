import hashlib

import pytest
from cryptography.hazmat.primitives.hashes import SHA256, SHA512
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.bundle.cipher import (
    CHUNK_BYTES,
    HEADER_BYTES,
    SALT_BYTES,
    TAG_BYTES,
    Decryptor,
    Encryptor,
    ciphertext_bytes,
    room_for,
)
from agent.errors import BundleError
from tests.vectors import chunkedencryption as reference

KEY = bytes(range(32))
CONTEXT = b"vigia/bundle/1 conveyor 1.0.0"
VECTORS = reference.vectors()


def through(stream, data, cuts=()):
    """Output of a stream that is given `data` in pieces that end at `cuts`."""
    found, begin = b"", 0
    for end in (*sorted(cuts), len(data)):
        piece = data[begin:end]
        room = bytearray(room_for(len(piece)))
        found += room[: stream.update_into(piece, room)]
        begin = end
    return found + stream.finish()


def encrypt(plaintext, cuts=()):
    stream = Encryptor(KEY, CONTEXT)
    return stream.header + through(stream, plaintext, cuts)


def decrypt(payload, cuts=(), *, key=KEY, context=CONTEXT, header=None):
    header = payload[:HEADER_BYTES] if header is None else header
    return through(Decryptor(key, context, header[:SALT_BYTES], header[SALT_BYTES:]), payload, cuts)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_the_reference_agrees_with_the_published_vectors(vector):
    if vector.good:
        plaintext = reference.decrypt(vector.ciphertext, vector.key, vector.context, SHA256())
        assert len(plaintext) == vector.length
        assert hashlib.sha256(plaintext).hexdigest() == vector.sha256
        again = reference.encrypt(
            plaintext, vector.key, vector.context, vector.ciphertext[:SALT_BYTES], SHA256()
        )
        assert again == vector.ciphertext
    else:
        with pytest.raises(ValueError):
            reference.decrypt(vector.ciphertext, vector.key, vector.context, SHA256())


def test_there_are_vectors_of_both_kinds():
    assert [vector.good for vector in VECTORS].count(True) >= 9
    assert [vector.good for vector in VECTORS].count(False) >= 20


@pytest.mark.parametrize("vector", [v for v in VECTORS if v.good], ids=lambda v: v.name)
def test_published_plaintexts_are_understood_with_our_derivation(vector):
    plaintext = reference.decrypt(vector.ciphertext, vector.key, vector.context, SHA256())
    salt = vector.ciphertext[:SALT_BYTES]
    payload = reference.encrypt(plaintext, vector.key, vector.context, salt, SHA512())
    assert decrypt(payload, key=vector.key, context=vector.context) == plaintext
    assert len(payload) == len(vector.ciphertext) == ciphertext_bytes(vector.length)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2 * CHUNK_BYTES + 10),
    st.binary(max_size=40),
    st.binary(min_size=32, max_size=32),
)
def test_the_reference_and_the_product_understand_each_other(size, context, key):
    plaintext = hashlib.shake_128(key).digest(size)
    stream = Encryptor(key, context)
    payload = stream.header + through(stream, plaintext)
    assert payload == reference.encrypt(plaintext, key, context, stream.salt, SHA512())
    assert reference.decrypt(payload, key, context, SHA512()) == plaintext
    theirs = reference.encrypt(plaintext, key, context, bytes(SALT_BYTES), SHA512())
    assert decrypt(theirs, key=key, context=context) == plaintext


PIECES = st.lists(st.integers(0, 3 * CHUNK_BYTES), max_size=6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3 * CHUNK_BYTES), PIECES, PIECES)
def test_what_is_encrypted_in_any_pieces_is_decrypted_in_any_others(size, cuts, others):
    plaintext = hashlib.shake_128(b"x").digest(size)
    payload = encrypt(plaintext, [c for c in cuts if c <= size])
    assert len(payload) == ciphertext_bytes(size)
    assert decrypt(payload, [c for c in others if c <= len(payload)]) == plaintext


@pytest.mark.parametrize(
    "size", [0, 1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2 * CHUNK_BYTES]
)
def test_a_plaintext_of_whole_chunks_ends_with_an_empty_one(size):
    payload = encrypt(bytes(size))
    assert len(payload) == HEADER_BYTES + size + (size // CHUNK_BYTES + 1) * TAG_BYTES
    assert decrypt(payload) == bytes(size)


def test_two_payloads_of_the_same_are_different():
    assert encrypt(b"x") != encrypt(b"x")


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_one_changed_bit_anywhere_is_noticed(data):
    payload = bytearray(encrypt(bytes(CHUNK_BYTES + 100)))
    header = bytes(payload[:HEADER_BYTES])
    payload[data.draw(st.integers(0, len(payload) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(BundleError):
        decrypt(bytes(payload), header=header)


@pytest.mark.parametrize("end", [0, 10, HEADER_BYTES, HEADER_BYTES + 7, -1, -(100 + TAG_BYTES)])
def test_a_payload_that_was_cut_does_not_open(end):
    payload = encrypt(bytes(CHUNK_BYTES + 100))
    with pytest.raises(BundleError):
        decrypt(payload[:end], header=payload[:HEADER_BYTES])


FULL = CHUNK_BYTES + TAG_BYTES


@pytest.mark.parametrize(
    "damage",
    [
        lambda first, second, last: second + first + last,
        lambda first, _second, last: first + first + last,
        lambda first, second, _last: first + second,
        lambda first, _second, last: first + last,
        lambda first, second, last: first + second + last + last,
        lambda first, second, last: first + last + second,
        lambda _first, _second, last: last,
        lambda _first, _second, _last: b"",
    ],
    ids=[
        "swapped",
        "doubled",
        "cut between chunks",
        "one missing",
        "last twice",
        "last first",
        "last alone",
        "none",
    ],
)
def test_chunks_in_any_other_order_or_number_do_not_open(damage):
    payload = encrypt(hashlib.shake_128(b"x").digest(2 * CHUNK_BYTES + 100))
    header, chunks = payload[:HEADER_BYTES], payload[HEADER_BYTES:]
    changed = header + damage(chunks[:FULL], chunks[FULL : 2 * FULL], chunks[2 * FULL :])
    with pytest.raises(BundleError):
        decrypt(changed)


@pytest.mark.parametrize("tail", [b"x", bytes(TAG_BYTES), bytes(2 * CHUNK_BYTES)])
def test_a_payload_that_goes_on_does_not_open(tail):
    with pytest.raises(BundleError):
        decrypt(encrypt(bytes(100)) + tail)


def test_another_key_or_context_is_told_before_anything_is_decrypted():
    header = encrypt(b"x")[:HEADER_BYTES]
    for key, context in ((bytes(32), CONTEXT), (KEY, b"vigia/bundle/1 conveyor 1.0.1")):
        with pytest.raises(BundleError, match="data key is not the one"):
            Decryptor(key, context, header[:SALT_BYTES], header[SALT_BYTES:])


def test_a_header_that_is_not_the_manifests_is_refused():
    payload, other = encrypt(b"x"), encrypt(b"x")
    with pytest.raises(BundleError, match="another salt"):
        decrypt(other[:HEADER_BYTES] + payload[HEADER_BYTES:], header=payload[:HEADER_BYTES])


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_of_another_length_is_refused(size):
    with pytest.raises(BundleError, match="has 32 bytes"):
        Encryptor(bytes(size), CONTEXT)
    with pytest.raises(BundleError, match="has 32 bytes"):
        Decryptor(bytes(size), CONTEXT, bytes(24), bytes(32))


def test_a_salt_of_another_length_is_refused():
    with pytest.raises(BundleError, match="wrong length"):
        Decryptor(KEY, CONTEXT, bytes(23), bytes(32))
