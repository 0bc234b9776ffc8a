"""Settings that operators send: which are taken, and by whom they were signed.

Looked at like a command, but for the counter: the broker keeps the newest ones and sends them again
at every connection, for weeks, so that no nonce could be remembered long enough. What was taken is
carried out elsewhere (`Taker`), since a camera or a model takes seconds to start.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Protocol

from agent.bundle.documents import SETTINGS, Settings
from agent.bundle.dsse import verify
from agent.errors import BundleError, ExpiredError, RollbackError, SignatureError

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.bundle.trust import Trust
    from agent.errors import AgentError
    from agent.update.store import Store

WHAT = "settings"

MAX_LIFE_S = 90 * 24 * 3600.0
"""Settings that are to be valid for longer are refused: a key that is lost must not rule for ever.
"""

CLOCK_SLACK_S = 300.0
"""The clocks of controller and device differ by less."""


class Taker(Protocol):
    """Who brings settings into force; both return at once."""

    def take(self, settings: Settings, envelope: bytes) -> None:
        """Verified settings, which may be those that are in force."""

    def refused(self, reason: str) -> None:
        """Some came that are not taken."""


def read_settings(
    envelope: bytes,
    trust: Trust,
    *,
    device: str,
    seen: tuple[int, str],
    now: float,
) -> Settings:
    """Check settings: signature, device, counter, time. Their content is not looked at.

    Args:
        envelope: DSSE, as it came.
        trust: who are the operators.
        device: this device.
        seen: counter and SHA-256 of the newest envelope that was taken before.
        now: seconds since the epoch, never below the time floor.

    Raises:
        SignatureError: no operator signed it, or it is for somebody else.
        ManifestError: it holds no settings.
        RollbackError: they are older than what was taken, or as old and others.
        ExpiredError: they came too late, or are valid for too long.
    """
    settings = verify(envelope, SETTINGS, Settings, trust.operator_keys()[0])
    if settings.device != device:
        raise ForeignSettingsError(f"the settings are for {settings.device}, this is {device}")
    counter, digest = seen
    if settings.counter == counter and digest_of(envelope) == digest:
        # The broker sends them again. When they ended was judged when they came first.
        return settings
    if settings.counter <= counter:
        raise RollbackError(
            f"settings {settings.counter} are not above {counter}, which were taken before"
        )
    if now > settings.expires:
        raise ExpiredError(
            f"settings {settings.counter} ended {now - settings.expires:.0f} s ago; send them anew"
        )
    if settings.expires - now > MAX_LIFE_S + CLOCK_SLACK_S:
        raise ExpiredError(
            f"settings {settings.counter} are valid for {settings.expires - now:.0f} s, at most "
            f"{MAX_LIFE_S:.0f} s is allowed"
        )
    return settings


def digest_of(envelope: bytes) -> str:
    """What tells one envelope from another: SHA-256, hexadecimal."""
    return hashlib.sha256(envelope).hexdigest()


class ForeignSettingsError(SignatureError):
    """Settings of another device: no other metadata makes them ours."""


class DesiredSettings:
    """For the updater's thread.

    Args:
        device: device id.
        store: which were taken before.
        trust: who are the operators.
        now: seconds since the epoch, never below the time floor.
        taker: brings them into force.
        refuse: tells what was refused, and why.
    """

    def __init__(
        self,
        *,
        device: str,
        store: Store,
        trust: Trust,
        now: Callable[[], float],
        taker: Taker,
        refuse: Callable[[str, AgentError], None],
    ) -> None:
        self._device = device
        self._store = store
        self._trust = trust
        self._now = now
        self._taker = taker
        self._refuse = refuse
        self._new: bytes | None = None
        self._doubted: bytes | None = None

    def arrived(self, envelope: bytes) -> None:
        """Take what has arrived."""
        self._new, self._doubted = envelope, None

    def trust_changed(self) -> None:
        """Look again at what nobody known had signed: the metadata that names them came later."""
        self._new = self._new or self._doubted

    def look(self) -> None:
        """Judge what has arrived.

        Raises:
            StoreError: it cannot be judged now; nothing is forgotten.
        """
        envelope = self._new
        if envelope is None:
            return
        try:
            settings = read_settings(
                envelope,
                self._trust,
                device=self._device,
                seen=self._store.settings_seen(),
                now=self._now(),
            )
            self._store.see_settings(settings.counter, digest_of(envelope))
        except BundleError as error:
            if isinstance(error, SignatureError) and not isinstance(error, ForeignSettingsError):
                self._doubted = envelope
            self._refuse(WHAT, error)
            self._taker.refused(str(error))
        else:
            self._taker.take(settings, envelope)
        self._new = None
