"""Every setting of the agent: names, types, limits and defaults.

Values carry their unit in their name. `agent.configfile` reads these from YAML; nothing here does
I/O. Defaults are such that `cameras:` and `mqtt.host:` suffice where the model has its default
place.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from agent.configbase import NAME_PATTERN, Name, Section
from agent.configcamera import CameraConfig, CropConfig
from agent.configgovernor import GovernorConfig
from agent.confighealth import HealthConfig
from agent.confighttp import HttpConfig
from agent.configmodel import (
    DEFAULT_MODEL_PATH,
    GateConfig,
    ModelConfig,
    QuantizeConfig,
    TensorRtConfig,
)
from agent.configmqtt import DetectionsConfig, MqttConfig, TlsConfig
from agent.configspool import SpoolConfig
from agent.configupdates import KeyConfig, UpdatesConfig

__all__ = [
    "DEFAULT_MODEL_PATH",
    "NAME_PATTERN",
    "CameraConfig",
    "Config",
    "CropConfig",
    "DetectionsConfig",
    "DeviceConfig",
    "GateConfig",
    "GovernorConfig",
    "HealthConfig",
    "HttpConfig",
    "KeyConfig",
    "LogConfig",
    "ModelConfig",
    "MqttConfig",
    "PipelineConfig",
    "QuantizeConfig",
    "Section",
    "SpoolConfig",
    "TensorRtConfig",
    "TlsConfig",
    "UpdatesConfig",
]


class DeviceConfig(Section):
    """Who this device is."""

    id: Name | None = Field(
        default=None,
        description="Device id in topics and MQTT client id; default: the host name.",
    )


class LogConfig(Section):
    """What is logged, to standard error."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="The least important messages shown."
    )
    format: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: console on a terminal, else JSON lines."
    )


class PipelineConfig(Section):
    """How stages are joined."""

    queue_frames: int = Field(
        default=4, ge=1, le=64, description="Frames of a lossless source that may wait."
    )
    shutdown_timeout_s: float = Field(
        default=3.0, gt=0, le=60, description="Time to finish what was begun when stopping."
    )
    cache_dir: Path | None = Field(
        default=None, description="Where built engines are kept; default: XDG cache folder."
    )
    cache_max_mb: int = Field(
        default=2048, ge=16, le=1_048_576, description="Size of built engines kept; oldest go."
    )


class Config(Section):
    """The whole file."""

    device: DeviceConfig = Field(default=DeviceConfig(), description="Who this device is.")
    mqtt: MqttConfig = Field(description="The broker and what is said to it.")
    cameras: dict[Name, CameraConfig] = Field(
        min_length=1, description="Sources of frames by name; the name is a topic level."
    )
    models: dict[Name, ModelConfig] = Field(
        default_factory=lambda: {"main": ModelConfig()},
        min_length=1,
        description="Model slots by name; cameras choose one.",
    )
    pipeline: PipelineConfig = Field(default=PipelineConfig(), description="How stages are joined.")
    spool: SpoolConfig = Field(
        default=SpoolConfig(), description="What is kept while the broker is away."
    )
    updates: UpdatesConfig | None = Field(
        default=None, description="Model updates from a fleet controller; default: none."
    )
    governor: GovernorConfig = Field(
        default=GovernorConfig(), description="Doing less before the board slows itself down."
    )
    health: HealthConfig = Field(
        default=HealthConfig(), description="How the agent watches itself."
    )
    http: HttpConfig = Field(
        default=HttpConfig(), description="Status page, metrics and live pictures."
    )
    log: LogConfig = Field(default=LogConfig(), description="What is logged.")

    @model_validator(mode="after")
    def _models_exist(self) -> Config:
        for name, camera in self.cameras.items():
            if camera.model not in self.models:
                raise PydanticCustomError(
                    "unknown_model",
                    "no such model in `models`; there: {known}",
                    {"known": ", ".join(sorted(self.models)), "key": ("cameras", name, "model")},
                )
        return self
