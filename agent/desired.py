"""Settings from afar: which are in force, and how they are kept over restarts.

What is kept is the signed envelope, in the folder of the last good copy. It was verified when it
came; who can write to that folder can as well change the device's own file.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from agent.errors import ConfigError, ManifestError
from agent.wire.configstate import ConfigState, Refused, Version
from engines.durable import read_bounded, replace_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.bundle.documents import Settings

log = logging.getLogger(__name__)

SUFFIX = ".desired"
TRYING = ".trying"

PROVE_S = 30.0
"""The agent runs well with settings if it has not ended by then, other than by being stopped."""

MAX_TRIES = 2
"""Settings with which the agent ended so many times before that are not used again: they could be
what ends it, at every start. Once can have been the power."""

TRIED = (
    f"the agent ended {MAX_TRIES} times within {PROVE_S:g} s of trying them; if they are not the "
    "cause, push them again"
)


@dataclass(frozen=True, slots=True)
class Desired:
    """Settings from afar.

    Attributes:
        version: which.
        values: sections, as in the file.
        envelope: as they came, signed.
    """

    version: Version
    values: Mapping[str, Any]
    envelope: bytes

    @classmethod
    def read(cls, settings: Settings, envelope: bytes) -> Desired:
        """Of a verified document.

        Raises:
            ConfigError: its text is no JSON object.
        """
        from agent.bundle.documents import MAX_SETTINGS_BYTES  # noqa: PLC0415
        from agent.bundle.strict import loads  # noqa: PLC0415

        text = settings.settings.encode()
        try:
            values = loads(text, "settings", MAX_SETTINGS_BYTES)
        except ManifestError as error:
            raise ConfigError(str(error)) from error
        if not isinstance(values, dict):
            raise ConfigError("settings: must be an object with sections like `cameras`")
        return cls(replace(version_of(settings), empty=not values), values, envelope)


class DesiredFile:
    """What was taken last.

    Args:
        copy: where the last good copy of the device's own file lies; this lies beside it.
    """

    def __init__(self, copy: Path) -> None:
        self.path = copy.with_suffix(SUFFIX)
        self._trying = copy.with_suffix(TRYING)

    def load(self) -> Desired | None:
        """What was kept; None if there is nothing.

        Raises:
            ConfigError: it cannot be used.
        """
        if not self.path.exists():
            return None
        # Only agents that were sent settings pay for what signed documents need.
        from agent.bundle.documents import MAX_ENVELOPE_BYTES, Settings  # noqa: PLC0415
        from agent.bundle.dsse import unverified  # noqa: PLC0415

        try:
            envelope = read_bounded(self.path, MAX_ENVELOPE_BYTES)
            if envelope is None:
                raise ConfigError(f"{self.path}: too large; remove it, the broker sends it again")
            desired = Desired.read(unverified(envelope, Settings), envelope)
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be read: {error.strerror or error}") from error
        except ManifestError as error:
            raise ConfigError(f"{self.path}: damaged: {error}") from error
        return desired

    def again(self, desired: Desired) -> None:
        """What was kept is used at a start: one more try, if it was not proven yet.

        Raises:
            ConfigError: it was tried too often, or that cannot be noted.
        """
        if self._tries(desired):
            self.begin(desired)

    def begin(self, desired: Desired) -> None:
        """They are about to be tried.

        Raises:
            ConfigError: they were tried too often, or that cannot be noted.
        """
        tries = self._tries(desired)
        if tries >= MAX_TRIES:
            raise ConfigError(TRIED)
        self._write(self._trying, f"{_digest(desired)} {tries + 1}".encode())

    def proven(self, desired: Desired) -> None:
        """The agent runs well with these, or is stopped by somebody."""
        if self._tries(desired):
            try:
                self._trying.unlink()
            except OSError as error:
                log.warning("%s: cannot be removed: %s", self._trying, error.strerror)

    def _tries(self, desired: Desired) -> int:
        """How often these were tried and not proven."""
        try:
            digest, _, tries = self._trying.read_text("ascii").partition(" ")
        except (OSError, UnicodeDecodeError):
            return 0
        return int(tries) if digest == _digest(desired) and tries.isdecimal() else 0

    def keep(self, desired: Desired) -> None:
        """Keep them over restarts.

        Raises:
            ConfigError: they cannot be written; what was kept before stays.
        """
        self._write(self.path, desired.envelope)

    def _write(self, path: Path, content: bytes) -> None:
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            replace_file(path, content)
        except OSError as error:
            raise ConfigError(
                f"{path}: cannot be written: {error.strerror or error}; see to the disk (full, "
                "read-only, rights)"
            ) from error


def version_of(settings: Settings) -> Version:
    """Which these are, whether or not their text can be read."""
    return Version(settings.counter, hashlib.sha256(settings.settings.encode()).hexdigest())


def _digest(desired: Desired) -> str:
    return hashlib.sha256(desired.envelope).hexdigest()


class Afar:
    """Which settings from afar are in force, and which came last and are not.

    Args:
        file: where they are kept.
        taken: those in force at the start.
        not_taken: why what was kept is not in force, or empty.

    Attributes:
        taken: those in force.
        waiting: those that came last, verified, and could not be brought into force.
    """

    def __init__(
        self, file: DesiredFile, taken: Desired | None = None, not_taken: str = ""
    ) -> None:
        self.taken = taken
        self._file = file
        self._not_taken = Refused(not_taken) if not_taken else None
        self.waiting: Desired | None = None
        self._seen = b""
        self._considered: Version | None = None

    def is_new(self, envelope: bytes) -> bool:
        """Whether this was not looked at before, in this run of the agent."""
        same = envelope == self._seen or (
            self.taken is not None and envelope == self.taken.envelope
        )
        self._seen = envelope
        return not same

    def considered(self, settings: Settings, envelope: bytes) -> Desired:
        """What verified settings want.

        Raises:
            ConfigError: they cannot be read.
        """
        self.waiting = None
        self._considered = version_of(settings)
        self.waiting = Desired.read(settings, envelope)
        return self.waiting

    def begin(self, desired: Desired) -> None:
        """See `DesiredFile.begin`."""
        self._file.begin(desired)

    def keep(self, desired: Desired) -> None:
        """These are in force from now on; see `DesiredFile.keep`."""
        self.taken, self._not_taken, self.waiting = desired, None, None
        self._file.keep(desired)

    def refuse(self, reason: str) -> str:
        """Note why what came last is not in force.

        Returns:
            The same for people.
        """
        version, self._considered = self._considered, None
        self._not_taken = Refused(reason, version)
        which = "" if version is None else f" {version.counter}"
        return f"settings{which} of an operator are not taken: {reason}"

    def proven(self) -> None:
        """The agent runs well with what is in force."""
        if self.taken is not None:
            self._file.proven(self.taken)

    def told(self, state: ConfigState) -> ConfigState:
        """A state with what is known here."""
        version = None if self.taken is None else self.taken.version
        return replace(state, desired=version, not_taken=self._not_taken)
