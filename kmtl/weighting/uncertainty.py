"""Weights from a learned noise level per task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl._registry import register
from kmtl.typing import Config, Tensor
from kmtl.weighting._masking import LOG_SCALE_LIMIT, Bounded, cast_like
from kmtl.weighting.base import LossWeighting

# What multiplies exp(-s) L in Kendall's two likelihoods.
FACTORS = {"regression": 0.5, "classification": 1.0}


@register("weighting", "uncertainty")
@keras.saving.register_keras_serializable(package="kmtl")
class Uncertainty(LossWeighting):
    """Learn a noise level per task, and trust noisy tasks less.

    Choose it for a few tasks with losses in different units (likelihoods or squared
    errors) and enough steps for the noise levels to settle; the usual first try after
    `Equal`.

    Formula: with s_t = log sigma_t^2 learned,
    `total = sum_t f_t exp(-s_t) L_t + s_t / 2`, f_t = 1/2 for a regression (Gaussian
    likelihood) and 1 for a classification (softmax with temperature). At the optimum
    `exp(s_t) = 2 f_t L_t`, so all terms settle at the same size.

    Args:
        form: `"regression"`, `"classification"`, or a dict from task name to one of
            the two, in which tasks not named are `"regression"`. Defaults to
            `"regression"`, as most implementations do for all tasks; the two only
            differ by a shift of s_t by log 2, that is in their start.
        initial_log_variance: Float, start of every s_t. Defaults to 0.0 (sigma = 1).

    Differences from the paper: s_t is kept in [-40, 40], which holds the optimum for
    losses from 1e-12 to 1e12, so that no step can make the weight overflow. The total
    is not a sum of losses: it may be negative.

    The log-variances are trainable variables: a decoupled weight decay (AdamW) pulls
    them to 0, against which
    `optimizer.exclude_from_weight_decay(var_names=["log_variance"])` helps.

    Cost: T trainable floats.

    Example:

    >>> from kmtl.weighting import Uncertainty
    >>> weighting = Uncertainty({"digit": "classification"})
    >>> weighting.setup(["digit", "ink"])
    >>> total, weights = weighting.combine([0.5, 2.0], [1, 1])
    >>> float(total)
    1.5

    Reference: Kendall, Gal, Cipolla, "Multi-Task Learning Using Uncertainty to Weigh
    Losses for Scene Geometry and Semantics", CVPR 2018, arXiv:1705.07115, eq. 7, 10.
    """

    positive_losses = True

    def __init__(
        self,
        form: str | Mapping[str, str] = "regression",
        initial_log_variance: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if isinstance(form, Mapping):
            self.form: str | dict[str, str] = {
                str(task): _checks.check_choice(f"form[{task!r}]", value, FACTORS)
                for task, value in form.items()
            }
        else:
            self.form = _checks.check_choice("form", form, FACTORS)
        self.initial_log_variance = _checks.check_range(
            "initial_log_variance",
            initial_log_variance,
            -LOG_SCALE_LIMIT,
            LOG_SCALE_LIMIT,
        )

    def setup_state(self) -> None:
        forms = self.form
        if isinstance(forms, str):
            forms = dict.fromkeys(self.task_names, forms)
        forms = _checks.check_task_keys("form", forms, self.task_names, partial=True)
        self._factors = np.array(
            [FACTORS[forms.get(name, "regression")] for name in self.task_names],
            "float32",
        )
        self.log_variance = self.add_state(
            "log_variance",
            (self.num_tasks,),
            keras.initializers.Constant(self.initial_log_variance),
            trainable=True,
            constraint=Bounded(LOG_SCALE_LIMIT),
        )

    def combine(
        self, losses: Tensor, present: Tensor, training: bool = True
    ) -> tuple[Tensor, Tensor]:
        losses, mask = self.prepare(losses, present)
        log_variance = cast_like(self.log_variance, losses)
        weights = cast_like(self._factors, losses) * ops.exp(-log_variance) * mask
        total = ops.sum(weights * losses + 0.5 * log_variance * mask)
        return total, ops.stop_gradient(weights)

    def get_config(self) -> Config:
        form = self.form if isinstance(self.form, str) else dict(self.form)
        start = self.initial_log_variance
        return {**super().get_config(), "form": form, "initial_log_variance": start}
