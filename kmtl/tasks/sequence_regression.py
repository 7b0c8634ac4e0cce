"""Real numbers per step of a sequence."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.regression import Regression
from kmtl.tasks.steps import padded, step_head, steps_of
from kmtl.tasks.tagging import sequences_in
from kmtl.typing import Shape, Tensor


@register("task", "sequence_regression")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class SequenceRegression(Regression):
    """A number per step of a sequence, such as a load per hour or a pitch per frame;
    labels float, `(N, L)`, or `(N, L, units)`. Lists of different lengths are padded.

    Outputs values `(N, L, units)`, in the label's unit. Missing: NaN, per entry: padded
    steps, or gaps. Losses: `mse` (default), `mae`, `huber`. Metrics: `mae` (default),
    `mse`, `rmse`. Needs a trunk that keeps the steps, such as
    `kmtl.backbones.Transformer` or `RNN`. See `kmtl.Task` for the other arguments.

    Args:
        units: Numbers per step, >= 1. Defaults to 1.
        length: Steps L to which lists of labels are padded: the length of the input.
            Not needed for arrays.
        transform, unit: As in `kmtl.Regression`.

    Example:

    >>> load = kmtl.SequenceRegression("load", length=3, transform="standardize")
    >>> load.label_array([[5.0, 6.0], [7.0, 8.0, 9.0]]).tolist()
    [[5.0, 6.0, nan], [7.0, 8.0, 9.0]]
    >>> model = kmtl.build(
    ...     backbone=kmtl.backbones.RNN(units=(8,)), input_shape=(3, 2), tasks=[load],
    ...     seed=0,
    ... )
    >>> model.output["load"].shape
    (None, 3, 1)
    """

    length: int | None = None

    METRICS: ClassVar = {
        name: made for name, made in Regression.METRICS.items() if name != "r2"
    }

    def __post_init__(self) -> None:
        if self.length is not None:
            length = _checks.check_int("length", self.length, 1)
            object.__setattr__(self, "length", length)
        super().__post_init__()

    def label_array(self, labels: Tensor) -> np.ndarray:
        rows = sequences_in(labels)
        if rows is None:
            return super().label_array(labels)
        width = self.units if self.units > 1 else None
        return super().label_array(padded(rows, self.length, self.name, width))

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (ops.shape(labels)[1], self.units)  # may be unknown in a tf.data graph

    def output_shape(self, input_shape: Shape) -> tuple:
        return (steps_of(self.length, input_shape), self.units)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        shape = self.output_shape(input_shape)
        return [shape[:1], shape] if self.units == 1 else [shape]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 3 and self.units == 1:
            return (
                f"; for {array.shape[2]} numbers per step pass units={array.shape[2]}"
            )
        return ""

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        steps = steps_of(self.length, head.input_shape)
        return step_head(features, head, self, self.units, steps)
