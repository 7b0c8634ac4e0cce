"""Gates: how much of each expert an example takes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._dimensions import Float
from kmtl.layers.recorded import Recorded
from kmtl.typing import Config, Initializer, Regularizer, Shape, Tensor

#: Of gates, where a search chooses it.
TEMPERATURES = Float(0.25, 4.0, log=True, default=1.0)


class Gate(Recorded):
    """Base class of the layers that weigh experts.

    Computes in float32 under every policy. Its reading is the mean weight of each
    expert.

    Args:
        experts: Number E of experts, >= 2.
        task: Whose gate it is: the name of its reading.
        labels: Names of the experts, for pictures. Defaults to `expert 1` and so on.
        pool: Whether a map is averaged over its places; else it is flattened.

    Call arguments:
        inputs: What the experts read, `(N, ..., C)`.

    Returns:
        `(N, E)`, float32.
    """

    def __init__(
        self,
        experts: int,
        task: str,
        labels: Sequence[str] | None = None,
        pool: bool = True,
        **kwargs: Any,
    ):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.experts = _checks.check_int("experts", experts, 2)
        self.task = task
        numbered = [f"expert {i + 1}" for i in range(self.experts)]
        self.labels = tuple(numbered if labels is None else labels)
        self.pool = bool(pool)

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[1:])
        width = self._shape[-1] if self._averages() else math.prod(self._shape)
        self.make_weights(width)
        self.add_reading(self.task, (self.experts,))
        self.built = True

    def make_weights(self, width: int) -> None:
        """Add the variables of a gate that reads vectors of `width`."""
        raise NotImplementedError

    def _averages(self) -> bool:
        return self.pool and len(self._shape) > 1

    def _vectors(self, inputs: Tensor) -> Tensor:
        rank = len(self._shape) + 1
        if self._averages():
            return ops.mean(inputs, axis=tuple(range(1, rank - 1)))
        return (
            inputs if rank == 2 else ops.reshape(inputs, (-1, math.prod(self._shape)))
        )

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.experts)

    def reading_labels(self) -> tuple[str, ...]:
        return self.labels

    def _plain(self, function: Callable[[Tensor], Tensor]) -> keras.Model:
        """Model from inputs to `function(vectors)`."""
        inputs = keras.Input(self._shape, dtype="float32")
        return keras.Model(inputs, function(self._vectors(inputs)), name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "experts": self.experts,
            "task": self.task,
            "labels": list(self.labels),
            "pool": self.pool,
        }


@keras.saving.register_keras_serializable(package="kmtl")
class SoftmaxGate(Gate):
    """g(x) = softmax(W x / temperature).

    Args:
        experts, task, labels, pool: See `Gate`.
        temperature: Float > 0; higher is more even. Defaults to 1.
        kernel_initializer: Of W, `(C, E)`.
        kernel_regularizer: Keras regulariser of W, or None.

    Example:

    >>> gate = kmtl.layers.SoftmaxGate(2, "digit", kernel_initializer="zeros")
    >>> np.asarray(gate(np.ones((1, 3))))
    array([[0.5, 0.5]], dtype=float32)

    Reference: Ma et al., KDD 2018, eq. 8.
    """

    def __init__(
        self,
        experts: int,
        task: str,
        labels: Sequence[str] | None = None,
        pool: bool = True,
        temperature: float = 1.0,
        kernel_initializer: Initializer = "glorot_uniform",
        kernel_regularizer: Regularizer = None,
        **kwargs: Any,
    ):
        super().__init__(experts, task, labels, pool, **kwargs)
        self.temperature = check_temperature(temperature)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def make_weights(self, width: int) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(width, self.experts),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        logits = ops.matmul(self._vectors(inputs), self.kernel)
        weights = ops.softmax(logits / self.temperature)
        if training:
            self.record(**{self.task: weights})
        return weights

    def to_keras(self) -> keras.Model:
        """The same of plain Keras layers."""

        def weigh(x: Tensor) -> Tensor:
            dense = keras.layers.Dense(self.experts, use_bias=False, dtype="float32")
            return ops.softmax(dense(x) / self.temperature)

        return self._plain(weigh)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }


def check_temperature(temperature: float) -> float:
    """A positive, finite number."""
    return _checks.check_range("temperature", temperature, 0, 1e6, low_open=True)
