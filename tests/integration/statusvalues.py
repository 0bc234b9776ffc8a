"""Made-up values of an agent in states that are hard to bring about."""

from __future__ import annotations

from typing import Any

NOW = 1_760_000_000.0
"""When it is on the page, seconds since the epoch: 9 October 2025, 08:53:20 UTC."""

UPTIME_S = 4000
DAY_S = 86_400
CAMERAS = ("belt", "dock", "gate")


def values(state: str) -> dict[str, Any]:
    """What a state looks like, by the names of `agent.http.ports.Sources`."""
    seen = _well(() if state == "recovery" else CAMERAS)
    STATES[state](seen)
    return seen


def _well(names: tuple[str, ...]) -> dict[str, Any]:
    before = NOW - UPTIME_S
    return {
        "cameras": {
            name: {"state": "online", "reason": "", "since": before, "attempts": 0, "model": "main"}
            for name in names
        },
        "models": {"main": {
            "name": "conveyor-n", "digest": "sha256:9f31c2a07be4d1c88a0e", "backend": "tensorrt",
            "precision": "int8", "names": ["box", "tube", "bag", "envelope"], "reason": "",
            "waiting": 0, "build": {"state": "ready", "report": {
                "chosen": {"backend": "tensorrt", "precision": "int8"}, "speedup": 2.31,
                "candidates": [
                    {"backend": "tensorrt", "precision": "int8", "taken": True, "p50_ms": 4.1,
                     "gate": {"matched": 0.987, "cosine": 0.9995}},
                    {"backend": "tensorrt", "precision": "fp16", "taken": False, "p50_ms": 6.2,
                     "gate": {"matched": 0.998, "cosine": 0.99998}},
                ],
            }},
        }},
        "host": {
            "cpu_percent": 41.0, "process_rss_bytes": 412_000_000, "temperature_max_c": 58.5,
            "thermal": {"cpu-thermal": 56.0, "gpu-thermal": 58.5}, "power": {"total_w": 11.4},
        },
        "broker": {"connected": True},
        "publisher": {"outbox_messages": 0},
        "spool": {"memory_messages": 0, "disk_messages": 0, "dropped": {}, "disk": "ok"},
        "governor": {"enabled": True, "level": 0},
        "history": [
            {"slot": "main", "state": "COMMITTED", "version": "1.4.0", "reason": "",
             "changed": NOW - 2 * DAY_S,
             "figures": {"gate": {"score": 0.9312, "active_score": 0.9107}}},
        ],
        "events": [
            _event(UPTIME_S, "agent", "info", "started"),
            *(_event(UPTIME_S - 10, "camera", "info", f"{n}: online") for n in names),
        ],
        "health": {"ready": True, "stalled": ()},
        "troubles": [],
    }  # fmt: skip


def _event(age_s: float, kind: str, severity: str, what: str) -> dict[str, Any]:
    return {"ts": NOW - age_s, "kind": kind, "severity": severity, "what": what}


def _lost(seen: dict[str, Any]) -> None:
    reason = "rtsp://10.0.0.7/stream1: connection refused; is the camera on?"
    seen["cameras"]["gate"] |= {
        "state": "connecting", "reason": reason, "since": NOW - 340, "attempts": 21,
    }  # fmt: skip
    what = "gate: connecting: connection refused"
    seen["events"].append(_event(340, "camera", "warning", what))


def _recovery(seen: dict[str, Any]) -> None:
    seen["models"] = {}
    mistake = "the configuration has a mistake and there is no good one; no camera runs"
    seen["troubles"] = [mistake]
    what = "/etc/vigia/agent.yaml: cameras.belt.fps: must be above 0 (line 14)"
    seen["events"] = [*seen["events"][:1], _event(UPTIME_S - 1, "config", "error", what)]


def _updating(seen: dict[str, Any]) -> None:
    model = seen["models"]["main"]
    model["update"] = {"state": "BUILDING", "version": "1.5.0", "reason": "", "figures": {}}
    step = "int8 on tensorrt: building the engine"
    model["build"] = {"state": "building", "step": step, "done": 3, "total": 5}
    what = "main: 1.5.0 is fetched, 9.2 MB in 41 s"
    seen["events"].append(_event(75, "update", "info", what))


def _rejected(seen: dict[str, Any]) -> None:
    reason = "its map50_95 is 0.7132; at least 0.9 is asked"
    figures = {"gate": {"metric": "map50_95", "score": 0.7132, "active_score": 0.9312,
                        "pictures": 64, "latency_ms": {"p50": 8.1, "p95": 9.4}}}  # fmt: skip
    past = {"slot": "main", "state": "REJECTED", "version": "1.5.0", "reason": reason}
    seen["history"].insert(0, {**past, "changed": NOW - 600, "figures": figures})
    seen["models"]["main"]["update"] = {"state": "REJECTED", "version": "1.5.0", "reason": reason}
    seen["events"].append(_event(600, "update", "warning", f"main: 1.5.0 is rejected: {reason}"))


def _away(seen: dict[str, Any]) -> None:
    seen["broker"] = {"connected": False, "reason": "mqtt.example:8883: connection timed out"}
    seen["spool"] |= {"memory_messages": 212, "disk_messages": 18_240, "disk_bytes": 9_240_000}
    what = "no broker: mqtt.example:8883: connection timed out"
    seen["events"].append(_event(610, "mqtt", "warning", what))


def _hot(seen: dict[str, Any]) -> None:
    seen["host"] |= {"temperature_max_c": 94.5, "thermal": {"gpu-thermal": 94.5}}
    seen["governor"] |= {
        "level": 2, "headroom_c": 2.5, "fps_limits": dict.fromkeys(CAMERAS, 12.0),
        "reason": "gpu-thermal at 94.5 °C, 2.5 below slowing down",
    }  # fmt: skip
    what = "does less: half the frames (gpu-thermal at 94.5 °C, 2.5 below slowing down)"
    seen["events"].append(_event(130, "governor", "warning", what))


def _stalled(seen: dict[str, Any]) -> None:
    seen["health"] = {"ready": True, "stalled": ("model main",)}
    what = "model main makes no progress for 12 s; its engine is loaded anew"
    seen["events"].append(_event(9, "stall", "error", what))


STATES = {
    "well": lambda _seen: None,
    "lost": _lost,
    "recovery": _recovery,
    "updating": _updating,
    "rejected": _rejected,
    "away": _away,
    "hot": _hot,
    "stalled": _stalled,
}
