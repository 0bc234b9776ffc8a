"""A camera and the broker each dead for a while under load: what is lost, and what it costs."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.integration.mosquitto import Mosquitto
from tests.integration.servers import RtspServer
from tests.integration.subscriber import Subscriber

SOON_S = 40.0


def outages(folder: Path, conveyor: Path, seconds: float) -> dict[str, Any]:
    """Run the agent on an RTSP camera and a synthetic one; kill camera, then broker."""
    broker = Mosquitto(folder / "outage", {"plain": ("allow_anonymous true",)})
    broker.start()
    server = RtspServer((640, 480))
    server.start()
    config = {
        "device": {"id": "d"},
        "mqtt": {
            "host": "127.0.0.1",
            "port": broker.port,
            "prefix": "outage",
            "telemetry_interval_s": 2,
            "reconnect_max_s": 2,
            "detections": {"qos": 1},
            "outbox_messages": 200,
        },
        "cameras": {
            "street": {"source": server.url(), "stall_timeout_s": 3, "reconnect_max_s": 2},
            "scene": {"source": "synthetic://640x480@15"},
        },
        "models": {"main": {"path": str(conveyor / "conveyor-n.onnx")}},
    }
    path = folder / "outage.yaml"
    path.write_text(yaml.safe_dump(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "agent", "run", "-c", str(path)], stderr=subprocess.DEVNULL
    )
    rss = psutil.Process(process.pid)
    tick = threading.Event()
    try:
        with Subscriber(broker.port, "outage/#", qos=1) as reader:
            seen = lambda camera: len(reader.on(f"outage/d/cam/{camera}/detections"))  # noqa: E731
            reader.wait_for(lambda _: seen("street") > 50 and seen("scene") > 50, SOON_S)
            before_mb = rss.memory_info().rss / 1e6
            server.kill()
            tick.wait(seconds)
            street = seen("street")
            server.start()
            began = time.monotonic()
            reader.wait_for(lambda _: seen("street") > street, SOON_S)
            camera_back_s = time.monotonic() - began
            tick.wait(3)
            scene = [m.json["ts"] for m in reader.on("outage/d/cam/scene/detections")]
            longest_gap_s = max(b - a for a, b in pairwise(scene))
            broker.kill()
            tick.wait(seconds)
            broker.start()
            began = time.monotonic()
            count = seen("scene")
            reader.wait_for(lambda _: seen("scene") > count + 50, SOON_S)
            broker_back_s = time.monotonic() - began
            tick.wait(3)
            after_mb = rss.memory_info().rss / 1e6
            process.send_signal(signal.SIGTERM)
            code = process.wait(10)
            reader.wait_for(lambda all_: any(b'"offline"' in m.payload for m in all_[-5:]), SOON_S)
            telemetry = [m.json for m in reader.messages if m.topic.endswith("/telemetry")][-1]
            found = {
                m.json["seq"]: m.json["dropped"] for m in reader.on("outage/d/cam/scene/detections")
            }
    finally:
        if process.poll() is None:
            process.kill()
        server.kill()
        broker.kill()
    return {
        "seconds": seconds,
        "exit_code": code,
        "camera_back_s": round(camera_back_s, 2),
        "other_camera_longest_gap_s": round(longest_gap_s, 3),
        "broker_back_50_messages_s": round(broker_back_s, 2),
        "rss_before_mb": round(before_mb, 1),
        "rss_after_mb": round(after_mb, 1),
        "dropped": telemetry["publisher"]["dropped"],
        "told_by_messages": sum(found.values()),
        "messages": len(found),
    }
