"""`vigia fleet assign`, `approve` and `stop`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.campaignoptions import (
    ApprovalsOption,
    CampaignOption,
    DeadlineOption,
    DevicesOption,
    ErrorsOption,
    GroupsOption,
    SampleOption,
    SlotOption,
    StagesOption,
    StricterOption,
    SuccessOption,
    targets,
)
from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    opened,
    tell,
)

FamilyArgument = Annotated[str, typer.Argument(help="Of the bundle.")]
VersionArgument = Annotated[str, typer.Argument(help="Of the bundle.")]


def assign(
    folder: FolderArgument,
    family: FamilyArgument,
    version: VersionArgument,
    device: DevicesOption = None,
    group: GroupsOption = None,
    stages: StagesOption = "100",
    success: SuccessOption = 0.9,
    max_errors: ErrorsOption = 0.2,
    min_sample: SampleOption = 1,
    deadline: DeadlineOption = 3600,
    stricter: StricterOption = None,
    slot: SlotOption = "main",
    campaign: CampaignOption = None,
    approval: ApprovalsOption = None,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Begin a campaign: assign a published bundle to the devices of its first stage.

    [bold]vigia fleet watch[/bold] hears their reports and opens the stages that follow.

    Example: [bold]vigia fleet assign fleet yolo 2 --group hall-2 --stages 10,50,100[/bold]
    """
    from fleet.commands.rollouttable import as_json, summary
    from fleet.controlling import find_bundle, open_rollout
    from fleet.link import Outlet
    from fleet.ordering import campaign_name, order_campaign
    from fleet.roles import Permission

    wanted = targets(device, group, stages, success, max_errors, min_sample, deadline, stricter)
    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ASSIGN, actor)
        row = find_bundle(fleet, family, version)
        name = campaign or campaign_name(row)
        with Outlet(fleet.mqtt) as outlet:
            order_campaign(fleet, who, row, wanted, slot=slot, name=name, approvals=approval or ())
            rollout = open_rollout(fleet, outlet, name)
            rollout.act()
            outlet.settle()
    if json_output:
        typer.echo(as_json(rollout))
        return
    tell(
        False,
        {},
        f"campaign {name}: {summary(rollout.campaign)}",
        f"next: vigia fleet watch {folder} {name}",
    )


def approve(
    folder: FolderArgument,
    family: FamilyArgument,
    version: VersionArgument,
    campaign: Annotated[str, typer.Option(help="Name that the campaign will have.")],
    out: Annotated[Path, typer.Option(help="File for the approval.")],
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Agree to a campaign that somebody else orders, where the release keys demand it.

    Example: [bold]vigia fleet approve fleet yolo 2 --campaign june --out ben.json --as ben[/bold]
    """
    from engines.durable import write_new
    from fleet.approvals import approve
    from fleet.controlling import find_bundle
    from fleet.errors import FleetError
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ASSIGN, actor)
        row = find_bundle(fleet, family, version)
        envelope = approve(fleet, who, row, campaign)
        with fleet.database.session() as session:
            details = {"campaign": campaign, "bundle": f"{family} {version}"}
            fleet.audit.record(session, who, "campaign.approve", details)
    try:
        write_new(out, envelope)
    except OSError as error:
        raise FleetError(f"{out} cannot be written: {error.strerror}") from error
    tell(
        json_output,
        {"approval": str(out), "campaign": campaign},
        f"{who.name} approves {family} {version} for campaign {campaign}: {out}",
    )


def stop(
    folder: FolderArgument,
    campaign: Annotated[str, typer.Argument(help="Name of the campaign.")],
    reason: Annotated[str, typer.Option(help="Why, for the log.")] = "stopped by hand",
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Stop a campaign for good: nobody is assigned any more, and who has not begun does not.

    Devices that have committed keep the model; see [bold]vigia fleet rollback[/bold].

    Example: [bold]vigia fleet stop fleet yolo-2-3fa9c1[/bold]
    """
    from agent.wire.topics import Topics
    from fleet.link import Outlet
    from fleet.ordering import stop_campaign
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ASSIGN, actor)
        waiting = stop_campaign(fleet, who, campaign, reason)
        with Outlet(fleet.mqtt) as outlet:
            for device in waiting:
                outlet.send(Topics(fleet.settings.prefix, device).assignment, b"")
            outlet.settle()
    tell(
        json_output,
        {"campaign": campaign, "taken_back": waiting},
        f"campaign {campaign} is stopped; taken back from {len(waiting)} devices",
    )
