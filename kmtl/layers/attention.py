"""Scaled dot-product attention between the steps of sequences."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.layers.sequences import OnSequences
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Attention(OnSequences):
    """Each step's mean of all steps' values, weighted by `softmax(q · k / √d)`.

    Without weights: queries, keys and values come from dense layers, which a trunk's
    sharing scheme may share, copy or update like any other. No step attends to padding.

    Args:
        heads: Number of heads, a divisor of the channels. Defaults to 1.
        causal: Whether a step attends only to itself and those before it.

    Call arguments:
        inputs: `[queries (N, L, C), keys (N, M, C), values (N, M, C)]`, and as a fourth
            the keys' mask `(N, M)` where some are padding.

    Returns:
        `(N, L, C)`.

    Reference: Vaswani et al., NeurIPS 2017, arXiv:1706.03762, eq. 1.
    """

    def __init__(self, heads: int = 1, causal: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.heads = _checks.check_int("heads", heads, 1)
        self.causal = bool(causal)

    def build(self, input_shape: Shape) -> None:
        super().build(input_shape)
        channels = input_shape[0][-1]
        if channels % self.heads:
            raise ValueError(
                f"`heads` must divide the {channels} channels of layer '{self.name}'. "
                f"Received: heads={self.heads}"
            )

    def call(self, inputs: Tensor) -> Tensor:
        channels = int(inputs[0].shape[-1])
        split = (self.heads, channels // self.heads)
        query, key, value = (_reshaped(x, split) for x in inputs[:3])
        mask = None
        if len(inputs) == 4:
            mask = ops.expand_dims(ops.cast(inputs[3], "bool"), (1, 2))
        attended = ops.dot_product_attention(
            query, key, value, mask=mask, is_causal=self.causal
        )
        return _reshaped(attended, (channels,))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])

    def get_config(self) -> Config:
        return {**super().get_config(), "heads": self.heads, "causal": self.causal}


def _reshaped(x: Tensor, last: tuple[int, ...]) -> Tensor:
    """`(N, L, ...)` with other sizes after N and L, which may be unknown."""
    if isinstance(x, keras.KerasTensor):
        return keras.layers.Reshape((-1, *last))(x)
    return ops.reshape(x, (ops.shape(x)[0], -1, *last))
