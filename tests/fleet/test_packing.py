import json
from dataclasses import replace

import cv2
import numpy as np
import pytest
from sqlalchemy import select

from agent.bundle.open import open_bundle
from agent.bundle.seal import Facts
from agent.errors import BundleError
from fleet.bundlefiles import BundleFiles
from fleet.database import Database
from fleet.errors import FleetError
from fleet.packing import Contents, pack_bundle
from fleet.tables import Bundle
from tests.vectors.bundles import read_bundle
from tests.vectors.models import make_model

FACTS = Facts("boxes", "1.0", 0, created=1_700_000_000, expires=4_000_000_000)
PICTURES = ("Street 1.JPG", "b.png", "ä.jpeg")


@pytest.fixture
def database(tmp_path):
    database = Database(f"sqlite:///{tmp_path / 'fleet.db'}")
    database.create()
    yield database
    database.close()


@pytest.fixture
def contents(tmp_path):
    model = tmp_path / "m.onnx"
    make_model(model, "detect", "yolo", nc=3, size=64)
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, name in enumerate(PICTURES):
        suffix = name[name.index(".") :].lower()
        _, data = cv2.imencode(suffix, np.full((8, 8, 3), number, np.uint8))
        (pictures / name).write_bytes(data.tobytes())
    (pictures / "notes.txt").write_text("no picture")
    truth = tmp_path / "truth.json"
    truth.write_text(
        json.dumps(
            {
                "schema": "vigia.ground-truth/1",
                "names": ["a"],
                "pictures": {name: [[0, 0, n, n, 0]] for n, name in enumerate(PICTURES)},
            }
        )
    )
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    return Contents(model, golden=pictures, truth=truth, calibration=pictures, labels=labels)


@pytest.fixture
def pack(database, tmp_path):
    """Packs with a wrapping that a test can undo."""

    def pack(contents, facts=FACTS):
        return pack_bundle(
            database,
            lambda key: b"wrapped" + key,
            tmp_path / "bundles",
            contents,
            facts,
            lambda *_: None,
        )

    return pack


def test_a_packed_bundle_is_in_the_folder_and_in_the_database(pack, contents, database, tmp_path):
    row = pack(contents)
    files = BundleFiles(tmp_path / "bundles" / row.folder)
    assert files.digest == row.digest
    assert row.folder == files.id
    manifest = files.manifest
    assert (manifest.family, manifest.version, manifest.release_counter) == ("boxes", "1.0", 1)
    assert manifest.target == row.target
    assert [file.name for file in manifest.files] == [
        "model.onnx",
        "labels.txt",
        "truth.json",
        *(f"golden-000{n}.{kind}" for n, kind in ((1, "jpg"), (2, "png"), (3, "jpeg"))),
        *(f"calibration-000{n}.{kind}" for n, kind in ((1, "jpg"), (2, "png"), (3, "jpeg"))),
    ]
    with database.reading() as session:
        kept = session.scalars(select(Bundle)).one()
    assert kept.digest == row.digest
    assert kept.data_key.startswith(b"wrapped")
    assert len(kept.data_key) == len(b"wrapped") + 32


def test_ground_truth_names_the_pictures_as_the_bundle_does(pack, contents, tmp_path):
    row = pack(contents)
    bundle = read_bundle(tmp_path / "bundles" / row.folder)
    plain = tmp_path / "plain"
    plain.mkdir(mode=0o700)
    key = row.data_key.removeprefix(b"wrapped")
    opened = open_bundle(bundle.manifest, bundle.index, bundle.payload, key, plain, lambda *_: None)
    truth = json.loads(opened.truth.read_text())
    given = json.loads(contents.truth.read_text())["pictures"]
    # They are taken in the order of their names.
    expected = dict(
        zip(sorted(path.name for path in opened.golden.iterdir()), sorted(given), strict=True)
    )
    assert truth["pictures"] == {new: given[old] for new, old in expected.items()}
    for new, old in expected.items():
        assert (opened.golden / new).read_bytes() == (contents.golden / old).read_bytes()


def test_release_counters_rise_within_a_family(pack, contents):
    assert pack(contents).release_counter == 1
    assert pack(contents, replace(FACTS, version="1.1")).release_counter == 2
    assert pack(contents, replace(FACTS, family="other")).release_counter == 1


def test_a_version_is_packed_once(pack, contents, tmp_path):
    pack(contents)
    with pytest.raises(FleetError, match=r"boxes 1\.0 was packed already"):
        pack(contents)
    assert len(list((tmp_path / "bundles").iterdir())) == 1


def test_nothing_of_what_cannot_be_packed_stays(pack, contents, database, tmp_path):
    contents.model.write_bytes(b"no model")
    with pytest.raises(BundleError):
        pack(contents)
    assert list((tmp_path / "bundles").iterdir()) == []
    with database.reading() as session:
        assert session.scalars(select(Bundle)).all() == []


def test_the_disk_holds_no_plaintext_and_nobody_else_may_read(pack, contents, tmp_path):
    row = pack(contents)
    plain = contents.model.read_bytes()[:200]
    folder = tmp_path / "bundles" / row.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    for path in folder.iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert plain not in path.read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"golden": None}, "give --golden too"),
        ({"golden": "empty"}, "0 pictures"),
        ({"calibration": "missing"}, "give a folder"),
        ({"truth": "missing"}, "no ground truth"),
    ],
)
def test_what_is_missing_is_told(pack, contents, tmp_path, change, message):
    (tmp_path / "empty").mkdir()
    change = {key: None if name is None else tmp_path / name for key, name in change.items()}
    with pytest.raises(BundleError, match=message):
        pack(replace(contents, **change))


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "other", "names": [], "pictures": {}}'])
def test_ground_truth_that_is_none_is_told(pack, contents, text):
    contents.truth.write_text(text)
    with pytest.raises(BundleError, match="--truth"):
        pack(contents)


def test_ground_truth_without_a_picture_is_told(pack, contents):
    value = json.loads(contents.truth.read_text())
    del value["pictures"]["b.png"]
    contents.truth.write_text(json.dumps(value))
    with pytest.raises(BundleError, match="1 of 3 pictures"):
        pack(contents)
