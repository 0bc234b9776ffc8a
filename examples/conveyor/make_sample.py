"""Draws the sample video and its ground truth, from a seed that training never sees.

    python examples/conveyor/make_sample.py examples/conveyor

Needs the `ffmpeg` command. The ground truth is JSON: `fps`, `width`, `height`, `names`, and for
each frame of the video a list of `[x0, y0, x1, y1, class id]` in pixels.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

from scene import HEIGHT, NAMES, WIDTH, Scene

SEED = 7
FPS = 25
SECONDS = 20


def main() -> None:
    """Write sample.mp4 and sample.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    args = parser.parse_args()
    scene = Scene(SEED, FPS * SECONDS)
    command = ["ffmpeg", "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "bgr24"]
    command += ["-s", f"{WIDTH}x{HEIGHT}", "-r", str(FPS), "-i", "-", "-c:v", "libx264"]
    command += ["-crf", "30", "-preset", "slow", "-g", "50", "-pix_fmt", "yuv420p"]
    command += ["-movflags", "+faststart", str(args.out / "sample.mp4")]
    truths = []
    with subprocess.Popen(command, stdin=subprocess.PIPE) as encoder:  # noqa: S603 - fixed words
        assert encoder.stdin is not None
        for number in range(FPS * SECONDS):
            picture, truth = scene.frame(number)
            encoder.stdin.write(picture.tobytes())
            boxes, ids = truth.boxes.astype(int).tolist(), truth.class_ids.tolist()
            truths.append([[*box, class_id] for box, class_id in zip(boxes, ids, strict=True)])
        encoder.stdin.close()
    content = {
        "schema": "vigia.ground-truth/1",
        "fps": FPS,
        "width": WIDTH,
        "height": HEIGHT,
        "names": list(NAMES),
        "frames": truths,
    }
    (args.out / "sample.json").write_text(json.dumps(content, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
