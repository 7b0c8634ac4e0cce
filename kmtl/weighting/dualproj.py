"""Projection of the mean gradient onto the dual cone."""

from __future__ import annotations

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import PreferenceWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "dualproj")
class DualProj(PreferenceWeighting):
    """Moves the mean gradient as little as needed so that it hurts no task.

    Choose it to keep the plain mean wherever it conflicts with nobody (as GEM does
    against forgetting).

    Formula: the update is the projection of the mean gradient (or of the sum weighted
    by `preference`) onto {d: J d >= 0}.

    Args:
        preference: Weights >= 0 of the gradients, a dict by task or a list. Defaults
            to None, 1/T each.

    Differs from the official code: GEM projects the newest task's gradient only, on
    the host; here the projection of the mean is exact to rounding, on the device.

    Cost: one T x T linear solve per pivot, usually fewer than T.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("dualproj", [[1.0, 0.0], [-1.0, 2.0]])
    >>> [round(float(x), 3) for x in update]
    [0.0, 1.0]

    Reference: Lopez-Paz and Ranzato, NeurIPS 2017, arXiv:1706.08840, eq. 8 to 11.
    """

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        mean = rows.norms * self._preference(present)
        longest = ops.max(ops.abs(mean))
        mean = _solvers.divide(mean, longest)
        projected = _solvers.project_dual_cone(rows, mean[None])[0]
        return rows.unscale(projected) * longest
