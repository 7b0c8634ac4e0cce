"""Metrics of places in a photo: labels and outputs `(N, K, 2)`."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.metrics.together import OfVectors, whole
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class PCK(OfVectors):
    """Share of keypoints nearer to their label than `within` times the size (PCK).

    Args:
        within: Share of the size. Defaults to 0.05.
        reference: Numbers of two keypoints whose distance is the size, as head or
            torso for PCKh; rows without both labels do not count. Defaults to None:
            the size is that of the photo, 1.
    """

    def __init__(
        self,
        within: float = 0.05,
        reference: tuple[int, int] | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.within = within
        self.reference = None if reference is None else tuple(reference)

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        if self.reference is not None:
            if sample_weight is None:
                sample_weight = ops.ones_like(labels, dtype=self.dtype)
            sample_weight = ops.cast(sample_weight, self.dtype)
            first, second = self.reference
            there = whole(sample_weight) > 0
            both = ops.logical_and(there[:, first], there[:, second])
            both = ops.cast(both, self.dtype)[:, None, None]
            sample_weight = sample_weight * both
        super().update_state(labels, outputs, sample_weight)

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        labels = ops.cast(labels, self.dtype)
        apart = _length(ops.cast(outputs, self.dtype) - labels)
        size = 1.0
        if self.reference is not None:
            first, second = self.reference
            size = _length(labels[:, first] - labels[:, second])[:, None]
        inside = ops.cast(apart < self.within * size, self.dtype)
        return nan_where(ops.isnan(apart), inside)

    def get_config(self) -> Config:
        reference = None if self.reference is None else list(self.reference)
        config = super().get_config()
        return {**config, "within": self.within, "reference": reference}


def _length(vectors: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1))
