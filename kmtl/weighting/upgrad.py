"""Unconflicting projection of gradients."""

from __future__ import annotations

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import PreferenceWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "upgrad")
class UPGrad(PreferenceWeighting):
    """Projects every gradient onto the steps that hurt no task, and averages.

    Choose it for a guarantee without MGDA's bias to small gradients: no task's loss
    rises to first order, and the update grows with each gradient's own scale.

    Formula: with the dual cone K = {d: J d >= 0}, the update is the mean over tasks of
    the projections of g_t onto K (or their sum weighted by `preference`).

    Args:
        preference: Weights >= 0 of the projections, a dict by task or a list. Defaults
            to None, 1/T each.

    Differs from the official code: TorchJD adds 1e-4 to the normalised Gramian and
    solves with quadprog on the host; here the projection is exact to rounding.

    Cost: T problems of size T, each one T x T solve per pivot, in one batch.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("upgrad", [[1.0, 0.0], [-1.0, 1.0]])
    >>> [round(float(x), 3) for x in update]
    [0.25, 0.75]

    Reference: Quinton and Rey, Jacobian Descent for Multi-Objective Optimization,
    2024, arXiv:2406.16232, eq. 4.
    """

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        projected = _solvers.project_dual_cone(rows, _solvers.identity(gramian))
        lengths = rows.norms * self._preference(present)
        return rows.unscale(ops.sum(lengths[:, None] * projected, axis=0))
