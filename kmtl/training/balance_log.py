"""Running record of what a weighting does, for the epoch's logs."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from kmtl.typing import Tensor, Variable


@keras.saving.register_keras_serializable(package="kmtl")
class BalanceLog(keras.layers.Layer):
    """Means over an epoch's steps of the task weights and, on request, of conflict.

    A layer, so that its sums are part of the state that every backend carries through
    a step. Not a metric: validation would reset it before the epoch's logs are made.

    Args:
        task_names: The tasks.
        monitor: Also record gradient norms, cosines and conflict.
    """

    def __init__(self, task_names: Sequence[str], monitor: bool = False):
        super().__init__(name="balance_log", dtype="float32")
        self.task_names = tuple(task_names)
        self.monitor = monitor
        tasks = len(self.task_names)
        self.step_count = self._sum(())
        self.weight_sums = self._sum((tasks,))
        if monitor:
            self.norms = self._sum((tasks,))
            self.norm_steps = self._sum((tasks,))
            self.cosines = self._sum((tasks, tasks))
            self.conflicts = self._sum((tasks, tasks))
            self.pair_steps = self._sum((tasks, tasks))
        self.has_weights = False
        self.built = True

    def _sum(self, shape: tuple) -> Variable:
        return self.add_weight(
            shape=shape,
            initializer="zeros",
            trainable=False,
            aggregation="mean",
            dtype="float32",
        )

    def add_weights(self, weights: Tensor) -> None:
        """Record the `(T,)` factors of a step's losses."""
        self.has_weights = True
        self.step_count.assign_add(ops.ones((), "float32"))
        self.weight_sums.assign_add(ops.cast(weights, "float32"))

    def add_gramian(self, gramian: Tensor, present: Tensor) -> None:
        """Record norms and cosines of a step's gradients; absent tasks are left out."""
        if not self.monitor:
            return
        norms = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0.0))
        outer = norms[:, None] * norms[None, :]
        cosines = ops.divide_no_nan(gramian, outer)
        pairs = present[:, None] * present[None, :]
        self.norms.assign_add(norms * present)
        self.norm_steps.assign_add(present)
        self.cosines.assign_add(cosines * pairs)
        self.conflicts.assign_add(ops.cast(cosines < 0, "float32") * pairs)
        self.pair_steps.assign_add(pairs)

    def reset(self) -> None:
        """Start a new epoch."""
        for variable in self.variables:
            variable.assign(ops.zeros(variable.shape, variable.dtype))

    def logs(self) -> dict[str, float]:
        """`weight_<task>`, and with `monitor` `grad_norm_<task>`,
        `grad_cosine_<a>_<b>` and `conflict_rate` (share of pairs with cosine < 0); NaN
        for a task, or a pair, that was in no step's balance."""
        logs: dict[str, float] = {}

        def mean(total: Tensor, count: Tensor) -> Tensor:
            total, count = ops.convert_to_numpy(total), ops.convert_to_numpy(count)
            return np.where(count > 0, total / np.maximum(count, 1), np.nan)

        if self.has_weights:
            for name, value in zip(
                self.task_names, mean(self.weight_sums, self.step_count), strict=True
            ):
                logs[f"weight_{name}"] = float(value)
        if self.monitor:
            for name, value in zip(
                self.task_names, mean(self.norms, self.norm_steps), strict=True
            ):
                logs[f"grad_norm_{name}"] = float(value)
            cosines = mean(self.cosines, self.pair_steps)
            conflicts, pairs = 0.0, 0.0
            for i, first in enumerate(self.task_names):
                for j in range(i + 1, len(self.task_names)):
                    second = self.task_names[j]
                    logs[f"grad_cosine_{first}_{second}"] = float(cosines[i, j])
                    conflicts += float(ops.convert_to_numpy(self.conflicts)[i, j])
                    pairs += float(ops.convert_to_numpy(self.pair_steps)[i, j])
            logs["conflict_rate"] = conflicts / pairs if pairs else math.nan
        return logs
