"""The pictures: a panel or two, few bars with words; the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter

from . import machine
from .result import Result
from .stats import Summary

COLOURS = {"floor": "#8c8c8c", "ours": "#1b7837", "plain": "#a6dba0", "peer": "#8c6bb1"}
WORDS = {
    "floor": "C, the system call alone",
    "ours": "anyio-mmsg",
    "plain": "without its C module",
    "peer": "others",
}
SETTINGS = {
    "svg.hashsalt": "anyio-mmsg",  # else element ids are random, and each run a diff
    "svg.fonttype": "none",  # text stays text: small, sharp, and it can be searched
    "font.size": 11,
    "font.family": "sans-serif",
}


@dataclass(frozen=True)
class Panel:
    """What a panel of a picture shows.

    Attributes:
        table: Which table, and which column of it.
        title: Above it; says which way is better.
        axis: Under it, with the unit.
        bars: Labels by the key of a candidate, from the top.
    """

    table: str
    column: str
    title: str
    axis: str
    bars: Mapping[str, str]


PICTURES: dict[str, tuple[Panel, ...]] = {
    "receive": (
        Panel(
            "read",
            "ns",
            "Packets that queue (lower is better)",
            "nanoseconds to receive and read one of 512, 1,232 bytes",
            {
                "floor-64": "C, recvmmsg(2), not read",
                "ours-64-asyncio": "anyio-mmsg on asyncio",
                "ours-64-uvloop": "anyio-mmsg on uvloop",
                "ours-64-trio": "anyio-mmsg on Trio",
                "plain-64-asyncio": "anyio-mmsg in plain Python",
                "naive-asyncio": "six-line recvfrom loop, asyncio",
                "protocol-uvloop": "DatagramProtocol on uvloop",
                "aiofastnet-uvloop": "aiofastnet on uvloop",
            },
        ),
        Panel(
            "lowrate-10000",
            "CPU, %",
            "A packet now and then (lower is better)",
            "percent of a core to echo 10,000 packets a second, one at a time",
            {
                "echo-stream-asyncio": "PacketReceiver on asyncio",
                "echo-stream-uvloop": "PacketReceiver on uvloop",
                "echo-stream-trio": "PacketReceiver on Trio",
                "echo-served-asyncio": "serve_protocol on asyncio",
                "echo-naive-asyncio": "six-line recvfrom loop, asyncio",
                "echo-naive-trio": "six-line recvfrom loop, Trio",
                "echo-protocol-asyncio": "DatagramProtocol on asyncio",
                "echo-protocol-uvloop": "DatagramProtocol on uvloop",
            },
        ),
    ),
    "echo": (
        Panel(
            "echo-512",
            "packets/s",
            "Echo server on one core (higher is better)",
            "packets a second, 1,232 bytes, 512 on their way",
            {
                "echo-gso-uvloop": "anyio-mmsg, gso=True, uvloop",
                "echo-ours-asyncio": "anyio-mmsg on asyncio",
                "echo-ours-uvloop": "anyio-mmsg on uvloop",
                "echo-ours-trio": "anyio-mmsg on Trio",
                "echo-naive-asyncio": "six-line recvfrom loop, asyncio",
                "echo-protocol-uvloop": "DatagramProtocol on uvloop",
                "echo-aiofastnet-uvloop": "aiofastnet on uvloop",
            },
        ),
    ),
}
"""Panels by the name of the picture's file, from the top."""

Bars = list[tuple[str, str, Summary]]
"""A label, whose it is, and its figure; from the top."""


def bars_of(panel: Panel, results: Iterable[Result]) -> Bars:
    """Find the bars of which there are figures."""
    found: dict[str, tuple[str, Summary]] = {}
    for table in (table for result in results for table in result.tables):
        if table.name == panel.table:
            for row in table.rows:
                if panel.column in row.cells:
                    found[row.key] = (row.kind, row.cells[panel.column])
    return [(label, *found[key]) for key, label in panel.bars.items() if key in found]


def draw_panel(axes: Axes, panel: Panel, bars: Bars) -> None:
    """Draw a panel."""
    axes.set_title(panel.title, fontsize=13, fontweight="bold", loc="left")
    labels, kinds, summaries = zip(*bars, strict=True)
    medians = [summary.median for summary in summaries]
    axes.barh(labels, medians, color=[COLOURS[kind] for kind in kinds], height=0.7)
    axes.invert_yaxis()
    for place, median in enumerate(medians):
        axes.annotate(
            f"{median:,.0f}",
            (median, place),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
    axes.set_xlabel(panel.axis)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.12)
    axes.set_xlim(left=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(axis="y", length=0)


def draw(name: str, results: Sequence[Result], directory: Path) -> Path | None:
    """Draw a picture; return its file, or None if there is no figure for it."""
    panels = [(panel, bars) for panel in PICTURES[name] if (bars := bars_of(panel, results))]
    if not panels:
        return None
    tables = {panel.table for panel, _ in panels}
    machines = {
        machine.short(result.machine)
        for result in results
        if tables & {table.name for table in result.tables}
    }
    drawn = {kind for _, bars in panels for _, kind, _ in bars}
    heights = [1.2 + 0.36 * len(bars) for _, bars in panels]
    with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]
        figure = Figure(figsize=(8, 0.5 + sum(heights)), facecolor="white")
        every = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
        for axes, (panel, bars) in zip(every, panels, strict=True):
            draw_panel(axes, panel, bars)
        figure.legend(
            handles=[
                Patch(color=COLOURS[kind], label=text)
                for kind, text in WORDS.items()
                if kind in drawn
            ],
            loc="lower left",
            bbox_to_anchor=(0.01, 0.22 / (0.5 + sum(heights))),
            ncols=len(WORDS),
            frameon=False,
            fontsize=10,
            handlelength=1,
        )
        figure.text(0.015, 0.02, "; ".join(sorted(machines)), fontsize=8, color="#555555")
        figure.tight_layout(rect=(0, 0.55 / (0.5 + sum(heights)), 1, 1))
        path = directory / f"{name}.svg"
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
