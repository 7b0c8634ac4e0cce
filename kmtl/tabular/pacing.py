"""Fitting models of scikit-learn within some seconds: with fewer trees, or rows."""

from __future__ import annotations

import dataclasses
import math
import time
import warnings
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kmtl.tabular.settings import Setting

#: Rows that a first probe has, and by how much each next one has more.
FIRST, TIMES = 2000, 4
#: Share of the seconds after which probing ends.
PROBING = 0.05
#: No fit has fewer rows, if there are as many.
LEAST_ROWS = 1000
#: A model whose shortest fit takes more than so many times the seconds is not fitted.
LATE = 2.0
#: Cells of the table per thread. Threads of OpenMP wait for each other after every
#: node: on a busy machine that takes hundreds of times as long as a small node.
CELLS = 200_000


@dataclasses.dataclass(frozen=True)
class Pace:
    """How much of a fit there is time for.

    Args:
        rows: Rows to fit on.
        count: Trees, rounds or steps.
        whole: Whether that is all of both.
    """

    rows: int
    count: int
    whole: bool


def fitted(
    setting: Setting,
    x: np.ndarray,
    labels: np.ndarray,
    seconds: float | None,
    whole: bool = False,
) -> tuple[Any, str] | str:
    """A fitted model and what it is, in words; or why there is none.

    Args:
        setting: The model.
        x, labels: The rows.
        seconds: Time that it may take, more or less; None for no end.
        whole: Not to fit it at all where there is no time for all trees and rows.
    """
    from sklearn.exceptions import ConvergenceWarning

    rows, threads = len(x), threads_for(x.size)
    with warnings.catch_warnings(), threadpool_limits(threads):
        warnings.simplefilter("ignore", ConvergenceWarning)
        pace: Pace | float = Pace(rows, setting.most, True)
        if seconds is not None:
            pace = _pace(setting, x, labels, seconds, threads)
        if isinstance(pace, float):
            return f"it takes {pace:.0f} s at least"
        if whole and not (pace.whole or setting.stops):
            return "there is no time for all of it"
        model = setting.made(pace.count, threads)
        some = _some(labels, pace.rows)
        model.fit(x[some], labels[some])
        pace = dataclasses.replace(pace, rows=len(labels[some]))
    if setting.at_once:
        model.set_params(n_jobs=None)  # sums of threads differ in their last digits
    return model, _words(setting, model, pace, rows)


def threads_for(cells: int) -> int:
    """Threads of a fit: by the table's size, and no more than cores that we may use."""
    # It sees the quota of a container, which the count of cores does not; no types.
    from joblib import cpu_count  # type: ignore[import-untyped]

    return int(max(1, min(cpu_count(), cells // CELLS)))


def _pace(
    setting: Setting, x: np.ndarray, labels: np.ndarray, seconds: float, threads: int
) -> Pace | float:
    """How much there is time for, or the seconds of the shortest fit.

    Times grow with the count, and at most with the rows: probes of a few trees, on more
    and more rows, say how much.
    """
    rows, size = len(x), min(len(x), FIRST)
    low, high = setting.probes
    if setting.at_once:
        high = max(high, min(threads, setting.most))

    def seconds_of(count: int) -> float:
        if not count:
            return 0.0
        model, some = setting.made(count, threads), _some(labels, size)
        start = time.monotonic()
        model.fit(x[some], labels[some])
        return time.monotonic() - start

    begin = time.monotonic()
    while True:
        first = seconds_of(low)
        more = max(0.0, (seconds_of(high) - first) / (high - low))
        if size == rows or time.monotonic() - begin > PROBING * seconds:
            break
        size = min(rows, TIMES * size)
    left = seconds - (time.monotonic() - begin)
    start = max(0.0, first - low * more)  # what any fit takes
    growth = rows / size
    if growth * (start + more * setting.most) <= left:
        return Pace(rows, setting.most, True)
    count = math.floor((left / growth - start) / max(more, 1e-9))
    if count >= setting.least:
        return Pace(rows, min(count, setting.most), False)
    shortest = start + setting.least * more
    few = min(rows, max(LEAST_ROWS, math.floor(size * left / max(shortest, 1e-9))))
    takes = shortest * max(1.0, few / size)  # with fewer rows hardly less
    return takes if takes > LATE * seconds else Pace(few, setting.least, False)


def _some(labels: np.ndarray, count: int) -> np.ndarray | slice:
    """Some rows at random, one of each class among them; in their order."""
    if count >= len(labels):
        return slice(None)
    found = np.random.default_rng(0).permutation(len(labels))[:count]
    if labels.dtype.kind != "f":
        found = np.union1d(found, np.unique(labels, return_index=True)[1])
    return np.sort(found)


def _words(setting: Setting, model: Any, pace: Pace, rows: int) -> str:
    found = setting.words(pace.count)
    if pace.whole:
        return found
    cut = []
    if setting.stops:
        steps = int(np.max(model[-1].n_iter_))
        if steps >= pace.count:
            cut.append(f"stopped after {steps} steps")
    elif pace.count < setting.most:
        cut.append(f"{pace.count} in place of {setting.most} trees")
    if pace.rows < rows:
        cut.append(f"on {pace.rows} of {rows} rows")
    return f"{found}; {', '.join(cut)}, as time was short" if cut else found
