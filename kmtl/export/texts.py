"""Texts of generated tokens, as strings in a SavedModel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras

from kmtl.typing import Tensor


class JoinedTokens(keras.layers.Layer):
    """Numbers of tokens `(N, L)`, -1 behind them, as one string per row.

    Of TensorFlow: no other backend has strings.

    Args:
        tokens: The tokens.
        separator: What stands between them.
    """

    def __init__(self, tokens: Sequence[str], separator: str, **kwargs: Any):
        super().__init__(**kwargs)
        self.tokens = tuple(tokens)
        self.separator = separator

    def call(self, inputs: Tensor) -> Tensor:
        import tensorflow as tf

        table = tf.constant([*self.tokens, ""])
        numbers = tf.where(inputs < 0, len(self.tokens), inputs)
        tokens = tf.gather(table, numbers)
        # What is not there must leave no separator behind.
        before = tf.where(inputs[:, 1:] < 0, "", self.separator)
        parts = tf.concat([tokens[:, :1], before + tokens[:, 1:]], axis=1)
        return tf.strings.reduce_join(parts, axis=-1)

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape[:1], "string")
