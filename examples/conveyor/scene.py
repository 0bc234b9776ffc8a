"""A conveyor belt with parcels, drawn by a program: pictures with exact ground truth.

Everything follows from a seed. Parcels of four classes differ in shape and print; they overlap,
pass under a gantry, cast shadows, are blurred by motion, lit by a slowly changing light and covered
by sensor noise. Boxes are the extents of what is visible.

    python examples/conveyor/scene.py --seed 7 --frames 3 --out /tmp/scene
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

NAMES = ("box", "tube", "bag", "envelope")
WIDTH, HEIGHT = 640, 480

BELT_TOP, BELT_BOTTOM = 40, 440
"""Edges of the belt in the picture, pixels."""

MIN_VISIBLE = 0.25
"""Parcels of which less is visible are not in the ground truth."""

MIN_SIDE_PX = 8
"""Nor are those whose visible box is narrower."""

NOISE_BANK = 8
"""Noise pictures that are used in turn: drawing fresh ones would cost more than the scene."""

Picture = NDArray[np.uint8]
Mask = NDArray[np.float32]


@dataclass(frozen=True)
class Truth:
    """What is visible in one frame.

    Attributes:
        boxes: float32 [n, 4], x0 y0 x1 y1 in pixels.
        class_ids: int32 [n].
    """

    boxes: NDArray[np.float32]
    class_ids: NDArray[np.int32]


@dataclass(frozen=True)
class Parcel:
    """One parcel as a sprite; it enters on the left at frame `enters`."""

    class_id: int
    picture: Picture
    alpha: Mask
    centre_y: float
    enters: float


class Scene:
    """A stretch of belt.

    Args:
        seed: everything follows from it.
        frames: how long it will be watched.
    """

    def __init__(self, seed: int, frames: int) -> None:
        rng = np.random.default_rng(seed)
        self.speed = float(rng.uniform(2.5, 6.0))
        self._belt = _belt(rng)
        self._surround = _surround(rng)
        self._parcels = _parcels(rng, frames, self.speed)
        self._light = rng.uniform(0, 2 * np.pi, 3)
        self._brightness = float(rng.uniform(0.75, 1.1))
        self._tint = rng.uniform(0.94, 1.06, 3).astype(np.float32)
        self._gantry = int(rng.integers(200, 440))
        self._blur = 1 + 2 * int(rng.integers(0, 3))
        level = rng.uniform(2, 7)
        self._noise = [
            rng.normal(0, level, (HEIGHT, WIDTH, 1)).astype(np.float32).repeat(3, 2)
            for _ in range(NOISE_BANK)
        ]
        self._ramp = np.linspace(-1, 1, WIDTH, dtype=np.float32)[None, :, None]

    def frame(self, number: int) -> tuple[Picture, Truth]:
        """Picture (BGR uint8 [480, 640, 3]) and ground truth of one frame."""
        shift = number * self.speed
        canvas = self._surround.copy()
        offset = int(shift) % self._belt.shape[1]
        canvas[BELT_TOP:BELT_BOTTOM] = np.roll(self._belt, offset, 1)[:, :WIDTH]
        owner = np.full((HEIGHT, WIDTH), -1, np.int16)
        sizes: dict[int, int] = {}
        for index, parcel in enumerate(self._parcels):
            x = shift - parcel.enters * self.speed - parcel.picture.shape[1]
            if -parcel.picture.shape[1] < x < WIDTH:
                _paste(canvas, owner, index, parcel, x)
                sizes[index] = int((parcel.alpha > 0.5).sum())
        if self._blur > 1:
            belt = canvas[BELT_TOP:BELT_BOTTOM]
            belt[:] = cv2.blur(belt, (self._blur, 1))
        _gantry(canvas, owner, self._gantry)
        return self._expose(canvas, number), self._truth(owner, sizes)

    def _expose(self, canvas: Picture, number: int) -> Picture:
        a, b, c = self._light
        gain = self._brightness * (1 + 0.12 * np.sin(number / 90 + a))
        slope = 0.18 * np.sin(number / 140 + b)
        light = gain + slope * self._ramp + 0.05 * np.sin(4 * self._ramp + number / 60 + c)
        exposed = canvas * (light * self._tint) + self._noise[number % NOISE_BANK]
        return np.clip(exposed, 0, 255).astype(np.uint8)

    def _truth(self, owner: NDArray[np.int16], sizes: dict[int, int]) -> Truth:
        boxes, class_ids = [], []
        for index, size in sizes.items():
            visible = owner == index
            if visible.sum() < MIN_VISIBLE * size:
                continue
            columns = np.flatnonzero(visible.any(0))
            rows = np.flatnonzero(visible.any(1))
            box = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
            if min(box[2] - box[0], box[3] - box[1]) >= MIN_SIDE_PX:
                boxes.append(box)
                class_ids.append(self._parcels[index].class_id)
        return Truth(
            np.array(boxes, np.float32).reshape(-1, 4), np.array(class_ids, np.int32).reshape(-1)
        )


def _belt(rng: np.random.Generator) -> Picture:
    """Dark rubber with a woven texture, scuffs and seams, wider than the picture."""
    height, width = BELT_BOTTOM - BELT_TOP, 2 * WIDTH
    base = rng.uniform(45, 80)
    grain = rng.normal(0, 9, (height // 2, width // 2)).astype(np.float32)
    texture = cv2.resize(grain, (width, height), interpolation=cv2.INTER_LINEAR)
    x, y = np.arange(width)[None], np.arange(height)[:, None]
    texture += 4 * np.sin(x * 2 * np.pi / 8) * np.sin(y * 2 * np.pi / 8)
    for _ in range(25):
        start = (int(rng.integers(0, width)), int(rng.integers(0, height)))
        end = (start[0] + int(rng.integers(-90, 90)), start[1] + int(rng.integers(-12, 12)))
        cv2.line(texture, start, end, float(rng.uniform(-16, 22)), 1, cv2.LINE_AA)
    for seam in range(0, width, int(rng.integers(210, 320))):
        cv2.line(texture, (seam, 0), (seam + 14, height), -28.0, 3, cv2.LINE_AA)
    colour = base + rng.uniform(-4, 4, 3)
    return np.clip(texture[..., None] + colour, 0, 255).astype(np.uint8)


def _surround(rng: np.random.Generator) -> Picture:
    """Steel rails above and below the belt."""
    picture = np.full((HEIGHT, WIDTH, 3), rng.uniform(95, 150), np.float32)
    picture += rng.normal(0, 3, (HEIGHT, 1, 1))
    for y in (BELT_TOP - 6, BELT_BOTTOM + 6):
        cv2.line(picture, (0, y), (WIDTH, y), (200, 200, 195), 4)
        for x in range(int(rng.integers(10, 60)), WIDTH, 70):
            cv2.circle(picture, (x, y), 5, (60, 60, 60), -1, cv2.LINE_AA)
    return np.clip(picture, 0, 255).astype(np.uint8)


def _gantry(canvas: Picture, owner: NDArray[np.int16], x: int) -> None:
    """A sensor bridge over the belt; what passes below it is hidden."""
    canvas[BELT_TOP:BELT_BOTTOM, x + 22 : x + 30] //= 2
    cv2.rectangle(canvas, (x, 0), (x + 22, HEIGHT), (38, 118, 176), -1)
    cv2.line(canvas, (x + 5, 0), (x + 5, HEIGHT), (90, 165, 215), 2)
    for y in range(20, HEIGHT, 60):
        cv2.circle(canvas, (x + 14, y), 3, (30, 60, 80), -1, cv2.LINE_AA)
    owner[:, x : x + 23] = -1


def _parcels(rng: np.random.Generator, frames: int, speed: float) -> list[Parcel]:
    parcels = []
    at = -WIDTH / speed
    while at < frames:
        class_id = int(rng.integers(len(NAMES)))
        picture, alpha = _turned(*MAKERS[class_id](rng), float(rng.uniform(0, 360)))
        half = picture.shape[0] / 2
        low, high = BELT_TOP + 0.7 * half, BELT_BOTTOM - 0.7 * half
        parcels.append(Parcel(class_id, picture, alpha, float(rng.uniform(low, high)), at))
        at += float(rng.uniform(35, 130)) / speed
    return parcels


def _paste(canvas: Picture, owner: NDArray[np.int16], index: int, parcel: Parcel, x: float) -> None:
    height, width = parcel.alpha.shape
    move = np.array([[1, 0, x - np.floor(x)], [0, 1, 0]], np.float32)
    picture = cv2.warpAffine(parcel.picture, move, (width + 1, height))
    alpha = cv2.warpAffine(parcel.alpha, move, (width + 1, height))
    left, top = int(np.floor(x)), int(parcel.centre_y - height / 2)
    # The shadow falls to the lower right and is soft.
    _blend(canvas, None, cv2.blur(alpha, (9, 9)) * 0.45, left + 6, top + 7)
    inside = _blend(canvas, picture, alpha, left, top)
    if inside is not None:
        rows, columns, part = inside
        owner[rows, columns][part > 0.5] = index


def _blend(
    canvas: Picture, picture: Picture | None, alpha: Mask, left: int, top: int
) -> tuple[slice, slice, Mask] | None:
    """Mix a sprite (or black) into the canvas; returns where, and the part of its mask."""
    x0, y0 = max(0, left), max(0, top)
    x1 = min(canvas.shape[1], left + alpha.shape[1])
    y1 = min(canvas.shape[0], top + alpha.shape[0])
    if x0 >= x1 or y0 >= y1:
        return None
    rows, columns = slice(y0, y1), slice(x0, x1)
    part = alpha[y0 - top : y1 - top, x0 - left : x1 - left]
    below = canvas[rows, columns].astype(np.float32)
    above = 0.0 if picture is None else picture[y0 - top : y1 - top, x0 - left : x1 - left]
    canvas[rows, columns] = (below + (above - below) * part[..., None]).astype(np.uint8)
    return rows, columns, part


def _turned(picture: Picture, alpha: Mask, degrees: float) -> tuple[Picture, Mask]:
    """Rotate a sprite about its centre, in a frame just large enough."""
    height, width = alpha.shape
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1.0)
    c, s = abs(turn[0, 0]), abs(turn[0, 1])
    w, h = int(width * c + height * s) + 3, int(width * s + height * c) + 3
    turn[:, 2] += (w - width) / 2, (h - height) / 2
    mode = {"borderMode": cv2.BORDER_REPLICATE}
    return (
        cv2.warpAffine(picture, turn, (w, h), **mode),
        cv2.warpAffine(alpha, turn, (w, h)),
    )


def _paper(rng: np.random.Generator, width: int, height: int, colour: tuple[float, ...]) -> Picture:
    """A sheet of one colour with fibres and a little shading."""
    sheet = np.empty((height, width, 3), np.float32)
    sheet[:] = np.array(colour) * rng.uniform(0.85, 1.12)
    sheet += rng.normal(0, 4, (height, width, 1))
    sheet *= np.linspace(rng.uniform(0.9, 1.0), rng.uniform(0.9, 1.0), width)[None, :, None]
    return np.clip(sheet, 0, 255).astype(np.uint8)


def _label(rng: np.random.Generator, sheet: Picture, x: int, y: int, w: int, h: int) -> None:
    """A white sticker with a bar code and lines of print."""
    cv2.rectangle(sheet, (x, y), (x + w, y + h), (235, 238, 240), -1)
    at = x + 3
    while at < x + w - 4:
        bar = int(rng.integers(1, 4))
        cv2.rectangle(sheet, (at, y + 3), (at + bar - 1, y + h // 2), (25, 25, 25), -1)
        at += bar + int(rng.integers(1, 4))
    for line in range(y + h // 2 + 4, y + h - 2, 4):
        cv2.line(sheet, (x + 3, line), (x + 3 + int(rng.uniform(0.3, 0.9) * w), line), (90,) * 3, 1)


def _box(rng: np.random.Generator) -> tuple[Picture, Mask]:
    """Cardboard: brown, square corners, a strip of tape, a label."""
    w, h = int(rng.integers(80, 150)), int(rng.integers(70, 120))
    sheet = _paper(rng, w, h, (88, 132, 172))
    tape = h // 2 + int(rng.integers(-8, 8))
    cv2.rectangle(sheet, (0, tape - 6), (w, tape + 6), (120, 172, 205), -1)
    for y in range(4, h, 9):
        cv2.line(sheet, (0, y), (w, y), (80, 124, 163), 1)
    _label(rng, sheet, int(w * 0.55), 6, int(w * 0.36), max(16, tape - 18))
    cv2.rectangle(sheet, (0, 0), (w - 1, h - 1), (55, 90, 125), 2)
    return sheet, np.ones((h, w), np.float32)


def _tube(rng: np.random.Generator) -> tuple[Picture, Mask]:
    """A long roll: round shading across, coloured caps, a spiral seam."""
    w, h = int(rng.integers(150, 210)), int(rng.integers(30, 46))
    colour = [(150, 165, 180), (190, 160, 110), (120, 160, 120)][int(rng.integers(3))]
    sheet = _paper(rng, w, h, colour).astype(np.float32)
    for x in range(-h, w, 26):
        cv2.line(sheet, (x, h), (x + h, 0), tuple(0.8 * c for c in colour), 2, cv2.LINE_AA)
    cap = [(40, 40, 190), (170, 80, 30), (40, 40, 40)][int(rng.integers(3))]
    cv2.rectangle(sheet, (0, 0), (12, h), cap, -1)
    cv2.rectangle(sheet, (w - 13, 0), (w, h), cap, -1)
    round_off = np.sqrt(np.clip(1 - np.linspace(-0.95, 0.75, h) ** 2, 0.12, 1))
    sheet *= (0.45 + 0.65 * round_off)[:, None, None]
    alpha = np.zeros((h, w), np.float32)
    cv2.rectangle(alpha, (5, 0), (w - 6, h), 1.0, -1)
    cv2.ellipse(alpha, (6, h // 2), (6, h // 2), 0, 0, 360, 1.0, -1)
    cv2.ellipse(alpha, (w - 7, h // 2), (6, h // 2), 0, 0, 360, 1.0, -1)
    return np.clip(sheet, 0, 255).astype(np.uint8), alpha


def _bag(rng: np.random.Generator) -> tuple[Picture, Mask]:
    """A plastic mailer: bulging outline, folds and highlights."""
    w, h = int(rng.integers(90, 150)), int(rng.integers(75, 125))
    colour = [(190, 120, 60), (70, 70, 75), (150, 90, 170), (90, 150, 70)][int(rng.integers(4))]
    angles = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    power = 2 / 3.2
    bulge = 1 + 0.05 * np.sin(3 * angles + rng.uniform(0, 6)) + rng.normal(0, 0.015, 40)
    x = w / 2 + (w / 2 - 4) * np.sign(np.cos(angles)) * np.abs(np.cos(angles)) ** power * bulge
    y = h / 2 + (h / 2 - 4) * np.sign(np.sin(angles)) * np.abs(np.sin(angles)) ** power * bulge
    outline = np.stack([x, y], 1).round().astype(np.int32)
    alpha = np.zeros((h, w), np.float32)
    cv2.fillPoly(alpha, [outline], 1.0, cv2.LINE_AA)
    folds = cv2.resize(
        rng.normal(0, 1, (7, 9)).astype(np.float32), (w, h), None, 0, 0, cv2.INTER_CUBIC
    )
    sheet = _paper(rng, w, h, colour).astype(np.float32) + 26 * folds[..., None]
    shine = np.clip(folds - 0.9, 0, 1)[..., None] * 190
    sheet += shine
    cv2.polylines(sheet, [outline], True, tuple(0.6 * c for c in colour), 2, cv2.LINE_AA)
    picture = np.clip(sheet, 0, 255).astype(np.uint8)
    if rng.random() < 0.6:
        _label(rng, picture, int(w * 0.3), int(h * 0.3), int(w * 0.35), int(h * 0.3))
    return picture, alpha


def _envelope(rng: np.random.Generator) -> tuple[Picture, Mask]:
    """A letter: pale paper, flap lines, a stamp, an address."""
    w, h = int(rng.integers(95, 145)), int(rng.integers(58, 88))
    colour = [(225, 232, 235), (170, 215, 235), (205, 220, 225)][int(rng.integers(3))]
    sheet = _paper(rng, w, h, colour)
    edge = tuple(0.72 * c for c in colour)
    cv2.line(sheet, (0, 0), (w // 2, h // 2), edge, 1, cv2.LINE_AA)
    cv2.line(sheet, (w, 0), (w // 2, h // 2), edge, 1, cv2.LINE_AA)
    stamp = [(60, 60, 190), (150, 90, 40), (60, 140, 60)][int(rng.integers(3))]
    cv2.rectangle(sheet, (w - 24, 6), (w - 7, 27), stamp, -1)
    for line in range(3):
        y = int(h * 0.62) + 7 * line
        length = int(w * rng.uniform(0.25, 0.45))
        cv2.line(sheet, (int(w * 0.42), y), (int(w * 0.42) + length, y), (70, 60, 60), 2)
    cv2.rectangle(sheet, (0, 0), (w - 1, h - 1), edge, 1)
    return sheet, np.ones((h, w), np.float32)


MAKERS = (_box, _tube, _bag, _envelope)


def main() -> None:
    """Write some frames with their boxes drawn in, for a person to look at."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    scene = Scene(args.seed, 40 * args.frames)
    for number in range(args.frames):
        picture, truth = scene.frame(40 * number)
        for box, class_id in zip(truth.boxes.astype(int), truth.class_ids, strict=True):
            cv2.rectangle(picture, box[:2].tolist(), box[2:].tolist(), (0, 255, 0), 1)
            cv2.putText(
                picture,
                NAMES[class_id],
                box[:2].tolist(),
                cv2.FONT_HERSHEY_SIMPLEX,
                0.5,
                (0, 255, 0),
            )
        cv2.imwrite(str(args.out / f"{number:03d}.png"), picture)


if __name__ == "__main__":
    main()
