"""The picture of a soak: what it was put through over time, and what it did meanwhile."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

COLOURS = {
    "agent": "#c1272d",
    "broker": "#2a6fbb",
    "line": "#5b9bd5",
    "camera": "#2e933c",
    "disk": "#b8860b",
    "clock": "#7b4fa3",
}
INK, FAINT = "#222222", "#8a8a8a"
SHORTEST_PART = 0.003
"""Of the whole time: a trouble that is over at once is drawn so long, to be seen."""


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw it.

    Args:
        report: of `tests.soak.soak`.
        path: PNG.
    """
    from matplotlib.figure import Figure  # noqa: PLC0415 - only where drawn

    figure = Figure(figsize=(12, 13))
    axes = figure.subplots(5, 1, gridspec_kw={"height_ratios": [1.9, 2.2, 1, 1, 1.2]})
    words, troubles, memory, files, flow = axes
    _words(words, report)
    _troubles(troubles, report["log"])
    series = report["series"]
    ends = [life[-1][0] for life in series["process"][:-1] if life]
    for life in series["process"]:
        times = [t for t, *_ in life]
        memory.plot(times, [r / 2**20 for _, r, _ in life], color=INK, linewidth=1.2)
        files.plot(times, [d for *_, d in life], color=INK, linewidth=1.2)
    memory.set_ylabel("memory, MiB\n(from 90 %)")
    files.set_ylabel("descriptors")
    flow.plot(*_columns(series["arrivals"]), color="#2a6fbb", linewidth=0.9,
              label="messages a second at the reader")  # fmt: skip
    flow.plot(*_columns(series["spooled"]), color="#b8860b", linewidth=0.9,
              label="messages on the spool's disk")  # fmt: skip
    # A replay of thousands would hide the rest.
    flow.set_yscale("symlog", linthresh=10)
    flow.set_ylabel("messages")
    flow.legend(loc="lower left", bbox_to_anchor=(0, 1), fontsize=8, ncols=2, frameon=False)
    flow.set_xlabel("seconds since the start; dotted: the agent's process ended there")
    for axis in (troubles, memory, files, flow):
        axis.set_xlim(0, report["duration_s"])
        axis.spines[["top", "right"]].set_visible(False)
        for end in ends:
            axis.axvline(end, color=COLOURS["agent"], linewidth=0.6, linestyle=":", zorder=0)
        if axis is not troubles:
            axis.set_ylim(bottom=0)
            axis.grid(axis="y", color="#eeeeee")
    _near_its_values(memory, report)
    figure.align_ylabels([memory, files, flow])
    figure.tight_layout()
    # Words need the whole width, not that of the drawings.
    place = words.get_position()
    words.set_position([0.02, place.y0, 0.96, place.height])
    figure.savefig(path, dpi=100)


def _near_its_values(axis: Any, report: dict[str, Any]) -> None:
    """So that 2 % can be seen: the first seconds of each process are below the edge."""
    values = sorted(r / 2**20 for life in report["series"]["process"] for _, r, _ in life)
    if values:
        axis.set_ylim(0.9 * values[len(values) // 2], 1.02 * values[-1])


def _words(axis: Any, report: dict[str, Any]) -> None:
    axis.axis("off")
    verdict = "all invariants held" if report["ok"] else "NOT OK"
    starts, count = len(report["lives"]), len(report["log"])
    title = (
        f"Soak of {report['seconds'] / 60:g} min: {verdict}; {count} troubles, {starts} starts, "
        f"{report['account']['messages']} messages, load {report['machine']['load']}"
    )
    axis.set_title(title, loc="left", fontsize=12, color=INK)
    marks = {True: ("held", "#2e933c"), False: ("BROKEN", "#c1272d"), None: ("not judged", FAINT)}
    lines = report["invariants"]
    for place, line in enumerate(lines):
        y = 1 - (place + 0.6) / len(lines)
        mark, colour = marks[line["ok"]]
        options = {"transform": axis.transAxes, "fontsize": 9, "va": "center"}
        axis.text(0.0, y, mark, color=colour, weight="bold", **options)
        axis.text(0.08, y, line["name"], color=INK, **options)
        axis.text(0.5, y, line["seen"][:70], color=INK, **options)
        axis.text(0.8, y, f"wanted: {line['wanted']}"[:40], color=FAINT, **options)


def _troubles(axis: Any, log: list[list[Any]]) -> None:
    names = sorted({name for *_, name in log}, key=lambda n: (_colour(n), n), reverse=True)
    whole = max((end for _, end, _ in log), default=1.0)
    for begin, end, name in log:
        width = max(end - begin, whole * SHORTEST_PART)
        axis.barh(names.index(name), width, left=begin, height=0.7, color=_colour(name))
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(-0.6, len(names) - 0.4)


def _colour(name: str) -> str:
    # "disk full, agent killed" is the disk's.
    return next(colour for part, colour in COLOURS.items() if name.startswith(part))


def _columns(rows: list[list[float]]) -> tuple[list[float], list[float]]:
    return [row[0] for row in rows], [row[1] for row in rows]
