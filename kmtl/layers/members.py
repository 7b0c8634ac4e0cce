"""Members of an ensemble as rows of one batch.

Row n of a batch becomes rows n * k to n * k + k - 1, one per member, after which every
layer treats members as it treats rows. Only what is a member's own has to know.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, DType, Initializer, Shape, Tensor


class _OfMembers(keras.layers.Layer):
    """Checks and keeps the number of members."""

    def __init__(self, members: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.members = _checks.check_int("members", members, 1)

    def get_config(self) -> Config:
        return {**super().get_config(), "members": self.members}


@keras.saving.register_keras_serializable(package="kmtl")
class ToMembers(_OfMembers):
    """Every row once per member.

    Args:
        members: Number k of members, >= 1.

    Call arguments:
        inputs: `(N, ...)`.

    Returns:
        `(N * k, ...)`.

    Example:

    >>> layer = kmtl.layers.ToMembers(2)
    >>> layer(np.array([[1.0], [2.0]]))[:, 0].numpy().tolist()
    [1.0, 1.0, 2.0, 2.0]
    """

    def __init__(self, members: int, **kwargs: Any):
        # Half precision has no exact codes, and nothing is computed here.
        super().__init__(members, autocast=False, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        return ops.repeat(inputs, self.members, axis=0)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows = input_shape[0]
        return (None if rows is None else rows * self.members, *input_shape[1:])

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        shape = self.compute_output_shape(inputs.shape)
        return keras.KerasTensor(shape, dtype=inputs.dtype)

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        given = self.input
        inputs = keras.Input(batch_shape=given.shape, dtype=given.dtype)
        return keras.Model(inputs, self.call(inputs), name=self.name)


@keras.saving.register_keras_serializable(package="kmtl")
class RandomSigns(keras.initializers.Initializer):
    """1 or -1 with equal probability.

    Args:
        seed: Integer, or None for different ones every time.
    """

    def __init__(self, seed: int | None = None):
        self.seed = seed

    def __call__(self, shape: Shape, dtype: DType | None = None) -> Tensor:
        drawn = keras.random.uniform(shape, dtype="float32", seed=self.seed)
        return ops.cast(ops.where(drawn < 0.5, -1.0, 1.0), dtype or "float32")

    def get_config(self) -> Config:
        return {"seed": self.seed}


@keras.saving.register_keras_serializable(package="kmtl")
class MemberScale(_OfMembers):
    """Multiplies every channel by a factor of the member, which is learned.

    Args:
        members: Number k of members, >= 1.
        scale_initializer: Of the factors `(k, channels)`. Defaults to ones.

    Call arguments:
        inputs: `(N * k, ..., channels)`, as `ToMembers` orders rows.

    Reference: Wen et al. (BatchEnsemble), ICLR 2020, arXiv:2002.06715, eq. 1 and 5: a
    layer whose kernel members share, with such factors before and after it.
    """

    def __init__(
        self, members: int, scale_initializer: Initializer = "ones", **kwargs: Any
    ):
        super().__init__(members, **kwargs)
        self.supports_masking = True  # of Keras, which it hands on
        self.scale_initializer = keras.initializers.get(scale_initializer)

    def build(self, input_shape: Shape) -> None:
        self.scale = self.add_weight(
            name="scale",
            shape=(self.members, int(input_shape[-1])),
            initializer=self.scale_initializer,
        )
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        grouped = split_members(inputs, self.members)
        axes = len(inputs.shape) - 2
        scale = ops.reshape(self.scale, (self.members, *(1,) * axes, -1))
        return _join_members(grouped * scale, inputs)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.layers.Layer:
        """A plain Keras model that does the same."""
        shape = tuple(self.input.shape)
        inputs = keras.Input(batch_shape=shape, dtype=self.input.dtype)
        inner = "abcde"[: len(shape) - 2]
        scaled = keras.layers.EinsumDense(
            f"nk{inner}z,kz->nk{inner}z", (self.members, *shape[1:])
        )(split_members(inputs, self.members))
        return keras.Model(inputs, _join_members(scaled, inputs), name=self.name)

    def plain_weights(self) -> list[np.ndarray]:
        """The weights of what `to_keras` makes."""
        return [ops.convert_to_numpy(self.scale)]

    def get_config(self) -> Config:
        initializer = keras.initializers.serialize(self.scale_initializer)
        return {**super().get_config(), "scale_initializer": initializer}


def split_members(values: Tensor, members: int) -> Tensor:
    """`(N * k, ...)` to `(N, k, ...)`."""
    return ops.reshape(values, (-1, members, *_sizes(values)))


def _join_members(grouped: Tensor, like: Tensor) -> Tensor:
    """`(N, k, ...)` to `(N * k, ...)`."""
    return ops.reshape(grouped, (-1, *_sizes(like)))


def _sizes(values: Tensor) -> tuple:
    """Sizes of a row, which may be known at run time alone."""
    if None not in values.shape[1:]:
        return tuple(values.shape[1:])
    return tuple(ops.shape(values)[1:])
