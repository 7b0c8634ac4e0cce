"""Metrics of places in a photo: labels and outputs `(N, K, 2)`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.metrics.masked import MaskedMean
from kmtl.metrics.together import whole
from kmtl.metrics.undefined import nan_where
from kmtl.typing import Config, DType, Tensor


class _OfPoints(MaskedMean):
    """Values of keypoints by their distance in sizes.

    Args:
        reference: Numbers of two keypoints whose distance is the size, as head or
            torso; rows without both labels do not count. Defaults to None: the size
            is that of the photo, 1.
    """

    def __init__(
        self,
        reference: tuple[int, int] | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.reference = None if reference is None else tuple(reference)

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        if sample_weight is None:
            sample_weight = ops.ones_like(labels, dtype=self.dtype)
        weight = whole(ops.cast(sample_weight, self.dtype))
        if self.reference is not None:
            first, second = self.reference
            both = ops.logical_and(weight[:, first] > 0, weight[:, second] > 0)
            weight = weight * ops.cast(both, self.dtype)[:, None]
        super().update_state(labels, outputs, self.shares(weight))

    def shares(self, weight: Tensor) -> Tensor:
        """What each point counts, of its weight `(N, K)`."""
        return weight

    def values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        labels = ops.cast(labels, self.dtype)
        apart = _length(ops.cast(outputs, self.dtype) - labels)
        size: Tensor = 1.0
        if self.reference is not None:
            first, second = self.reference
            size = _length(labels[:, first] - labels[:, second])[:, None]
        return nan_where(ops.isnan(apart), self.of_distance(apart, size))

    def of_distance(self, apart: Tensor, size: Tensor) -> Tensor:
        """The values of distances `(N, K)`, of objects of this size."""
        raise NotImplementedError

    def get_config(self) -> Config:
        reference = None if self.reference is None else list(self.reference)
        return {**super().get_config(), "reference": reference}


@keras.saving.register_keras_serializable(package="kmtl")
class PCK(_OfPoints):
    """Share of keypoints nearer to their label than `within` times the size (PCK).

    Args:
        within: Share of the size. Defaults to 0.05.
        reference: As head or torso for PCKh; see above.
    """

    def __init__(
        self,
        within: float = 0.05,
        reference: tuple[int, int] | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(reference, name=name, dtype=dtype)
        self.within = within

    def of_distance(self, apart: Tensor, size: Tensor) -> Tensor:
        return ops.cast(apart < self.within * size, self.dtype)

    def get_config(self) -> Config:
        return {**super().get_config(), "within": self.within}


@keras.saving.register_keras_serializable(package="kmtl")
class OKS(_OfPoints):
    """Object keypoint similarity: COCO's exp(-d^2 / (2 s^2 k^2)) with k = 2 sigma, the
    mean over an object's labelled points, and over the objects.

    COCO's s is the root of the object's area; here it is the size.

    Args:
        sigmas: One for all points, or one for each. Defaults to 0.05.
        reference: See above.
    """

    def __init__(
        self,
        sigmas: float | Sequence[float] = 0.05,
        reference: tuple[int, int] | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(reference, name=name, dtype=dtype)
        self.sigmas: Any = np.asarray(sigmas, float).tolist()

    def shares(self, weight: Tensor) -> Tensor:
        there = ops.cast(weight > 0, self.dtype)
        points = ops.sum(there, axis=-1, keepdims=True)
        return weight / ops.maximum(points, 1.0)

    def of_distance(self, apart: Tensor, size: Tensor) -> Tensor:
        spread = 2.0 * ops.convert_to_tensor(self.sigmas, dtype=self.dtype) * size
        # Points of no size are as far as can be, unless they are there.
        near = ops.square(apart) / ops.maximum(ops.square(spread), 1e-12)
        return ops.exp(-0.5 * near)

    def get_config(self) -> Config:
        return {**super().get_config(), "sigmas": self.sigmas}


def _length(vectors: Tensor) -> Tensor:
    return ops.sqrt(ops.sum(ops.square(vectors), axis=-1))
