"""Trains the demo's detector from nothing, on two processor cores, in less than ten minutes.

    pip install 'vigia-agent[opencv,train]'
    python examples/conveyor/train.py --out examples/conveyor/conveyor-n.onnx

Pictures are drawn first (seeds 1000 and up; the sample video uses seed 7), then the network learns
from them with a one-cycle learning rate and an average of its weights is exported.
"""

from __future__ import annotations

import argparse
import copy
import time
from pathlib import Path

import cv2
import numpy as np
import onnx
import torch
from network import Detector, loss
from scene import HEIGHT, NAMES, WIDTH, Scene

SIZE = 320
BORDER = 114
FIRST_SEED = 1000
FRAMES_A_SCENE = 12
STEP = 23
"""Frames between two pictures of one scene, so that they differ."""

BATCH = 16
PEAK_RATE = 4e-3
WEIGHT_DECAY = 0.02
AVERAGE_DECAY = 0.998


def letterbox(picture: np.ndarray, boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Fit a picture into 320x320 as the agent does; boxes follow."""
    scale = SIZE / max(WIDTH, HEIGHT)
    w, h = round(WIDTH * scale), round(HEIGHT * scale)
    left, top = (SIZE - w) // 2, (SIZE - h) // 2
    image = np.full((SIZE, SIZE, 3), BORDER, np.uint8)
    image[top : top + h, left : left + w] = cv2.resize(picture, (w, h))
    return image, boxes * scale + np.array([left, top, left, top], np.float32)


def draw(count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Pictures (BGR uint8 [320, 320, 3]), boxes in pixels, class ids."""
    samples = []
    seed = FIRST_SEED
    while len(samples) < count:
        scene = Scene(seed, FRAMES_A_SCENE * STEP)
        seed += 1
        for number in range(FRAMES_A_SCENE):
            picture, truth = scene.frame(number * STEP)
            image, boxes = letterbox(picture, truth.boxes)
            samples.append((image, boxes, truth.class_ids))
    return samples[:count]


def batch(samples: list, rng: np.random.Generator) -> tuple[torch.Tensor, list]:
    """A random batch, mirrored and recoloured at random."""
    images, truths = [], []
    for index in rng.integers(0, len(samples), BATCH):
        image, boxes, classes = samples[index]
        boxes = boxes.copy()
        if rng.random() < 0.5:
            image = image[:, ::-1]
            boxes[:, [0, 2]] = SIZE - boxes[:, [2, 0]]
        if rng.random() < 0.5:
            image = image[::-1]
            boxes[:, [1, 3]] = SIZE - boxes[:, [3, 1]]
        rgb = image[..., ::-1].astype(np.float32) / 255
        rgb = np.clip((rgb - 0.5) * rng.uniform(0.75, 1.25) + 0.5 + rng.uniform(-0.1, 0.1), 0, 1)
        rgb *= rng.uniform(0.92, 1.08, 3).astype(np.float32)
        images.append(torch.from_numpy(np.ascontiguousarray(rgb.transpose(2, 0, 1), np.float32)))
        truths.append((torch.from_numpy(boxes), torch.from_numpy(classes.astype(np.int64))))
    return torch.stack(images).clamp(0, 1), truths


def export(model: Detector, out: Path) -> None:
    """Write the ONNX file with the metadata that `vigia model inspect` reads."""
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIZE, SIZE),),
        out,
        input_names=["images"],
        output_names=["output0"],
        dynamic_axes={"images": {0: "batch"}, "output0": {0: "batch"}},
        opset_version=17,
        dynamo=False,
    )
    file = onnx.load(out)
    metadata = {
        "description": "Parcels on a conveyor belt (synthetic), for Vigia's demo",
        "author": "Vigia",
        "license": "Apache-2.0",
        "task": "detect",
        "stride": "32",
        "imgsz": str([SIZE, SIZE]),
        "batch": "1",
        "names": str(dict(enumerate(NAMES))),
    }
    onnx.helper.set_model_props(file, metadata)
    onnx.checker.check_model(file)
    onnx.save(file, out)


def main() -> None:
    """Draw, train, export."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=3600)
    parser.add_argument("--minutes", type=float, default=8.5, help="for everything")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    began = time.monotonic()
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    samples = draw(args.pictures)
    print(f"{len(samples)} pictures drawn in {time.monotonic() - began:.0f} s", flush=True)

    model = Detector(len(NAMES), SIZE).to(memory_format=torch.channels_last)
    average = copy.deepcopy(model)
    optimiser = torch.optim.AdamW(model.parameters(), PEAK_RATE, weight_decay=WEIGHT_DECAY)
    limit = 60 * args.minutes
    training = time.monotonic()
    share, step = 0.0, 0
    while share < 1:
        # The rate rises over a tenth of the time and falls along a cosine.
        rate = share / 0.1 if share < 0.1 else 0.5 * (1 + np.cos(np.pi * (share - 0.1) / 0.9))
        for group in optimiser.param_groups:
            group["lr"] = PEAK_RATE * max(rate, 0.005)
        images, truths = batch(samples, rng)
        total, box_loss, class_loss = loss(
            model, images.to(memory_format=torch.channels_last), truths
        )
        optimiser.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimiser.step()
        with torch.no_grad():
            decay = min(AVERAGE_DECAY, (1 + step) / (10 + step))
            for kept, new in zip(
                average.state_dict().values(), model.state_dict().values(), strict=True
            ):
                if kept.dtype.is_floating_point:
                    kept.lerp_(new, 1 - decay)
        step += 1
        share = (time.monotonic() - training) / (limit - (training - began))
        if step % 50 == 0:
            print(
                f"step {step}, {100 * share:.0f} %: box {box_loss:.3f}, class {class_loss:.3f}",
                flush=True,
            )
    export(average, args.out)
    print(f"{args.out}: {step} steps of {BATCH}, {time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
