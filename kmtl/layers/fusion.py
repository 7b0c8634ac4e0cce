"""A layer that fuses the channels of several feature maps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.layers.recorded import Recorded
from kmtl.typing import Config, Regularizer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Fusion(Recorded):
    """1x1 convolution (a dense layer, for vectors) from S·C channels to C.

    Begins as a weighted sum of the S maps, channel by channel: the kernel is a stack of
    S diagonal matrices.

    Args:
        sources: Names of the S maps whose channels are concatenated, in order.
        own: The one among them whose diagonal begins at `own_weight`.
        own_weight: In [0, 1]. The other diagonals share the rest equally.
        use_bias: Defaults to False.
        kernel_regularizer: Keras regulariser of the kernel, or None.

    Call arguments:
        inputs: Tensor `(N, ..., S·C)`.

    Returns:
        Tensor `(N, ..., C)`.
    """

    def __init__(
        self,
        sources: Sequence[str],
        own: str,
        own_weight: float = 0.9,
        use_bias: bool = False,
        kernel_regularizer: Regularizer = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.sources = [str(source) for source in sources]
        self.own = own
        self.own_weight = own_weight
        self.use_bias = use_bias
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, input_shape: Shape) -> None:
        count = len(self.sources)
        channels = input_shape[-1] // count
        rest = (1.0 - self.own_weight) / (count - 1) if count > 1 else 0.0
        factors = np.full(count, rest, "float32")
        factors[self.sources.index(self.own)] = self.own_weight
        start = np.kron(factors[:, None], np.eye(channels, dtype="float32"))
        self.kernel = self.add_weight(
            name="kernel",
            shape=start.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(start, dtype),
            regularizer=self.kernel_regularizer,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias", shape=(channels,), initializer="zeros"
            )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        outputs = ops.matmul(inputs, self.kernel)
        return outputs + self.bias if self.use_bias else outputs

    def readings(self) -> dict[str, np.ndarray]:
        """Each source's part in the result: norm of its block of the kernel over C."""
        kernel = np.asarray(ops.convert_to_numpy(self.kernel), "float32")
        blocks = kernel.reshape(len(self.sources), -1)
        scale = np.sqrt(np.float32(kernel.shape[-1]))
        return {self.own: np.linalg.norm(blocks, axis=-1) / scale}

    def reading_labels(self) -> tuple[str, ...]:
        return tuple(self.sources)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], input_shape[-1] // len(self.sources))

    def to_keras(self) -> keras.layers.Layer:
        """The plain Keras layer with the same weights."""
        return keras.layers.Dense(
            self.kernel.shape[-1],
            use_bias=self.use_bias,
            kernel_regularizer=self.kernel_regularizer,
            dtype=self.dtype_policy,
            name=self.name,
        )

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "sources": self.sources,
            "own": self.own,
            "own_weight": self.own_weight,
            "use_bias": self.use_bias,
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
        }
