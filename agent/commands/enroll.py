"""`vigia enroll`: how this device becomes one of a fleet."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.commands import DEFAULT_CONFIG, ConfigOption, JsonOption

if TYPE_CHECKING:
    from agent.config import Config

app = typer.Typer(invoke_without_command=True)

StateOption = Annotated[
    Path | None,
    typer.Option("--state", metavar="DIR", help="State folder; default: as the file says."),
]
DeviceOption = Annotated[
    str | None, typer.Option("--device", metavar="ID", help="Device id; default: as the file says.")
]


class KemChoice(str, Enum):
    """Kinds of keys for grants."""

    P256 = "p256"
    HYBRID = "mlkem768-x25519"


@app.callback()
def enroll(
    context: typer.Context,
    config: ConfigOption = DEFAULT_CONFIG,
    state: StateOption = None,
    device: DeviceOption = None,
    kem: Annotated[
        KemChoice,
        typer.Option(
            help="Kind of the key that models are encrypted to, if it is made now; "
            "mlkem768-x25519 withstands quantum computers."
        ),
    ] = KemChoice.P256,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="Write the identity there."),
    ] = None,
    json_output: JsonOption = False,
) -> None:
    """Make this device one of a fleet: make its keys and show its identity.

    Run it as the user that the agent runs as. Carry the identity to the controller (vigia fleet
    enroll), compare the fingerprint there, and bring the answer back (vigia enroll install).
    Without FILE the identity goes to standard output, the fingerprint to standard error. Keys that
    are there already stay, so it may be repeated.

    Example: [bold]vigia enroll --out line-7.identity.json[/bold]
    """
    if context.invoked_subcommand is not None:
        # `install` has the same options, and takes them from either place.
        context.obj = (config, state, device)
        return
    import json

    from agent.bundle.identity import fingerprint, read_identity
    from agent.commands.output import output
    from agent.config import UpdatesConfig
    from agent.device import hardware_class
    from agent.enrol import identify

    settings, folder, name = _where(config, state, device)
    updates = (settings and settings.updates) or UpdatesConfig()
    data = identify(updates.keys, folder, name, updates.hw_class or hardware_class(), kem.value)
    identity = read_identity(data)
    mark = fingerprint(identity)
    if out is not None:
        _write(out, data)
    if json_output:
        shown = {
            "device": name,
            "fingerprint": mark,
            "key_level": identity.key_level,
            "kem": identity.kem,
            "hw_class": identity.hw_class,
            "identity": json.loads(data),
        }
        typer.echo(json.dumps(shown))
        return
    if out is None:
        typer.echo(data)
    tell = output(stderr=True).print
    tell(f"device {name}, fingerprint {mark}, keys {identity.key_level}")
    if out is not None:
        tell(f"next, at the controller: vigia fleet enroll DIR {out.name}")


@app.command("install")
def install(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The controller's answer.")],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="The configuration file."),
    ] = None,
    state: StateOption = None,
    device: DeviceOption = None,
    new_fleet: Annotated[
        bool, typer.Option("--new-fleet", help="Forget the fleet that this device is of.")
    ] = False,
    json_output: JsonOption = False,
) -> None:
    """Take the controller's answer, and print the lines that the configuration needs.

    Example: [bold]vigia enroll install line-7.enrolment.json[/bold]
    """
    import hashlib
    import json

    from agent.commands.output import output
    from agent.enrol import install as take
    from agent.enrol import settings_text

    before = context.obj
    settings, folder, name = _where(config or before[0], state or before[1], device or before[2])
    # A name that was only made of the host's is nobody's wish.
    wished = name if device or before[2] or (settings and settings.device.id) else None
    enrolment = take(_read(file), folder, wished, new_fleet=new_fleet)
    lines = settings_text(enrolment, folder)
    root = hashlib.sha256(enrolment.root.encode()).hexdigest()
    if json_output:
        shown = {"device": enrolment.device, "state_dir": str(folder), "root_sha256": root}
        typer.echo(json.dumps({**shown, "settings": lines}))
        return
    tell = output(stderr=True).print
    tell(f"device {enrolment.device} is enrolled; root of trust {root[:16]}")
    tell("the configuration needs these lines:")
    typer.echo(lines)


def _where(config: Path, state: Path | None, device: str | None) -> tuple[Config | None, Path, str]:
    """The configuration if there is one yet, the state folder, and the device id."""
    import re

    from agent.config import DeviceConfig
    from agent.configbase import NAME_PATTERN
    from agent.configfile import load
    from agent.device import device_id
    from agent.errors import ConfigError
    from agent.statefolder import default_state_dir

    settings = load(config) if config != DEFAULT_CONFIG or config.exists() else None
    if device is not None and not re.fullmatch(NAME_PATTERN, device):
        raise ConfigError("--device: letters, digits, `_` and `-`, at most 64")
    configured = settings and settings.updates and settings.updates.state_dir
    name = device or device_id(settings.device if settings else DeviceConfig())
    return settings, state or configured or default_state_dir(), name


def _read(file: Path) -> bytes:
    from agent.bundle.documents import MAX_ENROLMENT_BYTES
    from agent.errors import ConfigError
    from engines.durable import read_bounded

    try:
        data = read_bounded(file, MAX_ENROLMENT_BYTES)
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror or error}") from error
    if data is None:
        raise ConfigError(f"{file} is larger than any answer of a controller")
    return data


def _write(file: Path, data: bytes) -> None:
    from agent.errors import ConfigError

    try:
        file.write_bytes(data)
    except OSError as error:
        raise ConfigError(f"{file} cannot be written: {error.strerror}") from error
