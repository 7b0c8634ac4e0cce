"""What heads of sequences share: an output per step."""

from __future__ import annotations

from typing import Any

import numpy as np

from kmtl.tasks.heads import HeadContext, last_dense
from kmtl.typing import Shape, Tensor


def step_head(
    features: Tensor, head: HeadContext, task: Any, units: int, steps: int | None
) -> Tensor:
    """Hidden dense layers and a linear output at every step, `(N, L, units)`.

    Args:
        steps: How many steps L the task has, None for any.

    Raises:
        ValueError: for features that are no sequence of that length.
    """
    if len(features.shape) != 3 or steps not in (None, features.shape[1]):
        raise ValueError(
            f"Task '{task.name}' needs a trunk that keeps the steps of a sequence, "
            f"(N, {steps or 'L'}, C), such as kmtl.backbones.Transformer, RNN, or "
            f"ConvNet1D without pooling. Received: {tuple(features.shape)}"
        )
    x = features
    for i, width in enumerate(task.hidden):
        x = head.make.dense(width, f"hidden{i + 1}")(x)
        x = head.make.activation(task.activation, f"activation{i + 1}")(x)
        if task.dropout:
            x = head.make.dropout(task.dropout, f"dropout{i + 1}")(x)
    return last_dense(units, head)(x)


def steps_of(length: int | None, input_shape: Shape) -> int | None:
    """Steps of a task's labels: its own, else the input's; None for any."""
    if length is not None or not input_shape or len(input_shape) > 2:
        return length  # (without a shape: of several inputs)
    steps: int | None = input_shape[0]
    return steps


def padded(
    rows: list[Any], length: int | None, name: str, width: int | None = None
) -> np.ndarray:
    """Rows of different lengths as one float64 array, NaN where they are padded.

    Args:
        rows: Sequences of numbers, or of vectors of `width` numbers.
        length: Steps to which they are padded; the longest row's by default.
        name: The task's, for errors.

    Raises:
        ValueError: for a row that is too long.
    """
    longest = max(map(len, rows), default=0)
    steps = longest if length is None else length
    if longest > steps:
        row = next(i for i, values in enumerate(rows) if len(values) > steps)
        raise ValueError(
            f"Labels of task '{name}' must have at most {steps} steps, its `length`: "
            "cut them where the input is cut, or set `length` to the input's. "
            f"Received: {len(rows[row])} steps in row {row}"
        )
    shape = (len(rows), steps) if width is None else (len(rows), steps, width)
    array = np.full(shape, np.nan)
    for row, values in enumerate(rows):
        if len(values):
            array[row, : len(values)] = np.asarray(values, "float64")
    return array
