"""The last layer of every head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kmtl.tasks.base import Task


@keras.saving.register_keras_serializable(package="kmtl")
class TaskOutput(keras.layers.Layer):
    """Identity in float32, named as its task, which it carries.

    Keras takes log names, dict keys and export names from several places (the dict
    key, the output layer, its position); one layer named as the task at the end of
    every head makes them agree. It holds the task's config, so that a model knows its
    tasks after `clone_model` or loading, and the task's weight as a variable.

    Args:
        task: A `kmtl.Task`, or its config.
        weight_rule: `"data"` when the weight is still to be set from label counts.

    Call arguments:
        inputs: Logits or values of the task, any float dtype.
    """

    def __init__(
        self,
        task: Task | Mapping[str, Any],
        weight_rule: str | None = None,
        **kwargs: Any,
    ):
        self.task = task if isinstance(task, Task) else Task.from_config(task)
        kwargs["name"] = self.task.name
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.weight_rule = weight_rule

    def build(self, input_shape: Any) -> None:
        self.task_weight = self.add_weight(
            name="task_weight",
            shape=(),
            initializer=keras.initializers.Constant(self.task.weight),
            trainable=False,
            dtype="float32",
        )
        self.built = True

    def call(self, inputs: Any) -> Any:
        return ops.cast(inputs, "float32")

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same."""
        return keras.layers.Identity(dtype="float32", name=self.name)

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {
            **config,
            "task": self.task.to_config(),
            "weight_rule": self.weight_rule,
        }
