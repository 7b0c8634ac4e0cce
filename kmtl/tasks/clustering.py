"""Groups of rows that nobody has named."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.cluster_centres import ClusterCentres
from kmtl.tasks.base import Task
from kmtl.tasks.embedding import MOST_LABEL
from kmtl.tasks.heads import HeadContext, to_vector, vector_head
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "clustering")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Clustering(Task):
    """Groups of rows that are alike, found without labels: deep embedded clustering
    (Xie et al. 2016, arXiv:1511.06335).

    Outputs each row's shares of the clusters `(N, clusters)`, which sum to 1; exports
    add `<name>_decoded`, the number of the largest one. The loss sharpens the shares:
    KL(P || Q) of a target P that is made of the shares Q of a batch, so batches should
    hold many more rows than there are clusters.

    Needs no labels, and learns from none. Classes that are given, whole numbers >= 0
    `(N,)`, with -1 where one is not known, are compared with the clusters in metrics
    alone: `nmi` (default), `ari`, as scikit-learn's, `accuracy` (each cluster matched
    with one class at most), of all rows of an evaluation. Missing: NaN leaves the row
    out, of the clusters too. Loss: `self_training`. `clusters_used` (default)
    is the number of clusters with any row: `fit` warns where these are few, as a trunk
    can put all rows into one place. See `kmtl.Task` for the other arguments.

    The first `fit` puts the centres where k-means (scikit-learn's) finds them among the
    features of the training rows. Features of an untrained trunk say little: train it
    before, with a `kmtl.Reconstruction` or supervised tasks, and add the clusters with
    `kmtl.add_task(model, task, freeze=False)`; and keep these tasks, with more weight,
    against collapse.

    Args:
        clusters: Number of clusters, >= 2.
        dimensions: Numbers per row, made by a dense layer of the head, in which
            distances are measured, >= 1. None (default): the features of the trunk (or
            of the last `hidden` layer) themselves.

    Example:

    >>> x = np.random.default_rng(0).normal(size=(20, 3))
    >>> x[::2] += 4
    >>> model = kmtl.build_mlp(
    ...     input_shape=(3,), tasks=[kmtl.Clustering("group", clusters=2)], units=(8,),
    ...     seed=0,
    ... )
    >>> model.compile("adam")
    >>> logs = model.fit(x, verbose=0).history
    >>> logs["group_clusters_used"]
    [2.0]
    >>> shares = model.predict(x, verbose=0)["group"]
    >>> bool(np.allclose(shares.sum(axis=1), 1))
    True
    """

    clusters: int
    dimensions: int | None = None
    missing: float | None = math.nan

    LOSSES: ClassVar = {"self_training": losses.self_training}
    METRICS: ClassVar = {
        "nmi": (
            lambda task, name: metrics.NormalizedMutualInformation(name=name),
            True,
        ),
        "ari": (lambda task, name: metrics.AdjustedRand(name=name), True),
        "accuracy": (lambda task, name: metrics.MatchedAccuracy(name=name), True),
        "clusters_used": (
            lambda task, name: metrics.ClustersUsed(task.clusters, name=name),
            True,
        ),
    }
    DEFAULT_METRICS = ("nmi", "clusters_used")
    known = "clusters"
    on_common_scale = False
    rows_together = True
    whole_labels = True
    has_mean = False  # each net numbers its clusters in its own way
    needs_labels = False

    def __post_init__(self) -> None:
        clusters = _checks.check_int("clusters", self.clusters, 2)
        object.__setattr__(self, "clusters", clusters)
        if self.dimensions is not None:
            dimensions = _checks.check_int("dimensions", self.dimensions, 1)
            object.__setattr__(self, "dimensions", dimensions)
        super().__post_init__()
        if self.labels is not None:
            raise ValueError(f"Clustering task '{self.name}' has no `labels`.")

    @property
    def label_count(self) -> int:
        return 1

    @property
    def label_range(self) -> tuple[float, float]:
        return -1.0, MOST_LABEL

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be whole numbers in [0, "
            f"{int(MOST_LABEL)}], or -1 where the class is not known: number your "
            "classes with np.unique(names, return_inverse=True)[1], or give none"
        )

    def _check_digits(self, array: np.ndarray) -> None:
        """Whole numbers have their digits."""

    def target_in(self, inputs: Inputs) -> Tensor:
        return keras.tree.flatten(inputs)[0]

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        """Classes, -1 where one is not known, and 1 for every row that counts."""
        if labels is None:
            like = ops.convert_to_tensor(self.target_in(inputs))
            rows = ops.reshape(like, (ops.shape(like)[0], -1))[:, 0]
            ones = ops.ones_like(rows, dtype="float32")
            return -ops.ones_like(rows, dtype="int32"), ones
        labels, there = super().clean_labels(labels, inputs)
        return ops.where(there > 0, ops.cast(labels, "int32"), -1), there

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return ()

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [()]

    def masked_loss_values(
        self, labels: Tensor, outputs: Tensor, mask: Tensor
    ) -> Tensor:
        return losses.self_training(outputs, mask)

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        return losses.self_training(outputs, ops.ones_like(outputs[:, 0]))

    def output_shape(self, input_shape: Shape) -> tuple:
        return (self.clusters,)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        if self.dimensions is not None:
            vector = vector_head(features, head, self, self.dimensions)
        elif self.hidden:
            before = dataclasses.replace(self, hidden=self.hidden[:-1])
            vector = vector_head(features, head, before, self.hidden[-1])
        else:
            vector = to_vector(features, head, self.pooling)
        seed = head.make.layer_seed("centres")
        centres = head.make.layer(
            ClusterCentres, "centres", clusters=self.clusters, seed=seed
        )
        return centres(vector)

    def decoded(self, outputs: Tensor) -> Tensor:
        return ops.cast(ops.argmax(outputs, axis=-1), "int32")
