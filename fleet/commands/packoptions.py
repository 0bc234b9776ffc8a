"""Options that `vigia fleet pack` and `vigia fleet push` share, and what becomes of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fleet.auditchain import Actor
    from fleet.fleetfolder import Fleet
    from fleet.tables import Bundle

FamilyOption = Annotated[str, typer.Option(help="Model family: what one slot's models share.")]
VersionOption = Annotated[str, typer.Option(help="Version of the model; each is packed once.")]
GoldenOption = Annotated[
    Path | None, typer.Option(help="Folder of pictures that devices judge it by.")
]
TruthOption = Annotated[
    Path | None, typer.Option(help="What is in them: JSON, schema vigia.ground-truth/1.")
]
CalibrationOption = Annotated[Path | None, typer.Option(help="Folder of pictures, for int8.")]
Int8Option = Annotated[
    Path | None, typer.Option("--model-int8", help="The same model, quantized (Q/DQ ONNX).")
]
LabelsOption = Annotated[Path | None, typer.Option(help="Text file of class names.")]
CardOption = Annotated[Path | None, typer.Option(help="Text about the model, for people.")]
PrecisionOption = Annotated[str, typer.Option(help="auto, fp32, bf16, fp16 or int8.")]
MetricOption = Annotated[
    str | None,
    typer.Option(
        help="map50_95, top1 or agreement (with the model that serves); default: map50_95 if the "
        "truth is given."
    ),
]
MinScoreOption = Annotated[
    float | None,
    typer.Option(help="Least score on the golden set, 0 to 1; agreement: 0.7.", min=0, max=1),
]
MaxDropOption = Annotated[
    float | None,
    typer.Option(help="Largest loss against the model that serves; default: 0.05.", min=0, max=1),
]
LatencyOption = Annotated[
    float | None, typer.Option("--latency-p95-ms", help="Slowest 95th percentile.", min=0.001)
]
ShadowOption = Annotated[
    float | None, typer.Option(help="Seconds beside the model that serves.", min=0)
]
AgreementOption = Annotated[
    float | None, typer.Option(help="Least agreement with it meanwhile, 0 to 1.", min=0, max=1)
]
CanaryOption = Annotated[float | None, typer.Option(help="Seconds on trial.", min=0)]
RulesOption = Annotated[
    Path | None,
    typer.Option(
        help="JSON with more of the manifest: compat, build, gate, shadow, canary, provenance, "
        "min_release_counter; options count more."
    ),
]
ExpiresOption = Annotated[
    int, typer.Option("--expires-days", help="Devices begin with it no later.", min=1, max=3650)
]


def pack(
    fleet: Fleet,
    actor: Actor,
    family: str,
    version: str,
    expires_days: int,
    rules: Path | None,
    options: dict[str, Any],
    **files: Path | None,
) -> Bundle:
    """Pack with the bar that shows how it goes, and audit it.

    Args:
        fleet: gets the bundle.
        actor: who packs.
        family: of the model.
        version: of the model.
        expires_days: until no device begins with it.
        rules: file with more of the manifest.
        options: as `fleet.manifestrules.read_rules` takes them.
        **files: as `fleet.packing.Contents` names them.
    """
    from fleet.commands.bars import byte_bar
    from fleet.manifestrules import facts, guarded, read_rules
    from fleet.packing import Contents, pack_bundle

    model = files.pop("model")
    assert model is not None
    asked = guarded(read_rules(rules, options), truth=files.get("truth") is not None)
    decided = facts(asked, family, version, fleet.now(), expires_days)
    with byte_bar(f"packing {family} {version}") as tell:
        row = pack_bundle(
            fleet.database,
            fleet.vault.wrap_secret,
            fleet.layout.bundles,
            Contents(model, **files),
            decided,
            tell,
        )
    with fleet.database.session() as session:
        details = {"family": family, "version": version, "digest": row.digest}
        fleet.audit.record(session, actor, "bundle.pack", details)
    return row
