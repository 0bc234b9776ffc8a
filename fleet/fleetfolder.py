"""A fleet folder, open: everything that commands of `vigia fleet` work with.

    with Fleet(folder) as fleet:
        ann = fleet.act(Permission.ASSIGN, name)      # refuses, or has ann prove who she is
        with fleet.database.session() as session:
            ...
            fleet.audit.record(session, ann, "campaign.begin", {...})

A command opens it, and closes it at its end.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from agent.errors import KeyStoreError
from agent.wire.topics import FleetTopics
from fleet.audit import CONTROLLER, Audit
from fleet.auditchain import Actor
from fleet.authority import Authority
from fleet.brokerfolder import BrokerFolder
from fleet.database import Database
from fleet.errors import NotPermittedError
from fleet.keyring import AUDIT_KEY, Keyring
from fleet.layout import Layout
from fleet.operators import acting, all_keys
from fleet.passphrases import Passphrases
from fleet.repository import Repository
from fleet.roledata import DIRECTOR, delegated_keys, role_keys

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import TracebackType

    from securesystemslib.signer import Key, Signer
    from typing_extensions import Self

    from agent.config import MqttConfig
    from fleet.roles import Permission


class Fleet:
    """Opens the parts of a fleet; keys are opened when they are needed.

    Args:
        folder: as `vigia fleet init` made it.
        passphrases: of its keys; default: environment or terminal.
        now: seconds since the epoch.

    Attributes:
        folder: as given.
        layout: what lies where.
        settings: what the fleet is called, and where its broker is.
        database, repository, authority, audit: its parts.
        broker: files for the broker.
        keys: private keys.
        vault: the online keys' vault, which closes and opens data keys.
        topics: that all devices read.

    Raises:
        FleetError: it is no fleet folder.
        StoreError: the database cannot be used.
    """

    def __init__(
        self,
        folder: Path,
        passphrases: Passphrases | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self.layout = Layout(folder)
        self.settings = self.layout.read_settings()
        self.passphrases = passphrases or Passphrases()
        self.keys = Keyring(self.layout, self.passphrases)
        self.vault = self.keys.vault
        self.authority = Authority(self.layout.authority, self.vault, now)
        self.broker = BrokerFolder(self.layout, self.settings)
        self.repository = Repository(self.layout.repository, now)
        self.topics = FleetTopics(self.settings.prefix)
        self.now = now
        self.database = Database(self.layout.database_url(self.settings))
        try:
            self.database.check()
        except BaseException:
            self.database.close()
            raise
        self.audit = Audit(self.layout.audit, self.database, self._audit_signer, now)

    @property
    def mqtt(self) -> MqttConfig:
        """How the controller connects to the broker."""
        return self.layout.controller_mqtt(self.settings)

    def act(self, permission: Permission, name: str | None = None) -> Actor:
        """Have an operator prove who they are, with the passphrase of their own key.

        Args:
            permission: what is to be done.
            name: of the operator; None: the only one there is.

        Raises:
            FleetError: nobody is called so, or it is not clear who acts.
            NotPermittedError: the role does not allow it, or the key is another's.
            KeyStoreError: the key cannot be opened.
        """
        with self.database.reading() as session:
            operator = acting(session, name, permission)
        signer = self.keys.operator(operator.name)
        if signer.public_key.keyid != operator.key_id:
            raise NotPermittedError(
                f"the key in {self.layout.operator_keys} is not the one that {operator.name} was "
                "entered with"
            )
        return Actor(operator.name, signer)

    def controller(self) -> Actor:
        """What acts where nobody does, e.g. when a campaign ends by itself."""
        return Actor(CONTROLLER, self._audit_signer())

    def directors(self) -> list[Signer]:
        """The keys that sign assignments, of those that devices know now.

        Raises:
            FleetError: nothing is published yet.
            KeyStoreError: none of them is here, or it cannot be opened.
        """
        known = delegated_keys(self.repository.published().targets, DIRECTOR)
        signers = self.keys.online_of(known)
        if not signers:
            ids = ", ".join(key.keyid[:16] for key in known)
            raise KeyStoreError(
                f"no director key that devices know ({ids}) is in {self.layout.online_keys}; bring "
                "it back from a backup, or make another: `vigia fleet rotate-keys DIR director`"
            )
        return signers

    def publish_metadata(self) -> bool:
        """Have online keys publish what offline keys have signed, or renew what ends soon.

        Returns:
            Whether there is a new trust message; it still has to be sent to the broker.
        """
        root = self.repository.accepted_root()
        signers = [
            signer
            for role in ("snapshot", "timestamp")
            for signer in self.keys.online_of(role_keys(root, role).keys)
        ]
        return self.repository.publish_online(signers)

    def audit_keys(self) -> tuple[dict[str, list[Key]], Key]:
        """The keys of all who ever acted, and the audit key, to verify the log with."""
        audit_key = self.vault.public_key(AUDIT_KEY)
        with self.database.reading() as session:
            return {**all_keys(session), CONTROLLER: [audit_key]}, audit_key

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()

    def _audit_signer(self) -> Signer:
        return self.keys.online(AUDIT_KEY)
