"""A device's keys in files: one for each purpose, for their owner only.

    kem.key    opens grants          PKCS#8 PEM; with the hybrid, ML-KEM-768's and then X25519's
    sign.key   signs reports         PKCS#8 PEM, P-256
    tls.key    shown to the broker   PKCS#8 PEM, P-256

They lie in the state folder, or where systemd puts credentials (`LoadCredential=kem.key:...`). The
latter may be encrypted with the machine's TPM, but a service cannot see whether they were, so both
are reported as level L0.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cryptography.hazmat.primitives.asymmetric import ec

from agent.bundle.softkeys import KemKey, SoftKeys, p256_from_pem, private_pem
from agent.errors import KeyStoreError
from engines.durable import open_regular, replace_file
from engines.filelock import folder_lock

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agent.bundle.documents import Kem

KEM_FILE = "kem.key"
SIGN_FILE = "sign.key"
TLS_FILE = "tls.key"

MAX_KEY_BYTES = 8192
CREDENTIALS_VARIABLE = "CREDENTIALS_DIRECTORY"

LOCK_TIMEOUT_S = 10.0
"""How long another process may take to make keys."""

OTHERS = stat.S_IRWXG | stat.S_IRWXO
CREDENTIAL_OTHERS = stat.S_IRWXO
"""systemd gives a service the right to its credentials by an access list, which shows in the mode
as rights of the group."""

_Key = TypeVar("_Key")


def load_keys(folder: Path, *, forbidden: int = OTHERS) -> SoftKeys:
    """Read the keys that updates need.

    Args:
        folder: where they lie.
        forbidden: bits of the mode that a key must not have.

    Raises:
        KeyStoreError: one is missing, damaged, or not for its owner only.
    """
    kem = _load(folder / KEM_FILE, forbidden, KemKey.from_pem)
    return SoftKeys(kem, _load(folder / SIGN_FILE, forbidden, p256_from_pem))


def load_credentials(environ: Mapping[str, str]) -> SoftKeys:
    """Read the keys that systemd hands to the service.

    Raises:
        KeyStoreError: as `load_keys`, or there are no credentials.
    """
    folder = environ.get(CREDENTIALS_VARIABLE)
    if not folder:
        raise KeyStoreError(
            f"updates.keys: ${CREDENTIALS_VARIABLE} is not set. Enrol with `kind: file`, then have "
            f"the unit load {KEM_FILE} and {SIGN_FILE} of the state folder (LoadCredential=, or "
            "LoadCredentialEncrypted= after `systemd-creds encrypt`)"
        )
    return load_keys(Path(folder), forbidden=CREDENTIAL_OTHERS)


def load_tls(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Read the key of the connection to the broker; raises as `load_keys`."""
    return _load(folder / TLS_FILE, OTHERS, p256_from_pem)


def make_keys(folder: Path, kem: Kem) -> SoftKeys:
    """Make the keys that updates need; those that are there already stay.

    Args:
        folder: made with mode 0700 if it is missing.
        kem: kind of a new key for grants.

    Raises:
        KeyStoreError: the folder cannot be used, or a key that is there cannot.
    """
    _make(folder / KEM_FILE, lambda: KemKey.generate(kem).pem())
    _make(folder / SIGN_FILE, _p256_pem)
    return load_keys(folder)


def make_tls(folder: Path) -> ec.EllipticCurvePrivateKey:
    """Make the key of the connection to the broker, as `make_keys`."""
    _make(folder / TLS_FILE, _p256_pem)
    return load_tls(folder)


def _p256_pem() -> bytes:
    return private_pem(ec.generate_private_key(ec.SECP256R1()))


def _make(path: Path, make: Callable[[], bytes]) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists():
            return
        with folder_lock(path.parent, LOCK_TIMEOUT_S):
            if not path.exists():
                # Wholly there or not at all: half a key would have to be removed by hand.
                replace_file(path, make())
    except OSError as error:
        raise KeyStoreError(
            f"the key {path} cannot be made ({error.strerror or error}); give this user the right "
            "to write there, or name another state folder"
        ) from error


def _load(path: Path, forbidden: int, read: Callable[[bytes], _Key]) -> _Key:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            _check_rights(path, os.fstat(file.fileno()), forbidden)
            content = file.read(MAX_KEY_BYTES + 1)
    except FileNotFoundError:
        raise KeyStoreError(
            f"the key {path} is missing; `vigia enroll` makes the keys of this device"
        ) from None
    except OSError as error:
        raise KeyStoreError(f"the key {path} cannot be read ({error.strerror or error})") from error
    try:
        # A file that is too long is none of ours, whatever it begins with.
        return read(content if len(content) <= MAX_KEY_BYTES else b"")
    except ValueError:
        # The cause is not told: it may quote the key.
        raise KeyStoreError(
            f"the key {path} is damaged, or not the kind of key that belongs there; put it back, "
            "or remove it and enrol this device anew"
        ) from None


def _check_rights(path: Path, facts: os.stat_result, forbidden: int) -> None:
    if facts.st_mode & forbidden:
        raise KeyStoreError(
            f"the key {path} can be read by others (mode {stat.S_IMODE(facts.st_mode):04o}); "
            f"say `chmod 600 {path}`"
        )
    if facts.st_uid not in (os.geteuid(), 0):
        raise KeyStoreError(
            f"the key {path} belongs to user {facts.st_uid}, not to {os.geteuid()}; "
            f"say `chown {os.geteuid()} {path}`"
        )
