"""The controller's private keys: what each is for, and who opens it.

Offline keys (root and release keys) are opened only to sign a request, online keys by nearly every
command, an operator's own key by that operator. Each lies in a file of its own, encrypted with a
passphrase, and is opened at most once in a command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fleet.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Iterable

    from securesystemslib.signer import Key, Signer

    from fleet.layout import Layout
    from fleet.passphrases import Passphrases

ONLINE = "the online keys"
OFFLINE = "the root and release keys"

AUDIT_KEY = "audit"


def operators_own(name: str) -> str:
    """How an operator's own key is called when its passphrase is asked for."""
    return f"{name}'s own key"


class Keyring:
    """Makes and opens the keys of a fleet folder.

    Args:
        layout: where they lie.
        passphrases: asked when a key is made or opened.
    """

    def __init__(self, layout: Layout, passphrases: Passphrases) -> None:
        self.vault = Vault(layout.online_keys)
        self.offline = Vault(layout.offline_keys)
        self.operators = Vault(layout.operator_keys)
        self._passphrases = passphrases
        self._opened: dict[str, Signer] = {}

    @property
    def passphrase(self) -> str:
        """That of the online keys."""
        return self._passphrases.get(ONLINE)

    def online(self, name: str) -> Signer:
        """The signer of an online key."""
        if name not in self._opened:
            self._opened[name] = self.vault.signer(name, self.passphrase)
        return self._opened[name]

    def online_of(self, keys: Iterable[Key]) -> list[Signer]:
        """The signers of those of `keys` that lie here as online keys."""
        wanted = {key.keyid for key in keys}
        return [
            self.online(name)
            for name in self.vault.names()
            if self.vault.public_key(name).keyid in wanted
        ]

    def operator(self, name: str) -> Signer:
        """The signer of an operator's own key."""
        return self.operators.signer(name, self._passphrases.get(operators_own(name)))

    def unwrap(self, secret: bytes) -> bytes:
        """Open a secret that `vault.wrap_secret` has closed."""
        return self.vault.unwrap_secret(secret, self.passphrase)
