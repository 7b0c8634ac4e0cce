"""What a leaderboard says, in plain words, target by target."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from kmtl.tabular.resampling import draws
from kmtl.tabular.rivals import FOREST, LINEAR, TREES
from kmtl.tabular.scores import kind_of, lead, present, score, sign
from kmtl.tasks.base import Task

AVERAGE, SHARED, ALONE = "average", "shared net", "independent nets"
CONSTANT = "constant"
#: Kind of task -> what says the same of all rows.
SAME = {
    "regression": "the training mean",
    "ordinal": "the median class",
    "classification": "the most frequent class",
    "binary_classification": "one answer for all rows",
}
WORDS = {TREES: "Boosting", FOREST: "A forest", LINEAR: "A linear model"}
#: A difference is more than chance from so many of its standard errors on.
ERRORS = 2.0
RESAMPLES = 200


def verdict(
    task: Task,
    labels: np.ndarray,
    answers: Mapping[str, np.ndarray],
    missing: Mapping[str, str] | None = None,
    blocks: np.ndarray | None = None,
    unfinished: Mapping[str, str] | None = None,
) -> str:
    """Whether to share, and whether something simpler is better, or nothing good.

    Differences of less than two standard errors, over 200 draws of the test rows with
    replacement, are called chance.

    Args:
        task: The target's task.
        labels: Test labels.
        answers: Side -> its answers for the test rows.
        missing: Side -> why there is none.
        blocks: The block of each test row, where these are drawn in place of rows.
        unfinished: The one of the two sides of sharing that had too little time to be
            compared, unless it is better -> for how many epochs it had time.
    """
    there = present(task, labels)
    own = {name: found[there] for name, found in answers.items()}
    if blocks is not None:
        blocks = blocks[there]
    found = _Sides(task, labels[there].reshape(-1), own, blocks)
    missing = missing or {}
    words = [
        _nothing(found)
        or " ".join([_sharing(found, missing, unfinished or {}), *_others(found)])
    ]
    return " ".join([*words, _not_compared(missing)]).strip()


class _Sides:
    """The sides' scores, and by how much they differ."""

    def __init__(
        self,
        task: Task,
        labels: np.ndarray,
        answers: Mapping[str, np.ndarray],
        blocks: np.ndarray | None,
    ):
        self.task, self.labels, self.answers = task, labels, answers
        self.blocks = blocks
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
        count = len(self.labels if self.blocks is None else np.unique(self.blocks))
        if count < 2:
            return True
        found = []
        for rows in draws(len(self.labels), self.blocks, RESAMPLES):
            one, other = (
                score(self.task, self.labels[rows], self.answers[name][rows])
                for name in (side, over)
            )
            found.append(one - other)
        error = float(np.nanstd(found)) if np.isfinite(found).any() else math.nan
        if self.blocks is not None:
            error *= math.sqrt(count / (count - 1))  # of few blocks it is too small
        return not abs(gain) > ERRORS * error

    def is_better(self, side: str, over: str) -> bool:
        """Beyond chance."""
        return self.gain(side, over) > 0 and not self.is_chance(side, over)


def _nothing(sides: _Sides) -> str:
    others = [
        name
        for name, value in sides.scores.items()
        if name != CONSTANT and math.isfinite(value)
    ]
    if CONSTANT not in sides.scores or not others:
        return ""
    if any(sides.is_better(name, CONSTANT) for name in others):
        return ""
    best = max(others, key=lambda name: sides.gain(name, CONSTANT))
    return (
        f"Nothing predicts it: no side is better than {SAME[kind_of(sides.task)]} "
        f"beyond chance (best: {best}, {sides.shown(best)}; constant "
        f"{sides.shown(CONSTANT)})."
    )


def _sharing(
    sides: _Sides, missing: Mapping[str, str], unfinished: Mapping[str, str]
) -> str:
    if SHARED not in sides.scores:
        why = missing.get(SHARED)
        return "" if why is None else f"No net that shares was trained: {why}."
    if ALONE not in sides.scores:
        why = missing.get(ALONE, "give more minutes, or more trials")
        return f"Sharing was not compared with a net for this target alone: {why}."
    both = f"shared {sides.shown(SHARED)}, alone {sides.shown(ALONE)}"
    for side, epochs in unfinished.items():
        if not sides.is_better(side, ALONE if side == SHARED else SHARED):
            return (
                f"Sharing was not compared ({both}): the {side} had time for "
                f"{epochs}; give more minutes."
            )
    if sides.is_chance(SHARED, ALONE):
        return f"Share it or not: no difference beyond chance ({both})."
    gain = sides.gain(SHARED, ALONE)
    if gain > 0:
        return f"Share it: better by {sides.in_words(gain, ALONE)} ({both})."
    return f"Train it alone: better by {sides.in_words(gain, SHARED)} ({both})."


def _others(sides: _Sides) -> list[str]:
    """What the average, which predicts, is compared with."""
    if not math.isfinite(sides.scores[AVERAGE]):
        return []
    found = []
    others = [name for name in WORDS if name in sides.scores]
    if others:
        found.append(_best_of(sides, others))
    for side in (SHARED, ALONE):
        if side in sides.scores and sides.is_better(side, AVERAGE):
            gained = sides.in_words(sides.gain(side, AVERAGE), AVERAGE)
            found.append(f"The average is worse than the {side} by {gained}.")
    if CONSTANT in sides.scores and not sides.is_better(AVERAGE, CONSTANT):
        same = SAME[kind_of(sides.task)]
        found.append(f"The average is not better than {same} beyond chance.")
    return found


def _best_of(sides: _Sides, others: list[str]) -> str:
    best = max(others, key=lambda name: sides.gain(name, AVERAGE))
    gain = sides.gain(best, AVERAGE)
    both = f"{sides.shown(best)}, average {sides.shown(AVERAGE)}"
    gained = sides.in_words(gain, AVERAGE if gain > 0 else best)
    if sides.is_chance(best, AVERAGE):
        better = f" or better by {gained}" if gain > 0 else ""
        return f"{WORDS[best]} is as good{better}, within chance ({both})."
    if gain < 0:
        return (
            f"The average is better than linear models and trees by {gained} ({both})."
        )
    alas = "; predict gives the average, which cannot hold it" * (best == TREES)
    return f"{WORDS[best]} is better by {gained} ({both}){alas}."


def _not_compared(missing: Mapping[str, str]) -> str:
    parts = [
        f"{WORDS[side].lower()} ({why})"
        for side, why in missing.items()
        if side in WORDS
    ]
    return f"Not compared with {', '.join(parts)}." if parts else ""
