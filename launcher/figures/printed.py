"""Figures for print: SVG and PDF by matplotlib, from what the pages draw, with the same bytes each time.

Only this module knows matplotlib, and imports it when a figure is drawn: `pip install '.[print]'`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from btard.launcher.figures import chart, matrix, svg
from btard.launcher.figures.bars import AgainstLaw, Durations
from btard.launcher.figures.chart import Chart
from btard.launcher.figures.matrix import Matrix
from btard.launcher.figures.svg import Figure
from btard.launcher.figures.timeline import COLOURS, Timeline, runs
from btard.node.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FORMATS = ("svg", "pdf")
_WIDTH, _HEIGHT = 6.3, 2.7
"""Inches: the text of a page with margins of 2.5 cm."""
_INK, _MUTED, _GRID = "#1f2328", "#59636e", "#d9dee4"
_NO_NAME = re.compile(r"[^\w.-]+")
_BEHIND = {"boxstyle": "square,pad=0.1", "facecolor": "#ffffff", "alpha": 0.7, "linewidth": 0}
_STYLE = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 7.5,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "text.color": _INK,
    "lines.solid_joinstyle": "round",
    # Text stays text, and the ids of an SVG are hashes of what they name instead of random ones.
    "svg.fonttype": "none",
    "svg.hashsalt": "btard",
    "pdf.fonttype": 42,
    "axes.unicode_minus": False,
}


def write(figure: Figure, where: Path, about: str) -> list[Path]:
    """Write a figure as `KEY.svg` and `KEY.pdf`, with a hyphen for what is no letter or digit of the key.

    Args:
        figure: as a page has it.
        where: a directory that is there.
        about: what the files say of themselves beside the title: the caption, and how it was made.

    Returns:
        The files.

    Raises:
        ConfigError: matplotlib is not installed.
        OSError: a file cannot be written.
    """
    plot = _matplotlib()
    made = []
    with plot.rc_context(_STYLE):
        drawn = plot.figure.Figure(layout="constrained")
        _draw(figure.drawing, drawn.add_subplot())
        drawn.set_size_inches(*_size(figure.drawing))
        for kind in FORMATS:
            made.append(where / f"{_NO_NAME.sub('-', figure.key)}.{kind}")
            told = {
                "svg": {"Title": figure.title, "Description": about, "Date": None},
                "pdf": {"Title": figure.title, "Subject": about, "CreationDate": None},
            }
            drawn.savefig(made[-1], metadata=told[kind])
    return made


def _matplotlib() -> Any:
    try:
        import matplotlib.figure
    except ImportError as error:
        raise ConfigError(f"figures for print need matplotlib ({error}); pip install '.[print]'") from error
    return matplotlib


def _size(drawing: object) -> tuple[float, float]:
    match drawing:
        case Matrix():
            return max(3.0, 1.2 + 0.42 * len(drawing.columns)), 0.9 + 0.2 * len(drawing.rows)
        case Timeline():
            return _WIDTH, 0.8 + 0.24 * len(drawing.lanes)
        case Durations():
            return _WIDTH, 0.7 + 0.2 * len(drawing.rows)
    return _WIDTH, _HEIGHT


def _draw(drawing: object, axes: Axes) -> None:
    match drawing:
        case Chart():
            _chart(drawing, axes)
        case AgainstLaw():
            _against_law(drawing, axes)
        case Matrix():
            _matrix(drawing, axes)
        case Timeline():
            _timeline(drawing, axes)
        case Durations():
            _durations(drawing, axes)
        case _:
            raise TypeError(f"{type(drawing).__name__} cannot be printed")


def _chart(drawn: Chart, axes: Axes) -> None:
    _grid(axes, drawn.x, drawn.y)
    for band in drawn.bands:
        axes.axvspan(band.start, band.stop, color=band.colour, alpha=0.10, linewidth=0)
    for name, band in {band.name: band for band in reversed(drawn.bands)}.items():
        axes.annotate(name, (band.start, 0), (2, 3), xycoords=("data", "axes fraction"), textcoords="offset points")
    shown = [line for line in drawn.series if line.points]
    for line in shown:
        for ribbon in line.ribbons:
            x, low, high = zip(*ribbon, strict=True)
            axes.fill_between(x, low, high, color=line.colour, alpha=0.16, linewidth=0)
        dashes = [float(each) for each in line.dash.split()]
        axes.plot(
            *zip(*line.points, strict=True),
            color=line.colour,
            linewidth=0.7 * line.width,
            markersize=2.2,
            linestyle=(0, dashes) if dashes else "-",
            marker="o" if line.marked else None,
        )
    for place, mark in enumerate(sorted(drawn.marks, key=lambda mark: mark.at)):
        right = mark.at > drawn.x.low + 0.7 * (drawn.x.high - drawn.x.low)
        axes.axvline(mark.at, color=mark.colour, linewidth=0.8, linestyle=(0, (3, 3)))
        axes.annotate(
            mark.name,
            (mark.at, 1),
            (-3 if right else 3, -7 - 9 * (place % 6)),
            fontsize=6.5,
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            ha="right" if right else "left",
            annotation_clip=False,
            bbox=_BEHIND,
        )
    for dot in drawn.dots:
        axes.plot(
            [dot.x],
            [dot.y],
            marker="o",
            markersize=4,
            markerfacecolor="none",
            markeredgecolor=dot.colour,
            clip_on=False,
            linestyle="none",
        )
    _named(drawn, shown, axes)


def _named(drawn: Chart, shown: Sequence[chart.Series], axes: Axes) -> None:
    """Each curve's name beside its end, as near as the others let it."""
    across = svg.Scale(drawn.y.low, drawn.y.high, 1.0, 0.0, drawn.y.log)
    gap = 9.5 / 72 / (_HEIGHT - 0.6)
    ends = [across(line.points[-1][1]) for line in shown]
    places = chart.apart(ends, 0.0, 1.0 - (gap if drawn.dots_name else 0.0), gap)
    arrow = {"arrowstyle": "-", "color": _GRID, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 2}
    beside: dict[str, Any] = {"textcoords": "axes fraction", "va": "center", "annotation_clip": False}
    stub: dict[str, Any] = {"transform": axes.transAxes, "clip_on": False}
    for line, place in zip(shown, places, strict=True):
        axes.annotate(line.name, line.points[-1], (1.055, 1.0 - place), arrowprops=arrow, **beside)
        axes.plot([1.02, 1.045], [1.0 - place] * 2, linewidth=1.6, color=line.colour, zorder=5, **stub)
    if drawn.dots_name:
        axes.annotate(drawn.dots_name, (1.055, 0.0), xycoords="axes fraction", va="center", annotation_clip=False)
        axes.plot([1.033], [0.0], marker="o", markersize=4, markerfacecolor="none", markeredgecolor=_MUTED, **stub)


def _grid(axes: Axes, x: chart.Axis, y: chart.Axis) -> None:
    for axis, set_scale, limits, ruler, name in (
        (x, axes.set_xscale, axes.set_xlim, axes.xaxis, "x"),
        (y, axes.set_yscale, axes.set_ylim, axes.yaxis, "y"),
    ):
        if axis.log:
            set_scale("log")
        limits(axis.low, axis.high)
        ticks = svg.Scale(axis.low, axis.high, 0, 1, axis.log).ticks()
        ruler.set_ticks(ticks, [svg.number(each) for each in ticks])
        ruler.set_ticks([], minor=True)
        axes.set(**{f"{name}label": axis.label})
    axes.grid(axis="y", color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)


def _against_law(drawn: AgainstLaw, axes: Axes) -> None:
    counts, chances = zip(*drawn.points, strict=True)
    observed = drawn.observed
    axes.bar(
        list(observed),
        [number / len(drawn.seen) for number in observed.values()],
        0.8,
        color=svg.COLOURS[0],
        alpha=0.75,
        label=f"seen ({len(drawn.seen)})",
    )
    axes.plot(counts, chances, color=svg.RED, linewidth=1.1, marker="o", markersize=2.2, label="the law")
    axes.set_xticks(counts[:: 1 if len(counts) <= 30 else 5])
    axes.set(xlabel=drawn.label, ylabel="probability", xlim=(0.5, len(counts) + 0.5), ylim=(0, None))
    axes.grid(axis="y", color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
    axes.legend(frameon=False, loc="upper right")


def _matrix(drawn: Matrix, axes: Axes) -> None:
    for row, line in enumerate(drawn.cells):
        for column, (value, words, _) in enumerate(line):
            fill = "#ffffff" if value is None else matrix.colour(drawn.level(value))
            axes.fill_between([column - 0.48, column + 0.48], row - 0.47, row + 0.47, color=fill, linewidth=0)
            ink = _MUTED if value is None else matrix.readable(fill)
            axes.text(
                column,
                row,
                f"{words} {drawn.mark(row, column)}".strip(),
                ha="center",
                va="center",
                color=ink,
                fontsize=5.5,
            )
    axes.set(xlim=(-0.5, len(drawn.columns) - 0.5), ylim=(len(drawn.rows) - 0.5, -0.5), ylabel=drawn.row_label)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set(xlabel=drawn.column_label)
    long = any(len(name) > 5 for name in drawn.columns)
    axes.set_xticks(range(len(drawn.columns)), drawn.columns, rotation=90 if long else 0, color=_INK)
    axes.set_yticks(range(len(drawn.rows)), drawn.rows, color=_INK)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _timeline(drawn: Timeline, axes: Axes) -> None:
    for row, lane in enumerate(drawn.lanes):
        # Of a lane from -0.35 to 0.35: from where, how high, how opaque.
        spans = (
            ("active", lane.active, -0.35, 0.7, 0.55),
            ("validates", lane.validated, 0.1, 0.25, 1.0),
            ("attacks", lane.attacked, -0.35, 0.42, 1.0),
        )
        axes.barh(row, drawn.steps, height=0.7, color=COLOURS["out"], alpha=0.25)
        for name, steps, low, height, alpha in spans:
            bars = [(first, last + 1 - first) for first, last in runs(sorted(steps))]
            axes.broken_barh(bars, (row + low, height), color=COLOURS[name], alpha=alpha, linewidth=0)
        for step in lane.bans:
            axes.plot([step, step], [row - 0.45, row + 0.45], color=COLOURS["ban"], linewidth=1.6)
    axes.set(xlim=(0, max(1, drawn.steps)), ylim=(len(drawn.lanes) - 0.4, -0.6), xlabel="step")
    axes.set_yticks(range(len(drawn.lanes)), [lane.name for lane in drawn.lanes], color=_INK)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    keys = [axes.fill_between([], [], [], color=colour) for colour in COLOURS.values()]
    axes.figure.legend(keys, list(COLOURS), frameon=False, loc="outside lower center", ncols=len(COLOURS))


def _durations(drawn: Durations, axes: Axes) -> None:
    for row, (_, median, high) in enumerate(drawn.rows):
        axes.barh(row, median, height=0.66, color=svg.COLOURS[0])
        axes.plot([high, high], [row - 0.42, row + 0.42], color=svg.RED, linewidth=1.4)
        axes.annotate(
            f"{median:.1f} / {high:.1f}",
            (high, row),
            (4, 0),
            textcoords="offset points",
            va="center",
            fontsize=6.5,
            color=_MUTED,
        )
    axes.set(ylim=(len(drawn.rows) - 0.5, -0.5), xlim=(0, None), xlabel="milliseconds: median / 95th percentile")
    axes.set_yticks(range(len(drawn.rows)), [name for name, *_ in drawn.rows], color=_INK)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color=_GRID, linewidth=0.5)
    axes.set_axisbelow(True)
