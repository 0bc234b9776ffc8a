import hashlib
import itertools
import os
import re
import stat
import tracemalloc

import pytest

from agent.bundle import manifest as manifests
from agent.bundle.manifest import (
    Build,
    CanaryRules,
    Compat,
    GateRules,
    Provenance,
    ShadowRules,
    parse_manifest,
)
from agent.bundle.seal import Source, pack, seal
from agent.errors import BundleError
from tests.vectors.bundles import facts, make_bundle, read_bundle, sources, tiny_model
from tests.vectors.hostileonnx import hostile

FILES = {
    "model.onnx": tiny_model(),
    "empty.txt": b"",
    "golden/a.jpg": os.urandom(70_000),
    "truth.json": b"{}",
}


def quiet(_done, _total):
    """Nobody listens."""


def test_a_bundle_is_three_files_that_only_their_owner_reads(tmp_path):
    make_bundle(tmp_path / "out", FILES)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["index", "manifest.json", "payload"]
    assert stat.S_IMODE((tmp_path / "out").stat().st_mode) == 0o700
    for path in (tmp_path / "out").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_manifest_describes_what_lies_there(tmp_path):
    packed = make_bundle(tmp_path, FILES)
    opened = read_bundle(tmp_path)
    payload = opened.payload.read_bytes()
    assert (tmp_path / "manifest.json").read_bytes() == packed.manifest
    assert packed.digest == hashlib.sha256(packed.manifest).hexdigest() == opened.manifest.digest
    assert opened.manifest.ciphertext.length == len(payload)
    assert opened.manifest.ciphertext.sha256 == hashlib.sha256(payload).hexdigest()
    assert opened.manifest.encryption.salt_bytes == payload[:24]
    assert opened.manifest.encryption.commitment_bytes == payload[24:56]
    for n in range(opened.index.blocks):
        begin = opened.index.offset_of(n)
        assert opened.index.fits(n, payload[begin : begin + opened.index.length_of(n)])
    for file, content in zip(opened.manifest.files, FILES.values(), strict=True):
        assert (file.length, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())


def test_all_facts_come_into_the_manifest(tmp_path):
    changes = {
        "family": "belt",
        "version": "2.1-rc.1",
        "release_counter": 7,
        "min_release_counter": 3,
        "compat": Compat(hw_class=("orin",), tensorrt_min="10.3"),
        "build": Build(precision="int8", names=("box",), confidence=0.4),
        "gate": GateRules(metric="map50_95", min_score=0.5),
        "shadow": ShadowRules(seconds=1, min_agreement=0.9),
        "canary": CanaryRules(seconds=2),
        "provenance": Provenance(trainer="x"),
    }
    manifest = parse_manifest(make_bundle(tmp_path, **changes).manifest)
    assert {name: getattr(manifest, name) for name in changes} == changes


def test_neither_plaintext_nor_key_lies_in_the_bundle(tmp_path):
    packed = make_bundle(tmp_path, FILES)
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for content in (packed.data_key, tiny_model(), FILES["golden/a.jpg"]):
        assert all(content[at : at + 16] not in everything for at in range(0, len(content), 997))
    assert packed.data_key.hex() not in repr(packed)


def test_no_two_bundles_share_a_key(tmp_path):
    keys = {make_bundle(tmp_path / str(n)).data_key for n in range(3)}
    assert len(keys) == 3


def test_progress_is_told_up_to_the_end(tmp_path):
    told = []
    found = sources(tmp_path / "plain", FILES)
    seal(found, facts(), tmp_path / "out", lambda done, total: told.append((done, total)))
    total = sum(map(len, FILES.values()))
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted({done for done, _ in told})


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_536 * 4, 65_536 * 4 + 1])
def test_bundles_of_any_length_are_whole(tmp_path, size):
    make_bundle(tmp_path, {"model.onnx": bytes(size)})
    opened = read_bundle(tmp_path)
    assert opened.payload.stat().st_size == opened.manifest.ciphertext.length


def test_memory_stays_constant(tmp_path):
    peaks = []
    for number, size in enumerate((2**20, 2**25)):
        (tmp_path / str(size)).write_bytes(bytes(size))
        found = [Source("model.onnx", "model", tmp_path / str(size))]
        tracemalloc.start()
        seal(found, facts(), tmp_path / f"out{number}", quiet)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 2**18
    assert peaks[1] < 2**21


def refused(tmp_path, found, message, **changes):
    """The packer says why, and nothing lies there."""
    with pytest.raises(BundleError, match=message):
        seal(found, facts(**changes), tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"family": "../x"}, "family"),
        ({"version": ""}, "version"),
        ({"release_counter": 0}, "release_counter"),
        ({"min_release_counter": 2}, "above the bundle's own"),
        ({"expires": 1}, "expires before"),
    ],
)
def test_facts_that_no_device_accepts_are_refused_before_encryption(tmp_path, changes, message):
    refused(tmp_path, sources(tmp_path / "plain", FILES), message, **changes)


def test_files_that_no_device_accepts_are_refused_before_encryption(tmp_path):
    model = sources(tmp_path / "plain", {"model.onnx": b"x"})[0]
    refused(tmp_path, [], "files")
    refused(tmp_path, [model, model], "stands twice")
    refused(tmp_path, [Source("Model.ONNX", "model", model.path)], "name")
    refused(tmp_path, [Source("a.txt", "card", model.path)], "no file has the role `model`")
    refused(tmp_path, [Source("m.onnx", "model", tmp_path / "none")], "cannot read .*none")
    refused(tmp_path, [Source("m.onnx", "model", tmp_path)], "no ordinary file")


def test_too_much_for_a_bundle_is_refused_unread(tmp_path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(2**32)
    refused(tmp_path, [Source("model.onnx", "model", tmp_path / "huge")], "too much for a bundle")


def test_too_many_files_for_a_manifest_are_refused(tmp_path):
    (model,) = sources(tmp_path / "plain", {"model.onnx": b"x"})
    pictures = [Source(f"{n:060d}.jpg", "golden", model.path) for n in range(2000)]
    refused(tmp_path, [model, *pictures], f"at most {manifests.MAX_MANIFEST_BYTES} are allowed")


def test_a_bundle_is_never_written_over(tmp_path):
    before = make_bundle(tmp_path)
    with pytest.raises(BundleError, match="holds a bundle already"):
        make_bundle(tmp_path)
    assert (tmp_path / "manifest.json").read_bytes() == before.manifest
    assert read_bundle(tmp_path).payload.exists()


def test_a_place_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(BundleError, match=re.escape(str(tmp_path / "file"))):
        make_bundle(tmp_path / "file")


def test_an_interrupted_packing_leaves_nothing(tmp_path):
    def interrupt(_done, _total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        seal(sources(tmp_path / "plain", FILES), facts(), tmp_path / "out", interrupt)
    assert list((tmp_path / "out").iterdir()) == []
    seal(sources(tmp_path / "plain", FILES), facts(), tmp_path / "out", quiet)


def test_a_file_that_grows_meanwhile_is_refused(tmp_path):
    (found,) = sources(tmp_path / "plain", {"model.onnx": bytes(500_000)})

    def grow(_done, _total):
        with found.path.open("ab") as file:
            file.write(bytes(300_000))

    with pytest.raises(BundleError, match="grew while"):
        seal([found], facts(), tmp_path / "out", grow)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_file_that_shrinks_meanwhile_is_packed_as_it_was_read(tmp_path):
    (found,) = sources(tmp_path / "plain", {"model.onnx": bytes(500_000)})
    cut = itertools.count()

    def shrink(_done, _total):
        if not next(cut):
            os.truncate(found.path, 300_000)

    seal([found], facts(), tmp_path / "out", shrink)
    assert read_bundle(tmp_path / "out").manifest.plaintext_bytes == 300_000


def test_a_model_that_no_device_accepts_is_not_packed(tmp_path):
    found = sources(tmp_path / "plain", {"model.onnx": hostile("external: absolute")})
    with pytest.raises(BundleError, match="no file of the bundle beside it"):
        pack(found, facts(), tmp_path / "out", quiet)
    assert not (tmp_path / "out").exists()


def test_a_second_model_is_looked_at_too(tmp_path):
    files = {"model.onnx": tiny_model(), "model-int8.onnx": hostile("foreign: compiled engine")}
    with pytest.raises(BundleError, match="foreign code"):
        pack(sources(tmp_path / "plain", files), facts(), tmp_path / "out", quiet)


def test_a_good_model_is_packed(tmp_path):
    pack(sources(tmp_path / "plain", FILES), facts(), tmp_path / "out", quiet)
    assert read_bundle(tmp_path / "out").manifest.family == "conveyor"
