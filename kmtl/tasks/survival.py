"""The time until an event, which some rows have not had yet."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
from keras import ops

from kmtl import _arrays, _checks, losses, metrics
from kmtl._registry import register
from kmtl.layers.ends import LogSurvival
from kmtl.tasks import label_rules
from kmtl.tasks.base import Task
from kmtl.tasks.heads import HeadContext, vector_head
from kmtl.typing import Inputs, Shape, Tensor


@register("task", "survival")
@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Survival(Task):
    """The time until an event such as a failure or a churn; labels `(N, 2)`: a time
    above 0, and 1 if it is that of the event, 0 if the row was last seen then
    (censored).

    Without `edges` outputs are `(N, 1)`, the log of the factor on everybody's hazard
    (Cox 1972): who has it first. With `edges` they are `(N, K)`, the log of the
    probability that the event comes after each edge (Gensheimer and Narasimhan 2019,
    arXiv:1805.00917), of which exports give the probability. Missing: NaN (or 0) in
    both columns. Loss: `likelihood`; Cox's is that of the rows of a batch, so batches
    should be of a hundred rows or more. Metrics: `concordance` (default; of pairs of
    rows: while training, of the batch; else of all) and, with edges,
    `integrated_brier`. Also takes scikit-survival's structured arrays. See
    `kmtl.Task` for the other arguments.

    Args:
        edges: Times at which intervals end, in increasing order, the first above 0.
            Events after the last one count as not seen. `Survival.from_labels` takes
            quantiles of the training events. Defaults to None.

    Example:

    >>> y = [[2.0, 1], [5.0, 0], [3.0, 1], [np.nan, np.nan]]
    >>> churn = kmtl.Survival("churn")  # who first
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[churn], units=(8,), seed=0)
    >>> model.compile("adam")
    >>> logs = model.fit(np.ones((4, 2)), {"churn": y}, verbose=0).history
    >>> failure = kmtl.Survival("failure", edges=(2.0, 4.0, 8.0))  # and when
    >>> model = kmtl.build_mlp(input_shape=(2,), tasks=[failure], units=(8,), seed=0)
    >>> survival = failure.activate(model(np.ones((1, 2)))["failure"])
    >>> bool((np.diff(survival) < 0).all())
    True
    """

    edges: Sequence[float] | None = None
    missing: float | None = math.nan

    LOSSES: ClassVar = {"likelihood": losses.cox}
    METRICS: ClassVar = {
        "concordance": (
            lambda task, name: metrics.Concordance(task.edges, name=name),
            True,
        ),
        "integrated_brier": (
            lambda task, name: metrics.IntegratedBrier(task.edges, name=name),
            False,
        ),
    }
    DEFAULT_METRICS = ("concordance",)
    known = "censored times"
    on_common_scale = False
    rows_together = True

    def __post_init__(self) -> None:
        if self.edges is not None:
            object.__setattr__(self, "edges", self._check_edges(self.edges))
        super().__post_init__()
        if self.labels is not None:
            raise ValueError(f"Survival task '{self.name}' has no `labels`.")
        for metric in self.metrics:
            if metric.name == "integrated_brier" and len(self.edges or ()) < 2:
                raise ValueError(
                    f"Metric 'integrated_brier' of task '{self.name}' is that of a "
                    "survival curve: give two `edges` or more. "
                    f"Received: edges={self.edges}"
                )

    def _check_edges(self, edges: Any) -> tuple[float, ...]:
        if isinstance(edges, str) or not hasattr(edges, "__iter__"):
            raise TypeError(
                f"`edges` of task '{self.name}' must be times. Received: {edges!r}"
            )
        found = tuple(
            _checks.check_range(f"edges[{i}]", edge, 0, 1e30, low_open=True)
            for i, edge in enumerate(edges)
        )
        if not found or list(found) != sorted(set(found)):
            raise ValueError(
                f"`edges` of task '{self.name}' must be in increasing order, at least "
                f"one. Received: edges={edges!r}"
            )
        return found

    @classmethod
    def from_labels(
        cls, name: str, labels: Tensor, intervals: int = 10, **options: Any
    ) -> Survival:
        """A task whose intervals hold about as many training events each.

        Args:
            name: Name of the task.
            labels: Training labels `(N, 2)`.
            intervals: Number of intervals at most; fewer where events share their time.
            **options: Further arguments of the task.

        Raises:
            ValueError: for labels without an event.

        Example:

        >>> y = [[1.0, 1], [2.0, 0], [3.0, 1], [6.0, 1], [9.0, 1]]
        >>> kmtl.Survival.from_labels("failure", y, intervals=2).edges
        (3.0, 9.0)
        """
        intervals = _checks.check_int("intervals", intervals, 1)
        plain = cls(name)
        array = plain.label_array(labels)
        plain.check_labels(array)
        times = array[array[:, 1] == 1, 0]
        if not len(times):
            raise ValueError(
                f"Labels of task '{name}' must hold an event to choose the intervals "
                "by: give `edges`. Received: none"
            )
        levels = np.arange(1, intervals + 1) / intervals
        found = np.unique(np.quantile(times, levels, method="inverted_cdf"))
        return cls(name, edges=tuple(float(edge) for edge in found), **options)

    @property
    def label_count(self) -> int:
        return 1

    @property
    def output_activation(self) -> str:
        return "linear" if self.edges is None else "exponential"

    def label_array(self, labels: Tensor) -> np.ndarray:
        names = getattr(getattr(labels, "dtype", None), "names", None)
        if names is not None and len(names) == 2:  # scikit-survival's
            event, time = sorted(names, key=lambda name: labels.dtype[name].kind != "b")
            labels = np.stack([labels[time], labels[event]], axis=-1).astype("float64")
        return super().label_array(labels)

    def check_labels(self, labels: Tensor, input_shape: Shape = None) -> None:
        super().check_labels(labels, input_shape)
        array = _arrays.as_array(labels, f"Labels of task '{self.name}'", holes=True)
        array = array.astype("float64")
        known = np.where(self.are_present(array), array, np.nan)
        for wrong, what in label_rules.times_and_events(np, known):
            if wrong.any():
                row = int(np.flatnonzero(wrong)[0])
                raise ValueError(
                    f"Labels of task '{self.name}' must have {what} in each row. "
                    f"Received: {array[row].tolist()} in row {row}"
                )

    broken_label = "another row"

    def breaks_rule(
        self, labels: Tensor, output_shape: Shape, there: Tensor | None = None
    ) -> Tensor:
        found = label_rules.times_and_events(ops, self.with_holes(labels, there))
        return ops.any(ops.stack([wrong for wrong, _ in found]))

    @property
    def label_rule(self) -> str:
        return (
            f"Labels of task '{self.name}' must be rows of a time above 0 and an event "
            "of 0 or 1 (NaN or 0 in both where missing)"
        )

    def clean_labels(
        self, labels: Tensor, inputs: Inputs | None = None
    ) -> tuple[Tensor, Tensor]:
        labels, mask = super().clean_labels(labels, inputs)
        labels = ops.cast(labels, "float32")
        mask = mask * ops.cast(labels[:, :1] > 0, "float32")
        return self.marked(labels, mask), mask

    def marked(self, labels: Tensor, there: Tensor) -> Tensor:
        # A time of 0 is in no sum of Cox's.
        whole = ops.min(there, axis=-1, keepdims=True) > 0
        return ops.where(whole, labels, 0.0)

    def label_weights(self, labels: Tensor, mask: Tensor) -> Tensor:
        return mask * ops.min(mask, axis=-1, keepdims=True)

    def label_shape(self, labels: Tensor) -> tuple[int, ...]:
        return (2,)

    def expected_shapes(self, input_shape: Shape) -> list[tuple]:
        return [(2,)]

    def shape_hint(self, array: np.ndarray) -> str:
        return "; give the time and the event (0 or 1), such as np.stack([t, e], 1)"

    def loss_values(self, labels: Tensor, outputs: Tensor) -> Tensor:
        if self.edges is None:
            values = losses.cox(labels, outputs)
        else:
            values = losses.hazards(labels, outputs, self.edges)
        return ops.concatenate([values, values], axis=-1)

    def output_shape(self, input_shape: Shape) -> tuple:
        return (1,) if self.edges is None else (len(self.edges),)

    def build_head(self, features: Tensor, head: HeadContext) -> Tensor:
        if self.edges is None:
            return super().build_head(features, head)
        logits = vector_head(features, head, self, len(self.edges))
        return head.make.layer(LogSurvival, "survival")(logits)
