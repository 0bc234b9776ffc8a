"""Makes a whole fleet folder: keys, first trust metadata, authority, broker files, first operator.

It is built beside its place and moved there when it is complete, so that there is either a fleet
or none.
"""

from __future__ import annotations

import secrets
import shutil
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from fleet.audit import Audit
from fleet.auditchain import Actor
from fleet.authority import Authority
from fleet.brokerfolder import BrokerFolder
from fleet.database import CONTROLLER_SERIAL, OFFLINE_KEYS, Database, write_setting
from fleet.errors import FleetError
from fleet.keyring import AUDIT_KEY, OFFLINE, ONLINE, operators_own
from fleet.layout import Layout, Settings, settings_text
from fleet.metadatafolder import replace
from fleet.operators import add_operator, check_name
from fleet.repository import Repository
from fleet.roles import Role
from fleet.signing import KeySet, add_signature
from fleet.vault import Vault

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from securesystemslib.signer import Key, Signer

    from fleet.passphrases import Passphrases

ONLINE_KEYS = ("director", "snapshot", "timestamp", AUDIT_KEY)


@dataclass(frozen=True, slots=True)
class Plan:
    """What kind of fleet is to be made.

    Attributes:
        settings: name, topics, broker, database.
        root_keys, root_threshold: how many offline keys may change keys, and must agree.
        release_keys, release_threshold: how many may release bundles, and must agree.
        operator: name of the first one, an admin.
    """

    settings: Settings
    root_keys: int
    root_threshold: int
    release_keys: int
    release_threshold: int
    operator: str

    def check(self) -> None:
        """See that names and numbers can be.

        Raises:
            FleetError: they cannot.
        """
        check_name(self.operator)
        for called, keys, threshold in (
            ("root", self.root_keys, self.root_threshold),
            ("release", self.release_keys, self.release_threshold),
        ):
            if not 1 <= threshold <= keys:
                raise FleetError(
                    f"--{called}-threshold {threshold} of --{called}-keys {keys} cannot be; "
                    "take a threshold from 1 to the number of keys"
                )


def found(
    folder: Path,
    plan: Plan,
    passphrases: Passphrases,
    tell: Callable[[str], None],
    now: Callable[[], float] = time.time,
) -> None:
    """Make a fleet.

    Args:
        folder: must not exist yet, or be empty.
        plan: what kind.
        passphrases: for its keys.
        tell: takes a word on what is being done.
        now: seconds since the epoch.

    Raises:
        FleetError: the folder is there, the plan cannot be, or the disk refuses.
        KeyStoreError: there are no passphrases.
        StoreError: the database cannot be made.
    """
    plan.check()
    folder = folder.resolve()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise FleetError(f"{folder} is there already; choose another folder, or an empty one")
    work = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    try:
        work.mkdir(mode=0o700, parents=True)
    except OSError as error:
        raise FleetError(f"{work} cannot be made: {error.strerror}") from error
    try:
        _Founding(work, plan, passphrases, now).build(folder, tell)
        work.rename(folder)
    except OSError as error:
        raise FleetError(f"{folder} cannot be made: {error.strerror}") from error
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Founding:
    def __init__(
        self, work: Path, plan: Plan, passphrases: Passphrases, now: Callable[[], float]
    ) -> None:
        self.layout = Layout(work)
        self.plan = plan
        self.now = now
        # All questions first: nobody is to wait before a terminal for the next one.
        self.own = passphrases.new(operators_own(plan.operator))
        self.online_passphrase = passphrases.new(ONLINE)
        self.offline_passphrase = passphrases.new(OFFLINE)
        self.online = Vault(self.layout.online_keys)
        self.offline = Vault(self.layout.offline_keys)
        self.operators = Vault(self.layout.operator_keys)
        self.authority = Authority(self.layout.authority, self.online, now)
        self.broker = BrokerFolder(self.layout, plan.settings)
        self.public: dict[str, Key] = {}

    def build(self, place: Path, tell: Callable[[str], None]) -> None:
        tell("keys")
        self._keys()
        tell("trust metadata")
        self._metadata()
        tell("certificates")
        replace(self.layout.settings, settings_text(self.plan.settings))
        self.broker.write_config(place / self.layout.broker.name)
        self._certificates()
        tell("database")
        self._database()

    def _keys(self) -> None:
        # The vaults make theirs only; this one is nobody else's business either.
        self.layout.online_keys.parent.mkdir(mode=0o700)
        for name in (*self._roots(), *self._releases()):
            self.public[name] = self.offline.create_key(name, self.offline_passphrase)
        for name in ONLINE_KEYS:
            self.public[name] = self.online.create_key(name, self.online_passphrase)
        self.online.create_wrapping_key(self.online_passphrase)
        name = self.plan.operator
        self.public[name] = self.operators.create_key(name, self.own)

    def _metadata(self) -> None:
        plan, repository = self.plan, Repository(self.layout.repository, self.now)
        signers = {
            name: self.offline.signer(name, self.offline_passphrase)
            for name in (*self._roots(), *self._releases())
        }
        root_file, targets_file = repository.create(
            root=KeySet(tuple(self.public[name] for name in self._roots()), plan.root_threshold),
            release=KeySet(
                tuple(self.public[name] for name in self._releases()), plan.release_threshold
            ),
            snapshot_key=self.public["snapshot"],
            timestamp_key=self.public["timestamp"],
            director_key=self.public["director"],
            operator_keys=[self.public[plan.operator]],
        )
        for request, names in ((root_file, self._roots()), (targets_file, self._releases())):
            for name in names:
                _sign(repository, request, signers[name])
        repository.complete()
        repository.publish_online([self._signer(name) for name in ("snapshot", "timestamp")])

    def _certificates(self) -> None:
        self.authority.create(self.plan.settings.name, self.online_passphrase)
        self.broker.write_server(self.authority, self.online_passphrase)
        self.controller_serial = self.broker.write_controller(
            self.authority, self.online_passphrase
        )

    def _database(self) -> None:
        plan = self.plan
        database = Database(self.layout.database_url(plan.settings))
        try:
            database.create()
            audit = Audit(self.layout.audit, database, lambda: self._signer(AUDIT_KEY), self.now)
            first = Actor(plan.operator, self.operators.signer(plan.operator, self.own))
            with database.session() as session:
                write_setting(session, CONTROLLER_SERIAL, self.controller_serial)
                offline = (*self._roots(), *self._releases())
                ids = {name: self.public[name].keyid for name in offline}
                write_setting(session, OFFLINE_KEYS, ids)
                add_operator(
                    session,
                    plan.operator,
                    Role.ADMIN,
                    int(self.now()),
                    key=self.public[plan.operator],
                    holds=offline,
                )
                self.broker.write_access(session)
                self.broker.write_revocations(session, self.authority, self.online_passphrase)
                audit.record(
                    session,
                    first,
                    "fleet.init",
                    {
                        "fleet": plan.settings.name,
                        "root": f"{plan.root_threshold} of {plan.root_keys}",
                        "release": f"{plan.release_threshold} of {plan.release_keys}",
                        "keys": {name: key.keyid for name, key in self.public.items()},
                    },
                )
        finally:
            database.close()

    def _signer(self, name: str) -> Signer:
        return self.online.signer(name, self.online_passphrase)

    def _roots(self) -> list[str]:
        return [f"root-{number}" for number in range(1, self.plan.root_keys + 1)]

    def _releases(self) -> list[str]:
        return [f"release-{number}" for number in range(1, self.plan.release_keys + 1)]


def _sign(repository: Repository, request: Path, signer: Signer) -> None:
    signature = add_signature(request, signer)
    repository.attach(signature)
