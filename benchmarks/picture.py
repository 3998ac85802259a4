"""The pictures: one panel each, few bars with words; the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
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
class Picture:
    """What a picture shows.

    Attributes:
        name: Of its file.
        table: Which table, and which column of it.
        title: Above it; says which way is better.
        axis: Under it, with the unit.
        bars: Labels by the key of a candidate, from the top.
    """

    name: str
    table: str
    column: str
    title: str
    axis: str
    bars: Mapping[str, str]


PICTURES = (
    Picture(
        "receive",
        "read",
        "ns",
        "Receiving a packet and reading it (lower is better)",
        "nanoseconds a packet, 1,232 bytes, 512 queued",
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
    Picture(
        "echo",
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
)


def draw(picture: Picture, results: Iterable[Result], directory: Path) -> Path | None:
    """Draw the bars of which there are figures; return the file, or None if there is none."""
    found: dict[str, tuple[str, Summary]] = {}
    caption = ""
    for result in results:
        for table in result.tables:
            if table.name == picture.table:
                caption = machine.short(result.machine)
                for row in table.rows:
                    if picture.column in row.cells:
                        found[row.key] = (row.kind, row.cells[picture.column])
    keys = [key for key in picture.bars if key in found]
    if not keys:
        return None
    labels = [picture.bars[key] for key in keys]
    kinds = [found[key][0] for key in keys]
    summaries = [found[key][1] for key in keys]
    with mpl.rc_context(SETTINGS):  # type: ignore[arg-type]
        figure = Figure(figsize=(8, 1.7 + 0.36 * len(keys)), facecolor="white")
        axes = figure.add_subplot()
        axes.set_title(picture.title, fontsize=13, fontweight="bold", loc="left")
        medians = [summary.median for summary in summaries]
        axes.barh(labels, medians, color=[COLOURS[kind] for kind in kinds], height=0.7)
        axes.invert_yaxis()
        for place, summary in enumerate(summaries):
            axes.annotate(
                f"{summary.median:,.0f}",
                (summary.median, place),
                xytext=(4, 0),
                textcoords="offset points",
                va="center",
            )
        axes.set_xlabel(picture.axis)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axes.locator_params(axis="x", nbins=5)
        axes.margins(x=0.12)
        axes.set_xlim(left=0)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(axis="y", length=0)
        figure.legend(
            handles=[
                Patch(color=COLOURS[kind], label=text)
                for kind, text in WORDS.items()
                if kind in kinds
            ],
            loc="lower left",
            bbox_to_anchor=(0.01, 0.05),
            ncols=len(WORDS),
            frameon=False,
            fontsize=10,
            handlelength=1,
        )
        figure.text(0.015, 0.02, caption, fontsize=8, color="#555555")
        figure.tight_layout(rect=(0, 0.12, 1, 1))
        path = directory / f"{picture.name}.svg"
        figure.savefig(path, format="svg", metadata={"Date": None})
    return path
