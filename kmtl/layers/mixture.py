"""Mixes copies that lie side by side in the channels."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Mixture(keras.layers.Layer):
    """Weighted sum of experts: f = sum_e w_e f_e.

    Args:
        copies: Number of experts in each bank, or one integer for a single bank.

    Call arguments:
        inputs: List of the weights `(N, E)` and the banks `(N, ..., E_b * C)`, where
            the E_b add up to E.

    Returns:
        `(N, ..., C)`.

    Example:

    >>> mix = kmtl.layers.Mixture(copies=2)
    >>> weights, bank = np.array([[0.25, 0.75]]), np.array([[4.0, 8.0, 0.0, 4.0]])
    >>> np.asarray(mix([weights, bank]))
    array([[1., 5.]], dtype=float32)
    """

    def __init__(self, copies: int | Sequence[int], **kwargs: Any):
        super().__init__(**kwargs)
        copies = copies if isinstance(copies, Sequence) else [copies]
        self.copies = _checks.check_ints("copies", copies)

    def build(self, input_shape: Shape) -> None:
        weights, *banks = input_shape
        if len(banks) != len(self.copies) or weights[-1] != sum(self.copies):
            raise ValueError(
                f"Layer '{self.name}' must get {sum(self.copies)} weights and "
                f"{len(self.copies)} bank(s). Received: shapes {input_shape}"
            )
        self._shapes = [tuple(shape[1:]) for shape in input_shape]
        self.built = True

    def call(self, inputs: Tensor) -> Tensor:
        return _mix(inputs, self.copies)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        bank = input_shape[1]
        return (*bank[:-1], bank[-1] // self.copies[0])

    def to_keras(self) -> keras.Model:
        """The same of plain Keras operations."""
        inputs = [
            keras.Input(shape, dtype=self.compute_dtype) for shape in self._shapes
        ]
        return keras.Model(inputs, _mix(inputs, self.copies), name=self.name)

    def get_config(self) -> Config:
        return {**super().get_config(), "copies": list(self.copies)}


def _mix(inputs: Sequence[Tensor], copies: Sequence[int]) -> Tensor:
    weights, *banks = inputs
    stops = list(itertools.accumulate(copies))
    total = None
    for bank, number, stop in zip(banks, copies, stops, strict=True):
        mixed = _mix_bank(weights[:, stop - number : stop], bank, number)
        total = mixed if total is None else total + mixed
    return total


def _mix_bank(weights: Tensor, bank: Tensor, copies: int) -> Tensor:
    *space, channels = bank.shape[1:]
    ones = [1] * len(space)
    if None in space:  # no shape to fold it back to: expert by expert
        parts = ops.split(bank, copies, axis=-1)
        total = None
        for e, part in enumerate(parts):
            term = ops.reshape(weights[:, e], (-1, *ones, 1)) * part
            total = term if total is None else total + term
        return total
    parts = ops.reshape(bank, (-1, *space, copies, channels // copies))
    return ops.sum(ops.reshape(weights, (-1, *ones, copies, 1)) * parts, axis=-2)
