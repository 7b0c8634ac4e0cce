"""Layers that hold several copies of a plain one, side by side in their channels.

The channels of copy e are those from e * C to (e + 1) * C of a folded tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, DType, Initializer, Options, Regularizer, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class PerCopy(keras.initializers.Initializer):
    """One initializer per copy, so that fans and seeds are those of single copies.

    Args:
        initializers: Keras initializers (or their configs), one per copy.
        axis: Axis of the variable along which the copies lie. Defaults to the last.

    Example:

    >>> zeros_then_ones = kmtl.layers.grouped.PerCopy(["zeros", "ones"])
    >>> np.asarray(zeros_then_ones((1, 4)))
    array([[0., 0., 1., 1.]], dtype=float32)
    """

    def __init__(self, initializers: Sequence[Initializer], axis: int = -1):
        self.initializers = [keras.initializers.get(item) for item in initializers]
        self.axis = axis

    def __call__(self, shape: Shape, dtype: DType | None = None) -> Tensor:
        one = list(shape)
        one[self.axis] //= len(self.initializers)
        drawn = [make(tuple(one), dtype=dtype) for make in self.initializers]
        return ops.concatenate(drawn, axis=self.axis)

    def to_keras(self) -> keras.initializers.Initializer:
        """A plain initializer, for a layer whose weights are then assigned."""
        return self.initializers[0]

    def get_config(self) -> Config:
        return {
            "initializers": [
                keras.initializers.serialize(item) for item in self.initializers
            ],
            "axis": self.axis,
        }


class _Grouped(keras.layers.Layer):
    """Checks and keeps the number of copies."""

    def __init__(self, copies: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.copies = _checks.check_int("copies", copies, 1)

    def _channels(self, input_shape: Shape) -> int:
        """Channels of one copy."""
        channels = input_shape[-1]
        if channels is None or channels % self.copies:
            raise ValueError(
                f"The channels of layer '{self.name}' must be a multiple of `copies`. "
                f"Received: input shape {tuple(input_shape)}, copies={self.copies}"
            )
        return channels // self.copies

    def get_config(self) -> Config:
        return {**super().get_config(), "copies": self.copies}


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedDense(_Grouped):
    """Dense layers on the parts of a folded vector, as one batched product.

    Args:
        copies: Number E of dense layers, >= 1.
        units: Outputs of each, >= 1.
        use_bias: Defaults to True.
        kernel_initializer: Of the kernel `(E, inputs, units)`.
        kernel_regularizer: Keras regulariser of the kernel, or None.
        bias_initializer: Defaults to zeros.

    Call arguments:
        inputs: `(..., E * inputs)`.

    Returns:
        `(..., E * units)`.
    """

    def __init__(
        self,
        copies: int,
        units: int,
        use_bias: bool = True,
        kernel_initializer: Initializer = "glorot_uniform",
        kernel_regularizer: Regularizer = None,
        bias_initializer: Initializer = "zeros",
        **kwargs: Any,
    ):
        super().__init__(copies, **kwargs)
        self.supports_masking = True  # of Keras, which it hands on
        self.units = _checks.check_int("units", units, 1)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.bias_initializer = keras.initializers.get(bias_initializer)

    def build(self, input_shape: Shape) -> None:
        self.kernel = self.add_weight(
            name="kernel",
            shape=(self.copies, self._channels(input_shape), self.units),
            initializer=self.kernel_initializer,
            regularizer=self.kernel_regularizer,
        )
        self.bias = None
        if self.use_bias:
            self.bias = self.add_weight(
                name="bias",
                shape=(self.copies, self.units),
                initializer=self.bias_initializer,
            )
        self._space = tuple(input_shape[1:-1])
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        leading = ops.shape(inputs)[:-1]
        parts = ops.reshape(inputs, (-1, *self.kernel.shape[:2]))
        outputs = ops.einsum("bei,eio->beo", parts, self.kernel)
        if self.bias is not None:
            outputs = outputs + self.bias
        return ops.reshape(outputs, (*leading, self.copies * self.units))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape[:-1], self.copies * self.units)

    def to_keras(self) -> keras.Model:
        """The same of plain Keras layers."""
        channels = self.kernel.shape[1]
        space = tuple(-1 if size is None else size for size in self._space)
        inputs = keras.Input(
            (*self._space, self.copies * channels), dtype=self.compute_dtype
        )
        x = keras.layers.Reshape((*space, self.copies, channels))(inputs)
        x = keras.layers.EinsumDense(
            "...ei,eio->...eo",
            (self.copies, self.units),  # of what the dots stand for nothing is said
            bias_axes="eo" if self.use_bias else None,
            dtype=self.dtype_policy,
        )(x)
        outputs = keras.layers.Reshape((*space, self.copies * self.units))(x)
        return keras.Model(inputs, outputs, name=self.name)

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "units": self.units,
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
        }


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedFlatten(_Grouped):
    """Flattens a folded map so that the copies stay apart.

    Each part is what `keras.layers.Flatten` makes of its copy's map.

    Args:
        copies: Number E of copies.

    Call arguments:
        inputs: `(N, ..., E * C)`, of known size.

    Returns:
        `(N, E * (... * C))`.
    """

    def call(self, inputs: Tensor) -> Tensor:
        return _flatten(inputs, self.copies)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        self._channels(input_shape)
        if None in input_shape[1:]:
            raise ValueError(
                f"Layer '{self.name}' flattens and needs a known size. "
                f"Received: input shape {tuple(input_shape)}"
            )
        return (input_shape[0], math.prod(input_shape[1:]))

    def build(self, input_shape: Shape) -> None:
        self._shape = tuple(input_shape[1:])
        self.built = True

    def to_keras(self) -> keras.Model:
        """The same of plain Keras operations."""
        inputs = keras.Input(self._shape, dtype=self.compute_dtype)
        return keras.Model(inputs, _flatten(inputs, self.copies), name=self.name)


def _flatten(inputs: Tensor, copies: int) -> Tensor:
    *space, channels = inputs.shape[1:]
    one = channels // copies
    places = math.prod(space)
    parts = ops.reshape(inputs, (-1, places, copies, one))
    return ops.reshape(ops.transpose(parts, (0, 2, 1, 3)), (-1, copies * places * one))


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedLayerNormalization(_Grouped):
    """Layer normalisation of each part of the channels by itself, in float32.

    Args:
        copies: Number E of copies.
        epsilon: Added to the variance. Defaults to 1e-3, as in Keras.

    Call arguments:
        inputs: `(..., E * C)`.

    Returns:
        The same shape.
    """

    def __init__(self, copies: int, epsilon: float = 1e-3, **kwargs: Any):
        super().__init__(copies, **kwargs)
        self.supports_masking = True
        self.epsilon = _checks.check_range("epsilon", epsilon, 0, 1)

    def build(self, input_shape: Shape) -> None:
        shape = (self.copies, self._channels(input_shape))
        self.gamma = self.add_weight(
            name="gamma", shape=shape, initializer="ones", autocast=False
        )
        self.beta = self.add_weight(
            name="beta", shape=shape, initializer="zeros", autocast=False
        )
        self._shape = tuple(input_shape[1:])
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        shape = ops.shape(inputs)
        x = ops.cast(inputs, keras.backend.result_type(inputs.dtype, "float32"))
        x = ops.reshape(x, (*shape[:-1], self.copies, self.gamma.shape[1]))
        mean, variance = ops.moments(x, axes=[-1], keepdims=True)
        x = (x - mean) * ops.rsqrt(variance + self.epsilon)
        x = x * self.gamma + self.beta
        return ops.cast(ops.reshape(x, shape), self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape

    def to_keras(self) -> keras.Model:
        """The same of plain Keras layers: one normalisation per copy."""
        inputs = keras.Input(self._shape, dtype=self.compute_dtype)
        parts = [
            keras.layers.LayerNormalization(
                epsilon=self.epsilon, center=False, scale=False, dtype=self.dtype_policy
            )(part)
            for part in ops.split(inputs, self.copies, axis=-1)
        ]
        x = parts[0] if len(parts) == 1 else keras.layers.Concatenate()(parts)
        # With mean 0 and variance 1 what is left of it is a scale and a shift.
        x = keras.layers.BatchNormalization(epsilon=0.0, dtype=self.dtype_policy)(x)
        return keras.Model(inputs, x, name=self.name)

    def plain_weights(self) -> list:
        """The weights of the layer that `to_keras` makes."""
        gamma, beta = (
            ops.convert_to_numpy(variable).reshape(-1)
            for variable in (self.gamma, self.beta)
        )
        return [gamma, beta, 0.0 * gamma, 0.0 * gamma + 1.0]

    def get_config(self) -> Config:
        return {**super().get_config(), "epsilon": self.epsilon}


@keras.saving.register_keras_serializable(package="kmtl")
class GroupedConcatenate(_Grouped):
    """Concatenates folded tensors so that the copies stay apart.

    Each part is what `keras.layers.Concatenate` makes of its copy's tensors.

    Args:
        copies: Number E of copies.

    Call arguments:
        inputs: List of `(N, ..., E * C_i)`.

    Returns:
        `(N, ..., E * ΣC_i)`.
    """

    def call(self, inputs: Sequence[Tensor]) -> Tensor:
        return _concatenate(inputs, self.copies)

    def compute_mask(self, inputs: Sequence[Tensor], previous_mask: Any) -> Any:
        return next((mask for mask in previous_mask or () if mask is not None), None)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        widths = [shape[-1] for shape in input_shape]
        return (*input_shape[0][:-1], sum(widths))

    def build(self, input_shape: Shape) -> None:
        self._shapes = [tuple(shape) for shape in input_shape]
        for shape in self._shapes:
            self._channels(shape)
        self.built = True

    def to_keras(self) -> keras.Model:
        """The same of plain Keras operations."""
        inputs = [
            keras.Input(shape[1:], dtype=self.compute_dtype) for shape in self._shapes
        ]
        outputs = _concatenate(inputs, self.copies)
        return keras.Model(inputs, outputs, name=self.name)


def _concatenate(inputs: Sequence[Tensor], copies: int) -> Tensor:
    parts = [ops.split(x, copies, axis=-1) for x in inputs]
    ordered = [part[copy] for copy in range(copies) for part in parts]
    return ops.concatenate(ordered, axis=-1)


def plain_initializers(config: Options) -> Config:
    """A layer's config with Keras' own initializers in place of `PerCopy`."""
    plain = {}
    for name, value in config.items():
        if name.endswith("_initializer") and isinstance(value, Mapping):
            made = keras.initializers.get(dict(value))
            if isinstance(made, PerCopy):
                value = keras.initializers.serialize(made.to_keras())
        plain[name] = value
    return plain
