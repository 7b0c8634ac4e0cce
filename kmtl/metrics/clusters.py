"""Metrics of clusters: labels `(N,)`, shares of clusters `(N, K)`.

Rows of which the true class is not known, below 0, do not count where it matters.
"""

from __future__ import annotations

import math

import keras
import numpy as np
from keras import ops

from kmtl.metrics.together import OfBatches
from kmtl.typing import Config, DType, Tensor


def contingency(labels: np.ndarray, clusters: np.ndarray) -> np.ndarray:
    """Numbers of rows of each class (rows) in each cluster (columns) that has any."""
    classes, places = np.unique(labels, return_inverse=True)
    found, columns = np.unique(clusters, return_inverse=True)
    cells = np.bincount(
        places * len(found) + columns, minlength=len(classes) * len(found)
    )
    return cells.reshape(len(classes), len(found))


class OfClusters(OfBatches):
    """A number of two ways to part the same rows: by class, and by cluster.

    While training it is the mean over batches, of which each has few rows.
    """

    def counted(
        self, labels: Tensor, outputs: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        labels = ops.cast(labels, "int32")
        clusters = ops.argmax(outputs, axis=-1)
        there = ops.cast(ops.logical_and(weights > 0, labels >= 0), self.dtype)
        pair = there[:, None] * there[None, :]
        classes = pair * ops.cast(labels[:, None] == labels[None, :], self.dtype)
        groups = pair * ops.cast(clusters[:, None] == clusters[None, :], self.dtype)
        rows = ops.sum(there)
        value = self.of_pairs(classes, groups, there)
        return ops.where(rows > 0, value * rows, 0.0), rows

    def of_pairs(self, classes: Tensor, groups: Tensor, there: Tensor) -> Tensor:
        """The value for a batch.

        Args:
            classes: `(N, N)`, 1 where two rows are of one class.
            groups: `(N, N)`, 1 where they are in one cluster.
            there: `(N,)`, 1 for rows that count.
        """
        raise NotImplementedError

    def of_all(
        self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray
    ) -> float:
        there = (weights > 0) & (labels >= 0)
        if not there.any():
            return math.nan
        return self.of_parts(labels[there], outputs.argmax(axis=-1)[there])

    def of_parts(self, labels: np.ndarray, clusters: np.ndarray) -> float:
        """The value for all rows, from class and cluster of each."""
        raise NotImplementedError


@keras.saving.register_keras_serializable(package="kmtl")
class NormalizedMutualInformation(OfClusters):
    """As scikit-learn's `normalized_mutual_info_score`: 1 where classes and clusters
    are the same, 0 where they have nothing to do with each other."""

    def of_pairs(self, classes: Tensor, groups: Tensor, there: Tensor) -> Tensor:
        rows = ops.maximum(ops.sum(there), 1.0)

        def mean_log(pairs: Tensor) -> Tensor:
            count = ops.maximum(ops.sum(pairs, axis=1), 1.0)
            return ops.sum(there * ops.log(count / rows)) / rows

        of_class, of_group = mean_log(classes), mean_log(groups)
        shared = mean_log(classes * groups) - of_class - of_group
        mean = -0.5 * (of_class + of_group)
        alike = ops.abs(mean) < 1e-6  # one class in one cluster
        return ops.where(alike, 1.0, shared / ops.where(alike, 1.0, mean))

    def of_parts(self, labels: np.ndarray, clusters: np.ndarray) -> float:
        from sklearn.metrics import normalized_mutual_info_score

        return float(normalized_mutual_info_score(labels, clusters))


@keras.saving.register_keras_serializable(package="kmtl")
class AdjustedRand(OfClusters):
    """As scikit-learn's `adjusted_rand_score`: of the pairs of rows that classes and
    clusters agree on, the share above chance."""

    def of_pairs(self, classes: Tensor, groups: Tensor, there: Tensor) -> Tensor:
        rows = ops.sum(there)

        def pairs(same: Tensor) -> Tensor:
            return (ops.sum(same) - rows) / 2.0

        both, of_class, of_group = map(pairs, (classes * groups, classes, groups))
        chance = ops.divide_no_nan(of_class * of_group, rows * (rows - 1.0) / 2.0)
        most = 0.5 * (of_class + of_group)
        alike = ops.abs(most - chance) < 1e-6
        rest = ops.where(alike, 1.0, most - chance)
        return ops.where(alike, 1.0, (both - chance) / rest)

    def of_parts(self, labels: np.ndarray, clusters: np.ndarray) -> float:
        from sklearn.metrics import adjusted_rand_score

        return float(adjusted_rand_score(labels, clusters))


@keras.saving.register_keras_serializable(package="kmtl")
class MatchedAccuracy(OfClusters):
    """Share of rows that are in the cluster of their class, where each cluster stands
    for one class at most, in the best way to match them.

    While training, where no matching is made, each cluster stands for the class that it
    has most rows of in the batch: that is never less.
    """

    whole_in_a_batch = False

    def of_pairs(self, classes: Tensor, groups: Tensor, there: Tensor) -> Tensor:
        both = ops.sum(classes * groups, axis=1)
        most = ops.max(groups * both[None, :], axis=1)
        right = ops.sum(ops.divide_no_nan(most, ops.sum(groups, axis=1)))
        return ops.divide_no_nan(right, ops.sum(there))

    def of_parts(self, labels: np.ndarray, clusters: np.ndarray) -> float:
        from scipy.optimize import linear_sum_assignment

        table = contingency(labels, clusters)
        best = linear_sum_assignment(table, maximize=True)
        return float(table[best].sum() / len(labels))


@keras.saving.register_keras_serializable(package="kmtl")
class ClustersUsed(keras.metrics.Metric):
    """Number of clusters that are the most probable one of any row.

    Args:
        clusters: Number of clusters there could be.
    """

    #: The result does not depend on how the rows are batched.
    any_batches = True

    def __init__(
        self, clusters: int, name: str | None = None, dtype: DType = "float32"
    ):
        super().__init__(name=name, dtype=dtype)
        self.clusters = clusters
        self.rows = self.add_variable(
            (clusters,), "zeros", dtype=self.dtype, name="rows"
        )

    def update_state(
        self, labels: Tensor, outputs: Tensor, sample_weight: Tensor | None = None
    ) -> None:
        found = ops.one_hot(ops.argmax(outputs, axis=-1), self.clusters)
        found = ops.cast(found, self.dtype)
        if sample_weight is not None:
            there = ops.cast(ops.convert_to_tensor(sample_weight) > 0, self.dtype)
            found = found * there[:, None]
        self.rows.assign_add(ops.sum(found, axis=0))

    def result(self) -> Tensor:
        rows = ops.convert_to_tensor(self.rows)
        used = ops.sum(ops.cast(rows > 0, self.dtype))
        return ops.where(ops.sum(rows) > 0, used, math.nan)

    def get_config(self) -> Config:
        return {**super().get_config(), "clusters": self.clusters}
