"""Looks at everything the agent will need, and says what is wrong and what to do about it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from agent.capture.base import is_live
from agent.capture.probe import probe_all
from agent.device import device_id
from agent.errors import AgentError
from agent.models import load_model
from agent.mqtt import check_broker
from engines.errors import EngineError

if TYPE_CHECKING:
    from agent.config import Config

PROBE_TIMEOUT_S = 8.0
BROKER_TIMEOUT_S = 8.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: what: "model main", "camera gate", "broker".
        status: "ok" or "fail".
        text: what was found; on failure also what to do.
    """

    name: str
    status: Literal["ok", "fail"]
    text: str


def check(config: Config, *, network: bool = True) -> list[Finding]:
    """Load the models and, unless told otherwise, open the cameras and the broker.

    Args:
        config: a valid configuration.
        network: False to leave cameras and broker alone.
    """
    with ThreadPoolExecutor(2) as pool:
        cameras = pool.submit(_cameras, config) if network else None
        broker = pool.submit(_broker, config) if network else None
        findings = [_model(config, slot) for slot in config.models]
        if cameras is not None and broker is not None:
            findings += [*cameras.result(), broker.result()]
    return findings


def _model(config: Config, slot: str) -> Finding:
    users = [c for c in config.cameras.values() if c.model == slot and c.enabled]
    name = f"model {slot}"
    try:
        live = any(is_live(camera) for camera in users)
        model = load_model(
            slot, config.models[slot], live=live, cache_dir=config.pipeline.cache_dir
        )
    except (AgentError, EngineError) as error:
        return Finding(name, "fail", str(error))
    info, engine = model.info, model.engine
    text = (
        f"{info.name}: {info.task.value}, {len(info.names)} classes, {info.width}x{info.height}, "
        f"{engine.precision} on {engine.backend}"
    )
    engine.close()
    return Finding(name, "ok", text)


def _cameras(config: Config) -> list[Finding]:
    enabled = {name: camera for name, camera in config.cameras.items() if camera.enabled}
    return [
        Finding(
            f"camera {report.camera}",
            "ok" if report.ok else "fail",
            report.text().partition(": ")[2] if report.ok else report.reason,
        )
        for report in probe_all(enabled, PROBE_TIMEOUT_S)
    ]


def _broker(config: Config) -> Finding:
    try:
        text = check_broker(config.mqtt, device_id(config.device), BROKER_TIMEOUT_S)
    except AgentError as error:
        return Finding("broker", "fail", str(error))
    return Finding("broker", "ok", text)
