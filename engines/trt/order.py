"""What one build is told: for the process that builds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engines.trt.routes import ROUTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from engines.trt.routes import Route

Shapes = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
"""Smallest, best and largest shape of an input."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be built and how.

    Attributes:
        route: by which way.
        shapes: by input.
        float_nodes: layers that stay in floating point, where the route pins them.
        workspace_bytes: scratch memory, or None to choose.
        level: builder optimisation level, or None to choose.
        dla_core: which DLA, or None for the GPU.
        timing: the timing cache's file, or None.
    """

    route: Route
    shapes: Mapping[str, Shapes]
    float_nodes: tuple[str, ...] = ()
    workspace_bytes: int | None = None
    level: int | None = None
    dla_core: int | None = None
    timing: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """For another process; `from_json` reads it."""
        return {
            "route": self.route.name,
            "shapes": {name: list(map(list, three)) for name, three in self.shapes.items()},
            "float_nodes": list(self.float_nodes),
            "workspace_bytes": self.workspace_bytes,
            "level": self.level,
            "dla_core": self.dla_core,
            "timing": None if self.timing is None else str(self.timing),
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Order:
        """The inverse of `to_json`."""
        shapes: dict[str, Shapes] = {
            name: (tuple(smallest), tuple(best), tuple(largest))
            for name, (smallest, best, largest) in value["shapes"].items()
        }
        return cls(
            ROUTES[value["route"]],
            shapes,
            tuple(value["float_nodes"]),
            value["workspace_bytes"],
            value["level"],
            value["dla_core"],
            None if value["timing"] is None else Path(value["timing"]),
        )
