"""What is news about cameras and models, told as events: only what differs from what was told last.

Retained states (`agent.herald`) say how it is; events say what happened, also while nobody heard.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.capture.camera import CameraStatus
    from agent.detection import ModelRef
    from agent.wire.events import EventKind, Severity


class Teller(Protocol):
    """Where events are told; see `agent.events.Events`."""

    def tell(self, kind: EventKind, severity: Severity, what: str, **data: object) -> None:
        """Something happened."""


class News:
    """Tells changes of cameras and models, from any thread.

    Args:
        events: where they are told.
    """

    def __init__(self, events: Teller) -> None:
        self._events = events
        self._lock = threading.Lock()
        self._cameras: dict[str, tuple[str, str]] = {}
        self._models: dict[str, ModelRef | None] = {}
        self._reasons: tuple[str, ...] = ()

    def camera(self, name: str, status: CameraStatus) -> None:
        """How a camera is now."""
        told = (status.state, status.reason)
        with self._lock:
            if self._cameras.get(name) == told:
                return
            self._cameras[name] = told
        bad = bool(status.reason) and status.state != "disabled"
        self._events.tell(
            "camera",
            "warning" if bad else "info",
            f"camera {name}: {status.state}" + f": {status.reason}" * bool(status.reason),
            cam=name,
            state=status.state,
            attempts=status.attempts,
        )

    def models(self, served: Mapping[str, ModelRef | None]) -> None:
        """What serves each slot now."""
        with self._lock:
            changed = {
                slot: ref
                for slot, ref in served.items()
                if slot not in self._models or self._models[slot] != ref
            }
            self._models.update(changed)
        for slot, ref in changed.items():
            if ref is None:
                self._events.tell("model", "error", f"model {slot}: nothing serves", slot=slot)
                continue
            self._events.tell(
                "model",
                "info",
                f"model {slot}: {ref.name} serves, {ref.backend} {ref.precision}",
                slot=slot,
                name=ref.name,
                digest=ref.digest,
                backend=ref.backend,
                precision=ref.precision,
            )

    def degraded(self, reasons: tuple[str, ...]) -> None:
        """Why the device is degraded now; empty if it is not."""
        with self._lock:
            before, self._reasons = self._reasons, reasons
        if reasons == before:
            return
        if reasons:
            self._events.tell("agent", "warning", "degraded: " + "; ".join(reasons))
        else:
            self._events.tell("agent", "info", "no longer degraded")
