"""Weights from the numbers of labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting._masking import (
    cast_like,
    checked_numbers,
    count,
    task_vector,
    weighted_sum,
)
from kmtl.weighting.base import LossWeighting


@register("weighting", "by_labels")
@keras.saving.register_keras_serializable(package="kmtl")
class ByLabels(LossWeighting):
    """Weigh tasks by how many labels they have; for tasks labelled very unevenly.

    Each task's loss is a mean over its labels, so that with equal weights a label of a
    rare task counts more than one of a frequent task. `"proportional"` makes every
    label count the same; `"inverse"` pushes rare tasks further up, against their being
    present in fewer batches.

    Formula: `w_t = P n_t^a / sum_j n_j^a` over the P present tasks (mean weight 1) with
    a = 1 (proportional) or a = -1 (inverse), n_t the number of labels.

    Args:
        mode: `"proportional"` or `"inverse"`. Defaults to `"proportional"`.
        counts: Dict from every task name to its number of labels in the training data,
            > 0. Defaults to `None`: counted while training, from the numbers of labels
            per batch (the step that sees a batch includes it). Without counts by the
            caller (`present` holding just 0 and 1), batches are counted.

    Cost: with `counts`, none; else T + 1 floats of state.

    Example:

    >>> from kmtl.weighting import ByLabels
    >>> weighting = ByLabels("inverse", counts={"digit": 900, "ink": 100})
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> [round(float(w), 6) for w in weights]
    [0.2, 1.8]

    Reference: none; a common rule of thumb.
    """

    def __init__(
        self,
        mode: str = "proportional",
        counts: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.mode = _checks.check_choice("mode", mode, ["proportional", "inverse"])
        self.counts = checked_numbers("counts", counts)
        for name, number in (self.counts or {}).items():
            _checks.check_range(f"counts[{name!r}]", number, 0, low_open=True)

    def setup_state(self) -> None:
        if self.counts is not None:
            _checks.check_task_keys("counts", self.counts, self.task_names)
            self._vector = task_vector("counts", self.counts, self.task_names, 0.0)
            return
        # A running mean and not a total: float32 cannot count past 2**24.
        self.labels_per_batch = self.add_state("labels_per_batch", (self.num_tasks,))
        self.batches = self.add_state("batches")

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        if self.counts is not None:
            labels = cast_like(self._vector, losses)
        else:
            if training:
                numbers = ops.maximum(cast_like(present, self.batches), 0)
                self.batches.assign(self.batches + 1)
                step = (numbers - self.labels_per_batch) / self.batches
                self.labels_per_batch.assign(self.labels_per_batch + step)
            labels = cast_like(self.labels_per_batch, losses)
        # Tasks never seen in training have no number yet; ratios of 1 until then.
        known = mask * ops.cast(labels > 0, mask.dtype)
        mean = ops.sum(labels * known) / count(known)
        mean = ops.where(mean > 0, mean, 1)
        ratios = ops.where(labels > 0, labels, mean) / mean
        weights = (ratios if self.mode == "proportional" else 1 / ratios) * mask
        weights = weights * ops.sum(mask) / ops.maximum(ops.sum(weights), 1e-12)
        return weighted_sum(losses, weights)

    def get_config(self) -> Config:
        counts = None if self.counts is None else dict(self.counts)
        return {**super().get_config(), "mode": self.mode, "counts": counts}
