"""`vigia fleet simulate`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    opened,
    tell,
)

if TYPE_CHECKING:
    from fleet.simulate import Result

MIB = 2**20


def simulate(
    folder: FolderArgument,
    family: Annotated[str, typer.Argument(help="Of a published bundle.")],
    version: Annotated[str, typer.Argument(help="Of a published bundle.")],
    devices: Annotated[int, typer.Option(help="How many.", min=1, max=10_000)] = 100,
    window: Annotated[
        int, typer.Option(help="Blocks that each asks for at a time.", min=1, max=256)
    ] = 8,
    timeout: Annotated[float, typer.Option(help="Seconds until it is given up.", min=1)] = 600.0,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Rehearse a roll-out: many simulated devices take a bundle through your broker.

    They verify the metadata, signatures, their grants and every block as real ones do, keep nothing
    and run no model. They exist for this run only. Exit code 1 if one of them did not commit.

    Example: [bold]vigia fleet simulate fleet yolo 2 --devices 1000[/bold]
    """
    from fleet.commands.bars import step_bar
    from fleet.controlling import find_bundle
    from fleet.link import Outlet
    from fleet.roles import Permission
    from fleet.simulate import Simulation
    from fleet.simulate import simulate as run

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ASSIGN, actor)
        row = find_bundle(fleet, family, version)
        with Outlet(fleet.mqtt) as outlet, step_bar() as show:
            result = run(fleet, outlet, row, Simulation(devices, window, timeout), show)
        with fleet.database.session() as session:
            details = {"bundle": f"{family} {version}", "devices": devices}
            fleet.audit.record(session, who, "fleet.simulate", details)
    tell(json_output, result.as_dict(), *_lines(result))
    if not result.succeeded:
        raise typer.Exit(1)


def _lines(result: Result) -> list[str]:
    outcomes = ", ".join(f"{count} {name}" for name, count in result.outcomes.items())
    rate = result.bytes / MIB / max(result.seconds, 1e-3)
    return [
        f"{result.devices} devices: {outcomes}",
        f"{result.seconds:.1f} s, {result.bytes / MIB:.0f} MiB received, {rate:.0f} MiB/s",
        f"{result.disconnects} connections lost, {result.sent_again} pieces sent again",
        f"controller: {result.rss_begin_mb:.0f} MB at first, {result.rss_peak_mb:.0f} MB at most",
        *(f"{count} devices: {reason}" for reason, count in result.failures.items()),
    ]
