"""What a leaderboard says, in plain words, target by target."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from kmtl.tabular.rivals import FOREST, LINEAR, TREES
from kmtl.tabular.scores import lead, present, score, sign
from kmtl.tasks.base import Task

AVERAGE, SHARED, ALONE = "average", "shared net", "independent nets"
WORDS = {TREES: "Boosting", FOREST: "A forest", LINEAR: "A linear model"}
#: A difference is more than chance from so many of its standard errors on.
ERRORS = 2.0
RESAMPLES = 200


def verdict(
    task: Task,
    labels: np.ndarray,
    answers: Mapping[str, np.ndarray],
    missing: Mapping[str, str] | None = None,
) -> str:
    """Whether to share, and whether something simpler is better.

    Differences of less than two standard errors, over 200 draws of the test rows with
    replacement, are called chance.

    Args:
        task: The target's task.
        labels: Test labels.
        answers: Side -> its answers for the test rows.
        missing: Side -> why there is none.
    """
    there = present(task, labels)
    own = {name: found[there] for name, found in answers.items()}
    found = _Sides(task, labels[there].reshape(-1), own)
    words = [_sharing(found), _others(found), _not_compared(missing or {})]
    return " ".join(filter(None, words))


class _Sides:
    """The sides' scores, and by how much they differ."""

    def __init__(
        self, task: Task, labels: np.ndarray, answers: Mapping[str, np.ndarray]
    ):
        self.task, self.labels, self.answers = task, labels, answers
        self.scores = {k: score(task, labels, v) for k, v in answers.items()}

    def shown(self, side: str) -> str:
        return f"{lead(self.task)} {self.scores[side]:.4g}"

    def gain(self, side: str, over: str) -> float:
        """By how much a side is better than another one, in the metric."""
        return sign(self.task) * (self.scores[side] - self.scores[over])

    def in_words(self, gain: float, over: str) -> str:
        """A gain: of an error as a share of it, else in points."""
        if sign(self.task) > 0:
            return f"{100 * abs(gain):.2g} points of {lead(self.task)}"
        return f"{100 * abs(gain) / max(self.scores[over], 1e-12):.2g} %"

    def is_chance(self, side: str, over: str) -> bool:
        """Whether other test rows could have said the opposite."""
        gain = self.gain(side, over)
        if not math.isfinite(gain):
            return True
        rng = np.random.default_rng(0)
        found = []
        for _ in range(RESAMPLES):
            rows = rng.integers(0, len(self.labels), len(self.labels))
            one, other = (
                score(self.task, self.labels[rows], self.answers[name][rows])
                for name in (side, over)
            )
            found.append(one - other)
        error = float(np.nanstd(found)) if np.isfinite(found).any() else math.nan
        return not abs(gain) > ERRORS * error


def _sharing(sides: _Sides) -> str:
    if SHARED not in sides.scores:
        return ""
    if ALONE not in sides.scores:
        return "It was not trained alone: give more minutes, or more trials."
    both = f"shared {sides.shown(SHARED)}, alone {sides.shown(ALONE)}"
    if sides.is_chance(SHARED, ALONE):
        return f"Share it or not: no difference beyond chance ({both})."
    gain = sides.gain(SHARED, ALONE)
    if gain > 0:
        return f"Share it: better by {sides.in_words(gain, ALONE)} ({both})."
    return f"Train it alone: better by {sides.in_words(gain, SHARED)} ({both})."


def _not_compared(missing: Mapping[str, str]) -> str:
    if not missing:
        return ""
    parts = [f"{WORDS[side].lower()} ({why})" for side, why in missing.items()]
    return f"Not compared with {', '.join(parts)}."


def _others(sides: _Sides) -> str:
    others = [name for name in WORDS if name in sides.scores]
    if not others or not math.isfinite(sides.scores[AVERAGE]):
        return ""
    best = max(others, key=lambda name: sides.gain(name, AVERAGE))
    gain = sides.gain(best, AVERAGE)
    both = f"{sides.shown(best)}, average {sides.shown(AVERAGE)}"
    if sides.is_chance(best, AVERAGE):
        return f"{WORDS[best]} is as good, within chance ({both})."
    if gain > 0:
        gained = sides.in_words(gain, AVERAGE)
        return f"{WORDS[best]} is better by {gained} ({both})."
    gained = sides.in_words(gain, best)
    return f"The average is better than linear models and trees by {gained} ({both})."
