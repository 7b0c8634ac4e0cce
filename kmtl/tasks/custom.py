"""A kind of task of the user's own, without a class."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import keras
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.losses.joint import check_registered
from kmtl.tasks import terms
from kmtl.tasks.base import Task
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.typing import Config, Inputs, Shape, Tensor

_LABELS = ("float32", "int32")
_READ_AS = ("linear", "sigmoid", "softmax", "softplus", "exponential", "tanh")


@register("task", "custom")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class CustomTask(Task):
    """A head, a loss and metrics of yours, with all else as other kinds have it.

    Missing labels, weights, balancing, search and export work as usual. For a kind that
    is used often, a subclass of `kmtl.Task` says the same (`kmtl.testing.check_task`
    tests it). Missing: NaN, by default; an example counts if all its labels are there.

    Args:
        shape: Shape of one label. Defaults to (), a number.
        dtype: `"float32"` (default) or `"int32"`: of the labels that the loss gets.
        head: What makes the outputs: a function of `(features, make)`, where
            `make.dense(units, name)` and so on make layers with names and seeds; or a
            Keras layer or model, which is cloned. Defaults to the dense layers of other
            kinds, with an output for each number of a label.
        loss: A function `(labels, outputs)` that gives one number per example, `(N,)`;
            or a `keras.losses.Loss`, or `"mse"` (default), `"mae"`, `"huber"`. A
            missing label is 0 there and its result not used: it must be finite at 0.
        final_activation: What turns outputs into what is read, in exports and custom
            metrics: `"linear"` (default), `"sigmoid"`, `"softmax"`, ... The loss gets
            the outputs.
        negative: The loss function may give values below 0. Defaults to False.
        metrics: `kmtl.Metric` objects, which get labels as `loss` does. Defaults to
            `"mean_loss"`, the loss itself.

    Functions are saved by their name, so they must have been registered:
    `@keras.saving.register_keras_serializable("mine")`.

    Example:

    >>> from keras import ops
    >>> @keras.saving.register_keras_serializable("mine")
    ... def angle(labels, outputs):
    ...     return 1.0 - ops.sum(ops.normalize(outputs) * labels, axis=-1)
    >>> wind = kmtl.CustomTask("wind", shape=(2,), loss=angle)
    >>> model = kmtl.build_mlp(input_shape=(3,), tasks=[wind], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> y = {"wind": [[1.0, 0.0], [0.0, 1.0]]}
    >>> bool(model.fit(np.ones((2, 3)), y, verbose=0).history["wind_loss"][0] > 0)
    True
    """

    shape: tuple[int, ...] = ()
    dtype: str = "float32"
    head: Any = None
    final_activation: str = "linear"
    negative: bool = False
    missing: float | None = math.nan

    LOSSES: ClassVar = {"mse": losses.mse, "mae": losses.mae, "huber": losses.huber}
    METRICS: ClassVar = {
        "mean_loss": (lambda task, name: _MeanLoss(task, name=name), False)
    }
    DEFAULT_METRICS = ("mean_loss",)

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", _checks.check_ints("shape", self.shape))
        _checks.check_choice("dtype", self.dtype, _LABELS)
        _checks.check_choice("final_activation", self.final_activation, _READ_AS)
        object.__setattr__(self, "head", self._check_head(self.head))
        super().__post_init__()

    def _check_head(self, head: Any) -> Any:
        if isinstance(head, dict):
            head = keras.saving.deserialize_keras_object(head)
        if head is None or isinstance(head, keras.layers.Layer):
            return head
        if not callable(head):
            raise TypeError(
                f"`head` of task '{self.name}' must be a function of (features, make), "
                f"or a Keras layer. Received: head={head!r}"
            )
        return check_registered(head, f"`head` of task '{self.name}'")

    def _check_loss(self, loss: Any) -> Any:
        if isinstance(loss, dict):
            loss = keras.saving.deserialize_keras_object(loss)
        if callable(loss) and not isinstance(loss, keras.losses.Loss):
            return check_registered(loss, f"`loss` of task '{self.name}'")
        return super()._check_loss(loss)

    @property
    def _own_loss(self) -> bool:
        return callable(self.loss) and not isinstance(self.loss, keras.losses.Loss)

    @property
    def label_count(self) -> int:
        return math.prod(self.shape)

    @property
    def value_columns(self) -> int | None:
        return self.shape[-1] if self.shape else 1

    @property
    def output_activation(self) -> str:
        return self.final_activation

    @property
    def loss_may_be_negative(self) -> bool:
        return self.negative or (not self._own_loss and super().loss_may_be_negative)

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return self.shape or (1,)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [self.shape] if self.shape else [(), (1,)]

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return ops.cast(labels, self.dtype), mask

    def given_labels(self, labels: Tensor) -> Tensor:
        return labels if self.shape else labels[..., 0]

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if not self._own_loss:
            return super().loss_values(labels, outputs)
        given = self.given_labels(labels)
        values = ops.cast(self.loss(given, outputs), "float32")
        if len(values.shape) != 1:
            raise ValueError(
                f"`loss` of task '{self.name}' must give one number per example, (N,). "
                f"Received: shape {tuple(values.shape)} for labels of shape "
                f"{tuple(given.shape)}"
            )
        values = ops.reshape(values, (-1, *[1] * (len(labels.shape) - 1)))
        return ops.broadcast_to(values, ops.shape(labels))

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        if not self._own_loss:
            return super().label_weights(labels, mask)
        axes = tuple(range(1, len(mask.shape)))
        return mask * ops.min(mask, axis=axes, keepdims=True)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        if self.head is None:
            outputs = vector_head(features, head, self, self.label_count)
            if len(self.shape) < 2:
                return outputs
            shape = {"target_shape": self.shape}
            return head.make.layer(keras.layers.Reshape, "shape", **shape)(outputs)
        if not isinstance(self.head, keras.layers.Layer):
            return self.head(features, head.make)
        config = keras.saving.serialize_keras_object(self.head)
        own = keras.saving.deserialize_keras_object(config)
        own.name = head.make.name("own")
        return own(features)

    def to_config(self) -> Config:
        config = super().to_config()
        for field in ("head", "loss"):
            if not isinstance(getattr(self, field), (str, type(None))):
                value = getattr(self, field)
                config[field] = keras.saving.serialize_keras_object(value)
        return config


class _MeanLoss(metrics.MaskedMean):
    """The task's loss as a metric: an example counts if all its labels are there."""

    def __init__(self, task: CustomTask, name: str | None = None):
        super().__init__(name=name)
        self.task = task

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        if sample_weight is None:
            sample_weight = ops.ones_like(labels, dtype="float32")
        weight = ops.cast(sample_weight, "float32")
        mask = ops.cast(weight > 0, "float32")
        there = terms.label_weights(self.task, labels, mask)
        super().update_state(labels, outputs, weight * there)

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        mask = ops.ones_like(labels, dtype="float32")
        return terms.loss_values(self.task, labels, outputs, mask)[0]
