"""The plots of a report, as inline SVG: success and drawdown by number of edits, and histograms of beta.

Each plot is a `Figure` of its own, without pyplot and without changes to matplotlib's settings, so any thread may draw.
Only our own words are drawn, which matplotlib's font has; colours come from the page's style sheet.
"""

from __future__ import annotations

from collections.abc import Sequence
from io import StringIO

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator, PercentFormatter

from service.domain.evaluations import Measured, Mode

_INK, _GRID, _IN, _OUT = "#010101", "#020202", "#030303", "#040404"
_FROM_THE_PAGE = {_INK: "var(--ink)", _GRID: "var(--line)", _IN: "var(--in)", _OUT: "var(--out)"}
"""Stand-ins that the style sheet replaces, so that a plot is light or dark as the page is."""
_BINS = 20


def by_edits(curves: Sequence[tuple[str, bool, Sequence[Measured]]]) -> Markup:
    """Figures by the number of edits held at once, with their intervals.

    Args:
        curves: A label, whether it is of in-scope probes, and points of one metric in one mode.
    """
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.add_subplot()
    counts = sorted({point.edits for _, _, points in curves for point in points})
    for label, in_scope, points in curves:
        _curve(axes, label, _IN if in_scope else _OUT, sorted(points, key=lambda point: point.edits))
    if counts[-1] >= 10 * counts[0]:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(lambda count, _: f"{count:,.0f}")
    axes.set_xlabel("edits held at once")
    axes.set_ylim(-0.03, 1.03)
    axes.legend(frameon=False, labelcolor=_INK, loc="center left", bbox_to_anchor=(1, 0.5))
    return _svg(figure, axes)


def betas(in_scope: Sequence[float], out_of_scope: Sequence[float]) -> Markup:
    """Histograms of beta, [0, 1], as shares of the in-scope and of the out-of-scope probes."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    upper = figure.add_subplot(2, 1, 1)
    lower = figure.add_subplot(2, 1, 2, sharex=upper)
    _histogram(upper, in_scope, _IN, "in scope")
    _histogram(lower, out_of_scope, _OUT, "out of scope")
    upper.tick_params(labelbottom=False)
    lower.set_xlabel("beta")
    lower.set_xlim(0, 1)
    return _svg(figure, upper, lower)


def _curve(axes: Axes, label: str, colour: str, points: Sequence[Measured]) -> None:
    values = np.array([(point.value, point.low, point.high) for point in points])
    below, above = values[:, 0] - values[:, 1], values[:, 2] - values[:, 0]
    axes.errorbar(
        [point.edits for point in points],
        values[:, 0],
        yerr=np.clip([below, above], 0, None),
        label=label,
        color=colour,
        linestyle="-" if points[0].mode is Mode.GENERATED else ":",
        marker="o",
        markersize=4,
        capsize=3,
        linewidth=1.5,
    )


def _histogram(axes: Axes, values: Sequence[float], colour: str, label: str) -> None:
    heights, edges = np.histogram(values, bins=_BINS, range=(0, 1))
    axes.bar(edges[:-1], heights / max(1, len(values)), width=1 / _BINS, align="edge", color=colour, linewidth=0)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0, symbol="%"))
    axes.set_ylim(0, 1)
    axes.yaxis.set_major_locator(FixedLocator([0, 0.5, 1]))
    axes.set_title(f"{label}, n = {len(values):,}", loc="left", fontsize=9, color=_INK)


def _svg(figure: Figure, *panels: Axes) -> Markup:
    for axes in panels:
        axes.patch.set_visible(False)
        axes.grid(axis="y", color=_GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_INK, labelsize=8, length=0)
        axes.xaxis.label.set(color=_INK, fontsize=9)
        for side, spine in axes.spines.items():
            spine.set(visible=side == "bottom", color=_INK)
    written = StringIO()
    figure.savefig(
        written, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
    )
    text = written.getvalue()
    for stand_in, variable in _FROM_THE_PAGE.items():
        text = text.replace(stand_in, variable)
    return Markup(text[text.index("<svg") :])  # noqa: S704 - matplotlib's own output, which holds none of the caller's text
