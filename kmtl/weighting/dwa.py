"""Dynamic weight average."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Losses, Tensor
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LOSS_FLOOR, LossWeighting


@register("weighting", "dwa")
@keras.saving.register_keras_serializable(package="kmtl")
class DWA(LossWeighting):
    """Weigh tasks by how slowly their loss falls from epoch to epoch.

    Choose it for long trainings in which tasks learn at different speeds. It looks at
    ratios only, so that it does not even out losses of different scale: combine it with
    task weights for that. It needs epochs (`fit`, or calls of `on_epoch_end`).

    Formula: `w_t = P softmax(r_t / temperature)` over the P present tasks with
    `r_t = L_t(e-1) / L_t(e-2)`, L_t(e) the mean training loss of epoch e; weights sum
    to P. Before two epochs of a task are known its r_t is 1.

    The weights move when an epoch has ended, after its validation. So the total loss of
    `evaluate` after `fit` is weighed as the next epoch would be, and is not the last
    `val_loss`, though every task's own loss is the same.

    Args:
        temperature: Float > 0, no unit, paper's T; high is more even. Defaults to 2.0,
            the paper's value.

    Differences from the official code: the mean of an epoch is over the batches that
    have labels of the task, and an epoch without any leaves its history as it is.

    Cost: O(T), 4T floats of state.

    Example:

    >>> from kmtl.weighting import DWA
    >>> weighting = DWA(temperature=2.0)
    >>> weighting.setup(["digit", "ink"])
    >>> for epoch, losses in enumerate([[1.0, 1.0], [0.5, 1.0]]):
    ...     total, weights = weighting.combine(losses, [1, 1])
    ...     weighting.on_epoch_end(epoch)
    >>> total, weights = weighting.combine([0.4, 1.0], [1, 1])
    >>> [round(float(w), 4) for w in weights]
    [0.8756, 1.1244]

    Reference: Liu, Johns, Davison, "End-to-End Multi-Task Learning with Attention",
    CVPR 2019, arXiv:1803.10704, eq. 7.
    """

    positive_losses = True

    ranges = search_over(temperature=Float(0.5, 8.0, log=True, default=2.0))

    def __init__(self, temperature: float = 2.0, **kwargs: Any):
        super().__init__(**kwargs)
        self.temperature = _checks.check_range(
            "temperature", temperature, 0, low_open=True, high_open=True
        )

    def setup_state(self) -> None:
        shape = (self.num_tasks,)
        self.running_mean = self.add_state("running_mean", shape)
        self.running_batches = self.add_state("running_batches", shape)
        # Negative: not known yet.
        self.last_epoch = self.add_state("last_epoch", shape, _unknown())
        self.epoch_before = self.add_state("epoch_before", shape, _unknown())

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        if training:
            values, seen = masking.observed(losses, mask)
            values, seen = ops.cast(values, "float32"), ops.cast(seen, "float32")
            mean = ops.convert_to_tensor(self.running_mean)
            batches = ops.convert_to_tensor(self.running_batches) + seen
            # A mean, because a sum of losses could overflow.
            mean = mean + (values - mean) * seen / ops.maximum(batches, 1)
            self.running_mean.assign(mean)
            self.running_batches.assign(batches)
        weights = ops.sum(mask) * masking.softmax(
            loss_ratio(self.last_epoch, self.epoch_before, losses) / self.temperature,
            mask,
        )
        return masking.weighted_sum(losses, weights)

    def on_epoch_end(self, epoch: int, losses: Losses | None = None) -> None:
        mean, batches, last, before = (
            ops.convert_to_tensor(variable)
            for variable in (
                self.running_mean,
                self.running_batches,
                self.last_epoch,
                self.epoch_before,
            )
        )
        self.epoch_before.assign(ops.where(batches > 0, last, before))
        self.last_epoch.assign(ops.where(batches > 0, mean, last))
        self.running_mean.assign(ops.zeros_like(mean))
        self.running_batches.assign(ops.zeros_like(batches))

    def get_config(self) -> Config:
        return {**super().get_config(), "temperature": self.temperature}


def _unknown() -> keras.initializers.Initializer:
    return keras.initializers.Constant(-1.0)


def loss_ratio(last: Tensor, before: Tensor, losses: Tensor) -> Tensor:
    """last / before, and 1 where the epoch before is not known."""
    last, before = masking.cast_like(last, losses), masking.cast_like(before, losses)
    ratio = ops.maximum(last, LOSS_FLOOR) / ops.maximum(before, LOSS_FLOOR)
    return ops.where(before < 0, 1, ratio)
