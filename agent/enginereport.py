"""The report of a build, for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from agent.plans import Report

FIGURES = {
    "cosine": "cosine",
    "matched": "boxes kept",
    "score_drift": "score drift",
    "top1": "top-1",
    "map_loss": "mAP loss",
}
"""Figures of the gate that are shown, and their headings."""


def table(report: Mapping[str, Any]) -> Table:
    """The ladder: a line for every candidate, with its figures and why it fell."""
    rows: list[Mapping[str, Any]] = list(report.get("rows", []))
    shown = [key for key in FIGURES if any(key in _figures(row) for row in rows)]
    out = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    out.add_column("")
    for heading in ("backend", "precision", "route"):
        out.add_column(heading, no_wrap=heading != "route")
    for heading in ("p50 ms", "x fp32", *(FIGURES[key] for key in shown)):
        out.add_column(heading, justify="right")
    out.add_column("why not", overflow="fold")
    for row in rows:
        taken = bool(row["taken"])
        out.add_row(
            Text("*" if taken else "", "bold green"),
            row["backend"],
            row["precision"],
            row["route"] or "-",
            _number((row["ms"] or {}).get("p50"), 2),
            _number(row["speedup"], 2),
            *(_number(_figures(row).get(key), 4) for key in shown),
            Text("taken" if taken else str(row["reason"]), "green" if taken else ""),
        )
        for attempt in row["attempts"]:
            if attempt["reason"]:
                out.add_row("", "", "", Text(f"not {attempt['route']}: {attempt['reason']}", "dim"))
        for repair in row["repairs"]:
            out.add_row(*[""] * (6 + len(shown)), Text(f"repaired: {repair}", "dim"))
    for name, reason in report.get("unavailable", {}).items():
        out.add_row("", name, *[""] * (4 + len(shown)), Text(reason, "dim"))
    return out


def summary(report: Report) -> Text:
    """One sentence: what serves, and where it is kept."""
    value: Mapping[str, Any] = report.value
    chosen = value.get("chosen", {})
    speedup = chosen.get("speedup")
    times = f", {speedup:.2f} x FP32 on ONNX Runtime" if speedup else ""
    found = "found in the cache" if report.cached else "built"
    pictures = value.get("pictures", {})
    note = (
        "; judged on drawn pictures only: give calibration pictures for a proof on your own"
        if pictures.get("synthetic")
        else ""
    )
    return Text(
        f"{found}: {chosen.get('precision')} on {chosen.get('backend')}{times}; "
        f"plan {report.plan[:12]}{note}"
    )


def _figures(row: Mapping[str, Any]) -> Mapping[str, Any]:
    figures = row.get("figures")
    return figures if isinstance(figures, Mapping) else {}


def _number(value: object, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "-"
