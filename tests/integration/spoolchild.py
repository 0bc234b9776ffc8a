"""A process that tells events through a real link and spool until it is killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from agent.config import MqttConfig, SpoolConfig
from agent.events import Events
from agent.mqtt import MqttClient
from agent.spool import Spool
from agent.wire.topics import Topics


def main(port: str, prefix: str, boot: str, folder: str, told: str) -> None:
    config = MqttConfig.model_validate(
        {"host": "127.0.0.1", "port": int(port), "prefix": prefix, "reconnect_max_s": 0.3}
    )
    client = MqttClient(config, "d", boot)
    settings = SpoolConfig.model_validate({"flush_interval_s": 0.1})
    spool = Spool(client, Topics(prefix, "d"), "d", boot, settings, Path(folder))
    events = Events(spool.take_event)
    client.start()
    spool.start(events.tell)
    with Path(told).open("a", buffering=1) as file:
        for number in range(100_000):
            file.write(f"{boot} {number} {time.monotonic()}\n")
            events.tell("agent", "info", f"event {number}", number=number)
            time.sleep(0.005)


if __name__ == "__main__":
    main(*sys.argv[1:])
