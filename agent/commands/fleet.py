"""`vigia fleet`, the operator's side; it has a package of its own."""

from __future__ import annotations

from fleet.commands.app import app

__all__ = ["app"]
