"""What has passed through a broker, as `mosquitto_sub -F '%t %x'` writes it into a file."""

from __future__ import annotations

import json
from pathlib import Path


class Overheard:
    """Reads a file that grows, each line once: it is asked again and again.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines: list[tuple[str, bytes]] = []

    def messages(self, ending: str) -> list[dict[str, object]]:
        """All on topics that end so, in order."""
        self._look()
        return [json.loads(data) for topic, data in self._lines if topic.endswith(ending)]

    def payloads(self) -> bytes:
        """Of all topics, a line between any two."""
        self._look()
        return b"\n".join(data for _, data in self._lines)

    def _look(self) -> None:
        with self._path.open("rb") as file:
            file.seek(self._read)
            new = file.read()
        # The last line may not be written to its end yet.
        whole = new[: new.rfind(b"\n") + 1]
        self._read += len(whole)
        for line in whole.splitlines():
            topic, _, payload = line.decode().partition(" ")
            self._lines.append((topic, bytes.fromhex(payload)))
