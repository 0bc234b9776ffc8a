"""What of a build's report is published: the choice, how fast, how right, and why others fell."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.wire.buildstate import shortened

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_CANDIDATES = 32
"""Candidates that are told; there are as many as backends times precisions."""

GATE_FIGURES = ("cosine", "matched", "score_drift", "top1", "map_loss")


def summary(report: Mapping[str, Any]) -> dict[str, object]:
    """The `build.report` of a model state message.

    Args:
        report: as `agent.building` makes it; what it lacks is left out.
    """
    chosen, pictures = _part(report, "chosen"), _part(report, "pictures")
    return {
        **_known(
            chosen=_known(**{key: chosen.get(key) for key in ("backend", "precision", "route")}),
            speedup=chosen.get("speedup"),
            spent_s=report.get("spent_s"),
            judged=pictures.get("judged"),
            synthetic=pictures.get("synthetic"),
        ),
        "candidates": [_candidate(row) for row in report.get("rows", [])[:MAX_CANDIDATES]],
    }


def _candidate(row: Mapping[str, Any]) -> dict[str, object]:
    figures = _part(row, "figures")
    gate = _known(**{key: figures.get(key) for key in GATE_FIGURES})
    return _known(
        backend=row.get("backend"),
        precision=row.get("precision"),
        taken=row.get("taken"),
        reason=shortened(row.get("reason") or ""),
        route=row.get("route"),
        p50_ms=_part(row, "ms").get("p50"),
        speedup=row.get("speedup"),
        gate=gate,
    )


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _known(**fields: object) -> dict[str, object]:
    """Without what is not there, is empty, or was not measured."""
    return {key: value for key, value in fields.items() if value not in (None, "", {})}
