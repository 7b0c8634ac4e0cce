"""Exact running losses: raw and weighted per task, regularisation, total."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import keras
from keras import ops

from kmtl.losses.joint import Joint
from kmtl.metrics.undefined import ratio
from kmtl.typing import Tensor


class LossTerms(keras.metrics.Metric):
    """Keeps sums, so epoch values are exact with partial batches and missing labels.

    (Keras' own per-output losses average batch means on TensorFlow.) The raw loss of a
    task is the mean over its labels, NaN where there was none; such a task adds 0 to
    `loss`. `loss` is the sum of the weighted losses, the
    regularisation, and what a weighting adds beyond weighted losses, so the terms add
    up: `loss = sum_t weight_t * <t>_loss + regularization_loss` for fixed weights, plus
    `deep_supervision_loss`, what `kmtl.layers.DeepSupervision` adds in training, plus
    the losses over several heads times their weights.

    Args:
        task_names: Names of the tasks.
        terms: Log names of the single losses of tasks that have several, without
            their weights, and the place of their task each.
        joint: Losses over several heads, each logged without its weight.
    """

    def __init__(
        self,
        task_names: Sequence[str],
        terms: Mapping[str, int] | None = None,
        joint: Sequence[Joint] = (),
        name: str = "loss_terms",
    ):
        super().__init__(name=name, dtype="float32")
        self.task_names = tuple(task_names)
        self.terms = dict(terms or {})
        self.joint = tuple(joint)
        self.has_regularization = False
        self.has_deep = False
        self.has_other = False
        tasks = len(self.task_names)
        self.raw = self.add_variable((tasks,), "zeros", dtype=self.dtype, name="raw")
        self.weighted = self.add_variable(
            (tasks,), "zeros", dtype=self.dtype, name="weighted"
        )
        self.deep = self.add_variable((tasks,), "zeros", dtype=self.dtype, name="deep")
        if self.terms:
            self.parted = self.add_variable(
                (len(self.terms),), "zeros", dtype=self.dtype, name="parted"
            )
        if self.joint:
            self.jointly, self.joint_rows = (
                self.add_variable(
                    (len(self.joint),), "zeros", dtype=self.dtype, name=own
                )
                for own in ("jointly", "joint_rows")
            )
        self.labels = self.add_variable(
            (tasks,), "zeros", dtype=self.dtype, name="labels"
        )
        self.regularization = self.add_variable(
            (), "zeros", dtype=self.dtype, name="regularization"
        )
        self.other = self.add_variable((), "zeros", dtype=self.dtype, name="other")
        self.rows = self.add_variable((), "zeros", dtype=self.dtype, name="rows")

    def update_state(
        self,
        sums: Tensor,
        labels: Tensor,
        weights: Tensor,
        regularization: Tensor | None,
        other: Tensor | None,
        rows: Tensor,
        deep: Tensor | None = None,
        terms: Tensor | None = None,
        joint: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            sums: `(T,)`, summed loss over the labels of the batch.
            labels: `(T,)`, number (summed weight) of labels in the batch.
            weights: `(T,)`, each task's factor in the total.
            regularization: Scalar, regularisation loss; or None.
            other: Scalar, the rest of the total; or None.
            rows: Scalar, number of examples in the batch.
            deep: `(T,)`, like `sums`, of the predictions inside the model; or None.
            terms: `(K,)`, like `sums`, of the single losses; or None.
            joint: Sums and numbers of rows of the losses over several heads; or None.
        """
        self.raw.assign_add(sums)
        self.weighted.assign_add(sums * weights)
        self.has_deep |= deep is not None
        if deep is not None:
            self.deep.assign_add(deep * weights)
        if terms is not None:
            self.parted.assign_add(terms)
        if joint is not None:
            self.jointly.assign_add(joint[0])
            self.joint_rows.assign_add(joint[1])
        self.labels.assign_add(labels)
        self.has_regularization |= regularization is not None
        self.has_other |= other is not None
        rows = ops.cast(rows, "float32")
        if regularization is not None:
            self.regularization.assign_add(regularization * rows)
        if other is not None:
            self.other.assign_add(other * rows)
        if self.has_regularization or self.has_other:
            self.rows.assign_add(rows)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys of the result."""
        more = {
            "regularization_loss": self.has_regularization,
            "deep_supervision_loss": self.has_deep,
        }
        return (
            "loss",
            *(f"{name}_loss" for name in self.task_names),
            *self.terms,
            *(part.log for part in self.joint),
            *(name for name, there in more.items() if there),
        )

    def result(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for names, values in self.vectors():
            found.update((name, values[i]) for i, name in enumerate(names))
        return found

    def total(self, balanced: Tensor) -> Tensor:
        """`loss`, of what the weighting makes of the tasks' losses."""
        total = balanced
        if self.has_regularization:
            total = total + ops.divide_no_nan(self.regularization, self.rows)
        for i, part in enumerate(self.joint):
            mean = ops.divide_no_nan(self.jointly[i], self.joint_rows[i])
            total = total + part.weight * mean
        if self.has_deep:
            total = total + ops.sum(ops.divide_no_nan(self.deep, self.labels))
        return total

    def vectors(self) -> list[tuple[tuple[str, ...], Tensor]]:
        """What `result` gives, as names and a vector of their values."""
        raw = ratio(self.raw, self.labels)
        weighted = ops.divide_no_nan(self.weighted, self.labels)
        balanced = ops.sum(weighted)
        if self.has_other:
            balanced = balanced + ops.divide_no_nan(self.other, self.rows)
        single = {"loss": self.total(balanced)}
        rest: dict[str, Tensor] = {}
        for i, (name, task) in enumerate(self.terms.items()):
            rest[name] = ratio(self.parted[i], self.labels[task])
        for i, part in enumerate(self.joint):
            rest[part.log] = ratio(self.jointly[i], self.joint_rows[i])
        if self.has_regularization:
            rest["regularization_loss"] = ops.divide_no_nan(
                self.regularization, self.rows
            )
        if self.has_deep:
            rest["deep_supervision_loss"] = ops.sum(
                ops.divide_no_nan(self.deep, self.labels)
            )
        found = [(tuple(single), ops.stack([*single.values()]))]
        found.append((tuple(f"{name}_loss" for name in self.task_names), raw))
        if rest:
            found.append((tuple(rest), ops.stack([*rest.values()])))
        return found
