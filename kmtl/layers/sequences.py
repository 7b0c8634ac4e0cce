"""Layers on sequences `(N, L, C)` whose padded steps count for nothing.

Where a sequence is padded is a tensor of its own, `(N, L)`: 1 at steps, 0 at padding.
It goes beside the features instead of on them, because what sharing schemes put between
blocks would lose it there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.layers.maker import LayerMaker
from kmtl.typing import Config, Shape, Tensor


class OnSequences(keras.layers.Layer):
    """Base class of what reads `[features, mask]`, or features where none is padded."""

    def build(self, input_shape: Shape) -> None:
        many = isinstance(input_shape[0], Sequence)
        self._shapes = [tuple(s) for s in (input_shape if many else [input_shape])]
        self.built = True

    def to_keras(self) -> keras.Model:
        """Plain Keras operations that do the same."""
        inputs = [
            keras.Input(shape[1:], dtype=self.compute_dtype) for shape in self._shapes
        ]
        read = inputs if len(inputs) > 1 else inputs[0]
        return keras.Model(read, self.call(read), name=self.name)


@keras.saving.register_keras_serializable(package="kmtl")
class PaddingMask(OnSequences):
    """1 at a sequence's steps and 0 where it is padded.

    Args:
        padding: The number that is no step: a token's id, or all features of a step.
            Defaults to 0.

    Call arguments:
        inputs: Ids `(N, L)` or features `(N, L, C)`.

    Returns:
        `(N, L)`, float32.

    Example:

    >>> np.asarray(kmtl.layers.PaddingMask()(np.array([[5, 3, 0]])))
    array([[1., 1., 0.]], dtype=float32)
    """

    def __init__(self, padding: float = 0, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.autocast = False  # half precision has no exact ids
        self.padding = padding

    def call(self, inputs: Tensor) -> Tensor:
        present = ops.not_equal(inputs, ops.cast(self.padding, inputs.dtype))
        if len(inputs.shape) == 3:
            present = ops.any(present, axis=-1)
        return ops.cast(present, "float32")

    def compute_output_spec(self, inputs: Tensor) -> keras.KerasTensor:
        return keras.KerasTensor(inputs.shape[:2], "float32")

    def get_config(self) -> Config:
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable(package="kmtl")
class Masked(OnSequences):
    """Features at steps, zeros at padding.

    Call arguments:
        inputs: `[(N, L, C), (N, L)]`, features and mask.

    Returns:
        `(N, L, C)`.
    """

    def call(self, inputs: Tensor) -> Tensor:
        features, mask = inputs
        return features * _column(mask, features)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])


#: Logit of a symbol where none can be: `exp` of it is 0, also in half precision.
NEVER = -1000.0


@keras.saving.register_keras_serializable(package="kmtl")
class BlankPadding(OnSequences):
    """Logits of symbols at steps, and at padding the blank (output 0) for certain.

    So padding adds nothing to a `ctc` loss, and nothing is read there.

    Call arguments:
        inputs: `[(N, L, symbols + 1), (N, L)]`, logits and mask.

    Returns:
        `(N, L, symbols + 1)`, float32.

    Example:

    >>> logits, mask = np.array([[[1.0, 2.0], [3.0, 4.0]]]), np.array([[1.0, 0.0]])
    >>> np.asarray(kmtl.layers.BlankPadding()([logits, mask])).tolist()
    [[[1.0, 2.0], [0.0, -1000.0]]]
    """

    def __init__(self, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        logits, mask = inputs
        blank = np.full(int(logits.shape[-1]), NEVER, "float32")
        blank[0] = 0.0
        there = ops.expand_dims(mask, -1) > 0
        return ops.where(there, logits, ops.cast(blank, logits.dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable(package="kmtl")
class WithMask(OnSequences):
    """Features that carry their mask along, as layers of Keras read it.

    Call arguments:
        inputs: `[(N, L, C), (N, L)]`, features and mask.

    Returns:
        The features, with the mask as their Keras mask.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, inputs: Tensor) -> Tensor:
        return ops.copy(inputs[0])  # the features themselves stay without

    def compute_mask(self, inputs: Tensor, previous_mask: Any = None) -> Tensor:
        return ops.cast(inputs[1], "bool")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])


@keras.saving.register_keras_serializable(package="kmtl")
class MaskedPooling(OnSequences):
    """Pooling over the steps of a sequence that are there.

    Args:
        pooling: `"avg"` or `"max"`.
        size: Steps of a window, or None for the whole sequence. Windows begin at the
            first step and the last one may be short, so that padding moves none.

    Call arguments:
        inputs: `[(N, L, C), (N, L)]`, or `(N, L, C)` alone.

    Returns:
        `(N, C)`, or `(N, ⌈L / size⌉, C)`; zeros where nothing is there.

    Example:

    >>> x, mask = np.array([[[2.0], [4.0], [9.0]]]), np.array([[1.0, 1.0, 0.0]])
    >>> np.asarray(kmtl.layers.MaskedPooling("avg")([x, mask]))
    array([[3.]], dtype=float32)
    """

    def __init__(self, pooling: str = "avg", size: int | None = None, **kwargs: Any):
        super().__init__(**kwargs)
        self.pooling = _checks.check_choice("pooling", pooling, ("avg", "max"))
        self.size = None if size is None else _checks.check_int("size", size, 1)

    def call(self, inputs: Tensor) -> Tensor:
        if not isinstance(inputs, (list, tuple)):
            return self._pooled(inputs)
        features, mask = inputs
        there = _column(mask, features)
        if self.pooling == "avg":  # the windows' sizes cancel
            total, share = self._pooled(features * there), self._pooled(there)
            return ops.divide_no_nan(total, share)
        least = ops.cast(float("-inf"), features.dtype)
        best = self._pooled(ops.where(there > 0, features, least))
        return ops.where(self._pooled(there) > 0, best, ops.zeros_like(best))

    def _pooled(self, x: Tensor) -> Tensor:
        if self.size is None:
            return ops.mean(x, axis=1) if self.pooling == "avg" else ops.max(x, axis=1)
        pool = ops.average_pool if self.pooling == "avg" else ops.max_pool
        return pool(x, self.size, self.size, padding="same")

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        many = isinstance(input_shape[0], Sequence)
        rows, steps, channels = input_shape[0] if many else input_shape
        if self.size is None:
            return (rows, channels)
        return (rows, None if steps is None else -(-steps // self.size), channels)

    def get_config(self) -> Config:
        return {**super().get_config(), "pooling": self.pooling, "size": self.size}


@keras.saving.register_keras_serializable(package="kmtl")
class MaskWindows(OnSequences):
    """The mask of what `MaskedPooling` gives: 1 where a window has a step.

    Args:
        size: Steps of a window.

    Call arguments:
        inputs: Mask `(N, L)`.

    Returns:
        `(N, ⌈L / size⌉)`.
    """

    def __init__(self, size: int, **kwargs: Any):
        kwargs.setdefault("dtype", "float32")
        super().__init__(**kwargs)
        self.size = _checks.check_int("size", size, 1)

    def call(self, inputs: Tensor) -> Tensor:
        column = ops.expand_dims(inputs, -1)
        pooled = ops.max_pool(column, self.size, self.size, padding="same")
        return ops.squeeze(pooled, -1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, steps = input_shape
        return (rows, None if steps is None else -(-steps // self.size))

    def get_config(self) -> Config:
        return {**super().get_config(), "size": self.size}


@keras.saving.register_keras_serializable(package="kmtl")
class MaskedBatchNormalization(keras.layers.BatchNormalization):
    """`keras.layers.BatchNormalization` that counts no padding.

    Call arguments:
        inputs: `[(N, L, C), (N, L)]`, features and mask.

    Returns:
        `(N, L, C)`.
    """

    def build(self, input_shape: Shape) -> None:
        self._shapes = [tuple(shape) for shape in input_shape]
        super().build(input_shape[0])
        self.input_spec = None  # is of one tensor

    def call(self, inputs: Tensor, training: bool = False) -> Tensor:
        features, mask = inputs
        return super().call(features, training=training, mask=ops.cast(mask, "bool"))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])

    def to_keras(self) -> keras.Model:
        """The layer of Keras, with its mask."""
        inputs = [
            keras.Input(shape[1:], dtype=self.compute_dtype) for shape in self._shapes
        ]
        layer = keras.layers.BatchNormalization.from_config(self.get_config())
        outputs = ops.copy(layer(inputs[0], mask=ops.cast(inputs[1], "bool")))
        return keras.Model(inputs, outputs, name=self.name)


@keras.saving.register_keras_serializable(package="kmtl")
class Positions(OnSequences):
    """Adds a fixed wave per channel, by which steps differ: a step's place.

    Channels 2i and 2i + 1 of step p get sin and cos of p / 10000^(2i / C).

    Args:
        copies: Number of features side by side in the channels. Defaults to 1.

    Call arguments:
        inputs: `(N, L, C)`.

    Returns:
        Tensor of that shape.

    Reference: Vaswani et al., NeurIPS 2017, arXiv:1706.03762, section 3.5.
    """

    def __init__(self, copies: int = 1, **kwargs: Any):
        super().__init__(**kwargs)
        self.copies = _checks.check_int("copies", copies, 1)

    def call(self, inputs: Tensor) -> Tensor:
        width = int(inputs.shape[-1]) // self.copies
        channels = list(range(width)) * self.copies
        rates = np.array([10000.0 ** (-(i - i % 2) / width) for i in channels])
        shifts = np.array([(i % 2) * np.pi / 2 for i in channels])  # sin, or cos
        ones = ops.ones_like(ops.cast(inputs[:, :, :1], "float32"))
        places = ops.cumsum(ones, axis=1) - 1.0  # of any length, known or not
        waves = ops.sin(places * rates.astype("float32") + shifts.astype("float32"))
        return inputs + ops.cast(waves, inputs.dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape)

    def get_config(self) -> Config:
        return {**super().get_config(), "copies": self.copies}


@keras.saving.register_keras_serializable(package="kmtl")
class Places(OnSequences):
    """A vector, sequence or map as a sequence of its places.

    Call arguments:
        inputs: `(N, C)`, `(N, L, C)` or `(N, H, W, C)`.

    Returns:
        `(N, 1, C)`, `(N, L, C)` or `(N, H * W, C)`.
    """

    def call(self, inputs: Tensor) -> Tensor:
        target = (-1, int(inputs.shape[-1]))
        if isinstance(inputs, keras.KerasTensor):  # of a plain model
            return keras.layers.Reshape(target)(inputs)
        return ops.reshape(inputs, (ops.shape(inputs)[0], *target))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        rows, *places, channels = input_shape
        known = None not in places
        return (rows, math.prod(places) if known else None, channels)


def _column(mask: Tensor, like: Tensor) -> Tensor:
    return ops.cast(ops.expand_dims(mask, -1), like.dtype)


def mask_of(features: Tensor, make: LayerMaker) -> Tensor | None:
    """The mask of a sequence `(N, L, C)` from a trunk's blocks; None if it has none."""
    if len(features.shape) != 3 or not isinstance(make.masks, tuple):
        return None
    fitting = [
        mask
        for mask in make.masks
        if hasattr(mask, "shape") and mask.shape[1] == features.shape[1]
    ]
    return fitting[-1] if fitting else None


def pooled(features: Tensor, make: LayerMaker, kind: str = "avg") -> Tensor:
    """A sequence's vector `(N, C)`: the mean (or maximum) of its steps."""
    mask = mask_of(features, make)
    layer = make.layer(MaskedPooling, "pool", pooling=kind)
    return layer(features if mask is None else [features, mask])


def window_between(before: int, after: int) -> int:
    """Steps that became one, by halving, from one length to another.

    Raises:
        ValueError: where halving does not lead from one to the other.
    """
    window = 2
    while -(-before // window) > after:
        window *= 2
    if -(-before // window) != after:
        raise ValueError(
            "Sequences of different lengths meet here, which must come from one "
            f"another by halving. Received: {before} and {after} steps"
        )
    return window
