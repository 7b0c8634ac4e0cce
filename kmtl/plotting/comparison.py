"""Improvement over the single-task models, one bar per task."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from kmtl.evaluation.table import Evaluation

BETTER, WORSE, NEUTRAL, MEAN = "tab:green", "tab:red", "tab:gray", "black"
#: Improvements of fewer standard deviations than this have no colour.
DEVIATIONS = 2.0


def comparison(
    evaluation: Evaluation | Sequence[Evaluation], ax: Axes | None = None
) -> Axes:
    """Draw the improvement of every scored task in %, and their mean Δm as a line.

    Green and red are for improvements beyond the noise of seeds (two standard
    deviations, drawn as lines); within it, or where it is not known, bars are grey.

    Args:
        evaluation: What `kmtl.evaluate` returned, with `baselines` (of several seeds,
            so that the noise is known); or one for each of several models that differ
            in their seeds, whose means are drawn with the standard errors.
        ax: Axes to draw on. None makes a figure.

    Returns:
        The Axes.

    Raises:
        ValueError: for an evaluation without baselines.
    """
    from kmtl.plotting._style import axes_or_new

    given = list(evaluation) if isinstance(evaluation, Sequence) else [evaluation]
    totals = [each.delta_m for each in given if each.delta_m is not None]
    if not totals or len(totals) < len(given):
        raise ValueError(
            "`evaluation` must have been made with `baselines`. "
            "Received: an evaluation whose delta_m is None"
        )
    ax = axes_or_new(ax)
    deltas, noise = _spread(given)
    colors = [_color(delta, noise[name]) for name, delta in deltas.items()]
    ax.barh(list(deltas), list(deltas.values()), color=colors)
    for name, delta in deltas.items():
        known = noise[name]
        if known is not None:
            reach = DEVIATIONS * known
            ax.errorbar(delta, name, xerr=reach, color=MEAN, capsize=3, linewidth=1)
    ax.axvline(0, color=MEAN, linewidth=0.8)
    mean = statistics.fmean(totals)
    label = f"Δm = {mean:+.2f} %"
    if len(totals) > 1:
        label += f" ± {statistics.stdev(totals) / math.sqrt(len(totals)):.2f}"
    elif all(value is None for value in noise.values()):
        label += " (noise of seeds not known)"
    ax.axvline(mean, color=MEAN, linestyle="--", label=label)
    ax.invert_yaxis()  # the first task on top, as in the table
    ax.set_xlabel("improvement over the single-task model in %, higher is better")
    ax.legend()
    return ax


def _spread(
    given: Sequence[Evaluation],
) -> tuple[dict[str, float], dict[str, float | None]]:
    """Per task the (mean) improvement, and its standard deviation where it is known."""
    names = [name for name in given[0].deltas if all(name in e.deltas for e in given)]
    deltas = {name: [each.deltas[name] for each in given] for name in names}
    means = {name: statistics.fmean(values) for name, values in deltas.items()}
    if len(given) == 1:
        return means, {name: given[0][name].noise for name in names}
    root = math.sqrt(len(given))
    return means, {name: statistics.stdev(deltas[name]) / root for name in names}


def _color(delta: float, noise: float | None) -> str:
    if noise is None or not abs(delta) > DEVIATIONS * noise:
        return NEUTRAL
    return BETTER if delta > 0 else WORSE
