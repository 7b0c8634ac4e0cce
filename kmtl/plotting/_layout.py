"""Places boxes in rows so that lines are short and seldom cross.

The method of Sugiyama et al. (IEEE Trans. SMC 11, 1981): a line over several rows is
given a point in each; the order in a row follows the mean place of the neighbours;
then the places are moved, in that order, towards their neighbours.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

SWEEPS = 12
MOVES = 40
#: How strongly a line pulls; between two of its own points it shall be straight.
PULL, STRAIGHT = 1.0, 6.0
POINT_WIDTH = 0.04


@dataclasses.dataclass
class Placed:
    """Where everything is.

    Args:
        x, y: Dict name -> centre.
        routes: Dict `(source, target)` -> x, y of the points between the two, a line
            over another row passes it upright.
    """

    x: dict[str, float]
    y: dict[str, float]
    routes: dict[tuple[str, str], list[tuple[float, float]]]


def layered(
    rows: Mapping[str, int],
    sides: Mapping[str, tuple[float, float]],
    lines: Sequence[tuple[str, str]],
    heights: Sequence[tuple[float, float]],
    start: Mapping[str, float],
    gap: float = 0.25,
) -> Placed:
    """Places of boxes.

    Args:
        rows: Dict name -> row, from 0 (the lowest).
        sides: Dict name -> how far it reaches to the left and right of its place.
        lines: Pairs of names. Lines within a row and downwards are left out.
        heights: Lower and upper end of every row.
        start: Dict name -> where in its row it would like to be, any unit.
        gap: Least distance of boxes in a row.
    """
    rows, sides, start = dict(rows), dict(sides), dict(start)
    chains = {}
    for source, target in lines:
        if rows[source] >= rows[target]:
            continue
        chain = [source]
        steps = rows[target] - rows[source]
        for row in range(rows[source] + 1, rows[target]):
            point = f"{source}\0{target}\0{row}"
            rows[point], sides[point] = row, (POINT_WIDTH, POINT_WIDTH)
            part = (row - rows[source]) / steps
            start[point] = (1 - part) * start[source] + part * start[target]
            chain.append(point)
        chains[source, target] = [*chain, target]
    order: list[list[str]] = [[] for _ in range(max(rows.values()) + 1)]
    for name in sorted(rows, key=lambda name: start[name]):
        order[rows[name]].append(name)
    links = [pair for chain in chains.values() for pair in itertools.pairwise(chain)]
    order = _uncrossed(order, links)
    x = _places(order, links, sides, gap)
    return Placed(
        x={name: x[name] for name in rows if "\0" not in name},
        y={name: sum(heights[rows[name]]) / 2 for name in rows if "\0" not in name},
        routes={
            ends: [(x[p], y) for p in chain[1:-1] for y in heights[rows[p]]]
            for ends, chain in chains.items()
        },
    )


def _neighbours(links: Sequence[tuple[str, str]]) -> tuple[dict, dict]:
    below: dict[str, list[str]] = {}
    above: dict[str, list[str]] = {}
    for source, target in links:
        above.setdefault(source, []).append(target)
        below.setdefault(target, []).append(source)
    return below, above


def _uncrossed(
    order: list[list[str]], links: Sequence[tuple[str, str]]
) -> list[list[str]]:
    """The order with the fewest crossings that the sweeps find; the first of equals."""
    below, above = _neighbours(links)
    best, fewest = [list(row) for row in order], crossings(order, links)
    current = [list(row) for row in order]
    for sweep in range(SWEEPS):
        upwards = sweep % 2 == 0
        sides = below if upwards else above
        numbers = range(1, len(current)) if upwards else range(len(current) - 2, -1, -1)
        for number in numbers:
            row = current[number]
            other = current[number - 1 if upwards else number + 1]
            place = {name: i / max(len(other) - 1, 1) for i, name in enumerate(other)}
            own = {name: i / max(len(row) - 1, 1) for i, name in enumerate(row)}

            def mean(name: str, place: dict = place, own: dict = own) -> float:
                known = [place[n] for n in sides.get(name, ()) if n in place]  # noqa: B023
                return float(np.mean(known)) if known else own[name]

            current[number] = sorted(row, key=mean)
        found = crossings(current, links)
        if found < fewest:
            best, fewest = [list(row) for row in current], found
    return best


def crossings(order: Sequence[Sequence[str]], links: Sequence[tuple[str, str]]) -> int:
    """How many pairs of lines between neighbouring rows cross."""
    place = {name: (r, i) for r, row in enumerate(order) for i, name in enumerate(row)}
    total = 0
    for row in range(len(order) - 1):
        pairs = sorted(
            (place[source][1], place[target][1])
            for source, target in links
            if place[source][0] == row
        )
        total += sum(
            first[0] < second[0] and first[1] > second[1]
            for first, second in itertools.combinations(pairs, 2)
        )
    return total


def _places(
    order: Sequence[Sequence[str]],
    links: Sequence[tuple[str, str]],
    sides: Mapping[str, tuple[float, float]],
    gap: float,
) -> dict[str, float]:
    """Places: close to the neighbours', in order, and apart."""
    below, above = _neighbours(links)
    x: dict[str, float] = {}
    for row in order:
        spread = _distances(row, sides, gap)
        offset = float(spread[-1]) / 2 if len(row) else 0.0
        x.update({n: float(s) - offset for n, s in zip(row, spread, strict=True)})
    for move in range(MOVES):
        upwards = move % 2 == 0
        for row in order if upwards else list(order)[::-1]:
            wanted, weights = [], []
            for name in row:
                around = [*below.get(name, ()), *above.get(name, ())]
                if not around:
                    wanted.append(x[name])
                    weights.append(0.01)
                    continue
                straight = ["\0" in name and "\0" in other for other in around]
                pull = [STRAIGHT if s else PULL for s in straight]
                wanted.append(float(np.average([x[n] for n in around], weights=pull)))
                weights.append(sum(pull))
            places = _apart(wanted, weights, _distances(row, sides, gap))
            x.update(dict(zip(row, places, strict=True)))
    return x


def _distances(
    row: Sequence[str], sides: Mapping[str, tuple[float, float]], gap: float
) -> list[float]:
    """Least place of every box of a row, from the first one on."""
    places = [0.0] * len(row)
    for i in range(1, len(row)):
        places[i] = places[i - 1] + sides[row[i - 1]][1] + sides[row[i]][0] + gap
    return places


def _apart(
    wanted: Sequence[float], weights: Sequence[float], least: Sequence[float]
) -> list[float]:
    """Places closest to the wanted ones (least squares) that keep order and distance.

    Without the least distances the places must not fall: an isotonic regression, solved
    by pooling neighbours that are in the wrong order.
    """
    pools: list[list[float]] = []  # mean, weight, number
    for want, weight, shift in zip(wanted, weights, least, strict=True):
        pools.append([want - shift, weight, 1])
        while len(pools) > 1 and pools[-2][0] > pools[-1][0]:
            mean, w, n = pools.pop()
            total = pools[-1][1] + w
            pools[-1][0] = (pools[-1][0] * pools[-1][1] + mean * w) / total
            pools[-1][1], pools[-1][2] = total, pools[-1][2] + n
    flat = [mean for mean, _, number in pools for _ in range(int(number))]
    return [place + shift for place, shift in zip(flat, least, strict=True)]
