"""Private keys of the fleet, each in a file of its own that a passphrase opens.

A key's file is all there is of it: it can be copied to another machine.

Secrets, such as the data keys of bundles, are wrapped by HPKE to a key of the vault. That needs no
passphrase, so a program can pack a bundle alone; only to read the secret later does.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from securesystemslib.signer import CryptoSigner

from agent.bundle.strict import decode
from agent.errors import KeyStoreError, ManifestError
from engines.durable import read_bounded, sync_folder, write_new
from fleet.errors import FleetError
from fleet.metadatafolder import replace
from fleet.vaultfile import KeyFile, close, derive, generate, new_salt, open_file

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from securesystemslib.signer import Key, Signer

    from fleet.vaultfile import Kind, PrivateKey

SUFFIX = ".key"
MAX_FILE_BYTES = 8192
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

WRAPPING = "wrapping"
"""Name of the key that secrets are wrapped to."""

WRAPPED = b"VIGIAWRAP\x01"
"""Begins a wrapped secret."""

PURPOSE = b"vigia/wrapped-secret/1"
_SUITE = Suite(KEM.P256, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


class Vault:
    """A folder of keys. All methods raise `KeyStoreError`, whose text has no passphrase in it.

    Args:
        folder: made with mode 0700 at the first key.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # A passphrase is turned into a key once in a command, and keys that are made together
        # share the salt: that takes long, on purpose.
        self._derived: dict[tuple[str, bytes], bytes] = {}
        self._salts: dict[str, bytes] = {}

    def names(self) -> list[str]:
        """The names of its keys, sorted."""
        found = (path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}"))
        return sorted(name for name in found if NAME.fullmatch(name))

    def path(self, name: str) -> Path:
        """Where a key's file lies.

        Raises:
            KeyStoreError: no key can be called so.
        """
        if not NAME.fullmatch(name):
            raise KeyStoreError(
                f"no key can be called {name!r}: letters, digits, `_` and `-`, at most 64"
            )
        return self._folder / f"{name}{SUFFIX}"

    def create_key(self, name: str, passphrase: str, kind: Kind = "ed25519") -> Key:
        """Make a key.

        Args:
            name: must be new.
            passphrase: opens it.
            kind: `ed25519` signs metadata and documents, `p256` certificates.

        Returns:
            The public key.

        Raises:
            KeyStoreError: there is one of this name, or it cannot be written.
        """
        path = self.path(name)
        if path.exists():
            raise KeyStoreError(f"there is a key {path} already; choose another name")
        salt = self._salts.setdefault(passphrase, new_salt())
        file = close(generate(kind), salt, self._key(passphrase, salt))
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_new(path, file.encode())
            sync_folder(self._folder)
        except OSError as error:
            raise KeyStoreError(f"the key {path} cannot be written: {error.strerror}") from error
        return file.key()

    def create_wrapping_key(self, passphrase: str) -> None:
        """Make the key that secrets are wrapped to; see `create_key`."""
        self.create_key(WRAPPING, passphrase, "p256")

    def public_key(self, name: str) -> Key:
        """The public key of that name; needs no passphrase.

        Raises:
            KeyStoreError: it is missing or damaged.
        """
        return self._public(name, self._read(name))

    def signer(self, name: str, passphrase: str) -> Signer:
        """The key of that name, to sign with.

        Raises:
            KeyStoreError: it is missing or damaged, or the passphrase does not open it.
        """
        return CryptoSigner(self.private_key(name, passphrase))

    def private_key(self, name: str, passphrase: str) -> PrivateKey:
        """The key of that name itself; raises as `signer`."""
        file = self._read(name)
        try:
            return open_file(file, self._key(passphrase, bytes.fromhex(file.salt)))
        except ValueError:
            raise KeyStoreError(
                f"the passphrase does not open the key {self.path(name)}, or the file was altered"
            ) from None

    def opens(self, name: str, passphrase: str) -> bool:
        """Whether the passphrase opens the key of that name."""
        try:
            self.private_key(name, passphrase)
        except KeyStoreError:
            return False
        return True

    def p256_key(self, name: str, passphrase: str) -> ec.EllipticCurvePrivateKey:
        """The key of that name, which must be of P-256; raises as `signer`."""
        private = self.private_key(name, passphrase)
        if not isinstance(private, ec.EllipticCurvePrivateKey):
            raise KeyStoreError(f"the key {self.path(name)} is not of the kind that is needed")
        return private

    def wrap_secret(self, secret: bytes) -> bytes:
        """Encrypt a secret so that only the vault's passphrase opens it; needs no passphrase.

        Raises:
            KeyStoreError: the vault has no key to wrap to.
        """
        public = self._wrapping_key()
        return WRAPPED + _SUITE.encrypt(secret, public, PURPOSE)

    def unwrap_secret(self, wrapped: bytes, passphrase: str) -> bytes:
        """Decrypt a secret.

        Raises:
            KeyStoreError: the passphrase is wrong, or it was not wrapped here.
        """
        private = self.p256_key(WRAPPING, passphrase)
        sealed = wrapped[len(WRAPPED) :] if wrapped.startswith(WRAPPED) else b""
        try:
            return _SUITE.decrypt(sealed, private, PURPOSE)
        except (InvalidTag, ValueError):
            raise KeyStoreError(
                "a wrapped secret does not open: it was wrapped for another vault, or altered"
            ) from None

    def _key(self, passphrase: str, salt: bytes) -> bytes:
        if (passphrase, salt) not in self._derived:
            self._derived[passphrase, salt] = derive(passphrase, salt)
        return self._derived[passphrase, salt]

    def _wrapping_key(self) -> ec.EllipticCurvePublicKey:
        file = self._read(WRAPPING)
        self._public(WRAPPING, file)
        public = load_pem_public_key(file.public.encode())
        if not isinstance(public, ec.EllipticCurvePublicKey):
            raise KeyStoreError(f"the key {self.path(WRAPPING)} is not of the kind that is needed")
        return public

    def _read(self, name: str) -> KeyFile:
        path = self.path(name)
        try:
            data = read_bounded(path, MAX_FILE_BYTES)
            return decode(KeyFile, data or b"", str(path), MAX_FILE_BYTES)
        except FileNotFoundError:
            raise KeyStoreError(f"the key {path} is missing; bring it here") from None
        except OSError as error:
            raise KeyStoreError(
                f"the key {path} cannot be read: {error.strerror or error}"
            ) from error
        except ManifestError as error:
            raise KeyStoreError(f"{error}; bring the key back from a backup") from None

    def _public(self, name: str, file: KeyFile) -> Key:
        try:
            return file.key()
        except ValueError:
            raise KeyStoreError(
                f"the key {self.path(name)} is damaged; bring it back from a backup"
            ) from None


def change_passphrase(files: Sequence[Path], old: str, new: str) -> list[Path]:
    """Have another passphrase open these keys; the keys themselves stay what they are.

    All are opened before the first is written; those that the new one opens already are left.

    Returns:
        Files that were changed.

    Raises:
        KeyStoreError: a file is no key, the old passphrase does not open it, or it cannot be
            written; those before it are changed, and it can be tried again.
    """
    vaults = {folder: Vault(folder) for folder in {path.parent for path in files}}
    opened = []
    for path in files:
        if path.suffix != SUFFIX:
            raise KeyStoreError(f"{path} is no key file; they end in {SUFFIX}")
        vault = vaults[path.parent]
        try:
            opened.append((path, vault.private_key(path.stem, old)))
        except KeyStoreError:
            if not vault.opens(path.stem, new):
                raise
    salt = new_salt()
    key = derive(new, salt)
    for path, private in opened:
        try:
            replace(path, close(private, salt, key).encode())
        except FleetError as error:
            raise KeyStoreError(str(error)) from error
    return [path for path, _ in opened]
