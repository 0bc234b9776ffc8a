"""How a campaign looks on a terminal, and as lines where there is none."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.commands.output import plain
from fleet.campaign import Outcome, Status

if TYPE_CHECKING:
    from agent.wire.updatestate import UpdateState
    from fleet.campaign import Campaign, Member
    from fleet.rollout import Rollout

MAX_ROWS = 30
"""Devices shown at once; those that wait or failed come first."""

STYLES = {
    Outcome.COMMITTED: "green",
    Outcome.REJECTED: "bold red",
    Outcome.ROLLED_BACK: "bold red",
    Outcome.TIMED_OUT: "bold red",
    Outcome.LEFT: "dim",
    Outcome.WAITING: "",
}

STATUS_STYLES = {Status.RUNNING: "", Status.SUCCEEDED: "bold green", Status.STOPPED: "bold red"}

ORDER = (
    Outcome.REJECTED,
    Outcome.ROLLED_BACK,
    Outcome.TIMED_OUT,
    Outcome.WAITING,
    Outcome.COMMITTED,
    Outcome.LEFT,
)

MIB = 2**20


def summary(campaign: Campaign) -> str:
    """One line: `RUNNING, stage 2 of 3: 5 COMMITTED, 1 REJECTED, 4 WAITING of 10`."""
    tally = campaign.tally()
    counts = ", ".join(f"{tally[outcome]} {outcome.value}" for outcome in ORDER if tally[outcome])
    where = f"stage {campaign.opened} of {len(campaign.plan.stages)}"
    line = f"{campaign.status.value}, {where}: {counts} of {len(campaign.members)}"
    return f"{line}; {campaign.reason}" if campaign.reason else line


def live_table(rollout: Rollout) -> Group:
    """The devices of a campaign, those first that something is to be seen of."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("device", "stage", "outcome", "state"):
        table.add_column(heading)
    table.add_column("%", justify="right")
    table.add_column("MiB/s", justify="right")
    table.add_column("what", overflow="fold")
    members = sorted(rollout.campaign.members.items(), key=lambda item: _rank(*item))
    for device, member in members[:MAX_ROWS]:
        state = rollout.router.board.rows.get((device, rollout.offer.slot))
        table.add_row(*_row(rollout, device, member, state), style=STYLES[member.outcome])
    status = Text(summary(rollout.campaign), STATUS_STYLES[rollout.campaign.status])
    more = len(members) - MAX_ROWS
    return (
        Group(table, Text(f"... and {more} more", "dim"), status)
        if more > 0
        else Group(table, status)
    )


def lines(rollout: Rollout, told: dict[str, str]) -> list[str]:
    """What is new since `told`, a line for each device; `told` is brought up to date."""
    new = []
    for device, member in rollout.campaign.members.items():
        state = rollout.router.board.rows.get((device, rollout.offer.slot))
        now = _words(rollout, member, state)
        if now and told.get(device) != now:
            told[device] = now
            new.append(f"{device}: {now}")
    return new


def as_json(rollout: Rollout) -> str:
    """How it ended."""
    campaign = rollout.campaign
    value: dict[str, Any] = {
        "campaign": rollout.offer.campaign,
        "digest": rollout.offer.digest,
        "status": campaign.status.value,
        "reason": campaign.reason,
        "devices": {device: member.outcome.value for device, member in campaign.members.items()},
        "dropped": dict(rollout.inbox.dropped),
        "reports": dict(rollout.router.reports.counts),
        "requests": dict(rollout.router.answers.counts),
    }
    return json.dumps(value)


def _rank(device: str, member: Member) -> tuple[int, str]:
    # Who waits for a later stage comes last.
    waits = member.assigned_at is None
    return (len(ORDER) if waits else ORDER.index(member.outcome), device)


def _row(
    rollout: Rollout, device: str, member: Member, state: UpdateState | None
) -> tuple[Text | str, ...]:
    own = _own(rollout, state)
    outcome = "" if member.assigned_at is None else member.outcome.value
    if own is None:
        return (plain(device), str(member.stage + 1), outcome, "", "", "", "")
    return (
        plain(device),
        str(member.stage + 1),
        outcome,
        plain(own.state),
        f"{own.percent:.0f}" if own.total else "",
        f"{own.rate / MIB:.1f}" if own.rate else "",
        plain(own.reason or own.step),
    )


def _words(rollout: Rollout, member: Member, state: UpdateState | None) -> str:
    if member.outcome is not Outcome.WAITING:
        own = _own(rollout, state)
        reason = f"; {own.reason}" if own is not None and own.reason else ""
        return _printable(f"{member.outcome.value}{reason}")
    own = _own(rollout, state)
    return "" if own is None else _printable(own.state)


def _own(rollout: Rollout, state: UpdateState | None) -> UpdateState | None:
    """A device's words, if they are of this campaign."""
    if state is None or state.campaign != rollout.offer.campaign:
        return None
    return state


def _printable(text: str) -> str:
    return plain(text).plain
