"""Learned linear combinations of several feature maps of one shape."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.layers.recorded import Recorded
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class Stitch(Recorded):
    """One learned linear combination of S feature maps.

    With one weight per channel, `y = Σ_s α_s ⊙ x_s`, α `(S, C)`. Else the channels are
    cut into G subspaces of equal width, and subspace g of the result is
    `y_g = Σ_s Σ_h α_gsh x_sh`, α `(G, S, G)`; G = 1 is one weight per map.

    Args:
        sources: Names of the S inputs, distinct.
        own: The one among them whose weight begins at `own_weight`.
        own_weight: In [0, 1]. The other weights share the rest equally.
        per_channel: One weight per channel. Goes with one subspace.
        subspaces: Number G of subspaces, a divisor of the number of channels.
        reading: Whose readings these are. Defaults to `own`.
        rate: Number > 0, how many times as fast the weights learn: the variable holds
            α / √rate, so that a step of gradient descent on it moves α by `rate` times
            the learning rate (one of Adam, by √rate times). Clipping, weight decay and
            gradient-based weightings see the variable. Defaults to 1.

    Call arguments:
        inputs: List of S tensors of one shape `(N, ..., C)`.

    Returns:
        Tensor of that shape.
    """

    def __init__(
        self,
        sources: Sequence[str],
        own: str,
        own_weight: float = 0.9,
        per_channel: bool = False,
        subspaces: int = 1,
        reading: str | None = None,
        rate: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.rate = _checks.check_range("rate", rate, 0, low_open=True, high_open=True)
        self.sources = [str(source) for source in sources]
        self.own = own
        self.own_weight = own_weight
        self.per_channel = per_channel
        self.subspaces = subspaces
        self.reading = own if reading is None else reading
        if own not in self.sources or len(set(self.sources)) != len(self.sources):
            raise ValueError(
                "`sources` must be distinct and hold `own`. "
                f"Received: sources={self.sources}, own={own!r}"
            )
        if per_channel and subspaces != 1:
            raise ValueError(
                "`per_channel` goes with one subspace. "
                f"Received: per_channel=True, subspaces={subspaces}"
            )

    def build(self, input_shape: Shape) -> None:
        channels = input_shape[0][-1]
        if channels % self.subspaces:
            raise ValueError(
                f"`subspaces` must divide the number of channels {channels}. "
                f"Received: subspaces={self.subspaces}"
            )
        start = self._start()
        if self.per_channel:
            start = np.repeat(start[0], channels, axis=-1)  # (S, C)
        self.alpha = self.add_weight(
            name="alpha",
            shape=start.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(
                start / self._scale, dtype
            ),
        )
        self.built = True

    @property
    def _scale(self) -> float:
        """α over the variable."""
        return math.sqrt(self.rate)

    def _start(self) -> np.ndarray:
        """Initial weights `(G, S, G)`."""
        groups, count = self.subspaces, len(self.sources)
        others = groups * count - 1
        rest = (1.0 - self.own_weight) / others if others else 0.0
        start = np.full((groups, count, groups), rest, "float32")
        for group in range(groups):
            start[group, self.sources.index(self.own), group] = self.own_weight
        return start

    def call(self, inputs: Tensor) -> Tensor:
        alpha = ops.convert_to_tensor(self.alpha)
        if self.rate != 1:
            alpha = alpha * self._scale
        if self.per_channel:
            return _total([alpha[i] * x for i, x in enumerate(inputs)])
        groups = range(self.subspaces)
        parts = [ops.split(x, self.subspaces, axis=-1) for x in inputs]
        mixed = [
            _total([alpha[g, s, h] * x[h] for s, x in enumerate(parts) for h in groups])
            for g in groups
        ]
        return mixed[0] if len(mixed) == 1 else ops.concatenate(mixed, axis=-1)

    def readings(self) -> dict[str, np.ndarray]:
        """Weight of each source: mean over channels, or by pairs of subspaces."""
        alpha = np.asarray(ops.convert_to_numpy(self.alpha), "float32") * self._scale
        if self.per_channel:
            return {self.reading: alpha.mean(axis=-1)}
        if self.subspaces == 1:
            return {self.reading: alpha[0, :, 0]}
        return {f"{self.reading}_{g + 1}": row.ravel() for g, row in enumerate(alpha)}

    def reading_labels(self) -> tuple[str, ...]:
        if self.subspaces == 1:
            return tuple(self.sources)
        groups = range(1, self.subspaces + 1)
        return tuple(f"{source}_{h}" for source in self.sources for h in groups)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return tuple(input_shape[0])

    def to_keras(self) -> keras.Model:
        """Plain Keras layers that do the same with the same weights."""
        shape = self.input[0].shape
        inputs = [
            keras.Input(shape[1:], dtype=self.compute_dtype) for _ in self.sources
        ]
        groups, channels = self.subspaces, shape[-1]
        if self.per_channel:
            stack = ops.stack(inputs, axis=-2)
            y = keras.layers.EinsumDense(
                "...sc,sc->...c", channels, dtype=self.dtype_policy, name="mix"
            )(stack)
            return keras.Model(inputs, y, name=self.name)
        stack = ops.stack(
            [ops.stack(ops.split(x, groups, axis=-1), axis=-2) for x in inputs], axis=-3
        )
        y = keras.layers.EinsumDense(
            "...shc,gsh->...gc",
            (groups, channels // groups),
            dtype=self.dtype_policy,
            name="mix",
        )(stack)
        y = ops.concatenate([ops.take(y, g, axis=-2) for g in range(groups)], axis=-1)
        return keras.Model(inputs, y, name=self.name)

    def plain_weights(self) -> list[np.ndarray]:
        """α as the layers of `to_keras` hold it."""
        return [value * self._scale for value in super().plain_weights()]

    def get_config(self) -> Config:
        return {
            **super().get_config(),
            "sources": self.sources,
            "own": self.own,
            "own_weight": self.own_weight,
            "per_channel": self.per_channel,
            "subspaces": self.subspaces,
            "reading": self.reading,
            "rate": self.rate,
        }


def _total(terms: list) -> Tensor:
    return sum(terms[1:], terms[0])
