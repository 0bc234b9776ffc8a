"""The private keys of a device, wherever they are kept, and the folder for what must last.

Levels, which a device reports: L0, files for their owner only, or systemd's credentials; L2, a
token that performs what is asked of a key and never gives it out.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

from agent.bundle import filekeys
from agent.errors import KeyStoreError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Literal

    from securesystemslib.signer import Signer

    from agent.bundle.documents import Grant, Kem
    from agent.config import KeyConfig


class DeviceKeys(Protocol):
    """What a device does with its keys. May be used by several threads."""

    @property
    def level(self) -> Literal["L0", "L1", "L2"]:
        """Where the keys are kept."""

    @property
    def kem(self) -> Kem:
        """The suite of the key that grants are opened with."""

    @property
    def kem_public(self) -> bytes:
        """What grants are sealed to; see `agent.bundle.kem`."""

    @property
    def sign_public_pem(self) -> str:
        """PEM of the public signing key."""

    @property
    def key_id(self) -> str:
        """How envelopes name the signing key."""

    def open_grant(self, grant: Grant, info: bytes) -> bytes:
        """Open a grant.

        Args:
            grant: from outside.
            info: see `agent.bundle.grant.grant_info`.

        Returns:
            The data key, 32 bytes.

        Raises:
            BundleError: it is for another key, device, bundle or assignment, or damaged.
            KeyStoreError: the key cannot be used.
        """

    def sign(self, data: bytes) -> bytes:
        """Sign with ECDSA P-256 and SHA-256; the signature in DER.

        Raises:
            KeyStoreError: the key cannot be used.
        """

    def signer(self) -> Signer:
        """The signing key as `agent.bundle.dsse` takes it."""


def open_keys(
    config: KeyConfig, state_dir: Path, environ: Mapping[str, str] = os.environ
) -> DeviceKeys:
    """Open the keys of an enrolled device.

    Args:
        config: where they are kept.
        state_dir: the state folder.
        environ: where systemd says where credentials lie.

    Raises:
        KeyStoreError: they are missing, cannot be used, or others can read them.
    """
    if config.kind == "file":
        return filekeys.load_keys(state_dir)
    if config.kind == "credential":
        return filekeys.load_credentials(environ)
    from agent.bundle.pkcs11 import open_token  # noqa: PLC0415 - an extra that few install

    return open_token(*_token(config))


def make_keys(
    config: KeyConfig, state_dir: Path, kem: Kem, environ: Mapping[str, str] = os.environ
) -> DeviceKeys:
    """Make the keys that are missing where they are to be kept, and open all.

    Args:
        config: where they are kept. systemd's credentials are made by its own tools, of keys that
            were made as files.
        state_dir: the state folder.
        kem: kind of the key for grants, if it is made now.
        environ: where systemd says where credentials lie.

    Raises:
        KeyStoreError: they cannot be made there, or as `open_keys`.
    """
    if config.kind == "file":
        return filekeys.make_keys(state_dir, kem)
    if config.kind == "credential":
        return filekeys.load_credentials(environ)
    if kem != "p256":
        raise KeyStoreError("a PKCS#11 token has keys of P-256 only; leave --kem out")
    from agent.bundle.pkcs11 import make_token_keys  # noqa: PLC0415 - an extra that few install

    return make_token_keys(*_token(config))


def _token(config: KeyConfig) -> tuple[Path, str, str]:
    """Library, label, PIN."""
    assert config.module is not None
    assert config.token is not None
    assert config.pin is not None
    return config.module, config.token, config.pin.get_secret_value()
