"""Tells from a detector's output shapes what the numbers in them mean.

Every reading of the shapes that adds up is listed; what the file and the configuration say strikes
some out; one must remain. Nothing here guesses between two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from engines.errors import UnsupportedModelError
from engines.model import Layout, Task

if TYPE_CHECKING:
    from collections.abc import Iterator

BOX = 4
END2END_HEAD = 6
"""Box, score and class."""

STRIDES = ((8, 16, 32), (8, 16, 32, 64), (4, 8, 16, 32))
"""Pyramids in use: the usual one, for large inputs (P6), for small objects (P2)."""

ANCHORS = 3
"""Anchor boxes a cell of the anchor layout."""

BODY_KEYPOINTS = (17, 3)
"""COCO's; a pose model without metadata is recognised only by them."""

DETECT_ONLY = frozenset({Layout.ANCHOR, Layout.DETR})

MAX_ROWS = 1000
"""Most end-to-end rows or queries that are believed; exporters give 100 to 300."""

MAX_KEYPOINTS = 500
"""Most keypoints that are believed; meshes of a face have 468."""

ACCEPTED = (
    "accepted are yolo [B, 4+classes+extra, N], yolo-anchor [B, N, 5+classes], "
    "end2end [B, K, 6+extra], detr [B, Q, 4+classes] and classes [B, classes], where extra is "
    "nothing for detect, 32 for segment (with a second output [B, 32, H/4, W/4]), "
    "keypoints x values for pose, 1 for obb"
)


@dataclass(frozen=True, slots=True)
class Hints:
    """What is known beside the shapes; None where nothing is.

    Attributes:
        task: from the configuration or the metadata.
        layout: from the configuration.
        classes: number of class names.
        keypoint_shape: from the metadata.
        end2end: from the metadata.
        detr: from the metadata.
    """

    task: Task | None = None
    layout: Layout | None = None
    classes: int | None = None
    keypoint_shape: tuple[int, int] | None = None
    end2end: bool | None = None
    detr: bool = False


@dataclass(frozen=True, slots=True)
class Reading:
    """One meaning that the shapes can have.

    Attributes:
        task: what the model answers.
        layout: how its outputs lie.
        classes: number of classes; None where the shapes do not tell.
        keypoint_shape: (number, values each) for pose.
        counted: the number of a candidate's values is known, and adds up.
    """

    task: Task
    layout: Layout
    classes: int | None
    keypoint_shape: tuple[int, int] | None = None
    counted: bool = True

    def __str__(self) -> str:
        classes = "" if self.classes is None else f", {self.classes} classes"
        points = ""
        if self.keypoint_shape is not None:
            points = ", {} keypoints of {} values".format(*self.keypoint_shape)
        return f"task {self.task.value} with layout {self.layout.value}{classes}{points}"


def read_detector(
    shape: tuple[int | None, ...],
    prototypes: int | None,
    size: tuple[int, int],
    hints: Hints,
    *,
    shown: str,
) -> Reading:
    """Find the one meaning of a detector's main output.

    Args:
        shape: of the main output, three dimensions; None where unknown.
        prototypes: number of mask prototypes in a second output, or None without one.
        size: (width, height) of the input in pixels.
        hints: what else is known.
        shown: names and shapes of all outputs, for messages.

    Raises:
        UnsupportedModelError: no reading or more than one is left.
    """
    _, rows, columns = shape
    readings = list(_readings(rows, columns, prototypes, size, hints))
    if not readings:
        what = "".join(
            f" as {kind} {value.value}"
            for kind, value in (("task", hints.task), ("layout", hints.layout))
            if value is not None
        )
        raise UnsupportedModelError(f"its output is {shown}, not understood{what}; {ACCEPTED}")
    fitting = [r for r in readings if hints.classes is None or r.classes in (None, hints.classes)]
    if not fitting:
        found = " or ".join(str(r) for r in readings)
        raise UnsupportedModelError(
            f"it has {hints.classes} class names, but its output {shown} means {found}; "
            "correct models.<slot>.names, or set models.<slot>.task if it is another"
        )
    fitting = [r for r in fitting if r.counted] or fitting
    if len(fitting) > 1:
        keys = [k for k in ("task", "layout") if len({getattr(r, k) for r in fitting}) > 1]
        choices = "; or ".join(str(r) for r in fitting)
        raise UnsupportedModelError(
            f"its output {shown} can mean {choices}. "
            f"Set {' or '.join(f'models.<slot>.{k}' for k in keys or ['names'])} to say which"
        )
    if fitting[0].classes is None and hints.classes is None:
        raise UnsupportedModelError(
            f"its output {shown} ({fitting[0]}) does not tell how many classes there are; "
            "set models.<slot>.names"
        )
    return fitting[0]


def show(shape: tuple[int | None, ...] | None) -> str:
    """A shape for people; what is open is "?"."""
    if shape is None:
        return "[...]"
    return f"[{', '.join('?' if s is None else str(s) for s in shape)}]"


def _readings(
    rows: int | None,
    columns: int | None,
    prototypes: int | None,
    size: tuple[int, int],
    hints: Hints,
) -> Iterator[Reading]:
    for layout in (Layout.YOLO, Layout.ANCHOR, Layout.END2END, Layout.DETR):
        if hints.layout is None:
            if not _plausible(layout, rows, columns, size, hints):
                continue
        elif hints.layout is not layout:
            continue
        values = rows if layout is Layout.YOLO else columns
        for task in _tasks(layout, values, prototypes, hints):
            if layout in DETECT_ONLY and task is not Task.DETECT:
                continue
            reading = _split(task, layout, values, prototypes, hints)
            if reading is not None:
                yield reading


def _plausible(
    layout: Layout, rows: int | None, columns: int | None, size: tuple[int, int], hints: Hints
) -> bool:
    """Whether the number of candidates is one that the layout has at this input size."""
    if hints.detr or hints.end2end:
        return layout is (Layout.DETR if hints.detr else Layout.END2END)
    cells = {sum(-(-size[0] // s) * -(-size[1] // s) for s in strides) for strides in STRIDES}
    every_cell = cells | {ANCHORS * n for n in cells}
    if layout is Layout.YOLO:
        more = None in (rows, columns) or (columns or 0) > (rows or 0)
        return columns in cells or (more and rows not in every_cell)
    if layout is Layout.ANCHOR:
        return rows is None or rows in every_cell
    if rows is not None and (rows in every_cell or rows > MAX_ROWS):
        return False
    if layout is Layout.END2END:
        return hints.end2end is not False
    more = None in (rows, columns) or (rows or 0) > (columns or 0)
    named = hints.classes is not None and columns == BOX + hints.classes
    return more or named


def _tasks(
    layout: Layout, values: int | None, prototypes: int | None, hints: Hints
) -> Iterator[Task]:
    if hints.task is not None:
        yield hints.task
        return
    if prototypes is not None:
        yield Task.SEGMENT
        return
    yield Task.DETECT
    head = END2END_HEAD if layout is Layout.END2END else BOX + 1
    if hints.keypoint_shape is not None or values == head + BODY_KEYPOINTS[0] * BODY_KEYPOINTS[1]:
        yield Task.POSE
    if layout is Layout.END2END and values == END2END_HEAD + 1:
        yield Task.OBB


def _split(
    task: Task, layout: Layout, values: int | None, prototypes: int | None, hints: Hints
) -> Reading | None:
    """Divide the values of a candidate into box, classes and extra; None if they do not add up."""
    if task is Task.CLASSIFY or (task is Task.SEGMENT and prototypes is None):
        return None
    if values is None:
        if hints.classes is None or (task is Task.POSE and hints.keypoint_shape is None):
            return None
        points = hints.keypoint_shape if task is Task.POSE else None
        return Reading(task, layout, hints.classes, points, counted=False)
    head = {Layout.ANCHOR: BOX + 1, Layout.END2END: END2END_HEAD}.get(layout, BOX)
    rest = values - head
    points = None
    if task is Task.POSE:
        points = hints.keypoint_shape
        if points is None:
            scores = 0 if layout is Layout.END2END else hints.classes or 1
            points = _points(rest - scores)
        if points is None:
            return None
        rest -= points[0] * points[1]
    elif task is Task.SEGMENT:
        rest -= prototypes or 0
    elif task is Task.OBB:
        rest -= 1
    if layout is Layout.END2END:
        return Reading(task, layout, None, points) if rest == 0 else None
    return Reading(task, layout, rest, points) if rest > 0 else None


def _points(values: int) -> tuple[int, int] | None:
    """Keypoints that so many values make; with visibility if that adds up."""
    for each in (3, 2):
        if values % each == 0 and 0 < values // each <= MAX_KEYPOINTS:
            return values // each, each
    return None
