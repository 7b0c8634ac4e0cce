"""How good answers are, target by target, for nets and others alike.

Answers are what a user reads: `(N,)` values, `(N,)` probabilities of the second of two
classes, `(N, classes)` probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from kmtl.data.label_counts import present_labels
from kmtl.tasks.base import Task

#: Kinds of tasks that tables have, and their metrics: the first one is the target's
#: score. (Of classes in an order, the error in classes of the median class.)
METRICS: Mapping[str, tuple[str, ...]] = {
    "regression": ("rmse", "mae", "r2"),
    "binary_classification": ("auc", "accuracy", "log_loss"),
    "classification": ("accuracy", "log_loss"),
    "ordinal": ("mae", "accuracy", "log_loss"),
}
HIGHER = ("auc", "accuracy", "r2")
#: Probabilities are taken for no smaller than this.
LEAST = 1e-7
WORST_SKILL = -1.0


def kind_of(task: Task) -> str:
    return str(task.registered_name)


def lead(task: Task) -> str:
    """The metric that is a target's score."""
    return METRICS[kind_of(task)][0]


def sign(task: Task) -> int:
    """1 where higher scores are better, else -1."""
    return 1 if lead(task) in HIGHER else -1


def present(task: Task, labels: np.ndarray) -> np.ndarray:
    """Which rows have a label, `(N,)`."""
    there = present_labels(task, labels).reshape(len(labels), -1)
    return np.asarray(there.all(axis=1))


def decided(task: Task, answers: np.ndarray) -> np.ndarray:
    """The class numbers that answers name: most probable, or of an order the median."""
    kind = kind_of(task)
    if kind == "binary_classification":
        return (answers > 0.5).astype(np.int64)
    if kind == "ordinal":
        above = np.cumsum(answers, axis=1) < 0.5
        return np.minimum(above.sum(axis=1), answers.shape[1] - 1)
    return np.argmax(answers, axis=1)


def scores(task: Task, labels: np.ndarray, answers: np.ndarray) -> dict[str, float]:
    """Metric name -> value, by scikit-learn's definitions.

    Args:
        task: The target's task.
        labels: `(N,)`, with missing ones.
        answers: Of all these rows.

    Returns:
        NaN for what is not defined, such as the AUC of one class.
    """
    names = METRICS[kind_of(task)]
    there = present(task, labels)
    if not there.any():
        return dict.fromkeys(names, math.nan)
    labels, answers = labels[there].reshape(-1), answers[there]
    return {name: _metric(name, task, labels, answers) for name in names}


def score(task: Task, labels: np.ndarray, answers: np.ndarray) -> float:
    """The target's score, of rows that all have a label."""
    return _metric(lead(task), task, labels, answers)


def _metric(name: str, task: Task, labels: np.ndarray, answers: np.ndarray) -> float:
    if kind_of(task) == "regression":
        error = labels.astype("float64") - answers
        if name == "r2":
            spread = float(np.sum((labels - labels.mean()) ** 2))
            return 1.0 - float(np.sum(error**2)) / spread if spread else math.nan
        return float(
            np.sqrt(np.mean(error**2)) if name == "rmse" else abs(error).mean()
        )
    if name == "log_loss":
        return float(np.mean(losses(task, labels, answers)))
    if name == "auc":
        return _area(labels, answers)
    error = decided(task, answers) - labels
    return float(np.mean(error == 0) if name == "accuracy" else abs(error).mean())


def _area(labels: np.ndarray, answers: np.ndarray) -> float:
    """Share of the pairs of a yes and a no in which the yes has the larger answer.

    scikit-learn's `roc_auc_score` checks its arguments for longer than this takes, and
    verdicts ask for it hundreds of times.
    """
    from scipy.stats import rankdata

    yes = labels == 1
    ones = int(yes.sum())
    pairs = ones * (len(labels) - ones)
    if not pairs:
        return math.nan
    return float((rankdata(answers)[yes].sum() - ones * (ones + 1) / 2) / pairs)


def losses(task: Task, labels: np.ndarray, answers: np.ndarray) -> np.ndarray:
    """Squared error, or the negative logarithm of the true class's probability."""
    if kind_of(task) == "regression":
        return np.asarray((labels.astype("float64") - answers) ** 2)
    labels = labels.astype(np.int64)
    if kind_of(task) == "binary_classification":
        chance = np.where(labels == 1, answers, 1.0 - answers)
    else:
        chance = np.take_along_axis(answers, labels[:, None], axis=1)[:, 0]
    return -np.log(np.clip(chance, LEAST, 1.0))


def constant(task: Task, train: np.ndarray, count: int) -> np.ndarray:
    """The same answer for some rows: the training labels' mean, or classes' shares."""
    known = train[present(task, train)].reshape(-1)
    if kind_of(task) in ("regression", "binary_classification"):
        return np.full(count, known.astype("float64").mean())
    shares = np.bincount(known.astype(np.int64), minlength=task.label_count)
    return np.broadcast_to(shares / shares.sum(), (count, len(shares)))


class Skill:
    """A target's score on a scale that all targets share, by which models are chosen.

    0 is what the training labels' mean (or the shares of their classes) reaches, 1 is
    perfect: the share of the squared error, or of the negative log-likelihood, that is
    gone. Cut at -1. Unlike accuracy and AUC it sees every change of an answer.

    Args:
        task: The target's task.
        train: Its training labels.
        labels: Labels that answers are compared with.
    """

    def __init__(self, task: Task, train: np.ndarray, labels: np.ndarray):
        self.task = task
        self.rows = present(task, labels)
        self.labels = labels[self.rows].reshape(-1)
        same = constant(task, train, len(self.labels))
        self.constant = float(np.mean(losses(task, self.labels, same)))

    def losses(self, answers: np.ndarray) -> np.ndarray:
        """Of the rows with a label."""
        return losses(self.task, self.labels, answers[self.rows])

    def __call__(self, answers: np.ndarray) -> float:
        found = float(np.mean(self.losses(answers)))
        if not math.isfinite(found):
            return WORST_SKILL
        if not self.constant:  # all labels are what the training rows say
            return 0.0 if found else 1.0
        return max(1.0 - found / self.constant, WORST_SKILL)
