"""Settings of model updates from a fleet controller."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, SecretStr, model_validator

from agent.configbase import Seconds, Section


class KeyConfig(Section):
    """Where the device keeps the private keys that updates need."""

    kind: Literal["file", "credential", "pkcs11"] = Field(
        default="file",
        description="file: 0600 in the state folder; credential: systemd's LoadCredential=; "
        "pkcs11: a token (TPM, OP-TEE, SoftHSM).",
    )
    module: Path | None = Field(default=None, description="PKCS#11 library of the token.")
    token: str | None = Field(default=None, description="Label of the token.")
    pin: SecretStr | None = Field(
        default=None, description="User PIN of the token; best as ${file:/path}."
    )

    @model_validator(mode="after")
    def _whole(self) -> KeyConfig:
        given = (self.module, self.token, self.pin)
        if self.kind == "pkcs11" and None in given:
            raise ValueError("pkcs11 needs module, token and pin")
        if self.kind != "pkcs11" and any(part is not None for part in given):
            raise ValueError("module, token and pin belong to kind: pkcs11")
        return self


class UpdatesConfig(Section):
    """Encrypted, signed model updates; `updates: {}` enables them once the device is enrolled."""

    state_dir: Path | None = Field(
        default=None,
        description="What must survive a restart; default: systemd's StateDirectory=, else the "
        "XDG state folder.",
    )
    root_file: Path | None = Field(
        default=None,
        description="First root of trust (TUF root.json); default: `root.json` in the state "
        "folder, where `vigia enroll install` puts it.",
    )
    keys: KeyConfig = Field(default=KeyConfig(), description="Where private keys are kept.")
    hw_class: str | None = Field(
        default=None, description="Hardware class that bundles are made for; default: told."
    )
    max_bundle_mb: int = Field(
        default=2048, ge=1, le=65_536, description="Larger bundles are refused."
    )
    window_blocks: int = Field(
        default=64, ge=1, le=256, description="Blocks of 64 KiB that are asked for at a time."
    )
    stall_timeout_s: Seconds = Field(
        default=60.0, description="Without a block for this long, missing ones are asked for anew."
    )
