"""Settings of the status page, the metrics and the live view."""

from __future__ import annotations

import ipaddress

from pydantic import Field, SecretStr, model_validator

from agent.configbase import Section

MIN_TOKEN = 16
"""Characters of a token: nobody guesses one, however often he may try."""


class HttpConfig(Section):
    """Status page, health, metrics and live pictures over HTTP."""

    enabled: bool = Field(default=True, description="false: nothing listens.")
    host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address to listen at; anything but loopback needs a token.",
    )
    port: int = Field(default=8642, ge=0, le=65_535, description="Port; 0: any that is free.")
    token: SecretStr | None = Field(
        default=None,
        description="At least 16 characters, asked of every reader; best as ${file:/path}.",
    )
    names: tuple[str, ...] = Field(
        default=(),
        max_length=16,
        description="Host names, beside this machine's own, by which browsers may ask.",
    )
    live_fps: float = Field(default=5.0, gt=0, le=30, description="Live pictures a second.")

    @property
    def loopback(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @model_validator(mode="after")
    def _guarded(self) -> HttpConfig:
        if self.token is not None and len(self.token.get_secret_value()) < MIN_TOKEN:
            raise ValueError(f"token has less than {MIN_TOKEN} characters; make a longer one")
        if self.enabled and self.token is None and not self.loopback:
            raise ValueError("a host that is not loopback needs a token; give one, or 127.0.0.1")
        return self
