"""Δm as a search may optimise it: what one task loses, no other can pay for."""

from __future__ import annotations

import math
from collections.abc import Mapping

#: Log of the balanced improvement on the validation data, in %.
BALANCED = "val_balanced_delta_m"
#: Log of the improvement of the task that gains least, in %.
WORST = "val_worst_delta"
#: A task's ratio to its single-task score counts between these: no task is worth more.
LOWEST, HIGHEST = 0.1, 10.0
#: What all tasks but one can make good of that one's loss, at most: a factor.
MOST_PAID = 1.25
LEAST_POWER = 4.0


def balanced_delta_m(
    deltas: Mapping[str, float], directions: Mapping[str, str]
) -> float:
    """The tasks' improvements as one number, near that of the worst task.

    Formula: with r_t, the ratio of a task's score to the single-task one (of the
    single-task one to the task's where lower scores are better), cut to [0.1, 10],

        100 * ((mean over tasks of r_t^-p)^(-1/p) - 1),  p = max(4, ln T / ln 1.25).

    Where all tasks improve by the same share it is that share, and for small changes it
    is close to Δm. Unlike Δm, which one task's gain can carry while another collapses
    (halving an error of 0.01 counts +50 %, an accuracy that falls from 0.97 to 0.71
    -27 %), it is never more than 1.25 times the worst task's ratio, as T^(1/p) <= 1.25:
    a task below 80 % of its single-task score makes it negative, whatever the others
    reach. It lies between -90 and +900.

    Args:
        deltas: Dict task name -> improvement in %, as `delta_m` gives them.
        directions: Dict task name -> `"max"` or `"min"`: which scores are better.

    Returns:
        Float, in %; NaN where an improvement is NaN.

    Example:

    >>> from kmtl.evaluation.balanced import balanced_delta_m
    >>> ways = {"digit": "max", "ink": "min"}
    >>> round(balanced_delta_m({"digit": 2.0, "ink": 2.0}, ways), 1)
    2.0
    >>> round(balanced_delta_m({"digit": -27.0, "ink": 50.0}, ways), 1)  # Δm: +11.5
    -13.6

    The power mean of ratios with a negative exponent is the certainty equivalent of
    constant relative risk aversion: Arrow, Essays in the Theory of Risk-Bearing, 1971.
    """
    ratios = [ratio(delta, directions[name]) for name, delta in deltas.items()]
    if any(map(math.isnan, ratios)):
        return math.nan
    power = max(LEAST_POWER, math.log(len(ratios)) / math.log(MOST_PAID))
    mean = math.fsum(r**-power for r in ratios) / len(ratios)
    return 100.0 * (mean ** (-1.0 / power) - 1.0)


def ratio(delta: float, direction: str) -> float:
    """How many times better a score is than the single-task one, cut to [0.1, 10].

    Args:
        delta: The improvement in %.
        direction: `"max"` or `"min"`.
    """
    if math.isnan(delta):
        return math.nan
    share = delta / 100.0
    found = 1.0 + share if direction == "max" else 1.0 / max(1.0 - share, 1e-9)
    return min(max(found, LOWEST), HIGHEST)
