"""`vigia fleet push`."""

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
    YesOption,
    opened,
)
from fleet.commands.packoptions import (
    AgreementOption,
    CalibrationOption,
    CanaryOption,
    CardOption,
    ExpiresOption,
    FamilyOption,
    GoldenOption,
    Int8Option,
    LabelsOption,
    LatencyOption,
    MaxDropOption,
    MetricOption,
    MinScoreOption,
    PrecisionOption,
    RulesOption,
    ShadowOption,
    TruthOption,
    VersionOption,
)


def push(
    folder: FolderArgument,
    family: FamilyOption,
    version: VersionOption,
    model: Annotated[
        Path | None, typer.Argument(help="FP32 ONNX file; leave it out if it is packed already.")
    ] = None,
    key: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Offline release key to sign with; may be repeated."),
    ] = None,
    golden: GoldenOption = None,
    truth: TruthOption = None,
    calibration: CalibrationOption = None,
    model_int8: Int8Option = None,
    labels: LabelsOption = None,
    card: CardOption = None,
    precision: PrecisionOption = "auto",
    metric: MetricOption = None,
    min_score: MinScoreOption = None,
    max_drop: MaxDropOption = None,
    latency_p95_ms: LatencyOption = None,
    shadow_seconds: ShadowOption = None,
    min_agreement: AgreementOption = None,
    canary_seconds: CanaryOption = None,
    rules: RulesOption = None,
    expires_days: ExpiresOption = 365,
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
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Pack, sign, publish, assign and watch, in one go.

    What was done before is not done again: without a model the packed bundle is taken, and a
    release that is signed needs no key. Where release keys are on other machines, use the single
    commands. Exit code 0 if every stage succeeded, 1 if the campaign stopped.

    Example: [bold]vigia fleet push fleet yolo.onnx --family yolo --version 2 --key release-1 --key
    release-2 --group hall-2 --stages 10,100[/bold]
    """
    from fleet.commands.bars import block_bar
    from fleet.commands.driving import drive
    from fleet.commands.packoptions import pack
    from fleet.commands.sign import confirm
    from fleet.controlling import find_bundle, open_rollout, publish
    from fleet.errors import FleetError
    from fleet.link import Outlet
    from fleet.ordering import campaign_name, order_campaign
    from fleet.releasing import complete, sign_pending, stage
    from fleet.roles import Permission

    wanted = targets(device, group, stages, success, max_errors, min_sample, deadline, stricter)
    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.RELEASE, actor)
        if model is not None:
            row = pack(
                fleet,
                who,
                family,
                version,
                expires_days,
                rules,
                {
                    "build.precision": precision,
                    "gate.metric": metric,
                    "gate.min_score": min_score,
                    "gate.max_drop_vs_active": max_drop,
                    "gate.latency_p95_ms": latency_p95_ms,
                    "shadow.seconds": shadow_seconds,
                    "shadow.min_agreement": min_agreement,
                    "canary.seconds": canary_seconds,
                },
                model=model,
                golden=golden,
                truth=truth,
                calibration=calibration,
                model_int8=model_int8,
                labels=labels,
                card=card,
            )
        else:
            row = find_bundle(fleet, family, version)
        stage(fleet, row)
        sign_pending(fleet, key or (), lambda review: confirm(review, yes))
        done = complete(fleet)
        if not done.complete:
            raise FleetError("; ".join(done.missing))
        name = campaign or campaign_name(row)
        with Outlet(fleet.mqtt) as outlet:
            with block_bar("publishing") as show:
                blocks = publish(fleet, outlet, row, show)
            with fleet.database.session() as session:
                details = {"bundle": f"{family} {version}", "keys": key or [], "blocks": blocks}
                fleet.audit.record(session, who, "bundle.publish", details)
            order_campaign(fleet, who, row, wanted, slot=slot, name=name, approvals=approval or ())
            drive(open_rollout(fleet, outlet, name), json_output=json_output)
