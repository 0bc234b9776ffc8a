"""What lies where in a fleet folder, and the few facts that never change.

    fleet.json                 which fleet this is (`Settings`); no secret
    fleet.db                   devices, groups, bundles, campaigns, operators
    keys/offline/NAME.key      root and release keys: take them to other machines
    keys/online/NAME.key       what commands here sign with
    keys/operators/NAME.key    one for each operator
    repository/                TUF metadata and signing requests
    bundles/                   sealed bundles
    broker/                    all that Mosquitto needs
    controller/                the controller's own certificate for the broker
    audit/                     who did what

Everything is for its owner only, but nothing secret lies there unencrypted except the TLS keys of
broker and controller.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from agent.bundle.strict import Document, Name, Text, decode
from agent.config import MqttConfig, TlsConfig
from agent.errors import ManifestError
from engines.durable import read_bounded
from fleet.brokerfiles import AUTHORITY
from fleet.errors import FleetError

if TYPE_CHECKING:
    from pathlib import Path

FLEET_FILE = "fleet.json"
MAX_SETTINGS_BYTES = 16 * 2**10

DEFAULT_DATABASE = "sqlite:///fleet.db"
DEFAULT_PORT = 8883

CONTROLLER_CERTIFICATE = "controller.pem"
CONTROLLER_KEY = "controller.key"


class Settings(Document):
    """What a fleet is called and where its broker is.

    Attributes:
        prefix: first levels of all topics, as the devices' `mqtt.prefix`.
        broker_host, broker_port: where devices and commands reach the broker.
        broker_names: all host names and addresses that its certificate is for.
        database: SQLAlchemy's URL; the path of SQLite is relative to the fleet folder.
    """

    schema_id: Literal["vigia.fleet/1"] = Field(default="vigia.fleet/1", alias="schema")
    name: Name
    prefix: Annotated[str, Field(pattern=r"^[^/#+\x00\s]+(/[^/#+\x00\s]+)*$", max_length=128)]
    broker_host: Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,253}$")]
    broker_port: Annotated[int, Field(ge=1, le=65_535)] = DEFAULT_PORT
    broker_names: tuple[Text, ...] = Field(min_length=1, max_length=64)
    database: Text = DEFAULT_DATABASE


class Layout:
    """Places in a fleet folder.

    Args:
        folder: the whole.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.settings = folder / FLEET_FILE
        self.offline_keys = folder / "keys" / "offline"
        self.online_keys = folder / "keys" / "online"
        self.operator_keys = folder / "keys" / "operators"
        self.repository = folder / "repository"
        self.bundles = folder / "bundles"
        self.broker = folder / "broker"
        self.controller = folder / "controller"
        self.audit = folder / "audit"
        self.authority = folder / "authority"

    def read_settings(self) -> Settings:
        """Read `fleet.json`.

        Raises:
            FleetError: this is no fleet folder.
        """
        try:
            data = read_bounded(self.settings, MAX_SETTINGS_BYTES)
        except OSError as error:
            raise FleetError(
                f"{self.folder} is no fleet folder ({FLEET_FILE}: {error.strerror}); "
                "make one with `vigia fleet init`"
            ) from None
        try:
            return decode(Settings, data or b"", str(self.settings), MAX_SETTINGS_BYTES)
        except ManifestError as error:
            raise FleetError(str(error)) from None

    def database_url(self, settings: Settings) -> str:
        """The database's URL, wherever the folder lies now."""
        scheme, slashes, path = settings.database.partition(":///")
        if not scheme.startswith("sqlite") or not slashes or path.startswith("/"):
            return settings.database
        return f"{scheme}:///{(self.folder / path).resolve()}"

    def controller_mqtt(self, settings: Settings) -> MqttConfig:
        """How commands connect to the broker."""
        return MqttConfig(
            host=settings.broker_host,
            port=settings.broker_port,
            prefix=settings.prefix,
            tls=TlsConfig(
                ca_file=self.broker / AUTHORITY,
                cert_file=self.controller / CONTROLLER_CERTIFICATE,
                key_file=self.controller / CONTROLLER_KEY,
            ),
        )


def settings_text(settings: Settings) -> bytes:
    """`fleet.json`, to be read by people as well."""
    return (json.dumps(json.loads(settings.encode()), indent=2) + "\n").encode()


def make_settings(**values: object) -> Settings:
    """Settings from what a person gave.

    Raises:
        FleetError: a value cannot be; names it.
    """
    try:
        return decode(Settings, json.dumps(values).encode(), "the fleet", MAX_SETTINGS_BYTES)
    except ManifestError as error:
        raise FleetError(f"{error}; see `vigia fleet init --help`") from None
