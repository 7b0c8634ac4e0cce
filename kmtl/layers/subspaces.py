"""Keeps subspaces of a layer's features apart."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations

import keras
from keras import ops

from kmtl.typing import Config, Options, Regularizer, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class SubspaceOrthogonality(keras.regularizers.Regularizer):
    """Penalty `factor · Σ_{g<h} ‖W_gᵀ W_h‖²_F` on a kernel cut into subspaces.

    W_g are the kernel's columns (one per unit or filter, all of its incoming weights)
    that make subspace g. Zero where units of different subspaces read orthogonal
    directions of the input.

    Args:
        subspaces: Number of subspaces of equal width.
        factor: Weight of the penalty, >= 0.
        other: A further Keras regulariser of the same kernel, or None.

    Example:

    >>> penalty = kmtl.layers.SubspaceOrthogonality(subspaces=2, factor=1.0)
    >>> float(penalty(np.array([[1.0, 1.0], [0.0, 2.0]])))
    1.0

    Reference: Ruder et al., AAAI 2019, arXiv:1705.08142, section 3, after Bousmalis et
    al., NeurIPS 2016.
    """

    def __init__(
        self, subspaces: int = 2, factor: float = 0.1, other: Regularizer = None
    ):
        self.subspaces = subspaces
        self.factor = factor
        self.other = keras.regularizers.get(other)

    def __call__(self, kernel: Tensor) -> Tensor:
        units = kernel.shape[-1]
        if units % self.subspaces:
            raise ValueError(
                f"`subspaces` must divide the number of units or filters, {units}. "
                f"Received: subspaces={self.subspaces}"
            )
        columns = ops.reshape(kernel, (-1, units))
        parts = ops.split(columns, self.subspaces, axis=-1)
        total = self.factor * sum(
            ops.sum(ops.square(ops.matmul(ops.transpose(a), b)))
            for a, b in combinations(parts, 2)
        )
        return total if self.other is None else total + self.other(kernel)

    def get_config(self) -> Config:
        return {
            "subspaces": self.subspaces,
            "factor": self.factor,
            "other": keras.regularizers.serialize(self.other),
        }

    def to_keras(self) -> Regularizer:
        """The regulariser that a plain Keras model of the same weights has."""
        return self.other


def plain_regularizers(config: Options) -> Config:
    """A layer's config with Keras' own regularisers in place of the penalty."""
    plain = {}
    for name, value in config.items():
        if name.endswith("_regularizer") and isinstance(value, Mapping):
            made = keras.regularizers.get(dict(value))
            if isinstance(made, SubspaceOrthogonality):
                value = keras.regularizers.serialize(made.to_keras())
        plain[name] = value
    return plain
