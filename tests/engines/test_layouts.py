"""Output shapes of exports that are in use, and what they must be taken for."""

from __future__ import annotations

import pytest

from engines.errors import UnsupportedModelError
from engines.layouts import Hints, read_detector
from engines.model import Layout, Task


def read(shape, hints, prototypes=None, size=(640, 640)):
    return read_detector(shape, prototypes, size, hints, shown=str(list(shape)))


IN_USE = {
    "yolov8n": ((1, 84, 8400), None, 640, Hints(Task.DETECT, classes=80), "yolo"),
    "yolov8n dynamic": ((None, 84, None), None, 640, Hints(Task.DETECT, classes=80), "yolo"),
    "yolov8n-p2": ((1, 84, 34000), None, 640, Hints(Task.DETECT, classes=80), "yolo"),
    "yolov8x6": ((1, 84, 34000), None, 1280, Hints(Task.DETECT, classes=80), "yolo"),
    "yolov3-tinyu": ((1, 84, 2000), None, 640, Hints(Task.DETECT, classes=80), "yolo"),
    "yolo at 32 px": ((1, 84, 21), None, 32, Hints(Task.DETECT, classes=80), "yolo"),
    "yolov8n-seg": ((1, 116, 8400), 32, 640, Hints(Task.SEGMENT, classes=80), "yolo"),
    "yolov8n-pose": ((1, 56, 8400), None, 640, Hints(Task.POSE, None, 1, (17, 3)), "yolo"),
    "yolov8n-obb": ((1, 20, 21504), None, 1024, Hints(Task.OBB, classes=15), "yolo"),
    "yolov5s": ((1, 25200, 85), None, 640, Hints(classes=80), "yolo-anchor"),
    "yolov5s dynamic": ((None, 25200, 85), None, 640, Hints(), "yolo-anchor"),
    "yolov5s6": ((1, 102000, 85), None, 1280, Hints(classes=80), "yolo-anchor"),
    "one class": ((1, 25200, 6), None, 640, Hints(), "yolo-anchor"),
    "no anchors, objectness": ((1, 8400, 85), None, 640, Hints(), "yolo-anchor"),
    "yolov10n": ((1, 300, 6), None, 640, Hints(Task.DETECT, classes=80), "end2end"),
    "yolo26n": ((1, 300, 6), None, 640, Hints(Task.DETECT, None, 2, None, True), "end2end"),
    "open rows": ((1, None, 6), None, 640, Hints(Task.DETECT, classes=80, end2end=True), "end2end"),
    "yolo26n-seg": ((1, 300, 38), 32, 640, Hints(Task.SEGMENT, classes=80), "end2end"),
    "yolo26n-pose": ((1, 300, 57), None, 640, Hints(Task.POSE, None, 1, (17, 3)), "end2end"),
    "yolo26n-obb": ((1, 300, 7), None, 1024, Hints(Task.OBB, classes=15), "end2end"),
    "rtdetr-l": ((1, 300, 84), None, 640, Hints(Task.DETECT, classes=80, detr=True), "detr"),
    "rtdetr unnamed": ((1, 300, 84), None, 640, Hints(), "detr"),
    "rtdetr of many": ((1, 300, 369), None, 640, Hints(classes=365), "detr"),
    "all open": ((None,) * 3, None, 640, Hints(Task.DETECT, Layout.ANCHOR, 80), "yolo-anchor"),
}


@pytest.mark.parametrize(("shape", "masks", "side", "hints", "layout"), IN_USE.values(), ids=IN_USE)
def test_shapes_in_use(shape, masks, side, hints, layout):
    reading = read(shape, hints, masks, (side, side))
    assert reading.layout is Layout(layout)
    assert reading.task is (hints.task or Task.DETECT)
    assert reading.classes in (hints.classes, None) or hints.classes is None


def test_classes_are_counted():
    assert read((1, 84, 8400), Hints()).classes == 80
    assert read((1, 25200, 85), Hints()).classes == 80
    assert read((1, 300, 84), Hints()).classes == 80
    assert read((1, 116, 8400), Hints(), 32).classes == 80
    assert read((1, 20, 21504), Hints(Task.OBB), None, (1024, 1024)).classes == 15
    assert read((1, 58, 8400), Hints(Task.POSE, keypoint_shape=(17, 3))).classes == 3


@pytest.mark.parametrize(
    ("values", "classes", "keypoints"),
    [(56, None, (17, 3)), (39, None, (17, 2)), (57, 2, (17, 3)), (11, 1, (2, 3))],
)
def test_keypoints_are_counted(values, classes, keypoints):
    reading = read((1, values, 8400), Hints(Task.POSE, classes=classes))
    assert reading.keypoint_shape == keypoints
    assert reading.classes == (classes or 1)


@pytest.mark.parametrize(
    ("shape", "hints"),
    [
        ((1, 12, 8400), Hints(Task.POSE)),
        ((1, 5, 8400), Hints(Task.POSE)),
        ((1, 20, 8400), Hints(Task.POSE, keypoint_shape=(17, 3))),
        ((1, 116, 8400), Hints(Task.SEGMENT)),
        ((1, 84, 8400), Hints(Task.CLASSIFY)),
        ((1, 4, 8400), Hints()),
        ((1, 300, 5), Hints(layout=Layout.END2END)),
        ((1, 25200, 85), Hints(Task.OBB)),
        ((1, 84, 8400), Hints(end2end=True)),
        ((None, None, None), Hints()),
        ((None, None, None), Hints(Task.POSE, classes=1)),
    ],
)
def test_what_does_not_add_up_is_not_understood(shape, hints):
    with pytest.raises(UnsupportedModelError, match=r"not understood.*accepted are yolo"):
        read(shape, hints)


def test_refusal_names_what_was_asked_for():
    with pytest.raises(UnsupportedModelError, match="as task pose as layout end2end"):
        read((1, 300, 7), Hints(Task.POSE, Layout.END2END))


def test_layout_that_is_given_is_not_doubted():
    reading = read((1, 777, 85), Hints(layout=Layout.ANCHOR, classes=80))
    assert reading.layout is Layout.ANCHOR


def test_names_that_fit_no_reading_are_refused_with_all_of_them():
    with pytest.raises(UnsupportedModelError, match=r"79 class names.*80 classes.*models.<slot>"):
        read((1, 84, 8400), Hints(classes=79))


def test_open_rows_are_ambiguous_without_more():
    with pytest.raises(UnsupportedModelError, match=r"yolo-anchor.*detr.*models.<slot>.layout"):
        read((1, None, 85), Hints())
