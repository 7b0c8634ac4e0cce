"""Rules of labels that no smallest and largest number says.

Each is asked of arrays before training, and of the later batches of streams within the
steps: `xp` is NumPy there and `keras.ops` here. Labels are floats, NaN where missing.
"""

from __future__ import annotations

from typing import Any

from kmtl.typing import Tensor

#: How far from 1 the sum of a label's shares may be.
SUM_TOLERANCE = 1e-3
#: How far from 1 the length of a direction may be.
LENGTH_TOLERANCE = 0.02


def not_whole(xp: Any, labels: Tensor) -> Tensor:
    """Which numbers have a fraction."""
    return labels > xp.floor(labels)


def no_shares(xp: Any, labels: Tensor, there: Tensor) -> Tensor:
    """Which vectors on the last axis are no probabilities.

    Args:
        there: Which of the numbers are labels.
    """
    negative = xp.any(labels < 0, axis=-1)
    off = xp.abs(xp.sum(labels, axis=-1) - 1.0) > SUM_TOLERANCE
    return xp.logical_and(xp.all(there, axis=-1), xp.logical_or(negative, off))


def no_directions(xp: Any, labels: Tensor) -> Tensor:
    """Which vectors on the last axis are neither of length 1 nor all 0."""
    size = xp.sqrt(xp.sum(labels * labels, axis=-1))
    far = xp.abs(size - 1.0) >= LENGTH_TOLERANCE  # not of NaN
    return xp.logical_and(far, size != 0)


def times_and_events(xp: Any, labels: Tensor) -> list[tuple[Tensor, str]]:
    """Which rows `(time, event)` break a rule, and that rule, for each of the rules.

    Rows of zeros are missing, too.
    """
    nothing = xp.all(labels == 0, axis=-1, keepdims=True)
    gone = xp.logical_or(xp.isnan(labels), nothing)
    time_gone, event_gone = gone[:, 0], gone[:, 1]
    time, event = labels[:, 0], labels[:, 1]
    known = xp.logical_or(event == 0, event == 1)
    return [
        (time_gone != event_gone, "both of a time and an event, or neither"),
        (xp.logical_and(time <= 0, xp.logical_not(time_gone)), "a time above 0"),
        (
            xp.logical_not(xp.logical_or(known, event_gone)),
            "an event of 0 or 1",
        ),
    ]


def half_missing(xp: Any, labels: Tensor, axes: int | tuple[int, ...] = -1) -> Tensor:
    """Which points, boxes of a photo, ... miss some of their numbers, and not all."""
    gone = xp.isnan(labels)
    some, whole = xp.any(gone, axis=axes), xp.all(gone, axis=axes)
    return xp.logical_and(some, xp.logical_not(whole))


def no_boxes(xp: Any, labels: Tensor, classes: int) -> Tensor:
    """Which rows of `(N, boxes, 5)` are neither a box with a class nor none.

    Args:
        classes: Number of the classes.
    """
    places, kinds = labels[..., :4], labels[..., 4]
    wrong = xp.logical_or(kinds < -1, kinds >= classes)
    wrong = xp.logical_or(wrong, not_whole(xp, kinds))
    outside = xp.any(xp.logical_or(places < 0, places > 1), axis=-1)
    empty = xp.any(places[..., 2:] <= places[..., :2], axis=-1)
    misplaced = xp.logical_and(kinds >= 0, xp.logical_or(outside, empty))
    return xp.logical_or(wrong, misplaced)


def with_gaps(xp: Any, there: Tensor) -> Tensor:
    """Which rows of symbols have one behind a place without."""
    return xp.any(xp.logical_and(xp.logical_not(there[:, :-1]), there[:, 1:]), axis=1)


def steps_needed(xp: Any, labels: Tensor, there: Tensor) -> Tensor:
    """How many steps each row of symbols takes: one each, and one between two alike."""
    alike = xp.logical_and(labels[:, 1:] == labels[:, :-1], there[:, 1:])
    one, zero = xp.ones_like(labels), xp.zeros_like(labels)
    symbols = xp.sum(xp.where(there, one, zero), axis=1)
    return symbols + xp.sum(xp.where(alike, one[:, 1:], zero[:, 1:]), axis=1)
