"""A model's architecture as a picture."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kmtl._checks import check_choice
from kmtl.plotting import _dot
from kmtl.plotting._picture import (
    COPY_GAP,
    FONT,
    GATE_GAP,
    LINE_HEIGHT,
    SMALL,
    Picture,
)
from kmtl.plotting.diagram import MOST_COPIES, Box, diagram

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kmtl.training.model import MultiTaskModel

#: One colour per task, told apart by colour-blind readers too (Okabe and Ito, ordered).
COLORS = (
    "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#8B6914",
    "#6A3D9A",
)  # fmt: skip
GREY = "#5F5F5F"
MARGIN, DOT, CORNER = 0.12, 0.07, 0.05  # inches
#: Of a picture saved as pixels: print needs 200, and the text is 9 points high.
DPI = 200
#: Share of the colour in a box's filling.
TINT, GREY_TINT = 0.22, 0.16
#: Kinds of box with half a circle at both ends.
ROUND = ("gate", "inner", "unit", "bar")


def architecture(
    model: MultiTaskModel,
    ax: Axes | None = None,
    *,
    layout: str = "auto",
    shapes: bool = True,
) -> Axes:
    """Draw what is shared with whom: trunk, experts, gates and stitches, heads.

    The input is at the bottom, the heads are on top. What belongs to one task has its
    colour, what several tasks share is grey; dots at the lower edge of a grey box name
    the tasks that share it where these are not all. A bank of experts is a frame with a
    box per expert. Dashed lines tell a gate, or come from one; full lines carry
    features.

    Args:
        model: A `kmtl.MultiTaskModel` of the builders.
        ax: Axes to draw on, which then shows nothing else. None makes a figure of a
            size at which the text is 9 points high, with 200 dots per inch.
        layout: `"dot"` places the boxes with Graphviz, `"own"` without it, `"auto"`
            with Graphviz where the program `dot` is installed.
        shapes: Whether to write the shape of the output into the boxes.

    Returns:
        The Axes. `ax.figure.savefig("net.pdf")` saves the picture.

    Raises:
        TypeError: for a model without tasks.
        ValueError: for an unknown layout, or `"dot"` where the program is missing.

    Example:

    >>> tasks = [kmtl.Regression("a"), kmtl.Regression("b")]
    >>> model = kmtl.build_mlp(input_shape=(4,), tasks=tasks, units=(8, 8))
    >>> ax = kmtl.plotting.architecture(model)
    >>> sorted({text.get_text() for text in ax.texts})
    ['1', '4', '8', 'a', 'b', 'block 1', 'block 2', 'inputs']
    """
    import matplotlib.pyplot as plt

    check_choice("layout", layout, ("auto", "dot", "own"))
    if layout == "dot" and not _dot.is_present():
        raise ValueError(
            "`layout='dot'` needs Graphviz: install its program `dot`, or take "
            "layout='own'. Received: layout='dot' and no `dot` on the PATH"
        )
    found = diagram(model)
    if not shapes:
        boxes = [dataclasses.replace(box, detail="") for box in found.boxes]
        found = dataclasses.replace(found, boxes=tuple(boxes))
    use_dot = layout == "dot" or (layout == "auto" and _dot.is_present())
    picture = Picture(found, use_dot)
    left, right, low, high = picture.extent()
    width, height = right - left + 2 * MARGIN, high - low + 2 * MARGIN
    scale = 1.0
    if ax is None:
        figure = plt.figure(figsize=(width, height), dpi=DPI)
        ax = figure.add_axes((0.0, 0.0, 1.0, 1.0))
    else:
        box = ax.get_position()
        whole: Any = ax.get_figure(root=True)
        inches = whole.get_size_inches() * (box.width, box.height)
        scale = float(min(inches[0] / width, inches[1] / height))
    ax.set(
        xlim=(left - MARGIN, right + MARGIN),
        ylim=(low - MARGIN, high + MARGIN),
        aspect="equal",
    )
    ax.axis("off")
    _Pen(picture, ax, scale).draw()
    return ax


class _Pen:
    """Draws a picture on axes.

    Args:
        picture: What to draw.
        ax: Axes with inches as data.
        scale: Of text and line widths.
    """

    def __init__(self, picture: Picture, ax: Axes, scale: float):
        self.picture, self.ax, self.scale = picture, ax, scale
        tasks = picture.diagram.tasks
        self.colors = {task: COLORS[i % len(COLORS)] for i, task in enumerate(tasks)}

    def draw(self) -> None:
        found, picture = self.picture.diagram, self.picture
        for line in found.lines:
            light = line.controls and not picture.is_beside(line)
            color, points = self._color(line.task), picture.points(line)
            self._arrow(points, color, 0.75 if light else 1.0, dashed=light)
        for host in picture.inner:
            start = picture.placed.x[host] + picture.size[host][0] / 2
            y = picture.placed.y[host]
            self._arrow([(start, y), (start + GATE_GAP, y)], GREY, style="<|-|>")
        for box in found.boxes:
            if box.kind == "sum":
                self._sum(box)
            elif box.kind == "bank":
                self._bank(box)
            else:
                self._box(box)
            self._dots(box)

    def _color(self, task: str | None) -> str:
        return GREY if task is None else self.colors[task]

    def _place(self, box: Box) -> tuple[float, float, float, float]:
        """Centre, width and height."""
        placed = self.picture.placed
        return placed.x[box.name], placed.y[box.name], *self.picture.size[box.name]

    def _text(
        self, x: float, y: float, text: str, size: float, color: str, **options: Any
    ) -> None:
        self.ax.text(
            x,
            y,
            text,
            size=size * self.scale,
            color=color,
            ha="center",
            va="center",
            zorder=6,
            **options,
        )

    def _box(self, box: Box) -> None:
        x, y, width, height = self._place(box)
        edge = GREY if box.kind == "input" else self._color(box.task)
        corner = height / 2 if box.kind in ROUND else CORNER
        if box.kind == "head":
            face: Any = edge
        elif box.kind == "input":
            face = "white"
        else:
            face = _tint(edge, TINT if box.task else GREY_TINT)
        self._frame(x, y, width, height, corner, face, edge)
        head = box.kind == "head"
        ink = "white" if head else "black"
        shift = LINE_HEIGHT * SMALL / 2 if box.detail else 0.0
        size = SMALL if box.kind in ("gate", "inner") else FONT
        weight = "bold" if head else "normal"
        self._text(x, y + shift, box.label, size, ink, weight=weight)
        if box.detail:
            self._text(x, y - LINE_HEIGHT * FONT / 2, box.detail, SMALL, ink)

    def _sum(self, box: Box) -> None:
        from matplotlib.patches import Circle

        x, y, width, _ = self._place(box)
        color = self._color(box.task)
        line = 1.1 * self.scale
        self.ax.add_patch(
            Circle((x, y), width / 2, fc="white", ec=color, lw=line, zorder=3)
        )
        self._text(x, y, box.label, 1.2 * SMALL, color)

    def _bank(self, box: Box) -> None:
        """A frame, its label, and a box per expert."""
        x, y, width, height = self._place(box)
        color = self._color(box.task)
        self._frame(x, y, width, height, CORNER, _tint(color, 0.08), color, 0.75, 2)
        title = LINE_HEIGHT * FONT + COPY_GAP
        many = box.copies > MOST_COPIES
        label = f"{box.copies} {box.label}" if many else box.label
        self._text(x, y + height / 2 - title / 2, label, 0.92 * FONT, "black")
        shown = min(box.copies, MOST_COPIES)
        each = (width - (shown + 1) * COPY_GAP) / shown
        tall = height - 2 * COPY_GAP - title
        middle = y - height / 2 + COPY_GAP + tall / 2
        for i in range(shown):
            centre = x - width / 2 + (i + 1) * COPY_GAP + (i + 0.5) * each
            if many and i == shown - 2:
                self._text(centre, middle, "…", FONT, "black")
                continue
            fill = _tint(color, 0.3)
            self._frame(centre, middle, each, tall, 0.6 * CORNER, fill, color, 0.75)
            number = box.copies if many and i == shown - 1 else i + 1
            text = f"{number}\n{box.detail}" if box.detail else f"{number}"
            self._text(centre, middle, text, SMALL, "black", linespacing=1.1)

    def _dots(self, box: Box) -> None:
        """A dot per task, where some tasks share a box and others do not."""
        from matplotlib.patches import Circle

        whole = len(self.picture.diagram.tasks)
        if box.task is not None or not 1 < len(box.tasks) < whole:
            return
        x, y, _, height = self._place(box)
        start = x - 1.5 * DOT * (len(box.tasks) - 1) / 2
        for i, task in enumerate(box.tasks):
            self.ax.add_patch(
                Circle(
                    (start + 1.5 * DOT * i, y - height / 2),
                    DOT / 2,
                    fc=self.colors[task],
                    ec="white",
                    lw=0.6 * self.scale,
                    zorder=5,
                )
            )

    def _frame(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        corner: float,
        face: Any,
        edge: Any,
        thickness: float = 1.0,
        level: int = 3,
    ) -> None:
        """A rectangle with round corners around a centre."""
        from matplotlib.patches import FancyBboxPatch

        self.ax.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - height / 2),
                width,
                height,
                boxstyle=f"round,pad=0,rounding_size={corner}",
                fc=face,
                ec=edge,
                lw=1.1 * thickness * self.scale,
                zorder=level,
            )
        )

    def _arrow(
        self,
        points: Sequence[tuple[float, float]],
        color: str,
        thickness: float = 1.0,
        style: str = "-|>",
        dashed: bool = False,
    ) -> None:
        from matplotlib.patches import FancyArrowPatch
        from matplotlib.path import Path

        level = all(point[1] == points[0][1] for point in points)
        self.ax.add_patch(
            FancyArrowPatch(
                path=Path(points) if level else Path(*_smooth(points)),
                arrowstyle=style,
                mutation_scale=7 * thickness * self.scale,
                shrinkA=0,
                shrinkB=0,
                lw=1.1 * thickness * self.scale,
                linestyle=(0, (3, 2)) if dashed else "solid",
                color=color,
                alpha=0.9,
                zorder=1,
                fill=False,
            )
        )


def _smooth(points: Sequence[tuple[float, float]]) -> tuple[list, list]:
    """A curve that leaves every point upright: vertices and matplotlib's codes."""
    vertices, codes = [points[0]], [1]
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        middle = (y0 + y1) / 2
        vertices += [(x0, middle), (x1, middle), (x1, y1)]
        codes += [4, 4, 4]
    return vertices, codes


def _tint(color: str, share: float) -> tuple[float, float, float]:
    """A colour mixed with white."""
    from matplotlib.colors import to_rgb

    red, green, blue = (1 - share * (1 - part) for part in to_rgb(color))
    return (red, green, blue)
