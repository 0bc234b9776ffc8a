"""One result as a line: for people, or in the wire schema for programs."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from agent.wire.messages import encode_detections

if TYPE_CHECKING:
    from agent.detection import Result

DEVICE = "local"
BOOT = "0"
"""Stand where a running agent's own ids stand."""


def line(result: Result) -> str:
    """Frame number, what was found, and how long it took."""
    names = result.model.names
    counts = Counter(names[i] for i in result.detections.class_ids.tolist())
    found = ", ".join(f"{n} {name}" for name, n in counts.most_common()) or "nothing"
    return f"{result.camera} #{result.frame_index}: {found} ({result.times.infer_ms:.1f} ms)"


class JsonLines:
    """Encodes results in the wire schema, numbering them by camera."""

    def __init__(self) -> None:
        self._next: Counter[str] = Counter()

    def __call__(self, result: Result) -> str:
        """One line of JSON."""
        seq = self._next[result.camera]
        self._next[result.camera] += 1
        return encode_detections(result, DEVICE, BOOT, seq, result.dropped).decode()
