import base64
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.bundle.manifest import (
    MAX_BLOCKS,
    MAX_FILES,
    MAX_MANIFEST_BYTES,
    BundleFile,
    Manifest,
    bundle_id,
    digest_of,
    parse_manifest,
    place_of,
    split_target,
    target_path,
)
from agent.errors import ManifestError
from tests.vectors.bundles import alter, make_bundle, tiny_model

FILES = {
    "model.onnx": tiny_model(),
    "truth.json": b"{}",
    "golden/a.jpg": b"golden picture",
    "calibration/a.jpg": b"picture of a same name",
}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("bundle"), FILES).manifest


def put(path, value):
    """A change of a document: the value at a path like "files.0.name"."""

    def change(document):
        *parts, last = (int(p) if p.isdigit() else p for p in path.split("."))
        for part in parts:
            document = document[part]
        document[last] = value

    return change


def test_a_manifest_is_read_as_it_was_written(manifest):
    parsed = parse_manifest(manifest)
    assert parsed.encode() == manifest
    assert parsed.digest == digest_of(manifest)
    assert parsed.target == "models/conveyor/1.0.0/manifest.json"
    assert parsed.plaintext_bytes == sum(map(len, FILES.values()))
    assert [file.place for file in parsed.files] == list(FILES)


def test_a_bundle_is_named_by_its_exact_bytes(manifest):
    spaced = json.dumps(json.loads(manifest), indent=1).encode()
    assert parse_manifest(spaced).digest == digest_of(spaced) != digest_of(manifest)
    assert bundle_id(digest_of(spaced)) == digest_of(spaced)[:32]


GOOD_NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,63}", fullmatch=True)


@given(GOOD_NAMES, st.sampled_from(["model", "golden", "calibration", "truth", "card"]))
def test_no_name_leaves_its_folder(name, role):
    file = BundleFile(name=name, offset=0, length=0, sha256="0" * 64, role=role)
    assert ".." not in file.place.split("/")
    assert file.place in (name, f"{role}/{name}")
    assert file.place == place_of(name, role)


PATH_TRICKS = (
    "",
    ".",
    "..",
    "../x",
    "/etc/passwd",
    "a/b",
    "a\\b",
    "golden/../x",
    ".hidden",
    "a\0b",
    "a\n",
    "a b",
    "A.onnx",
    "é",
    "\uff0e\uff0e",
    "a" * 65,
    "-rf",
    "C:x",
)


@pytest.mark.parametrize("name", PATH_TRICKS)
def test_a_name_with_a_trick_is_refused(manifest, name):
    with pytest.raises(ManifestError, match=r"files\.0\.name"):
        parse_manifest(alter(manifest, put("files.0.name", name)))


@pytest.mark.parametrize("name", PATH_TRICKS)
def test_a_family_with_a_trick_is_refused(manifest, name):
    with pytest.raises(ManifestError, match="family"):
        parse_manifest(alter(manifest, put("family", name)))


@pytest.mark.parametrize("name", ["golden", "calibration"])
def test_a_file_cannot_take_the_place_of_a_folder(manifest, name):
    with pytest.raises(ManifestError, match="no file may be called"):
        parse_manifest(alter(manifest, put("files.0.name", name)))


def test_a_name_that_stands_twice_is_refused(manifest):
    with pytest.raises(ManifestError, match="a file name stands twice"):
        parse_manifest(alter(manifest, put("files.1.name", "model.onnx")))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("files.1.offset", 5, "but the file before ends at"),
        ("files.0.offset", 1, "but the file before ends at 0"),
        ("files.1.offset", -1, "files.1.offset"),
        ("files.1.offset", 2**70, "files.1.offset"),
        ("files.3.length", 2**60, "files.3.length"),
        ("files.3.length", 2**31, "bytes of ciphertext"),
        ("files.3.length", 0, "bytes of ciphertext"),
        ("files.3.length", 1.0, "files.3.length"),
        ("files.3.length", "22", "files.3.length"),
        ("files.3.length", True, "files.3.length"),
        ("files.0.role", "engine", "files.0.role"),
        ("files.0.role", "card", "no file has the role"),
        ("files.2.role", "model", "only one each"),
        ("files.2.role", "truth", "only one each"),
        ("files.0.sha256", "A" * 64, "files.0.sha256"),
        ("files.0.sha256", "0" * 63, "files.0.sha256"),
        ("files", [], "files"),
        ("files.0", "model.onnx", "files.0"),
        ("ciphertext.length", 2**62, "ciphertext.length"),
        ("ciphertext.length", 1, "bytes of ciphertext"),
        ("index.blocks", MAX_BLOCKS + 1, "index.blocks"),
        ("index.blocks", 0, "index.blocks"),
        ("index.blocks", 1, "blocks, the index 1"),
        ("index.block_bytes", 1, "index.block_bytes"),
        ("index.block_bytes", 2**31, "index.block_bytes"),
        ("encryption.alg", "none", "encryption.alg"),
        ("encryption.context", "vigia/bundle/1 other 1.0.0", "not of this family"),
        ("encryption.salt", "AAAA", "encryption.salt"),
        ("encryption.salt", base64.b64encode(bytes(25)).decode(), "encryption.salt"),
        ("encryption.commitment", "A" * 44, "encryption.commitment"),
        ("encryption.commitment", "A" * 42 + "B=", "encryption.commitment"),
        ("encryption.commitment", "A" * 45, "encryption.commitment"),
        ("release_counter", 0, "release_counter"),
        ("release_counter", 2**64, "release_counter"),
        ("release_counter", -1, "release_counter"),
        ("min_release_counter", 2, "above the bundle's own"),
        ("created", 2**40, "created"),
        ("expires", 1_600_000_000, "before it was created"),
        ("schema", "vigia.bundle/2", "schema"),
        ("version", "1/0", "version"),
        ("version", "..", "version"),
        ("gate", {"min_score": 1.5}, "gate.min_score"),
        ("gate", {"metric": "luck"}, "gate.metric"),
        ("shadow", {"seconds": 1e9}, "shadow.seconds"),
        ("canary", {"max_error_rate": -0.1}, "canary.max_error_rate"),
        ("compat", {"hw_class": ["x"] * 65}, "compat.hw_class"),
        ("provenance", {"trainer": "a\x1b[31m"}, "provenance.trainer"),
        ("provenance", {"trainer": "x" * 1001}, "provenance.trainer"),
        ("surprise", 1, "surprise"),
        ("schema_id", "vigia.bundle/1", "schema_id"),
        ("_digest", "0" * 64, "_digest"),
    ],
)
def test_a_signed_manifest_that_says_something_absurd_is_refused(manifest, path, value, message):
    with pytest.raises(ManifestError, match=message) as caught:
        parse_manifest(alter(manifest, put(path, value)))
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("field", ["files", "encryption", "index", "ciphertext", "expires"])
def test_a_field_that_is_missing_is_named(manifest, field):
    with pytest.raises(ManifestError, match=f"manifest: {field}: Field required"):
        parse_manifest(alter(manifest, lambda document: document.pop(field)))


def test_too_many_files_are_refused(manifest):
    entry = {"name": "a", "offset": 0, "length": 0, "sha256": "0" * 64, "role": "card"}
    data = alter(manifest, put("files", [entry] * (MAX_FILES + 1)))
    with pytest.raises(ManifestError, match="are more than the"):
        parse_manifest(data)
    # Short names and no hashes would fit; the count is limited too.
    with pytest.raises(ValueError, match="at most 4096 items"):
        Manifest.model_validate_json(data)


def test_more_bytes_than_a_manifest_has_are_not_even_read():
    with pytest.raises(ManifestError, match=f"more than the {MAX_MANIFEST_BYTES} allowed"):
        parse_manifest(b" " * (MAX_MANIFEST_BYTES + 1))


@given(GOOD_NAMES, st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True))
def test_a_target_is_put_together_and_taken_apart(family, version):
    assert split_target(target_path(family, version)) == (family, version)


@given(st.text(max_size=80))
def test_what_is_no_target_is_refused(path):
    with pytest.raises(ManifestError):
        split_target(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_accepted_or_refused_by_one_family(manifest, data):
    document = json.loads(manifest)
    at = document
    key = data.draw(st.sampled_from(sorted(at)))
    while isinstance(at[key], (dict, list)) and at[key] and data.draw(st.booleans()):
        at = at[key]
        keys = sorted(at) if isinstance(at, dict) else range(len(at))
        key = data.draw(st.sampled_from(keys))
    at[key] = data.draw(JSON)
    try:
        parsed = parse_manifest(json.dumps(document).encode())
    except ManifestError:
        return
    assert parse_manifest(parsed.encode()).model_dump() == parsed.model_dump()
