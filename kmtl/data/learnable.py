"""Whether there is something to learn of the labels of the training rows."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np

from kmtl.data.targets import Target

logger = logging.getLogger("kmtl")
#: So many classes are named.
MOST_CLASSES = 5


def check_learnable(found: Sequence[Target], parts: Mapping[str, np.ndarray]) -> None:
    """Refuse targets of which nothing can be learned; warn of classes that cannot.

    Args:
        found: The targets.
        parts: Part -> its rows.

    Raises:
        ValueError: for a target without a label in the training rows, or with labels of
            one class alone: naming it.
    """
    for target in found:
        present, column = target.present(), ", ".join(target.columns)
        if not present[parts["train"]].any():
            raise ValueError(
                f"Target '{column}' must have a label in a training "
                "row at least: divide otherwise, or leave it out. Received: labels "
                "in validation and test rows only"
            )
        labels = target.labels
        if target.task.class_count is None or labels.size != len(labels):
            continue
        labels = labels.reshape(-1)
        classes = np.unique(labels[present])
        if len(classes) < 2:
            raise _one_class(target, column, classes[0], int(present.sum()))
        train = parts["train"]
        learned = np.unique(labels[train][present[train]])
        unknown = np.setdiff1d(classes, learned)
        if len(unknown) and not target.task.soft_labels:
            more = ", ..." if len(unknown) > MOST_CLASSES else ""
            names = [_name(target, label) for label in unknown[:MOST_CLASSES]]
            logger.warning(
                "Target '%s' has no training row of %s: %s%s. Nets do not learn these: "
                "divide otherwise (`split`), or leave such rows out.",
                column,
                "a class" if len(unknown) == 1 else f"{len(unknown)} classes",
                ", ".join(names),
                more,
            )


def _one_class(target: Target, column: str, label: float, rows: int) -> ValueError:
    hint = ""
    if label == 1 and target.task.missing == -1 and (target.labels == -1).any():
        hint = (
            " A label -1 says 'not labelled'; where it is a class, make it 0, "
            f"frame['{column}'] = frame['{column}'].map({{-1: 0, 1: 1}}), or let "
            f"the classes be learned, targets=['{column}']."
        )
    return ValueError(
        f"Target '{column}' must have labels of at least two classes: there is nothing "
        f"to learn of one.{hint} Received: {_name(target, label)} in all {rows} rows "
        "that have a label"
    )


def _name(target: Target, label: float) -> str:
    names = target.task.class_names
    return f"{label:g}" if names is None else repr(names[int(label)])
