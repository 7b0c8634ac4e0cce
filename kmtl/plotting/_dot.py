"""Places from Graphviz' `dot` program, where it is installed."""

from __future__ import annotations

import itertools
import logging
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence

from kmtl.plotting._layout import Placed

logger = logging.getLogger("kmtl")

SECONDS = 20.0


def is_present() -> bool:
    """Whether the program is there."""
    return shutil.which("dot") is not None


def dot_source(
    rows: Mapping[str, int],
    sizes: Mapping[str, tuple[float, float]],
    lines: Sequence[tuple[str, str]],
    order: Sequence[str],
) -> str:
    """Text in Graphviz' language: boxes of given sizes in inches, rows from below."""
    names = {name: f"n{i}" for i, name in enumerate(order)}
    text = ["digraph {", "rankdir=BT; nodesep=0.25; ranksep=0.45; ordering=out;"]
    for name in order:
        width, height = sizes[name]
        text.append(
            f'{names[name]} [shape=box fixedsize=true label="" '
            f"width={width:.3f} height={height:.3f}];"
        )
    for row in sorted(set(rows.values())):
        same = " ".join(f"{names[n]};" for n in order if rows[n] == row)
        text.append(f"{{rank=same; {same}}}")
    # `dot` ranks by the lines; these hold the rows apart that no line does.
    firsts = [
        next(n for n in order if rows[n] == row) for row in sorted(set(rows.values()))
    ]
    for low, high in itertools.pairwise(firsts):
        text.append(f"{names[low]} -> {names[high]} [style=invis weight=0];")
    for source, target in lines:
        if rows[source] < rows[target]:
            text.append(f"{names[source]} -> {names[target]};")
    return "\n".join([*text, "}"])


def dot_places(
    rows: Mapping[str, int],
    sizes: Mapping[str, tuple[float, float]],
    lines: Sequence[tuple[str, str]],
    order: Sequence[str],
) -> Placed | None:
    """Places that `dot` finds; None where it fails, with a warning."""
    source = dot_source(rows, sizes, lines, order)
    try:
        done = subprocess.run(
            ["dot", "-Tplain"],
            input=source,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        return _read(done.stdout, order)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        logger.warning("Graphviz found no layout, kmtl's own is used: %s", error)
        return None


def _read(text: str, order: Sequence[str]) -> Placed:
    """The places in the `plain` format."""
    placed = Placed({}, {}, {})
    for line in text.splitlines():
        kind, *words = shlex.split(line)
        if kind == "node":
            name = order[int(words[0][1:])]
            placed.x[name], placed.y[name] = float(words[1]), float(words[2])
        elif kind == "edge":
            ends = order[int(words[0][1:])], order[int(words[1][1:])]
            count = int(words[2])
            numbers = [float(word) for word in words[3 : 3 + 2 * count]]
            # Every third control point lies on the line; the ends are the boxes.
            points = list(zip(numbers[::2], numbers[1::2], strict=True))[3:-3:3]
            placed.routes[ends] = points
    if set(placed.x) != set(order):
        raise ValueError(f"dot placed {len(placed.x)} of {len(order)} boxes")
    return placed
