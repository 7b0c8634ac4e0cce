"""A loss on a prediction inside the model."""

from __future__ import annotations

from typing import Any

import keras

from kmtl import _checks
from kmtl.layers.kept import Kept
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class DeepSupervision(keras.layers.Layer):
    """Identity in float32 on which a task's loss is taken as well, while training.

    The task's loss becomes L(output) + `weight` * L(inputs): the same labels, masks,
    class weights and sample weights, before the task's weight and any weighting. In
    validation and at inference it is only the output's.

    In the logs `<task>_loss` stays the loss of the output alone. What all such layers
    add to the total is in `loss`, and shown as `deep_supervision_loss`; it is 0 in
    validation.

    Args:
        task: Name of the task whose labels the inputs predict.
        weight: Number > 0. Defaults to 1.

    Call arguments:
        inputs: Logits or values, of the shape of the task's output.

    Example:

    >>> inputs = keras.Input((4,))
    >>> early = keras.layers.Dense(1)(inputs)
    >>> early = kmtl.layers.DeepSupervision("price", weight=0.3)(early)
    >>> late = keras.layers.Dense(1)(keras.layers.Concatenate()([inputs, early]))
    >>> price = kmtl.TaskOutput(kmtl.Regression("price"))(late)
    >>> model = kmtl.MultiTaskModel(inputs, {"price": price})
    >>> model.compile("sgd")
    >>> logs = model.fit(np.ones((2, 4)), np.ones(2), verbose=0).history
    >>> sorted(logs)
    ['deep_supervision_loss', 'loss', 'price_loss', 'price_mae']

    Reference: Lee et al. (deeply supervised nets), AISTATS 2015, arXiv:1409.5185.
    """

    def __init__(self, task: str, weight: float = 1.0, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.task = task
        self.weight = _checks.check_range(
            "weight", weight, 0, low_open=True, high_open=True
        )
        self._kept = Kept()

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        if training:
            self._kept.put(inputs)
        else:
            self._kept.take()
        return inputs

    def take(self) -> Tensor | None:
        """What the layer saw in this step, once; None if it was not training."""
        return self._kept.take()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer that does the same at inference."""
        return keras.layers.Identity(dtype="float32", name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "task": self.task, "weight": self.weight}
