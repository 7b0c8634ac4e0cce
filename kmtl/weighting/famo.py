"""Fast adaptive multitask optimization."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import keras
from keras import ops

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LossWeighting

EPSILON = 1e-8  # the official code's, in the loss's unit


@register("weighting", "famo")
@keras.saving.register_keras_serializable(package="kmtl")
class FAMO(LossWeighting):
    """Give all tasks the same relative progress per step, from the losses alone.

    Choose it when you want what the gradient methods give (no task left behind) at the
    price of a plain step.

    Formula: with z = softmax(logits), D_t = L_t - minimum_t + 1e-8 and
    c = 1 / sum_j (z_j / D_j) as a constant, `total = c sum_t z_t log D_t`, so that
    `w_t = c z_t / D_t`. After a step, with delta = log D(before) - log D(after), the
    logits take an Adam step along (dz / dlogits)^T delta + gamma * logits: tasks that
    improved more get less.

    Args:
        learning_rate: Float > 0, of the logits; paper's beta. Defaults to 0.025.
        gamma: Float >= 0, decay of the logits. The paper tunes it from 1e-5 to 1e-2;
            the official class has 1e-2, other libraries 1e-3. Defaults to 1e-3.
        minimum_losses: Dict from task name to a lower bound of its loss (paper's b).
            Tasks that it does not name get 0. Defaults to `None`: 0 for all.

    Differences from the official code: "after" is the loss on the next batch, not that
    on the same batch after the update, so that the train step stays as it is and no
    second forward pass is needed (the paper's own approximation for speed); the noise
    between batches enters delta, averaged by Adam. An absent task keeps its logit, its
    moments and its last loss until its next batch; where every batch has one task only,
    there is nothing to compare and the weights stay equal. No clipping of the gradient
    (official: norm 1): set `clipnorm` or `global_clipnorm` of the optimizer. Losses
    under their minimum count as the minimum and have no gradient.

    Cost: O(T), 5T floats of state, no extra pass.

    Example:

    >>> from keras import ops
    >>> from kmtl.weighting import FAMO
    >>> weighting = FAMO()
    >>> weighting.setup(["digit", "ink"])
    >>> for losses in ([1.0, 1.0], [0.5, 0.9], [0.3, 0.8]):
    ...     total, weights = weighting.combine(losses, [1, 1])
    >>> [round(float(x), 4) for x in ops.softmax(weighting.logits)]
    [0.4754, 0.5246]

    Reference: Liu, Feng, Stone, Liu, "FAMO: Fast Adaptive Multitask Optimization",
    NeurIPS 2023, arXiv:2306.03792, algorithm 1.
    """

    ranges = search_over(learning_rate=Float(2.5e-3, 0.25, log=True, default=0.025))

    def __init__(
        self,
        learning_rate: float = 0.025,
        gamma: float = 1e-3,
        minimum_losses: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.learning_rate = _checks.check_range(
            "learning_rate", learning_rate, 0, low_open=True, high_open=True
        )
        self.gamma = _checks.check_range("gamma", gamma, 0, high_open=True)
        self.minimum_losses = masking.checked_numbers(
            "minimum_losses", minimum_losses, low=-math.inf
        )

    def needs_positive_loss(self, task_name: str) -> bool:
        return task_name not in (self.minimum_losses or {})

    def setup_state(self) -> None:
        self._minimum = masking.task_vector(
            "minimum_losses", self.minimum_losses, self.task_names, 0.0
        )
        shape = (self.num_tasks,)
        self.logits = self.add_state("logits", shape)
        self.momentum = self.add_state("momentum", shape)
        self.velocity = self.add_state("velocity", shape)
        self.updates = self.add_state("updates", shape)
        self.log_before = self.add_state("log_before", shape, _unknown())

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        above = losses - masking.cast_like(self._minimum, losses)
        positive = above > 0
        distance = ops.where(positive, above, 0) + EPSILON
        log_distance = ops.log(distance)
        if training:
            log_now, seen = masking.observed(log_distance, mask)
            log_now, seen = ops.cast(log_now, "float32"), ops.cast(seen, "float32")
            log_before = ops.convert_to_tensor(self.log_before)
            known = ops.cast(log_before < UNKNOWN, "float32")
            self.update(log_before - log_now, seen * known)
            self.log_before.assign(ops.where(seen > 0, log_now, log_before))
        shares = masking.softmax(masking.cast_like(self.logits, losses), mask)
        scale = ops.stop_gradient(ops.sum(shares / distance))
        shares = shares / ops.where(scale > 0, scale, 1)
        total = ops.sum(shares * log_distance * mask)
        weights = ops.where(positive, shares / distance, 0)
        return total, ops.stop_gradient(weights)

    def update(self, log_decrease: Tensor, mask: Tensor) -> None:
        """One Adam step on the logits of the tasks in `mask`.

        Args:
            log_decrease: `(T,)` float32, log of the loss before over the loss after.
            mask: `(T,)` float32, 1 for the tasks that have both losses.
        """
        logits = ops.convert_to_tensor(self.logits)
        log_decrease = ops.where(mask > 0, log_decrease, 0)
        shares = masking.softmax(logits, mask)
        gradient = shares * (log_decrease - ops.sum(shares * log_decrease))
        gradient = gradient + self.gamma * logits
        direction = masking.adam_direction(self, gradient, mask)
        self.logits.assign(logits - self.learning_rate * direction)

    def get_config(self) -> Config:
        minimum = self.minimum_losses
        return {
            **super().get_config(),
            "learning_rate": self.learning_rate,
            "gamma": self.gamma,
            "minimum_losses": None if minimum is None else dict(minimum),
        }


UNKNOWN = 1e6  # no logarithm of a float is as large


def _unknown() -> keras.initializers.Initializer:
    return keras.initializers.Constant(UNKNOWN)
