"""Draws what `agent.enginebench` measured: stages, and how batch and input size change the rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.enginecourse import STAGES
from agent.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from agent.enginecandidates import Candidate
    from agent.enginecourse import Row

STAGE_COLOURS = {
    "preprocess": "#8fb8de",
    "input copy": "#c9b8e8",
    "infer": "#2a6fbb",
    "output copy": "#a58bd6",
    "decode": "#f2a65a",
}
"""Told apart by lightness too, for readers who do not see colours."""

LINE_COLOURS = ("#1b1b1e", "#2a6fbb", "#d1495b", "#2e933c", "#edae49", "#7768ae", "#00798c")
MARKERS = "osD^vPX"

GREY = "#5c5c66"
COLUMNS = 2
"""Drawings beside each other."""

PANEL_WIDTH = 6.4
"""Inches."""
BAR_HEIGHT = 0.42
"""Inches for each bar."""
MIN_HEIGHT = 3.6
DPI = 144

LABEL_ROOM = 1.38
"""Length of the axis to that of the longest bar, so that its label fits."""


def draw(rows: Sequence[Row], title: str, path: Path) -> None:
    """Write a picture.

    Args:
        rows: what was measured; those without figures are left out.
        title: above all.
        path: `*.png`, `*.svg` or `*.pdf`.

    Raises:
        ConfigError: matplotlib is not installed, nothing was measured, or the file cannot be
            written.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415 - an extra
        from matplotlib.figure import Figure  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError("--plot needs matplotlib: pip install 'vigia-agent[plot]'") from error
    measured = [row for row in rows if not row.reason]
    if not measured:
        raise ConfigError("--plot: nothing was measured, so there is nothing to draw")
    bars = _bars(measured)
    panels = _panels(measured, bars)
    height = max(MIN_HEIGHT, 1.6 + BAR_HEIGHT * len(bars))
    lines = -(-len(panels) // COLUMNS)
    size = (PANEL_WIDTH * COLUMNS, height * lines)
    figure = Figure(figsize=size, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, x=0.01, ha="left", fontweight="bold")
    for number, panel in enumerate(panels, start=1):
        alone = number == len(panels) and number % COLUMNS == 1
        axes = figure.add_subplot(*((lines, 1, lines) if alone else (lines, COLUMNS, number)))
        panel(axes)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
        axes.tick_params(labelsize=8, colors=GREY)
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--plot {path}: cannot be written: {error}") from error


def _bars(rows: list[Row]) -> list[Row]:
    """The rows that get bars: those of the first size and batch; lines show the others."""
    first = rows[0].setting
    wanted = (first.width, first.height, first.batch)
    return [r for r in rows if (r.setting.width, r.setting.height, r.setting.batch) == wanted]


def _panels(rows: list[Row], bars: list[Row]) -> list[Callable[[Any], None]]:
    """Which drawings the rows are worth."""
    panels: list[Callable[[Any], None]] = [
        lambda axes: _stages(axes, bars),
        lambda axes: _rates(axes, bars, _colours(rows)),
    ]
    first = rows[0].setting
    same_size = [
        r for r in rows if (r.setting.width, r.setting.height) == (first.width, first.height)
    ]
    same_batch = [row for row in rows if row.setting.batch == first.batch]
    if len({row.setting.batch for row in same_size}) > 1:
        what = f"batch, {first.width}x{first.height}"
        panels.append(lambda axes: _lines(axes, same_size, what, lambda r: r.setting.batch))
    if len({_side(row) for row in same_batch}) > 1:
        what_side = f"input side, pixels, batch {first.batch}"
        panels.append(lambda axes: _lines(axes, same_batch, what_side, _side))
    return panels


def _side(row: Row) -> float:
    """Of the square with as many pixels as the input has."""
    return round(float((row.setting.width * row.setting.height) ** 0.5), 1)


def _label(row: Row, rows: list[Row]) -> str:
    """The candidate, and the arrangement if it differs among the rows."""
    several = len({other.setting.arrangement for other in rows}) > 1
    return f"{row.candidate.name}, {row.setting.arrangement}" if several else row.candidate.name


def _legend(axes: Any, columns: int) -> None:
    """Below the drawing, where it hides nothing."""
    axes.legend(
        fontsize=7,
        frameon=False,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.16),
        ncol=columns,
        columnspacing=1.2,
        handlelength=1.4,
    )


def _stages(axes: Any, rows: list[Row]) -> None:
    """Stacked bars of the median of each stage, and the 95th percentile of the whole way."""
    places = range(len(rows))
    left = [0.0] * len(rows)
    for stage in STAGES:
        widths = [row.stages[stage].p50_ms if stage in row.stages else 0.0 for row in rows]
        if any(widths):
            axes.barh(places, widths, left=left, color=STAGE_COLOURS[stage], label=stage)
            left = [start + width for start, width in zip(left, widths, strict=True)]
    ends = [row.total.p95_ms if row.total else 0.0 for row in rows]
    axes.scatter(ends, places, marker="|", s=90, color=GREY, label="p95 of the whole", zorder=3)
    for place, (width, end) in enumerate(zip(left, ends, strict=True)):
        axes.annotate(
            f"{width:.1f} (p95 {end:.1f})",
            (max(width, end), place),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, max(*left, *ends) * LABEL_ROOM)
    axes.set_yticks(places, [_label(row, rows) for row in rows])
    axes.invert_yaxis()
    setting = rows[0].setting
    what = "picture" if setting.batch == 1 else f"batch of {setting.batch}"
    axes.set_xlabel(
        f"milliseconds for one {what} at {setting.width}x{setting.height}, medians",
        fontsize=8,
        color=GREY,
    )
    axes.set_title("where the time goes", loc="left", fontsize=10)
    _legend(axes, 6)


def _rates(axes: Any, rows: list[Row], colours: Mapping[Candidate, str]) -> None:
    """Bars of pictures a second, and the ratio to the reference."""
    places = range(len(rows))
    axes.barh(places, [r.per_s for r in rows], color=[colours[r.candidate] for r in rows])
    for place, row in enumerate(rows):
        ratio = "" if row.ratio is None or row.candidate.reference else f"  {row.ratio:.2f} x"
        axes.annotate(
            f"{row.per_s:.0f}{ratio}",
            (row.per_s, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
        )
    axes.set_xlim(0, max(row.per_s for row in rows) * LABEL_ROOM)
    # The same rows as in the panel to the left, which names them.
    axes.set_yticks(places, [""] * len(rows))
    axes.invert_yaxis()
    axes.set_xlabel("pictures a second of the bare engine", fontsize=8, color=GREY)
    axes.set_title(
        "how much it gives, as multiples of fp32 on onnxruntime", loc="left", fontsize=10
    )


def _lines(axes: Any, rows: list[Row], what: str, place: Callable[[Row], float]) -> None:
    """Pictures a second of every candidate along one thing that was varied."""
    colours = _colours(rows)
    numbers = {candidate: number for number, candidate in enumerate(colours)}
    arrangements = sorted({row.setting.arrangement for row in rows})
    for candidate, colour in colours.items():
        for arrangement in arrangements:
            points = sorted(
                (place(row), row.per_s)
                for row in rows
                if row.candidate == candidate and row.setting.arrangement == arrangement
            )
            more = f", {arrangement}" if len(arrangements) > 1 else ""
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                marker=MARKERS[numbers[candidate] % len(MARKERS)],
                markersize=4,
                linestyle="-" if arrangement == arrangements[0] else "--",
                color=colour,
                label=candidate.name + more,
            )
    ticks = sorted({place(row) for row in rows})
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e4e4ea", linewidth=0.8)
    axes.set_xlabel(what, fontsize=8, color=GREY)
    axes.set_title(f"pictures a second by {what.partition(',')[0]}", loc="left", fontsize=10)
    _legend(axes, 3)


def _colours(rows: list[Row]) -> dict[Candidate, str]:
    """The same colour for a candidate in every panel; the reference is black."""
    candidates = list(dict.fromkeys(row.candidate for row in rows))
    candidates.sort(key=lambda candidate: not candidate.reference)
    return {c: LINE_COLOURS[n % len(LINE_COLOURS)] for n, c in enumerate(candidates)}
