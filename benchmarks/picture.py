"""The plots: one SVG for a benchmark, the same bytes for the same numbers."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .report import Bar, Result

COLOURS = {"floor": "#7f7f7f", "ours": "#1b7837", "peer": "#8c6bb1"}
SETTINGS = {
    "svg.hashsalt": "anyio-mmsg",  # else element ids are random, and each run a diff
    "svg.fonttype": "none",  # text stays text: small, sharp, and it can be searched
    "font.size": 9,
    "font.family": "sans-serif",
}


def write_svg(result: Result, caption: str, path: Path) -> None:
    """Draw the bars, a panel each; medians, with quartiles as whiskers, on white."""
    panels = {
        title: [bar for bar in bars if bar.value] for title, bars in result.bars.items() if bars
    }
    with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]
        height = 1.4 + 0.22 * max(len(bars) for bars in panels.values())
        figure = Figure(figsize=(5.6 * len(panels), height), facecolor="white")
        figure.suptitle(f"{result.title}, {result.unit}", fontweight="bold")
        for index, (title, bars) in enumerate(panels.items()):
            axes = figure.add_subplot(1, len(panels), index + 1)
            axes.set_title(title, fontsize=9, loc="left")
            medians = [bar.value.median for bar in bars if bar.value]
            axes.barh(
                [bar.label for bar in bars],
                medians,
                xerr=[
                    [bar.value.median - bar.value.low for bar in bars if bar.value],
                    [bar.value.high - bar.value.median for bar in bars if bar.value],
                ],
                color=[COLOURS[bar.kind] for bar in bars],
                error_kw={"elinewidth": 0.8, "ecolor": "black"},
            )
            axes.invert_yaxis()
            axes.spines[["top", "right"]].set_visible(False)
            axes.margins(x=0.2)
            axes.set_xlim(left=0)
            axes.locator_params(axis="x", nbins=6)  # more would run into each other
            for row, bar in enumerate(bars):
                _label(axes, row, bar)
        figure.text(0.01, 0.01, caption, fontsize=7, color="#555555")
        figure.tight_layout(rect=(0, 0.05, 1, 1))
        figure.savefig(path, format="svg", metadata={"Date": None})


def _label(axes: Axes, row: int, bar: Bar) -> None:
    assert bar.value is not None
    axes.annotate(
        f"{bar.value.median:,.0f}",
        (bar.value.high, row),
        xytext=(3, 0),
        textcoords="offset points",
        va="center",
        fontsize=8,
    )
