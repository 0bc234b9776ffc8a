"""`vigia fleet config`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fleet.commands.options import (
    ActorOption,
    FolderArgument,
    JsonOption,
    PassphraseOption,
    YesOption,
    opened,
    tell,
    when,
)

if TYPE_CHECKING:
    from fleet.configuring import Outcome, Sent, Wanted

app = typer.Typer(
    no_args_is_help=True,
    help="Change a device's settings from afar: cameras, thresholds, rates, logging.",
    epilog="What may come from afar, and what cannot: docs/how-to/settings-from-afar.md",
)

MAX_DAYS = 90
"""Devices refuse settings that are to be valid for longer."""

DeviceArgument = Annotated[str, typer.Argument(metavar="DEVICE", help="Device id.")]
WaitOption = Annotated[
    float, typer.Option(help="Seconds to wait for the device's answer; 0: do not wait.", min=0)
]
DaysOption = Annotated[
    int,
    typer.Option(help="A device that is away for longer does not take them.", min=1, max=MAX_DAYS),
]


@app.command("push")
def push(
    folder: FolderArgument,
    device: DeviceArgument,
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help="YAML with the sections that are to lie over the device's own."
        ),
    ],
    days: DaysOption = 30,
    wait: WaitOption = 30.0,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Have a device's settings be as in FILE, by a document that you sign.

    FILE is written like the device's own configuration, with only what differs:

        cameras:
          gate:
            source: rtsp://10.0.0.7/1
          door:
            fps: 5

    It lies over the device's own file, section by section and camera by camera, in the place of
    what was pushed before. Broker, identity, keys, paths and secrets are never taken from afar. A
    camera is ended with `enabled: false`. A mistake changes nothing on the device, and is told.

    Exit code 1 if the device did not take it, or did not answer in time.

    Example: [bold]vigia fleet config push fleet line-7 line-7.yaml[/bold]
    """
    from agent.configfile import read_fragment

    settings = read_fragment(file)
    _send(folder, device, settings, days, wait, actor, passphrase_file, json_output)


@app.command("clear")
def clear(
    folder: FolderArgument,
    device: DeviceArgument,
    days: DaysOption = 30,
    wait: WaitOption = 30.0,
    actor: ActorOption = None,
    passphrase_file: PassphraseOption = None,
    yes: YesOption = False,
    json_output: JsonOption = False,
) -> None:
    """Have a device go back to its own file, by a document that you sign.

    Exit code 1 if the device did not take it, or did not answer in time.

    Example: [bold]vigia fleet config clear fleet line-7[/bold]
    """
    if not yes:
        typer.confirm(f"Have {device} go back to its own file?", abort=True, err=True)
    _send(folder, device, {}, days, wait, actor, passphrase_file, json_output)


@app.command("show")
def show(
    folder: FolderArgument,
    device: DeviceArgument,
    wait: Annotated[float, typer.Option(help="Seconds to wait for the broker.", min=0)] = 3.0,
    passphrase_file: PassphraseOption = None,
    json_output: JsonOption = False,
) -> None:
    """Print what the broker holds for a device, who signed it, and what the device says of it.

    Example: [bold]vigia fleet config show fleet line-7[/bold]
    """
    from fleet.configuring import Hearing, read_wanted
    from fleet.groups import chosen_devices
    from fleet.link import Inbox, Outlet

    with opened(folder, passphrase_file) as fleet:
        with fleet.database.reading() as session:
            chosen_devices(session, [device])
        hearing = Hearing(fleet.settings.prefix, device)
        inbox = Inbox(fleet.settings.prefix)
        with Outlet(fleet.mqtt) as outlet:
            outlet.hear(hearing.filters, inbox)
            hearing.wait(inbox, wait)
        wanted = None if hearing.envelope is None else read_wanted(fleet, hearing.envelope)
    state = hearing.state
    tell(
        json_output,
        {"device": device, "desired": _as_json(wanted), "state": state},
        *_wanted_lines(device, wanted),
        *_state_lines(device, state),
    )


def _send(
    folder: Path,
    device: str,
    settings: dict[str, Any],
    days: int,
    wait: float,
    actor: str | None,
    passphrase_file: Path | None,
    json_output: bool,
) -> None:
    from fleet.configuring import DAY_S, Hearing, Outcome, send_settings
    from fleet.link import Inbox, Outlet
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.CONFIGURE, actor)
        hearing = Hearing(fleet.settings.prefix, device)
        inbox = Inbox(fleet.settings.prefix)
        with Outlet(fleet.mqtt) as outlet:
            if wait:
                outlet.hear(hearing.filters, inbox)
            sent = send_settings(fleet, who, outlet, device, settings, days * DAY_S)
            outcome = hearing.outcome(inbox, sent, wait) if wait else Outcome()
    tell(
        json_output,
        {
            "device": device,
            "counter": sent.counter,
            "digest": sent.digest,
            "taken": outcome.taken,
            "state": outcome.state or None,
            "reason": outcome.reason,
            "restart": list(outcome.restart),
        },
        *_outcome_lines(device, sent, outcome, waited=bool(wait)),
    )
    if wait and not (outcome.taken and outcome.state == "applied"):
        raise typer.Exit(1)


def _outcome_lines(device: str, sent: Sent, outcome: Outcome, *, waited: bool) -> list[str]:
    lines = [f"settings {sent.counter} are kept for {device} at the broker"]
    if not waited:
        return lines
    if outcome.taken is None:
        doubt = f"; it said: {outcome.reason}" if outcome.reason else ""
        return [*lines, f"{device}: no answer; it takes them when it is back{doubt}"]
    if not outcome.taken:
        return [*lines, f"{device}: not taken: {outcome.reason}"]
    failed = f": {outcome.reason}" if outcome.reason else ""
    lines.append(f"{device}: in force ({outcome.state}){failed}")
    if outcome.restart:
        keys = ", ".join(outcome.restart)
        lines.append(f"{device}: with a restart: {keys}; see `vigia fleet restart --help`")
    return lines


def _as_json(wanted: Wanted | None) -> dict[str, Any] | None:
    import json

    if wanted is None:
        return None
    document = wanted.document
    return {
        "counter": document.counter,
        "issued": document.issued,
        "expires": document.expires,
        "operator": wanted.operator,
        "settings": json.loads(document.settings),
    }


def _wanted_lines(device: str, wanted: Wanted | None) -> list[str]:
    import json

    if wanted is None:
        return [f"{device}: the broker holds no settings; its own file alone counts"]
    document = wanted.document
    who = wanted.operator or "nobody whom devices obey"
    what = json.dumps(json.loads(document.settings), indent=2, ensure_ascii=False)
    issued, until = when(document.issued), when(document.expires)
    return [
        f"{device}: settings {document.counter}, signed by {who}, {issued}; taken until {until}",
        *(["none: its own file alone counts"] if document.settings == "{}" else what.splitlines()),
    ]


def _state_lines(device: str, state: dict[str, Any] | None) -> list[str]:
    if state is None:
        return [f"{device}: it has said nothing of its settings"]
    desired, refused = state.get("desired"), state.get("not_taken")
    source = {"file": "of its own file", "desired": "from afar over its own file"}
    lines = [f"{device}: settings {source.get(state.get('source', ''), '')}: {state.get('state')}"]
    if isinstance(desired, dict):
        lines.append(f"{device}: took settings {desired.get('counter')}")
    if state.get("reason"):
        lines.append(f"{device}: {state['reason']}")
    if isinstance(refused, dict):
        which = f" {refused['counter']}" if "counter" in refused else ""
        lines.append(f"{device}: did not take settings{which}: {refused.get('reason')}")
    if state.get("restart"):
        lines.append(f"{device}: with a restart: {', '.join(map(str, state['restart']))}")
    return lines
