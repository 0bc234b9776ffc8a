"""Options that `vigia fleet assign` and `vigia fleet push` share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from fleet.ordering import Targets

DevicesOption = Annotated[
    list[str] | None, typer.Option("--device", help="A device; may be repeated.")
]
GroupsOption = Annotated[
    list[str] | None, typer.Option("--group", help="All devices of a group; may be repeated.")
]
StagesOption = Annotated[
    str,
    typer.Option(
        "--stages", "--percent", help="Percent of the devices in each stage, e.g. 10,50,100."
    ),
]
SuccessOption = Annotated[
    float, typer.Option(help="Share of a stage that must commit.", min=0, max=1)
]
ErrorsOption = Annotated[
    float,
    typer.Option("--max-errors", help="Share of failures that stops it.", min=0, max=1),
]
SampleOption = Annotated[
    int, typer.Option("--min-sample", help="Results before that share is judged.", min=1)
]
DeadlineOption = Annotated[
    float, typer.Option("--deadline", help="Seconds that a device may take.", min=1, max=2_592_000)
]
SlotOption = Annotated[str, typer.Option(help="Model slot on the devices.")]
CampaignOption = Annotated[
    str | None, typer.Option("--campaign", help="Name of the campaign; default: a new one.")
]
StricterOption = Annotated[
    Path | None,
    typer.Option(
        metavar="RULES.json",
        help="Rules of gate, shadow and canary that are stricter than the bundle's; as --rules.",
    ),
]
ApprovalsOption = Annotated[
    list[Path] | None,
    typer.Option("--approval", help="Approval of another operator; may be repeated."),
]


def targets(
    devices: list[str] | None,
    groups: list[str] | None,
    stages: str,
    success: float,
    max_errors: float,
    min_sample: int,
    deadline: float,
    stricter: Path | None,
) -> Targets:
    """What they say.

    Raises:
        typer.BadParameter: the stages are no numbers.
        FleetError: the file of rules cannot be read.
    """
    from fleet.manifestrules import read_stricter
    from fleet.ordering import Targets

    try:
        percents = tuple(float(part) for part in stages.split(","))
    except ValueError:
        raise typer.BadParameter("--stages: percentages with commas, e.g. 10,50,100") from None
    return Targets(
        tuple(devices or ()),
        tuple(groups or ()),
        percents,
        success,
        max_errors,
        min_sample,
        deadline,
        read_stricter(stricter),
    )
