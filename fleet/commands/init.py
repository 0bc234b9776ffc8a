"""`vigia fleet init`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.options import JsonOption, PassphraseOption, tell


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to make; new or empty.")],
    broker_host: Annotated[
        str, typer.Option(metavar="HOST", help="Name or address at which devices reach the broker.")
    ],
    broker_port: Annotated[int, typer.Option(min=1, max=65_535, help="Its TLS port.")] = 8883,
    host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Another name or address of the broker, for its certificate; may be repeated.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="What the fleet is called; default: as the folder.")
    ] = None,
    prefix: Annotated[
        str, typer.Option(help="First levels of all topics, as the devices' mqtt.prefix.")
    ] = "vigia/v1",
    operator: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The first operator, an admin; default: your user name."),
    ] = None,
    root_keys: Annotated[int, typer.Option(min=1, max=16, help="Keys that may change keys.")] = 3,
    root_threshold: Annotated[int, typer.Option(min=1, max=16, help="How many must agree.")] = 2,
    release_keys: Annotated[
        int, typer.Option(min=1, max=16, help="Keys that may release bundles.")
    ] = 2,
    release_threshold: Annotated[int, typer.Option(min=1, max=16, help="How many must agree.")] = 2,
    database: Annotated[
        str,
        typer.Option(metavar="URL", help="SQLAlchemy URL; passwords best in ~/.pgpass."),
    ] = "sqlite:///fleet.db",
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Make a fleet: keys, certificates, a broker that is ready to start, the first operator.

    Three passphrases are asked for: yours, that of the online keys (which commands here need) and
    that of the root and release keys, which belong on other machines: each is a file of its own
    that you can carry away, and bring back as a signature only.

    Example: [bold]vigia fleet init fleet --broker-host broker.example.org[/bold]
    """
    import getpass

    from agent.commands.output import output
    from fleet.founding import Plan, found
    from fleet.layout import make_settings
    from fleet.passphrases import Passphrases

    settings = make_settings(
        name=name or folder.resolve().name,
        prefix=prefix,
        broker_host=broker_host,
        broker_port=broker_port,
        broker_names=tuple(dict.fromkeys([broker_host, *(host or [])])),
        database=database,
    )
    plan = Plan(
        settings=settings,
        root_keys=root_keys,
        root_threshold=root_threshold,
        release_keys=release_keys,
        release_threshold=release_threshold,
        operator=operator or getpass.getuser(),
    )
    console = output(stderr=True)
    found(
        folder,
        plan,
        Passphrases(passphrase_file),
        lambda what: console.print(f"making {what} ...", style="dim"),
    )
    offline = sorted(path.name for path in (folder / "keys" / "offline").iterdir())
    tell(
        json_output,
        {
            "fleet": settings.name,
            "folder": str(folder.resolve()),
            "operator": plan.operator,
            "offline_keys": offline,
            "broker": str(folder.resolve() / "broker" / "mosquitto.conf"),
        },
        f"the fleet {settings.name} lies in {folder}; its first operator is {plan.operator}",
        "",
        f"1. Carry the offline keys away: {', '.join(offline)} in {folder / 'keys' / 'offline'},",
        "   each to another person or machine, with a copy somewhere safe, and delete them here.",
        f"   {root_threshold} of {root_keys} root keys change keys, "
        f"{release_threshold} of {release_keys} release keys release a bundle.",
        f"2. Start the broker: mosquitto -c {folder.resolve() / 'broker' / 'mosquitto.conf'}",
        f"3. Enrol a device: `vigia enroll` there, then vigia fleet enroll {folder} IDENTITY.json",
    )
