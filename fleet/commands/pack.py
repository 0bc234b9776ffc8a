"""`vigia fleet pack`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    opened,
    tell,
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


def pack(
    folder: FolderArgument,
    model: Annotated[Path, typer.Argument(help="FP32 ONNX file.")],
    family: FamilyOption,
    version: VersionOption,
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
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Pack a model into a sealed bundle: encrypted, hashed block by block, not released yet.

    Example: [bold]vigia fleet pack fleet yolo.onnx --family yolo --version 2 --golden pictures
    --truth truth.json --metric map50_95 --min-score 0.4[/bold]
    """
    from fleet.commands.packoptions import pack as pack_it
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.RELEASE, actor)
        row = pack_it(
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
    tell(
        json_output,
        {
            "family": family,
            "version": version,
            "digest": row.digest,
            "release_counter": row.release_counter,
            "folder": row.folder,
        },
        f"packed {family} {version}, release {row.release_counter}: {row.digest}",
        f"next: vigia fleet sign {folder} {family} {version} --key NAME",
    )
