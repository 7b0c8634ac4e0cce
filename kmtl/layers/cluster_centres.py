"""Points of which each row is near some."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.typing import Config, Shape, Tensor


@keras.saving.register_keras_serializable(package="kmtl")
class ClusterCentres(keras.layers.Layer):
    """Shares of each row in clusters, by its distances to their centres.

    Formula: q_ij proportional to 1 / (1 + |z_i - c_j|^2), Student's t with one degree
    of freedom; q_i sums to 1. The centres are trainable weights, which `place` sets
    where k-means finds them.

    Args:
        clusters: Number of centres, >= 2.
        seed: Integer for where they are before, and for k-means.

    Call arguments:
        inputs: `(N, D)`.

    Returns:
        `(N, clusters)`, float32.

    Example:

    >>> layer = kmtl.layers.ClusterCentres(2, seed=0)
    >>> layer.build((None, 1))
    >>> layer.place(np.array([[0.0], [0.2], [3.1], [2.9]]))
    >>> shares = np.array(layer(np.array([[0.1], [3.0]])))
    >>> [f"{share:.1f}" for share in shares.max(axis=1)]
    ['0.9', '0.9']

    Reference: Xie, Girshick, Farhadi, "Unsupervised Deep Embedding for Clustering
    Analysis", ICML 2016, arXiv:1511.06335.
    """

    def __init__(self, clusters: int, seed: int | None = None, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.clusters = _checks.check_int("clusters", clusters, 2)
        self.seed = None if seed is None else _checks.check_int("seed", seed)

    def build(self, input_shape: Shape) -> None:
        self.centres = self.add_weight(
            name="centres",
            shape=(self.clusters, int(input_shape[-1])),
            initializer=keras.initializers.RandomNormal(stddev=1.0, seed=self.seed),
        )
        self._placed = self.add_weight(
            name="placed", shape=(), initializer="zeros", trainable=False
        )
        self.built = True

    @property
    def placed(self) -> bool:
        """Whether the centres have been placed among data."""
        return bool(ops.convert_to_numpy(self._placed.value))

    def place(self, rows: np.ndarray) -> None:
        """Put the centres where k-means finds clusters of rows `(N, D)`.

        Raises:
            ValueError: for fewer different rows than clusters.
        """
        from sklearn.cluster import KMeans

        rows = np.asarray(rows, "float64")
        if not np.isfinite(rows).all():
            raise ValueError("Rows to place centres among must be finite.")
        different = len(np.unique(rows, axis=0))
        if different < self.clusters:
            raise ValueError(
                f"{self.clusters} clusters need as many different rows of features "
                f"among the training data. Received: {different} of {len(rows)} rows"
            )
        seed = 0 if self.seed is None else self.seed
        means = KMeans(self.clusters, n_init=10, random_state=seed).fit(rows)
        self.centres.assign(means.cluster_centers_.astype("float32"))
        self._placed.assign(1.0)

    def call(self, inputs: Tensor) -> Tensor:
        inputs = ops.cast(inputs, "float32")
        apart = inputs[:, None, :] - ops.convert_to_tensor(self.centres)[None, :, :]
        near = 1.0 / (1.0 + ops.sum(ops.square(apart), axis=-1))
        return near / ops.sum(near, axis=-1, keepdims=True)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], self.clusters)

    def get_config(self) -> Config:
        return {**super().get_config(), "clusters": self.clusters, "seed": self.seed}
