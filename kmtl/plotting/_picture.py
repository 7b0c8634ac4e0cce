"""Sizes and places of the boxes of a diagram, and the ways of its lines, in inches."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kmtl.plotting import _dot
from kmtl.plotting._layout import Placed, layered
from kmtl.plotting.diagram import MOST_COPIES, Box, Diagram, Line

FONT, SMALL = 9.0, 7.0  # points
CHARACTER = 0.0085  # inches of width per point of font size
LINE_HEIGHT = 0.018  # inches per point of font size
PAD, GAP, ROW_GAP = 0.13, 0.26, 0.42
INNER_ROWS = 3
CIRCLE, COPY_GAP, GATE_GAP = 0.26, 0.07, 0.14


class Picture:
    """A diagram with sizes and places, in inches."""

    def __init__(self, found: Diagram, use_dot: bool):
        self.diagram = found
        self.gates = {b.beside: b for b in found.boxes if b.beside and b.kind == "gate"}
        self.inner: dict[str, list[Box]] = {}
        for box in found.boxes:
            if box.kind == "inner" and box.beside:
                self.inner.setdefault(box.beside, []).append(box)
        self.size = {box.name: self._size(box) for box in found.boxes}
        self.placed = self._place(use_dot)

    # -- sizes and places -------------------------------------------------------------

    def _size(self, box: Box) -> tuple[float, float]:
        text = max(_width(box.label, FONT), _width(box.detail, SMALL)) + 2 * PAD
        height = 2 * PAD + LINE_HEIGHT * FONT
        if box.detail:
            height += LINE_HEIGHT * SMALL
        if box.kind == "sum":
            return CIRCLE, CIRCLE
        if box.kind in ("gate", "inner"):
            return _width(box.label, SMALL) + 0.16, 0.24
        if box.kind in ("unit", "bar"):
            return text, 0.3
        if box.kind == "bank":
            shown = min(box.copies, MOST_COPIES)
            each = max(_width(box.detail, SMALL) + 0.14, 0.34)
            inner = shown * each + (shown + 1) * COPY_GAP
            return max(inner, _width(box.label, FONT) + 2 * PAD), height + 0.24
        return max(text, 0.62), height

    def _sides(self, name: str, alike: bool) -> tuple[float, float]:
        """How far a box reaches to both sides, with what is drawn beside it: a gate to
        its left, what works inside of it to its right."""
        left = right = self.size[name][0] / 2
        if name in self.gates:
            left += self.size[self.gates[name].name][0] + GATE_GAP
        if name in self.inner:
            columns = -(-len(self.inner[name]) // INNER_ROWS)
            widest = max(self.size[box.name][0] for box in self.inner[name])
            right += GATE_GAP + columns * (widest + COPY_GAP)
        return (max(left, right),) * 2 if alike else (left, right)

    def _place(self, use_dot: bool) -> Placed:
        found = self.diagram
        every = found.ranks()
        rows, wishes, sides, heights = {}, {}, {}, {}
        for box in found.boxes:
            if box.beside is not None:
                continue
            columns = _columns(box)
            for name, task in columns.items():
                rows[name] = every[box.name]
                wishes[name] = self._wish(box, task)
                sides[name] = (0.15, 0.15)
                if box.kind != "bar":
                    sides[name] = self._sides(box.name, alike=use_dot)
                heights[name] = self.size[box.name][1]
        lines = list(
            dict.fromkeys(end for line in found.lines for end in self._ends(line))
        )
        order = sorted(rows, key=lambda name: wishes[name])
        placed = None
        if use_dot:
            sizes = {name: (sum(sides[name]), heights[name]) for name in order}
            placed = _dot.dot_places(rows, sizes, lines, order)
        if placed is None:
            ends = self._rows(rows, heights)
            placed = layered(rows, sides, lines, ends, wishes, GAP)
        self._stretch(placed)
        for target, gate in self.gates.items():
            half = (self.size[target][0] + self.size[gate.name][0]) / 2
            placed.x[gate.name] = placed.x[target] - half - GATE_GAP
            placed.y[gate.name] = placed.y[target]
        for host, boxes in self.inner.items():
            widest = max(self.size[box.name][0] for box in boxes)
            start = placed.x[host] + self.size[host][0] / 2 + GATE_GAP
            most = min(len(boxes), INNER_ROWS)
            for i, box in enumerate(boxes):
                column, row = divmod(i, most)
                placed.x[box.name] = start + widest / 2 + column * (widest + COPY_GAP)
                shift = (most - 1) / 2 - row
                placed.y[box.name] = placed.y[host] + shift * (0.24 + COPY_GAP)
        return placed

    def _ends(self, line: Line) -> list[tuple[str, str]]:
        """Names between which a line runs in the layout; a bar has one per column."""
        source, target = self.diagram[line.source], self.diagram[line.target]
        starts = _column_for(source, line.task or target.task)
        ends = _column_for(target, line.task or source.task)
        start, end = source.beside or starts, target.beside or ends
        return [] if start == end else [(start, end)]

    def _wish(self, box: Box, task: str | None) -> float:
        """Where a box would like to be: at its task's number, else in between."""
        tasks = self.diagram.tasks
        chosen = [task] if task else box.tasks
        return float(np.mean([tasks.index(task) for task in chosen or tasks]))

    def _rows(
        self, rows: Mapping[str, int], heights: Mapping[str, float]
    ) -> list[tuple[float, float]]:
        """Lower and upper end of every row."""
        ends, y = [], 0.0
        for row in range(max(rows.values()) + 1):
            tallest = max((heights[n] for n in rows if rows[n] == row), default=0.0)
            ends.append((y, y + tallest))
            y += tallest + ROW_GAP
        return ends

    def _stretch(self, placed: Placed) -> None:
        """Let a bar reach over all columns that it reads and feeds."""
        for box in self.diagram.boxes:
            if box.kind != "bar":
                continue
            columns = list(_columns(box))
            ends = [
                line.source if line.target == box.name else line.target
                for line in self.diagram.lines
                if box.name in (line.source, line.target)
            ]
            sides = [placed.x[name] for name in columns]
            for end in ends:
                if end in placed.x and self.diagram[end].task is not None:
                    half = self.size[end][0] / 2
                    sides += [placed.x[end] - half, placed.x[end] + half]
            least = self.size[box.name][0] / 2
            middle = (min(sides) + max(sides)) / 2
            width = max(max(sides) - min(sides), 2 * least)
            placed.x[box.name], placed.y[box.name] = middle, placed.y[columns[0]]
            self.size[box.name] = (width, self.size[box.name][1])

    def extent(self) -> tuple[float, float, float, float]:
        """Left, right, lower and upper end."""
        x, y = self.placed.x, self.placed.y
        half = {name: (w / 2, h / 2) for name, (w, h) in self.size.items()}
        bends = [point[0] for route in self.placed.routes.values() for point in route]
        return (
            min([x[n] - half[n][0] for n in half] + bends),
            max([x[n] + half[n][0] for n in half] + bends),
            min(y[n] - half[n][1] for n in half),
            max(y[n] + half[n][1] for n in half),
        )

    def is_beside(self, line: Line) -> bool:
        """It runs from a gate to the sum to its right."""
        return self.diagram[line.source].beside == line.target

    def points(self, line: Line) -> list[tuple[float, float]]:
        """Where a line runs."""
        return self._to_the_right(line) if self.is_beside(line) else self._upwards(line)

    def _to_the_right(self, line: Line) -> list[tuple[float, float]]:
        """From a gate to the sum to its right."""
        x, y = self.placed.x, self.placed.y
        return [
            (x[line.source] + self.size[line.source][0] / 2, y[line.source]),
            (x[line.target] - self.size[line.target][0] / 2, y[line.target]),
        ]

    def _upwards(self, line: Line) -> list[tuple[float, float]]:
        """From the upper edge of the source to the lower edge of the target."""
        route = [
            p for ends in self._ends(line) for p in self.placed.routes.get(ends, ())
        ]
        x, y, size = self.placed.x, self.placed.y, self.size
        low, high = y[line.source], y[line.target]
        if abs(high - low) < 1e-6:  # in one row: side to side
            side = 1 if x[line.target] > x[line.source] else -1
            return [
                (x[line.source] + side * size[line.source][0] / 2, low),
                (x[line.target] - side * size[line.target][0] / 2, high),
            ]
        sign = 1 if high > low else -1
        if route:
            start = self._port(line.source, route[0][0])
            end = self._port(line.target, route[-1][0])
        else:
            start, end = self._straight(line)
        return [
            (start, low + sign * size[line.source][1] / 2),
            *route,
            (end, high - sign * size[line.target][1] / 2),
        ]

    def _straight(self, line: Line) -> tuple[float, float]:
        """Ends of a line to the next row, one above the other where that can be."""
        (a, b), (c, d) = (self._reach(name) for name in (line.source, line.target))
        low, high = max(a, c), min(b, d)
        if low <= high:
            narrow = line.source if b - a < d - c else line.target
            both = float(np.clip(self.placed.x[narrow], low, high))
            return both, both
        return (b, c) if b < c else (a, d)

    def _reach(self, name: str) -> tuple[float, float]:
        """Part of a box's edge at which lines end."""
        x, half = self.placed.x[name], self.size[name][0] / 2
        share = {"bar": 0.95, "bank": 0.6, "sum": 0.0, "gate": 0.3}
        reach = share.get(self.diagram[name].kind, 0.35) * half
        return x - reach, x + reach

    def _port(self, name: str, towards: float) -> float:
        return float(np.clip(towards, *self._reach(name)))


def _columns(box: Box) -> dict[str, str | None]:
    """Names of a box in the layout, and their tasks: a bar has one per column."""
    if box.kind != "bar":
        return {box.name: box.task}
    return {f"{box.name} {i}": task for i, task in enumerate(box.columns)}


def _column_for(box: Box, task: str | None) -> str:
    """The name of the column of a task, else the middle one."""
    columns = _columns(box)
    for name, own in columns.items():
        if own == task:
            return name
    return list(columns)[len(columns) // 2]


def _width(text: str, size: float) -> float:
    return CHARACTER * size * len(text)
