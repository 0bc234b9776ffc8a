"""Decoders that are obviously right: one candidate at a time, in plain loops and Python's floats.

Written from the layouts' descriptions in `engines.model` alone; nothing here is shared with the
code under test but the settings and the placement's four numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from engines.model import Layout, Task


@dataclass
class Found:
    """One object; coordinates in frame pixels once `decode` has returned it."""

    box: list[float]
    score: float
    class_id: int
    keypoints: list[list[float]] = field(default_factory=list)
    rotated: list[float] = field(default_factory=list)
    coefficients: list[float] = field(default_factory=list)
    logits: dict[tuple[int, int], float] = field(default_factory=dict)
    """Mask logit by (x, y) of each frame pixel that the box touches."""


def least(settings, class_id):
    if settings.classes is not None and class_id not in settings.classes:
        return math.inf
    return settings.class_confidence.get(class_id, settings.confidence)


def rows_of(info, output):
    """Each candidate as a list of its values."""
    values = output.astype("float64")
    return (values.T if info.layout is Layout.YOLO else values).tolist()


def read(info, row):
    """(box in input pixels as xyxy or, rotated, cxcywh; score, class, extra values)."""
    nc = len(info.names)
    if info.layout is Layout.END2END:
        return row[:4], row[4], round(row[5]), row[6:]
    head = 5 if info.layout is Layout.ANCHOR else 4
    scores = row[head : head + nc]
    class_id = scores.index(max(scores))
    score = scores[class_id] * (row[4] if info.layout is Layout.ANCHOR else 1.0)
    x, y, w, h = row[:4]
    if info.layout is Layout.DETR:
        x, y, w, h = x * info.width, y * info.height, w * info.width, h * info.height
    box = [x, y, w, h] if info.task is Task.OBB else [x - w / 2, y - h / 2, x + w / 2, y + h / 2]
    return box, score, class_id, row[head + nc :]


def iou(a, b):
    w = min(a[2], b[2]) - max(a[0], b[0])
    h = min(a[3], b[3]) - max(a[1], b[1])
    if w <= 0 or h <= 0:
        return 0.0
    areas = [(c[2] - c[0]) * (c[3] - c[1]) for c in (a, b)]
    return w * h / (areas[0] + areas[1] - w * h)


def gaussian(box):
    _, _, w, h, angle = box
    c, s = math.cos(angle), math.sin(angle)
    return (
        (w * c) ** 2 / 12 + (h * s) ** 2 / 12,
        (w * s) ** 2 / 12 + (h * c) ** 2 / 12,
        (w * w - h * h) * c * s / 12,
    )


def probiou(p, q):
    """Equations 6 to 9 of arXiv 2106.06072, as printed there."""
    (a1, b1, c1), (a2, b2, c2) = gaussian(p), gaussian(q)
    (x1, y1), (x2, y2) = p[:2], q[:2]
    joint = (a1 + a2) * (b1 + b2) - (c1 + c2) ** 2
    first = ((a1 + a2) * (y1 - y2) ** 2 + (b1 + b2) * (x1 - x2) ** 2) / joint / 4
    first += (c1 + c2) * (x2 - x1) * (y1 - y2) / joint / 2
    second = math.log(joint / (4 * math.sqrt((a1 * b1 - c1**2) * (a2 * b2 - c2**2)))) / 2
    return 1 - math.sqrt(max(0.0, 1 - math.exp(-(first + second))))


def suppress(found, overlap, settings):
    kept = []
    for one in found:
        rivals = [k for k in kept if settings.agnostic or k.class_id == one.class_id]
        if all(overlap(k, one) <= settings.iou for k in rivals):
            kept.append(one)
    return kept


def clamp(value, top):
    return min(max(value, 0.0), float(top))


def candidate(info, settings, row):
    """What one row means, or None if it is too weak or has no area."""
    box, score, class_id, extra = read(info, row)
    one = Found(box, score, class_id)
    if score < least(settings, class_id):
        return None
    w, h = box[2:] if info.task is Task.OBB else (box[2] - box[0], box[3] - box[1])
    if w <= 0 or h <= 0:
        return None
    if info.task is Task.OBB:
        one.rotated = [*box, extra[0]]
    if info.task is Task.POSE:
        k, d = info.keypoint_shape
        one.keypoints = [[*extra[i * d : i * d + d], 1.0][:3] for i in range(k)]
    if info.task is Task.SEGMENT:
        one.coefficients = extra
    return one


def decode(info, settings, output, prototypes, place):
    """Objects of one picture, best first."""
    found = [one for one in (candidate(info, settings, r) for r in rows_of(info, output)) if one]
    found.sort(key=lambda one: -one.score)
    if info.layout in (Layout.YOLO, Layout.ANCHOR):
        rotated = info.task is Task.OBB
        found = suppress(
            found,
            (lambda a, b: probiou(a.rotated, b.rotated))
            if rotated
            else lambda a, b: iou(a.box, b.box),
            settings,
        )
    found = [to_frame(one, info, place) for one in found[: settings.max_detections]]
    found = [one for one in found if one.box[2] > one.box[0] and one.box[3] > one.box[1]]
    if info.task is Task.SEGMENT:
        for one in found:
            one.logits = mask_logits(one, info, prototypes.tolist(), place)
    return found


def to_frame(one, info, place):
    def x_of(x):
        return (x - place.pad_x) / place.scale_x

    def y_of(y):
        return (y - place.pad_y) / place.scale_y

    box = one.box
    if info.task is Task.OBB:
        cx, cy, w, h, angle = one.rotated
        dx, dy = w * math.cos(angle) / place.scale_x, w * math.sin(angle) / place.scale_y
        width = math.sqrt(dx * dx + dy * dy)
        height = w * h / place.scale_x / place.scale_y / width
        angle = math.atan2(dy, dx)
        one.rotated = [x_of(cx), y_of(cy), width, height, angle]
        xs, ys = [], []
        for a in (-0.5, 0.5):
            for b in (-0.5, 0.5):
                xs.append(x_of(cx) + a * width * math.cos(angle) - b * height * math.sin(angle))
                ys.append(y_of(cy) + a * width * math.sin(angle) + b * height * math.cos(angle))
        box = [min(xs), min(ys), max(xs), max(ys)]
    else:
        box = [x_of(box[0]), y_of(box[1]), x_of(box[2]), y_of(box[3])]
    sizes = [place.width, place.height] * 2
    one.box = [clamp(v, top) for v, top in zip(box, sizes, strict=True)]
    one.keypoints = [
        [clamp(x_of(x), place.width), clamp(y_of(y), place.height), clamp(v, 1)]
        for x, y, v in one.keypoints
    ]
    return one


def mask_logits(one, info, prototypes, place):
    height, width = len(prototypes[0]), len(prototypes[0][0])
    low = [
        [
            sum(c * p[y][x] for c, p in zip(one.coefficients, prototypes, strict=True))
            for x in range(width)
        ]
        for y in range(height)
    ]
    logits = {}
    for py in range(math.floor(one.box[1]), math.ceil(one.box[3])):
        for px in range(math.floor(one.box[0]), math.ceil(one.box[2])):
            x = ((px + 0.5) * place.scale_x + place.pad_x) * width / info.width - 0.5
            y = ((py + 0.5) * place.scale_y + place.pad_y) * height / info.height - 0.5
            x, y = clamp(x, width - 1), clamp(y, height - 1)
            x0, y0 = math.floor(x), math.floor(y)
            x1, y1 = min(x0 + 1, width - 1), min(y0 + 1, height - 1)
            top = low[y0][x0] * (1 - (x - x0)) + low[y0][x1] * (x - x0)
            bottom = low[y1][x0] * (1 - (x - x0)) + low[y1][x1] * (x - x0)
            logits[px, py] = top * (1 - (y - y0)) + bottom * (y - y0)
    return logits


def classify(info, settings, output):
    """(class, score) pairs, best first."""
    values = output.astype("float64").tolist()
    if info.logits:
        powers = [math.exp(v) for v in values]
        values = [p / sum(powers) for p in powers]
    pairs = [(i, v) for i, v in enumerate(values) if v >= least(settings, i)]
    return sorted(pairs, key=lambda pair: -pair[1])[: settings.max_detections]
