"""One of C classes that have an order."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from kmtl import _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ordered import METHODS, OrderedClasses
from kmtl.tasks.classification import Classification
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.typing import Tensor


@register("task", "ordinal")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Ordinal(Classification):
    """Classes in an order, such as stars or stages; labels are integers in
    [0, classes), shape `(N,)`, or names in the order of `labels`.

    The head gives log-probabilities `(N, classes)`; exports probabilities. Being off by
    two costs more than by one. Losses: `coral` (the sum over the thresholds of the
    cross-entropy of "above it"; the default of its method), `cross_entropy` (the
    likelihood of the class; that of `corn`, for which it is the paper's loss, and with
    `coral` the proportional odds model). Metrics: `mae` in classes (default) and
    `quadratic_kappa`, both of the median class, which the papers predict; `accuracy`
    and others of `kmtl.Classification`, of the most probable one. Missing: -1 (or NaN).
    See `kmtl.Task` for the other arguments.

    Args:
        classes: Number of classes, >= 2. Defaults to the number of `labels`.
        labels: The classes' names, from the lowest to the highest.
        method: `"coral"` (default; Cao et al. 2020, arXiv:1901.07884): one score and
            C - 1 thresholds in order. `"corn"` (Shi et al. 2023, arXiv:2111.08851):
            C - 1 outputs, each the step from a class to the next; freer, for more data.

    Example:

    >>> stars = kmtl.Ordinal("stars", classes=5)
    >>> stars.score.name, stars.loss
    ('mae', 'coral')
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[stars], units=(4,), seed=0)
    >>> scores = keras.ops.softmax(model(np.zeros((1, 2)))["stars"])
    >>> np.round(scores, 3).tolist()  # all alike before training
    [[0.20000000298023224, 0.20000000298023224, 0.20000000298023224, \
0.20000000298023224, 0.20000000298023224]]
    """

    method: str = "coral"

    LOSSES: ClassVar = {
        "coral": losses.coral,
        "cross_entropy": losses.cross_entropy,
    }
    METRICS: ClassVar = {
        "mae": (lambda task, name: metrics.RankError(name=name), False),
        "quadratic_kappa": (
            lambda task, name: metrics.QuadraticKappa(task.classes, name=name),
            True,
        ),
        **Classification.METRICS,
    }
    DEFAULT_METRICS = ("mae",)
    SOFT_LOSSES = ("coral", "cross_entropy")

    def __post_init__(self) -> None:
        _checks.check_choice("method", self.method, METHODS)
        super().__post_init__()

    @classmethod
    def from_labels(cls, name: str, labels: Tensor, **options: Any) -> Ordinal:
        """A task whose classes are the categories of an ordered column of pandas.

        Args:
            name: Name of the task.
            labels: Training labels, a Series of an ordered `pandas.CategoricalDtype`.
            **options: Further arguments of the task.

        Raises:
            TypeError: for labels without an order.
        """
        dtype = getattr(labels, "dtype", None)
        if not getattr(dtype, "ordered", False):
            raise TypeError(
                f"Labels of task '{name}' say no order: give the classes from the "
                f"lowest to the highest, kmtl.Ordinal('{name}', labels=(...)), or an "
                "ordered column of pandas. "
                f"Received: {type(labels).__name__} of dtype {dtype}"
            )
        names = tuple(str(category) for category in dtype.categories)  # type: ignore[union-attr]
        return cls(name, labels=names, **options)

    def _check_loss(self, loss: Any) -> Any:
        if loss is None and self.method == "corn":
            return "cross_entropy"
        return super()._check_loss(loss)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        units = 1 if self.method == "coral" else self.classes - 1
        scores = vector_head(features, head, self, units)
        return head.make.layer(
            OrderedClasses, "classes", classes=self.classes, method=self.method
        )(scores)
