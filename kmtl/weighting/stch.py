"""Smooth Tchebycheff scalarisation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._dimensions import Float, search_over
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting import _masking as masking
from kmtl.weighting.base import LOSS_FLOOR, LossWeighting


@register("weighting", "stch")
@keras.saving.register_keras_serializable(package="kmtl")
class STCH(LossWeighting):
    """Minimise a smooth maximum of the losses: attend to the worst task.

    Choose it when no task may stay behind, or, with preferences, to reach a given point
    of the Pareto front also where the front is not convex.

    Formula: `total = mu log sum_t exp(p_t (L_t - ideal_t) / mu)` over the present
    tasks, with p the preferences (paper's lambda); `w_t = p_t softmax(...)_t`.

    With `normalize=True` this is the form of the paper's multi-task experiments, which
    is free of units: L_t becomes log(L_t / nadir_t), p_t becomes P p_t and the total is
    multiplied by P, the number of present tasks. Until the nadir is known,
    `total = sum_t log L_t`: in the `warmup_epochs` first epochs and in the one after,
    whose mean losses become the nadir.

    Args:
        mu: Float > 0, in the unit of p L (none when normalised); small is close to the
            true maximum, large close to a weighted sum. Defaults to 1.0.
        preferences: Dict from task name to a number >= 0, used as given (the paper
            takes them from the simplex); tasks not named get 1. Defaults to `None`:
            1 / P for each of P present tasks.
        normalize: Whether to use the form of the experiments. Defaults to `True`.
        warmup_epochs: Int >= 0, used when normalised. Defaults to 4.
        ideal: Dict from task name to the smallest loss hoped for (paper's z*), only
            with `normalize=False`; tasks not named get 0. Defaults to `None`.

    Differences from the official code: a task without labels in the nadir's epoch takes
    the first loss after it as its nadir. Losses must be positive when normalised: a
    loss <= 1e-20 counts as 1e-20 and has no gradient. The epoch comes from `fit`; in a
    loop of your own call `on_epoch_begin`.

    Cost: O(T), 2T + 1 floats of state.

    Example:

    >>> from kmtl.weighting import STCH
    >>> weighting = STCH(mu=0.5, normalize=False)
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> [round(float(w), 4) for w in weights]
    [0.0912, 0.4088]

    Reference: Lin et al., "Smooth Tchebycheff Scalarization for Multi-Objective
    Optimization", ICML 2024, arXiv:2402.19078, eq. 7 and section 4.
    """

    ranges = search_over(mu=Float(0.1, 10.0, log=True, default=1.0))

    def __init__(
        self,
        mu: float = 1.0,
        preferences: Mapping[str, float] | None = None,
        normalize: bool = True,
        warmup_epochs: int = 4,
        ideal: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.mu = _checks.check_range("mu", mu, 0, low_open=True, high_open=True)
        self.preferences = masking.checked_numbers("preferences", preferences)
        self.normalize = masking.checked_flag("normalize", normalize)
        self.warmup_epochs = _checks.check_int("warmup_epochs", warmup_epochs)
        self.ideal = masking.checked_numbers("ideal", ideal, low=-float("inf"))
        if self.normalize and self.ideal:
            raise ValueError(
                "`ideal` needs `normalize=False`: the normalised form takes "
                f"logarithms of losses. Received: ideal={self.ideal}, normalize=True"
            )

    def needs_positive_loss(self, task_name: str) -> bool:
        return self.normalize

    def setup_state(self) -> None:
        names = self.task_names
        self._preferences: np.ndarray | None = None
        if self.preferences is not None:
            self._preferences = masking.task_vector(
                "preferences", self.preferences, names, 1.0
            )
        self._ideal = masking.task_vector("ideal", self.ideal, names, 0.0)
        if self.normalize:
            self.epoch = self.add_state("epoch")
            self.nadir = self.add_state("nadir", (self.num_tasks,))
            self.nadir_batches = self.add_state("nadir_batches", (self.num_tasks,))

    def on_epoch_begin(self, epoch: int) -> None:
        if self.normalize:
            self.epoch.assign(ops.cast(epoch, "float32"))

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        preferences = masking.preferences_of(self._preferences, mask)
        if not self.normalize:
            ideal = masking.cast_like(self._ideal, losses)
            return self._smooth_maximum(losses - ideal, preferences, mask)
        if training:
            self._observe_nadir(losses, mask)
        nadir = masking.cast_like(self.nadir, losses)
        nadir = ops.where(nadir > 0, ops.maximum(nadir, LOSS_FLOOR), 1)
        logarithms = masking.safe_log(losses)
        tasks = masking.count(mask)
        total, shares = self._smooth_maximum(
            logarithms - ops.log(nadir), preferences * tasks, mask
        )
        warm = ops.convert_to_tensor(self.epoch) <= self.warmup_epochs
        total = ops.where(warm, ops.sum(logarithms * mask), total * tasks)
        slopes = ops.where(warm, mask, shares * tasks)
        weights = slopes * masking.safe_inverse(losses)
        return total, ops.stop_gradient(weights)

    def _smooth_maximum(
        self, values: Tensor, preferences: Tensor, mask: Tensor
    ) -> Tensor:
        logits = preferences * values / self.mu
        total = self.mu * masking.logsumexp(logits, mask)
        weights = preferences * masking.softmax(logits, mask)
        return total, ops.stop_gradient(weights)

    def _observe_nadir(self, losses: Tensor, mask: Tensor) -> None:
        """Mean loss over the nadir's epoch, or the first loss after it."""
        losses, seen = masking.observed(losses, mask)
        losses, seen = ops.cast(losses, "float32"), ops.cast(seen, "float32")
        epoch = ops.convert_to_tensor(self.epoch)
        batches = ops.convert_to_tensor(self.nadir_batches)
        late = ops.logical_and(epoch > self.warmup_epochs, batches < 1)
        now = ops.logical_or(late, ops.equal(epoch, float(self.warmup_epochs)))
        seen = seen * ops.cast(now, "float32")
        batches = batches + seen
        step = (losses - self.nadir) * seen / ops.maximum(batches, 1)
        self.nadir.assign(self.nadir + step)
        self.nadir_batches.assign(batches)

    def get_config(self) -> Config:
        preferences, ideal = self.preferences, self.ideal
        return {
            **super().get_config(),
            "mu": self.mu,
            "preferences": None if preferences is None else dict(preferences),
            "normalize": self.normalize,
            "warmup_epochs": self.warmup_epochs,
            "ideal": None if ideal is None else dict(ideal),
        }
