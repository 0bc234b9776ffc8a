"""Settings of the broker and of what is said to it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, model_validator

from agent.configbase import Seconds, Section, Whole

PREFIX_PATTERN = r"^[^/#+\x00]+(/[^/#+\x00]+)*$"
"""Topic levels, none empty, without wildcards."""

HOST_PATTERN = r"^[^\s/]+$"
"""Not a URL; whether such a host exists is found out by connecting."""


class TlsConfig(Section):
    """TLS to the broker; `tls: {}` verifies against the system's certificate authorities."""

    ca_file: Path | None = Field(default=None, description="PEM file of the broker's CA.")
    cert_file: Path | None = Field(default=None, description="PEM client certificate (mutual TLS).")
    key_file: Path | None = Field(default=None, description="PEM private key of cert_file.")
    key_password: SecretStr | None = Field(default=None, description="Password of key_file.")
    server_name: str | None = Field(
        default=None, description="Name the broker's certificate must carry; default: mqtt.host."
    )

    @model_validator(mode="after")
    def _pair(self) -> TlsConfig:
        if (self.cert_file is None) != (self.key_file is None):
            raise ValueError("cert_file and key_file belong together: give both or neither")
        return self


class DetectionsConfig(Section):
    """How detections are published."""

    qos: Annotated[Literal[0, 1], Whole] = Field(default=0, description="MQTT quality of service.")
    expiry_s: int | None = Field(
        default=60, ge=1, le=86_400, description="MQTT 5 message expiry; null: never."
    )
    empty: bool = Field(default=True, description="Publish frames in which nothing was found.")
    max_rate_hz: float | None = Field(
        default=None, gt=0, le=1000, description="Messages a second and camera at the most."
    )


class MqttConfig(Section):
    """The broker and what is said to it."""

    host: str = Field(pattern=HOST_PATTERN, description="Broker's host name or address.")
    port: int | None = Field(
        default=None, ge=1, le=65_535, description="Default 1883, with tls 8883."
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="auto tries 5 and falls back to 3.1.1."
    )
    username: str | None = Field(default=None, description="User name; default: anonymous.")
    password: SecretStr | None = Field(
        default=None, description="Password of username; best as ${env:NAME} or ${file:/path}."
    )
    tls: TlsConfig | None = Field(default=None, description="Encrypt; default: plain TCP.")
    prefix: str = Field(
        default="vigia/v1", pattern=PREFIX_PATTERN, description="First levels of every topic."
    )
    keepalive_s: int = Field(
        default=30, ge=5, le=3600, description="The broker notices our death after 1.5 times this."
    )
    connect_timeout_s: Seconds = Field(
        default=10.0, description="An attempt to connect is given up after this."
    )
    reconnect_initial_s: Seconds = Field(
        default=0.5, description="Wait before the second attempt; each later one about doubles."
    )
    reconnect_max_s: Seconds = Field(default=30.0, description="Longest wait between attempts.")
    detections: DetectionsConfig = Field(
        default=DetectionsConfig(), description="How detections are published."
    )
    outbox_messages: int = Field(
        default=2000, ge=1, le=1_000_000, description="Messages kept while the broker is away."
    )
    outbox_bytes: int = Field(
        default=16 * 2**20, ge=65_536, le=2**30, description="Bytes kept while it is away."
    )
    telemetry_interval_s: float = Field(
        default=30.0, ge=1.0, le=3600.0, description="Time between telemetry messages."
    )

    @property
    def effective_port(self) -> int:
        """The port to connect to."""
        return self.port or (8883 if self.tls is not None else 1883)
