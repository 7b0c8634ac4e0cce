"""What a task takes over from the task before it."""

from __future__ import annotations

import math
from typing import Any

import keras
from keras import ops

from kmtl.layers.own_losses import OwnLosses
from kmtl.layers.recorded import Recorded
from kmtl.losses.masked import all_replicas_sum, replica_count
from kmtl.typing import Config, Initializer, Regularizer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class InformationTransfer(Recorded):
    """Attention of a task over its own features and those handed over to it.

    z = sum_u w_u V u over u in {handed, own}, w = softmax_u((Q u · K u) / sqrt(F)),
    with Q, K, V of shape `(F, F)`; the softmax is in float32. Its reading is the mean
    of w.

    Args:
        task: Whose attention it is: the name of its reading.
        before: The task before it, for pictures.
        kernel_initializer: Of Q, K and V. Defaults to `"glorot_uniform"`.
        kernel_regularizer: Of Q, K and V, or None.

    Call arguments:
        inputs: `[handed, own]`, both `(N, F)`.

    Returns:
        `(N, F)`.
    """

    def __init__(
        self,
        task: str,
        before: str,
        kernel_initializer: Initializer = "glorot_uniform",
        kernel_regularizer: Regularizer = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.task, self.before = task, before
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Shape) -> None:
        self._width = int(input_shape[1][-1])
        self.query, self.key, self.value = (
            self.add_weight(
                name=name,
                shape=(self._width, self._width),
                initializer=self._initializer(name),
                regularizer=self.kernel_regularizer,
            )
            for name in ("query", "key", "value")
        )
        self.add_reading(self.task, (2,))
        self.built = True

    def _initializer(self, name: str) -> Initializer:
        """One initializer gives equal weights each time, without a seed too."""
        config = self.kernel_initializer.get_config()
        if isinstance(config.get("seed"), int):
            config["seed"] += ("query", "key", "value").index(name)
        return type(self.kernel_initializer).from_config(config)

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        pair = ops.stack(inputs, axis=1)  # (N, 2, F)
        query, key, value = (
            ops.matmul(pair, ops.cast(kernel, pair.dtype))
            for kernel in (self.query, self.key, self.value)
        )
        weights = _attention(query, key)
        if training:
            self.record(**{self.task: weights[:, :, 0]})
        return ops.sum(ops.cast(weights, value.dtype) * value, axis=1)

    def reading_labels(self) -> tuple[str, ...]:
        return self.before, self.task

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[1])

    def to_keras(self) -> keras.Model:
        """The same of plain Keras layers."""
        inputs = [
            keras.Input((self._width,), dtype=self.compute_dtype) for _ in range(2)
        ]
        pair = ops.stack(inputs, axis=1)
        query, key, value = (
            keras.layers.Dense(
                self._width, use_bias=False, dtype=self.dtype_policy, name=name
            )(pair)
            for name in ("query", "key", "value")
        )
        weights = ops.cast(_attention(query, key), self.compute_dtype)
        return keras.Model(inputs, ops.sum(weights * value, axis=1), name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "task": self.task,
            "before": self.before,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def _attention(query: Tensor, key: Tensor) -> Tensor:
    """Softmax over the middle axis, `(N, 2, 1)` in float32."""
    query, key = ops.cast(query, "float32"), ops.cast(key, "float32")
    scores = ops.sum(query * key, axis=-1, keepdims=True)
    return ops.softmax(scores / math.sqrt(query.shape[-1]), axis=1)


@keras.saving.register_keras_serializable(package="kmtl")
class Calibrator(OwnLosses):
    """Identity that makes it cost something if what comes later is more probable.

    While training it adds `weight` * mean(max(σ(after) - σ(before), 0)) to the loss.
    Under `tf.distribute` the mean is of the global batch.

    Args:
        weight: Number >= 0.

    Call arguments:
        inputs: `[before, after]`: logits of one shape.

    Returns:
        `after`, in float32.
    """

    def __init__(self, weight: float, **kwargs: Any):
        kwargs["dtype"] = "float32"
        super().__init__(**kwargs)
        self.weight = weight

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[1])
        self.built = True

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        before, after = inputs
        if training:
            excess = ops.relu(ops.sigmoid(after) - ops.sigmoid(before))
            rows = all_replicas_sum(ops.cast(ops.size(excess), "float32"))
            # The step takes 1/N of what each replica adds.
            mean = ops.sum(excess) / rows * replica_count()
            self.add_loss(self.weight * mean)
        return after

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[1])

    def to_keras(self) -> keras.Model:
        """Plain Keras layers that pass the second input on."""
        inputs = [keras.Input(self._shape[1:], dtype="float32") for _ in range(2)]
        passed = keras.layers.Identity(dtype="float32")(inputs[1])
        return keras.Model(inputs, passed, name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "weight": self.weight}
