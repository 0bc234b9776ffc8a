"""Sends a command to devices and shows what they answer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from fleet.commands.options import opened, tell

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from fleet.ordering import Verb


def obey(
    folder: Path,
    verb: Verb,
    done: str,
    *,
    devices: Sequence[str],
    groups: Sequence[str],
    slot: str,
    wait: float,
    actor: str | None,
    passphrase_file: Path | None,
    json_output: bool,
) -> None:
    """Command devices, print their answers, and exit 1 if one refused or did not answer.

    Args:
        folder: of the fleet.
        verb: what they are to do.
        done: what is printed of a device that did it.
        devices: who, by name.
        groups: who, by group.
        slot: of which model.
        wait: for answers, seconds.
        actor: the operator.
        passphrase_file: for the keys.
        json_output: whether it is printed as JSON.

    Raises:
        typer.Exit: not all have done it.
    """
    from fleet.campaigns import Campaigns
    from fleet.commanding import Hearing, send_commands
    from fleet.controlling import inbox_for
    from fleet.groups import chosen_devices
    from fleet.link import Outlet
    from fleet.roles import Permission

    with opened(folder, passphrase_file) as fleet:
        who = fleet.act(Permission.ASSIGN, actor)
        with fleet.database.reading() as session:
            names = [row.id for row in chosen_devices(session, devices, groups)]
        prefix = fleet.settings.prefix
        inbox = inbox_for(prefix, len(names))
        hearing = Hearing(Campaigns(fleet.database, fleet.now), prefix, names, slot)
        with Outlet(fleet.mqtt) as outlet:
            outlet.hear(hearing.filters, inbox)
            sent = send_commands(fleet, who, outlet, names, slot, verb)
            found = hearing.answers(inbox, sent, wait)
    words = {True: done, False: "refused", None: "no answer"}
    tell(
        json_output,
        {name: {"done": answer.done, "reason": answer.reason} for name, answer in found.items()},
        *(
            f"{name}: {words[answer.done]}{f': {answer.reason}' if answer.reason else ''}"
            for name, answer in found.items()
        ),
    )
    if not all(answer.done for answer in found.values()):
        raise typer.Exit(1)
