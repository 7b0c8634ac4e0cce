"""What a teacher says, as labels."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from keras import ops

from kmtl import _checks, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.typing import Inputs, Shape, Tensor

SPACES = ("softmax", "sigmoid", "values", "direction")


@register("task", "taught")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Taught(Task):
    """The outputs of another model as labels: logits, values or features.

    `kmtl.distill` puts one beside each task that has a teacher, on the same outputs.
    Labels are floats of the outputs' shape; an example counts if all of its are there.
    Missing: NaN. Metrics: `mean_loss`, the loss itself.

    Args:
        shape: Shape of one output.
        space: What outputs are. `"softmax"` or `"sigmoid"`: logits; the loss is the
            Kullback-Leibler divergence from the teacher's probabilities at
            `temperature`, times its square. `"values"`: numbers; squared error.
            `"direction"`: features; squared distance of the vectors of length 1.
        temperature: Number > 0 that divides logits: above 1 more is learned of
            improbable classes. Defaults to 2.

    Example:

    >>> task = kmtl.tasks.Taught("taught", shape=(3,))
    >>> said = np.log([[0.7, 0.2, 0.1]])
    >>> round(float(task.loss_values(*task.clean_labels(said)[:1], said)[0, 0]), 6)
    0.0

    Reference: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network",
    2015, arXiv:1503.02531; features: Li, Bilen, "Knowledge Distillation for Multi-task
    Learning", ECCV 2020 workshops, arXiv:2007.06889.
    """

    shape: tuple[int, ...]
    space: str = "softmax"
    temperature: float = 2.0
    missing: float | None = math.nan

    LOSSES: ClassVar = {"taught": None}  # type: ignore[dict-item]  # `loss_values`
    METRICS: ClassVar = {
        "mean_loss": (lambda task, name: _MeanLoss(task, name=name), False)
    }
    DEFAULT_METRICS = ("mean_loss",)

    def __post_init__(self) -> None:
        shape = _checks.check_ints("shape", self.shape)
        if not shape:
            raise ValueError("`shape` must have at least one axis. Received: shape=()")
        object.__setattr__(self, "shape", shape)
        _checks.check_choice("space", self.space, SPACES)
        warmth = _checks.check_range("temperature", self.temperature, 0, low_open=True)
        object.__setattr__(self, "temperature", warmth)
        super().__post_init__()

    @property
    def label_count(self) -> int:
        return math.prod(self.shape)

    @property
    def value_columns(self) -> int:
        return self.shape[-1]

    @property
    def output_activation(self) -> str:
        return self.space if self.space in ("softmax", "sigmoid") else "linear"

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return self.shape

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [self.shape]

    def output_shape(self, input_shape: Shape) -> tuple:
        return self.shape

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        outputs = vector_head(features, head, self, self.label_count)
        if len(self.shape) < 2:
            return outputs
        from keras.layers import Reshape

        return head.make.layer(Reshape, "shape", target_shape=self.shape)(outputs)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        axes = tuple(range(1, len(mask.shape)))
        whole = ops.min(mask, axis=axes, keepdims=True)
        return ops.cast(labels, "float32"), ops.broadcast_to(whole, ops.shape(mask))

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        outputs = ops.cast(outputs, "float32")
        if self.space == "values":
            return ops.square(outputs - labels)
        if self.space == "direction":
            apart = ops.square(_unit(outputs) - _unit(labels))
            return _everywhere(ops.sum(apart, axis=-1, keepdims=True), labels)
        warmth = self.temperature
        said, own = labels / warmth, outputs / warmth
        if self.space == "sigmoid":
            yes = ops.sigmoid(said)
            apart = yes * (ops.log_sigmoid(said) - ops.log_sigmoid(own))
            apart += (1.0 - yes) * (ops.log_sigmoid(-said) - ops.log_sigmoid(-own))
            return warmth**2 * ops.maximum(apart, 0.0)
        said, own = ops.log_softmax(said, axis=-1), ops.log_softmax(own, axis=-1)
        apart = ops.sum(ops.exp(said) * (said - own), axis=-1, keepdims=True)
        return warmth**2 * _everywhere(ops.maximum(apart, 0.0), labels)


class _MeanLoss(metrics.MaskedMean):
    """The task's loss as a metric."""

    def __init__(self, task: Taught, name: str | None = None):
        super().__init__(name=name)
        self.task = task

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return self.task.loss_values(labels, outputs)


def _everywhere(values: Tensor, labels: Tensor) -> Tensor:
    """One number per vector, for each of its entries."""
    return ops.broadcast_to(values, ops.shape(labels))


def _unit(vectors: Tensor) -> Tensor:
    squared = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.rsqrt(ops.maximum(squared, 1e-12))
