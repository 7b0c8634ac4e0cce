"""Conflict-free inverse gradients."""

from __future__ import annotations

import keras
from keras import ops

from kmtl._registry import register
from kmtl.typing import Tensor
from kmtl.weighting import _solvers
from kmtl.weighting._tasks import PreferenceWeighting


@keras.saving.register_keras_serializable(package="kmtl")
@register("weighting", "config")
class ConFIG(PreferenceWeighting):
    """Follows the direction with the same cosine to all gradients, at their pull.

    Choose it for loss terms of one problem (physics-informed networks), where each
    must fall at the same rate.

    Formula: with unit gradients U, direction v = U^+ 1 / |U^+ 1| (pseudo-inverse);
    update (sum_t <g_t, v>) v.

    Args:
        preference: Wanted relative cosines >= 0, a dict by task or a list. Defaults to
            None, equal.

    Differs from the official code: computed from the Gramian, (U U^T)^+ 1 U. Linearly
    dependent gradients get the least-squares direction, zero gradients count as no
    direction.

    Cost: one T x T eigendecomposition.

    Example:

    >>> import kmtl
    >>> update = kmtl.weighting.aggregate("config", [[1.0, 0.0], [0.0, 3.0]])
    >>> [round(float(x), 3) for x in update]
    [2.0, 2.0]

    Reference: Liu et al., ICLR 2025, arXiv:2408.11104, eq. 2 and 3.
    """

    def _row_weights(
        self, gramian: Tensor, losses: Tensor, present: Tensor, resolution: float
    ) -> Tensor:
        rows = _solvers.unit_rows(gramian, present, resolution)
        wanted = rows.active * self._preference(present)
        shares, _ = _solvers.equal_cosine_weights(rows, wanted)
        pulls = ops.sum(rows.cosines * shares[None, :], -1)
        square = ops.sum(shares * pulls)
        length = _solvers.divide(ops.sum(rows.norms * pulls), square)
        return rows.unscale(shares * length)
