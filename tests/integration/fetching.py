"""Fetches a payload, as a process of its own that a test can kill.

python -m tests.integration.fetching PORT PREFIX FOLDER SEED BLOCKS BLOCK_BYTES WINDOW
"""

from __future__ import annotations

import json
import sys
import threading
from dataclasses import asdict
from pathlib import Path

from agent.config import MqttConfig
from agent.update.fetch import Fetcher
from agent.update.staging import Staging
from agent.wire.topics import FleetTopics
from tests.fakes.blocks import make_blocks
from tests.integration.pieces import BUNDLE

DIGEST = "a" * 64
STALL_S = 2.0


def main() -> None:
    port, prefix, folder, *numbers = sys.argv[1:]
    seed, count, block_bytes, window = map(int, numbers)
    source = make_blocks(count, block_bytes, seed=seed)
    config = MqttConfig.model_validate(
        {"host": "127.0.0.1", "port": int(port), "prefix": prefix, "reconnect_initial_s": 0.05}
    )
    fetcher = Fetcher(config, "d1", FleetTopics(prefix), lambda _request: None)
    counts = fetcher.blocks(
        BUNDLE,
        source.index,
        Staging(Path(folder), DIGEST),
        window,
        STALL_S,
        lambda *_: None,
        threading.Event(),
    )
    sys.stdout.write(json.dumps(asdict(counts)))


if __name__ == "__main__":
    main()
