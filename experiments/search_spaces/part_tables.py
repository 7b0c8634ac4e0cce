"""Tables of where in a range good trials are, for the scripts of this folder."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

#: Of the share of variance that is explained, or of balanced accuracy over chance.
NEAR = 0.01
#: A trial's values, and how far its score is behind the best one of its problem.
Gap = tuple[Mapping[str, Any], float]


def parts(
    name: str, edges: Sequence[float], problems: Sequence[Sequence[Gap]]
) -> Iterator[str]:
    """Lines of one table: each part of the range of `name`.

    Args:
        name: The hyperparameter.
        edges: Where parts begin, and where the last one ends; whole numbers are parts
            by themselves.
        problems: The trials of each problem.
    """
    yield f"\n| {name} | trials | median behind | within {NEAR:g} | {2 * NEAR:g} |"
    yield "|---|---|---|---|---|"
    for low, high in itertools.pairwise(edges):
        own = [
            [gap for values, gap in trials if low <= values[name] < high]
            for trials in problems
        ]
        own = [gaps for gaps in own if gaps]
        if not own:
            continue
        word = f"{low}" if isinstance(low, int) else f"{low:g} to {high:g}"
        median = statistics.fmean(map(statistics.median, own))
        cells = [f"{sum(map(len, own))}", f"{median:.3f}"]
        for near in (NEAR, 2 * NEAR):
            shares = [sum(g <= near for g in gaps) / len(gaps) for gaps in own]
            cells.append(f"{statistics.fmean(shares):.0%}")
        yield f"| {word} | {' | '.join(cells)} |"
