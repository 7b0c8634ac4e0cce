"""The last layer of every head."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl._private.keras import value_of
from kmtl.tasks.base import Task
from kmtl.typing import Config, Shape, Tensor, Variable


@keras.saving.register_keras_serializable(package="kmtl")
class TaskOutput(keras.layers.Layer):
    """Identity in float32, named as its task, which it holds as it is now.

    Keras takes log names, dict keys and export names from several places (the dict
    key, the output layer, its position); one layer named as the task at the end of
    every head makes them agree. What is known of the task stands here and nowhere
    else: its loss, which `compile(loss=...)` may replace, and its weight, a variable.
    So a model knows its tasks as they are trained after `clone_model` or loading.

    Args:
        task: A `kmtl.Task`, or its config.
        loss: Loss in the place of the task's own: a name of the kind's, a
            `keras.losses.Loss`, or its config. Defaults to the task's own.
        weight_rule: `"data"` when the weight is still to be set from label counts.

    Call arguments:
        inputs: Logits or values of the task, any float dtype.
    """

    def __init__(
        self,
        task: Task | Config,
        loss: Any = None,
        weight_rule: str | None = None,
        **kwargs: Any,
    ):
        declared = task if isinstance(task, Task) else Task.from_config(task)
        kwargs["name"] = declared.name
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self._declared = self._task = declared
        self.weight_rule = weight_rule
        self.set_loss(loss)

    def build(self, input_shape: Shape) -> None:
        self.task_weight = self.add_weight(
            name="task_weight",
            shape=(),
            initializer=keras.initializers.Constant(self._task.weight),
            trainable=False,
            dtype="float32",
        )
        self.built = True

    @property
    def task(self) -> Task:
        """The task with the loss and the weight that it has now.

        While a step is traced the weight is the one from before: a step reads the
        variable, `task_weight`.
        """
        weight = _concrete(self.task_weight) if self.built else None
        if weight is not None and weight != np.float32(self._task.weight):
            # The shortest number with this value in float32: 0.3 and not 0.30000001.
            self._task = self._task.replace(weight=float(str(weight)))
        return self._task

    @property
    def replaced_loss(self) -> Any:
        """The loss in the place of the task's own, None where it has its own."""
        return None if self._task.loss is self._declared.loss else self._task.loss

    def with_loss(self, loss: Any = None) -> Task:
        """The task as `set_loss(loss)` would make it; refuses what does not fit."""
        changes = {} if loss is None else {"loss": loss}
        return self._declared.replace(weight=self.task.weight, **changes)

    def set_loss(self, loss: Any = None) -> None:
        """Put a loss in the place of the task's own, or with None its own back."""
        self._task = self.with_loss(loss)

    def set_weight(self, weight: float, rule: str | None = None) -> None:
        """Assign the task's weight, >= 0, or with a rule leave it to be counted."""
        task = self.task.replace(weight=weight)
        if self.built:
            self.task_weight.assign(task.weight)
        self._task, self.weight_rule = task, rule

    def call(self, inputs: Tensor) -> Tensor:
        return ops.cast(inputs, "float32")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same."""
        return keras.layers.Identity(dtype="float32", name=self.name)

    def get_config(self) -> Config:
        config = super().get_config()
        return {
            **config,
            "task": self.with_loss(None).to_config(),
            "loss": keras.saving.serialize_keras_object(self.replaced_loss),
            "weight_rule": self.weight_rule,
        }


def _concrete(variable: Variable) -> Variable:
    """The value of a scalar variable as numpy has it; None while a step is traced."""
    value = value_of(variable)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return np.float32(value.numpy()) if tf.executing_eagerly() else None
    return None if value is None else np.float32(value)
