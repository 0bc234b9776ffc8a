"""The trust message as a format, and fuzzed: whatever comes, one family of errors comes out."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.exceptions import FormatError
from securesystemslib.formats import encode_canonical

from agent.bundle.trust import Trust
from agent.bundle.trustmessage import (
    MAX_FILES,
    MAX_MESSAGE_BYTES,
    ROLE_BYTES,
    encode,
    file_name,
    parse,
)
from agent.errors import (
    ExpiredError,
    ManifestError,
    RollbackError,
    SignatureError,
)
from tests.fakes.tufrepository import NOW, PATH, MemoryStore, TufRepository

FAMILY = (SignatureError, RollbackError, ExpiredError, ManifestError)

REPO = TufRepository()
REPO.targets.unrecognized_fields["x-vigia-policy"] = {"approvals": 1}
MESSAGE = REPO.publish()
UNHASHED = REPO.publish(same=["targets", "snapshot", "timestamp"], hashes=False)
KEY_IDS = [signer.public_key.keyid for signers in REPO.keys.values() for signer in signers]

SOURCES = {
    "root": ("2.root.json", "1.root.json"),
    "targets": ("1.targets.json", "1.targets.json"),
    "snapshot": ("1.snapshot.json", "1.snapshot.json"),
    "timestamp": ("timestamp.json", "timestamp.json"),
}
"""Which file is altered, and of which its content is made."""

NAMES = st.builds(file_name, st.sampled_from(sorted(ROLE_BYTES)), st.integers(1, 10**15 - 1))
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=12,
)


@given(st.dictionaries(NAMES, TEXTS, max_size=8))
def test_what_is_encoded_is_parsed_again(texts):
    files = {name: text.encode() for name, text in texts.items()}
    assert parse(encode(files)) == files


@pytest.mark.parametrize(
    "name",
    [
        "",
        "root.json",
        "0.root.json",
        "01.root.json",
        "1.timestamp.json",
        "1.root.json\n",
        "1.director.json",
        "../1.root.json",
        "1.root.json/..",
        "1.root.JSON",
        "9" * 16 + ".root.json",
        "snapshot.json",
        "-1.targets.json",
        "1.targets",
        "\u0661.root.json",
    ],
)
def test_a_name_that_does_not_belong_there(name):
    with pytest.raises(ManifestError, match="can be called"):
        encode({name: b"{}"})
    message = json.dumps({"schema": "vigia.trust/1", "files": {name: "{}"}}).encode()
    with pytest.raises(ManifestError, match="can be called"):
        parse(message)


@pytest.mark.parametrize("role", sorted(ROLE_BYTES))
def test_a_file_may_be_as_large_as_its_role_allows_and_no_larger(role):
    name, limit = file_name(role, 1), ROLE_BYTES[role]
    assert len(parse(encode({name: b"x" * limit}))[name]) == limit
    with pytest.raises(ManifestError, match=f"at most {limit}"):
        encode({name: b"x" * (limit + 1)})
    message = json.dumps({"schema": "vigia.trust/1", "files": {name: "x" * (limit + 1)}}).encode()
    with pytest.raises(ManifestError, match=f"at most {limit}"):
        parse(message)


def test_a_message_may_not_be_larger_than_a_message():
    files = {file_name("root", n): b"x" * ROLE_BYTES["root"] for n in range(1, 17)}
    with pytest.raises(ManifestError, match="withdraw"):
        encode(files)
    with pytest.raises(ManifestError, match="more than"):
        parse(b'{"schema":"vigia.trust/1","files":{}}' + b" " * MAX_MESSAGE_BYTES)


def test_a_message_may_not_have_more_files_than_a_repository():
    files = {file_name("root", n): b"" for n in range(1, MAX_FILES + 2)}
    with pytest.raises(ManifestError, match="files are more"):
        encode(files)
    texts = {"schema": "vigia.trust/1", "files": dict.fromkeys(files, "")}
    with pytest.raises(ManifestError):
        parse(json.dumps(texts).encode())


def test_a_file_that_is_no_text_is_not_sent():
    with pytest.raises(ManifestError, match="UTF-8"):
        encode({"1.root.json": b"\xff"})


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b'{"files":{}}',
        b'{"schema":"vigia.trust/2","files":{}}',
        b'{"schema":"vigia.trust/1","files":[]}',
        b'{"schema":"vigia.trust/1","files":{"1.root.json":{}}}',
        b'{"schema":"vigia.trust/1","files":{},"more":1}',
        b'{"schema":"vigia.trust/1","files":{"1.root.json":"a","1.root.json":"b"}}',
        b'{"schema":"vigia.trust/1","files":{"1.root.json":"\\ud800"}}',
        b'\xff{"schema":"vigia.trust/1","files":{}}',
        '{"schema":"vigia.trust/1","files":{}}'.encode("utf-16"),
        b"[" * 100_000,
        b'{"schema":"vigia.trust/1","files":' + b'{"a":' * 5000 + b"1" + b"}" * 5000 + b"}",
        b"1" * 5000,
    ],
)
def test_what_is_no_message(message):
    with pytest.raises(ManifestError):
        parse(message)


def hear(message: bytes) -> None:
    """A device hears it, and may say no only in the way that is agreed."""
    store = MemoryStore()
    trust = Trust(REPO.anchor, store, lambda: NOW)
    with contextlib.suppress(*FAMILY):
        trust.refresh(message)
    if not trust.ready:
        assert store.files == {}
        return
    # What it took must be of use, and be there after a restart.
    for device in (trust, Trust(REPO.anchor, store, lambda: NOW)):
        assert device.ready
        assert device.now() >= NOW
        for ask in (device.director_keys, device.operator_keys, device.policy):
            ask()
        for path in (PATH, ""):
            with contextlib.suppress(*FAMILY):
                device.target(path)
        with contextlib.suppress(*FAMILY):
            device.check_fresh()


@given(st.binary(max_size=200))
def test_noise(data):
    hear(data)


@settings(max_examples=200)
@given(st.data())
def test_a_message_with_bytes_altered(data):
    message = bytearray(MESSAGE)
    for _ in range(data.draw(st.integers(1, 3))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
    hear(bytes(message))


@settings(max_examples=200)
@given(st.sampled_from(sorted(REPO.names())), st.text(max_size=60) | JSON.map(json.dumps))
def test_any_text_in_the_place_of_a_file(name, text):
    try:
        message = encode({**parse(MESSAGE), name: text.encode(errors="surrogatepass")})
    except ManifestError:
        return
    hear(message)


def places(value, path=()):
    """The ways to all that is in a JSON value."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, inner in items:
        if isinstance(inner, (dict, list)):
            yield from places(inner, (*path, name))
        else:
            yield (*path, name)


@settings(max_examples=300, deadline=None)
@given(st.data(), st.sampled_from(sorted(SOURCES)), st.booleans())
def test_signed_metadata_with_any_value_anywhere(data, role, hashes):
    """Worse than any outsider can do: the right keys sign whatever stands there."""
    name, source = SOURCES[role]
    files = parse(MESSAGE if hashes else UNHASHED)
    value = json.loads(files[source])
    if role == "root":
        value["signed"]["version"] = 2
    way = data.draw(st.sampled_from([path for path in places(value["signed"]) if path]))
    inner = value["signed"]
    for step in way[:-1]:
        inner = inner[step]
    if data.draw(st.integers(0, 3)):
        inner[way[-1]] = data.draw(JSON)
    else:
        del inner[way[-1]]
    # What has no canonical form cannot be signed; it comes with signatures over something else.
    with contextlib.suppress(FormatError, UnicodeEncodeError):
        content = encode_canonical(value["signed"]).encode()
        value["signatures"] = [signer.sign(content).to_dict() for signer in REPO.keys[role]]
    hear(encode({**files, name: json.dumps(value).encode()}))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(sorted(SOURCES)))
def test_signatures_of_any_form(data, role):
    name, source = SOURCES[role]
    files = parse(UNHASHED)
    value = json.loads(files[source])
    value["signatures"] = data.draw(
        JSON
        | st.lists(
            st.fixed_dictionaries(
                {
                    "keyid": st.sampled_from(KEY_IDS) | JSON,
                    "sig": st.text("0123456789abcdefg") | JSON,
                }
            ),
            max_size=4,
        )
    )
    hear(encode({**files, name: json.dumps(value).encode()}))
