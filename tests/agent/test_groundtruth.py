from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from agent.calibration import pictures
from agent.groundtruth import truths
from engines.describe import describe
from engines.errors import CalibrationError
from tests.vectors.faults import CONVEYOR, MODEL, SAMPLE

INFO = describe(MODEL)
TRUTH = CONVEYOR / "sample.json"


@pytest.fixture(scope="module")
def held_out():
    return pictures(SAMPLE, INFO, 64)[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(18):
        cv2.imwrite(str(place / f"{number}.png"), random.integers(0, 255, (32, 32, 3), np.uint8))
    return pictures(place, INFO, 8)[1]


def write(path, value) -> object:
    path.write_text(json.dumps(value), "utf-8")
    return path


def described(folder, rows, names=("tube", "box")) -> dict:
    table = dict.fromkeys(folder.keys, rows)
    return {"schema": "vigia.ground-truth/1", "names": list(names), "pictures": table}


def test_truth_of_a_video_is_found_by_frame(held_out):
    frames = json.loads(TRUTH.read_text("utf-8"))["frames"]
    found = truths(TRUTH, held_out)
    assert len(found) == len(held_out)
    for key, labels in zip(held_out.keys, found, strict=True):
        rows = np.array(frames[int(key)], np.float32).reshape(-1, 5)
        np.testing.assert_array_equal(labels.boxes, rows[:, :4])
        np.testing.assert_array_equal(labels.class_ids, rows[:, 4])


def test_truth_of_a_folder_is_found_by_name_and_classes_by_theirs(folder, tmp_path):
    path = write(tmp_path / "t.json", described(folder, [[1, 2, 3, 4, 0], [0, 0, 5, 5, 1]]))
    for labels in truths(path, folder):
        assert [INFO.names[i] for i in labels.class_ids] == ["tube", "box"]
        np.testing.assert_array_equal(labels.boxes[0], [1, 2, 3, 4])


def test_pictures_may_show_nothing(folder, tmp_path):
    path = write(tmp_path / "t.json", described(folder, []))
    assert all(len(labels.class_ids) == 0 for labels in truths(path, folder))


@pytest.mark.parametrize(
    "rows",
    [
        [[1, 2, 3, 4]],
        [[1, 2, 3, 4, 0, 7]],
        [1, 2, 3, 4, 0],
        [[1, 2, 3, 4, 2]],
        [[1, 2, 3, 4, -1]],
        [[1, 2, 3, 4, 0.5]],
        [[1, 2, 3, None, 0]],
        [[1, 2, 3, "x", 0]],
        [[1, 2, 3, 1e999, 0]],
        [[1, 2, 3, 4, 0], [1, 2]],
        "nonsense",
        {"x0": 1},
    ],
)
def test_rows_that_are_no_boxes_are_refused(folder, tmp_path, rows):
    path = write(tmp_path / "t.json", described(folder, rows))
    with pytest.raises(CalibrationError, match=f"picture {folder.keys[0]}: a row is five numbers"):
        truths(path, folder)


@pytest.mark.parametrize(
    "content",
    [
        b"", b"[]", b"{}", b"\xff", b"null", b'{"schema":"vigia.ground-truth/1"}',
        b'{"schema":"vigia.ground-truth/1","names":3}', b'{"schema":"other/1","names":[]}',
    ],
)  # fmt: skip
def test_files_that_are_no_ground_truth_are_refused(folder, tmp_path, content):
    path = tmp_path / "t.json"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=r"ground truth .*t\.json"):
        truths(path, folder)


def test_a_class_that_the_model_does_not_have_is_refused(folder, tmp_path):
    path = write(tmp_path / "t.json", described(folder, [], ("box", "cow")))
    with pytest.raises(CalibrationError, match="no class 'cow'"):
        truths(path, folder)


def test_truth_of_other_pictures_is_refused(folder):
    with pytest.raises(CalibrationError, match="is it of other pictures"):
        truths(TRUTH, folder)


def test_a_missing_file_is_told(folder, tmp_path):
    with pytest.raises(CalibrationError, match="No such file"):
        truths(tmp_path / "none.json", folder)
