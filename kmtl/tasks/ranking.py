"""The order of the items of a list."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.tasks.base import Task
from kmtl.tasks.heads import HeadContext
from kmtl.tasks.steps import padded, step_head, steps_of
from kmtl.tasks.tagging import sequences_in
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "ranking")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Ranking(Task):
    """The order of the items of each list, such as the results of a query; labels are
    relevances >= 0, `(N, L)`: a row is a list.

    Outputs scores `(N, L)`; the item with the highest comes first. Missing: NaN, per
    item: padded ones, or those never judged, which then are no part of the list.
    Losses: `softmax` (default; listwise: Cao et al., ICML 2007), `pairwise` (logistic:
    Burges et al., ICML 2005); each list counts alike. Metrics: `ndcg` (default),
    `ndcg5`, `ndcg10`, as scikit-learn's `ndcg_score`. See `kmtl.Task` for the other
    arguments.

    Needs a trunk that keeps the items, `(L, features)`:
    `kmtl.backbones.ConvNet1D(kernel_size=1, pooling=None)` sees each by itself, a
    `Transformer` all of them. `Ranking.lists` makes lists of rows with a group each.

    Args:
        length: Items L to which lists of labels are padded: the length of the input.
            Not needed for arrays.

    Example:

    >>> rows, relevance = np.random.default_rng(0).normal(size=(5, 3)), [2, 0, 1, 0, 3]
    >>> x, y = kmtl.Ranking.lists(rows, relevance, groups=["a", "a", "b", "b", "b"])
    >>> x.shape, y.tolist()
    ((2, 3, 3), [[2.0, 0.0, nan], [1.0, 0.0, 3.0]])
    >>> net = kmtl.backbones.ConvNet1D(filters=(8,), kernel_size=1, pooling=None)
    >>> model = kmtl.build(
    ...     backbone=net, input_shape=(3, 3), tasks=[kmtl.Ranking("clicks")], seed=0
    ... )
    >>> model.compile("adam")
    >>> logs = model.fit(x, {"clicks": y}, verbose=0).history
    >>> model.output["clicks"].shape
    (None, 3)
    """

    length: int | None = None
    missing: float | None = math.nan

    LOSSES: ClassVar = {
        "softmax": losses.listwise_softmax,
        "pairwise": losses.pairwise_logistic,
    }
    METRICS: ClassVar = {
        "ndcg": (lambda task, name: metrics.NDCG(name=name), True),
        "ndcg5": (lambda task, name: metrics.NDCG(5, name=name), True),
        "ndcg10": (lambda task, name: metrics.NDCG(10, name=name), True),
    }
    DEFAULT_METRICS = ("ndcg",)

    def __post_init__(self) -> None:
        if self.length is not None:
            length = _checks.check_int("length", self.length, 1)
            object.__setattr__(self, "length", length)
        super().__post_init__()
        if self.labels is not None:
            raise ValueError(f"Ranking task '{self.name}' has no `labels`.")

    @staticmethod
    def lists(x: Tensor, y: Tensor, groups: Tensor) -> tuple[np.ndarray, np.ndarray]:
        """Lists out of rows that say to which list they belong.

        Args:
            x: Inputs `(rows, features)`.
            y: Relevance `(rows,)`, NaN where it is not known.
            groups: The list of each row, such as the query: any values.

        Returns:
            `(x, y)` of `(lists, L, features)` float32, padded with 0, and
            `(lists, L)` float64, padded with NaN; lists in order of their first row.

        Raises:
            ValueError: for another number of rows in one of the three.
        """
        x, y = _arrays.as_array(x, "`x`"), _arrays.as_array(y, "`y`", holes=True)
        groups = np.asarray(groups)
        if not (len(x) == len(y) == len(groups)) or x.ndim != 2 or y.ndim != 1:
            raise ValueError(
                "`x` (rows, features), `y` (rows,) and `groups` must have as many "
                f"rows. Received: {x.shape}, {y.shape}, {groups.shape}"
            )
        _, first, number = np.unique(groups, return_index=True, return_inverse=True)
        number = np.argsort(np.argsort(first))[number.ravel()]
        order = np.argsort(number, kind="stable")
        ends = np.cumsum(np.bincount(number))[:-1]
        length = int(np.max(np.bincount(number)))
        items = padded(np.split(x[order], ends), length, "x", x.shape[1])
        relevance = padded(np.split(y[order], ends), length, "y")
        places = np.arange(length) < np.bincount(number)[:, None]
        return np.where(places[..., None], items, 0.0).astype("float32"), relevance

    def _check_loss(self, loss: Any) -> Any:
        if loss is not None and not isinstance(loss, str):
            raise ValueError(
                f"`loss` of task '{self.name}' must be one of {list(self.LOSSES)}, "
                f"which take lists. Received: loss={loss!r}"
            )
        return super()._check_loss(loss)

    @property
    def label_count(self) -> int:
        return 1

    @property
    def label_range(self) -> tuple[float, float]:
        return 0.0, super().label_range[1]

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be relevances from 0 on (NaN marks a "
            "missing label)"
        )

    def label_array(self, labels: Tensor) -> np.ndarray:
        rows = sequences_in(labels)
        if rows is not None:
            labels = padded(rows, self.length, self.name)
        return super().label_array(labels)

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        return self.marked(ops.cast(labels, "float32"), mask), mask

    def marked(self, labels: Tensor, there: Tensor) -> Tensor:
        return ops.where(there > 0, labels, -1.0)

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        # Each list counts alike, whatever its length.
        return ops.divide_no_nan(mask, ops.sum(mask, axis=-1, keepdims=True))

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (ops.shape(labels)[1],)  # may be unknown in a tf.data graph

    def output_shape(self, input_shape: Shape) -> tuple:
        return (steps_of(self.length, input_shape),)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [self.output_shape(input_shape)]

    def shape_hint(self, array: Tensor) -> str:
        if array.ndim == 1:
            return "; a row is a list: kmtl.Ranking.lists(x, y, groups) makes them"
        return ""

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        steps = steps_of(self.length, head.input_shape)
        scores = step_head(features, head, self, 1, steps)
        flat = {"target_shape": (-1,)}
        return head.make.layer(keras.layers.Reshape, "scores", **flat)(scores)
