"""Metrics of times until an event: labels `(N, 2)`, time and event."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import keras
import numpy as np
from keras import ops

from kmtl.metrics.together import OfBatches, whole
from kmtl.typing import Config, DType, Tensor

#: Rows that are compared with all others at once.
_ROWS = 512


def _columns(labels: Tensor) -> tuple[Tensor, Tensor]:
    labels = ops.cast(labels, "float32")
    return labels[:, 0], labels[:, 1] > 0.5


@keras.saving.register_keras_serializable(package="kmtl")
class Concordance(OfBatches):
    """Share of pairs that are in the right order (Harrell's C), among those whose order
    is known; equal scores count half.

    The first of a pair has the event, and before the other's time, or at a time at
    which the other is censored.

    Args:
        edges: Where outputs are the log of the survival at these times `(N, K)`: the
            score is the mean survival until the last of them. None (default) where they
            are scores `(N, 1)`, higher for an earlier event.
    """

    def __init__(
        self,
        edges: Sequence[float] | None = None,
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.edges = None if edges is None else tuple(float(edge) for edge in edges)

    def counted(
        self, labels: Tensor, outputs: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        rows = (*_columns(labels), whole(weights), self._risk(outputs))
        return self._pairs(rows, rows)

    def of_all(
        self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray
    ) -> float:
        risk = self._risk(ops.convert_to_tensor(outputs))
        columns = (*_columns(labels), whole(ops.convert_to_tensor(weights)), risk)
        rows = [ops.convert_to_numpy(column) for column in columns]
        right = count = 0.0
        for start in range(0, len(labels), _ROWS):
            part = [column[start : start + _ROWS] for column in rows]
            sums = self._pairs(part, rows)
            right, count = right + float(sums[0]), count + float(sums[1])
        return right / count if count else math.nan

    def _risk(self, outputs: Tensor) -> Tensor:
        """One number per row, higher for an earlier event."""
        if self.edges is None:
            return outputs[:, 0]
        widths = np.diff(np.asarray((0.0, *self.edges)))
        start = ops.concatenate([ops.zeros_like(outputs[:, :1]), outputs], axis=1)
        survival = ops.exp(start)
        middle = 0.5 * (survival[:, 1:] + survival[:, :-1])
        return -ops.sum(middle * widths.astype("float32"), axis=1)

    def _pairs(
        self, firsts: Sequence[Tensor], seconds: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Pairs in the right order, and all; of times, events, weights and risks."""
        times, events, weight, risk = (column[:, None] for column in firsts)
        others, censored, other, least = (column[None, :] for column in seconds)
        later = ops.logical_or(
            times < others,
            ops.logical_and(times == others, ops.logical_not(censored)),
        )
        pair = ops.cast(ops.logical_and(events, later), self.dtype) * weight * other
        right = ops.cast(risk > least, self.dtype)
        tied = ops.cast(risk == least, self.dtype)
        return ops.sum(pair * (right + 0.5 * tied)), ops.sum(pair)

    def get_config(self) -> Config:
        edges = None if self.edges is None else list(self.edges)
        return {**super().get_config(), "edges": edges}


@keras.saving.register_keras_serializable(package="kmtl")
class IntegratedBrier(OfBatches):
    """Squared error of the survival at the edges, its mean from the first to the last;
    0 is perfect.

    Rows that were censored before a time are left out there, and others weigh as much
    more as Kaplan and Meier's estimate of the censoring says (Graf et al. 1999).

    Args:
        edges: Times, at least two; outputs `(N, K)` are the log of the survival there.
    """

    def __init__(
        self,
        edges: Sequence[float],
        name: str | None = None,
        dtype: DType = "float32",
    ):
        super().__init__(name=name, dtype=dtype)
        self.edges = tuple(float(edge) for edge in edges)

    def counted(
        self, labels: Tensor, outputs: Tensor, weights: Tensor
    ) -> tuple[Tensor, Tensor]:
        times, events = _columns(labels)
        weight = whole(weights)
        return self._sums(
            times, events, weight, outputs, _censoring(times, events, weight)
        )

    def of_all(
        self, labels: np.ndarray, outputs: np.ndarray, weights: np.ndarray
    ) -> float:
        columns = (*_columns(labels), whole(ops.convert_to_tensor(weights)))
        times, events, weight = (ops.convert_to_numpy(column) for column in columns)
        stay = _censoring_of_all(times, events, weight)
        total, count = self._sums(times, events, weight, outputs, stay)
        return float(total) / float(count) if float(count) else math.nan

    def _sums(
        self,
        times: Tensor,
        events: Tensor,
        weight: Tensor,
        outputs: Tensor,
        stay: Callable[[Tensor], Tensor],
    ) -> tuple[Tensor, Tensor]:
        ends = ops.convert_to_tensor(np.asarray(self.edges, "float32"))
        of_row = stay(times)[:, None]
        of_end = stay(ends)[None, :]
        survival = ops.exp(outputs)
        there = times[:, None] > ends[None, :]
        gone = ops.logical_and(ops.logical_not(there), events[:, None])
        error = ops.where(
            there,
            ops.divide_no_nan(ops.square(1.0 - survival), of_end),
            ops.where(gone, ops.divide_no_nan(ops.square(survival), of_row), 0.0),
        )
        shares = _trapezoid(self.edges)
        values = ops.sum(error * shares[None, :], axis=1)
        kept = ops.where(weight > 0, values * weight, 0.0)
        return ops.sum(kept), ops.sum(weight)

    def get_config(self) -> Config:
        return {**super().get_config(), "edges": list(self.edges)}


def _censoring(
    times: Tensor, events: Tensor, weight: Tensor
) -> Callable[[Tensor], Tensor]:
    """Kaplan and Meier's probability of not being censored until a time, inclusive."""
    same = ops.cast(times[:, None] == times[None, :], "float32") * weight[None, :]
    event = ops.cast(events, "float32")[None, :]
    died, left = ops.sum(same * event, axis=1), ops.sum(same * (1 - event), axis=1)
    later = ops.cast(times[None, :] >= times[:, None], "float32") * weight[None, :]
    known = ops.sum(later, axis=1) - died
    rest = ops.divide_no_nan(known - left, known)
    # Each of those censored at one time has its part of that time's factor.
    part = ops.log(ops.maximum(rest, 1e-30)) * ops.divide_no_nan(
        weight * ops.cast(ops.logical_not(events), "float32"), left
    )

    def stay(at: Tensor) -> Tensor:
        passed = ops.cast(times[None, :] <= at[:, None], "float32")
        total = ops.sum(passed * part[None, :], axis=1)
        return ops.where(total < -60.0, 0.0, ops.exp(total))

    return stay


def _censoring_of_all(
    times: np.ndarray, events: np.ndarray, weight: np.ndarray
) -> Callable[[Tensor], Tensor]:
    """`_censoring`, without a matrix of all pairs of rows."""
    points, place = np.unique(times, return_inverse=True)
    weight = weight.astype("float64")
    here, died = (
        np.bincount(place, weight * part, len(points)) for part in (1.0, events)
    )
    known = np.cumsum(here[::-1])[::-1] - died
    left = here - died
    rest = np.where(left > 0, 1.0 - left / np.where(left > 0, known, 1.0), 1.0)
    stays = np.concatenate([[1.0], np.cumprod(np.maximum(rest, 0.0))])

    def stay(at: Tensor) -> Tensor:
        passed = np.searchsorted(points, ops.convert_to_numpy(at), side="right")
        return ops.convert_to_tensor(stays[passed].astype("float32"))

    return stay


def _trapezoid(edges: Sequence[float]) -> np.ndarray:
    """Weights of values at the edges in their mean over the time between."""
    steps = np.diff(np.asarray(edges, "float64"))
    weights = np.zeros(len(edges))
    weights[:-1] += steps / 2
    weights[1:] += steps / 2
    return (weights / weights.sum()).astype("float32")
