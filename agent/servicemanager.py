"""Asks systemd: one method a question, so that tests can put another in its place."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.errors import ServiceError
from agent.servicelayout import REST_TIMER, UNIT

if TYPE_CHECKING:
    from collections.abc import Sequence

ASK_TIMEOUT_S = 30.0
START_TIMEOUT_S = 240.0
"""More than the unit's TimeoutStartSec=, which ends a start that hangs."""

LOG_LINES = 20
"""Of the journal that a failed start is told with."""

MAX_TOLD = 2000
"""Characters of another program's words that an error repeats."""

PROPERTIES = (
    "LoadState", "ActiveState", "SubState", "UnitFileState", "Result", "StatusText", "MainPID",
    "NRestarts", "ActiveEnterTimestamp", "MemoryCurrent", "TasksCurrent", "WatchdogUSec",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class UnitState:
    """What systemd says of the service.

    Attributes:
        values: the properties `PROPERTIES` as `systemctl show` gives them.
    """

    values: dict[str, str]

    @property
    def installed(self) -> bool:
        """There is a unit."""
        return self.values.get("LoadState") == "loaded"

    @property
    def active(self) -> bool:
        """It runs and is ready."""
        return self.values.get("ActiveState") in ("active", "reloading")


class Manager:
    """The systemd of this machine, by its command."""

    def state(self) -> UnitState:
        """How the service is.

        Raises:
            ServiceError: systemd cannot be asked.
        """
        text = self._systemctl("show", UNIT, f"--property={','.join(PROPERTIES)}")
        pairs = (line.partition("=") for line in text.splitlines())
        return UnitState({key: value for key, _, value in pairs})

    def reload_units(self) -> None:
        """Read unit files anew."""
        self._systemctl("daemon-reload")

    def enable(self) -> None:
        """Start it at every boot."""
        self._systemctl("enable", "--quiet", UNIT)

    def restart(self) -> None:
        """Start it anew, and wait until it is ready.

        Raises:
            ServiceError: it did not become ready; with the end of its log.
        """
        self._run(["systemctl", "reset-failed", UNIT], check=False)
        try:
            self._systemctl("restart", UNIT, timeout_s=START_TIMEOUT_S)
        except ServiceError as error:
            raise ServiceError(f"{error}\n{self.log()}") from error

    def remove(self) -> None:
        """Stop it for good; nothing happens where there is none."""
        for arguments in (["disable", "--now", "--quiet", UNIT], ["stop", REST_TIMER]):
            self._run(["systemctl", *arguments], check=False)

    def forget(self) -> None:
        """Forget failures of units that are gone."""
        self._run(["systemctl", "reset-failed", UNIT], check=False)

    def create(self, sysusers: str, tmpfiles: str) -> None:
        """Make the user and the folders."""
        self._run(["systemd-sysusers", sysusers])
        self._run(["systemd-tmpfiles", "--create", tmpfiles])

    def log(self) -> str:
        """The last lines of the service's journal."""
        command = ["journalctl", "-u", UNIT, "-n", str(LOG_LINES), "--no-pager", "-o", "cat"]
        return self._run(command, check=False).strip()[-MAX_TOLD:]

    def delete_user(self, name: str) -> None:
        """Remove a user with its group; nothing happens where there is none."""
        self._run(["userdel", name], check=False)

    def _systemctl(self, *arguments: str, timeout_s: float = ASK_TIMEOUT_S) -> str:
        return self._run(["systemctl", *arguments], timeout_s=timeout_s)

    def _run(
        self, command: Sequence[str], *, check: bool = True, timeout_s: float = ASK_TIMEOUT_S
    ) -> str:
        shown = " ".join(command)
        try:
            done = subprocess.run(  # noqa: S603 - fixed commands of the system
                command, capture_output=True, text=True, errors="replace", check=False,
                timeout=timeout_s,
            )  # fmt: skip
        except FileNotFoundError as error:
            raise ServiceError(
                f"{command[0]} is missing: this machine is not run by systemd; "
                "start `vigia run` by what runs it"
            ) from error
        except subprocess.TimeoutExpired as error:
            raise ServiceError(f"`{shown}` took more than {timeout_s:g} s") from error
        if check and done.returncode != 0:
            told = (done.stderr.strip() or done.stdout.strip())[-MAX_TOLD:]
            raise ServiceError(f"`{shown}` failed with code {done.returncode}: {told}")
        return done.stdout
