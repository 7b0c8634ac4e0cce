"""Losses of times until an event, some of which are only known to be longer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from keras import ops

from kmtl.typing import Tensor

#: Stands for log 0, where float32 would have no number for the sum.
_NEVER = -1e9
#: The least hazard of an interval in which an event was seen.
_LEAST = 1e-7


def place(times: Tensor, edges: Sequence[float], events: Tensor) -> Tensor:
    """Number of intervals that ended before the event, or by the censoring; int32.

    An event at an edge is in the interval that ends there.
    """
    ends = ops.convert_to_tensor(np.asarray(edges, "float32"))
    times = ops.expand_dims(ops.cast(times, "float32"), -1)
    passed = ops.where(ops.expand_dims(events, -1), ends < times, ends <= times)
    return ops.sum(ops.cast(passed, "int32"), axis=-1)


def hazards(labels: Tensor, outputs: Tensor, edges: Sequence[float]) -> Tensor:
    """Negative log-likelihood of hazards in intervals, in nats; `(N, 1)`.

    Gensheimer and Narasimhan 2019, arXiv:1805.00917: an event in interval k has
    `S(k - 1) - S(k)`, a row censored there `S(k - 1)`, one that passed the last edge
    `S(K)`.

    Args:
        labels: `(N, 2)`, time and event (0 or 1).
        outputs: `(N, K)`, log S at the edges.
        edges: Ends of the K intervals.
    """
    labels = ops.cast(labels, "float32")
    outputs = ops.cast(outputs, "float32")
    events = labels[:, 1] > 0.5
    count = len(edges)
    before = place(labels[:, 0], edges, events)
    start = ops.concatenate([ops.zeros_like(outputs[:, :1]), outputs], axis=1)
    survived = ops.sum(start * ops.one_hot(before, count + 1, dtype="float32"), axis=1)
    # Steps rather than differences of what was gathered: none for the last place.
    steps = outputs - start[:, :-1]
    step = ops.sum(steps * ops.one_hot(before, count, dtype="float32"), axis=1)
    inside = ops.logical_and(events, before < count)
    step = ops.where(inside, ops.minimum(step, -_LEAST), -1.0)
    ended = ops.where(inside, ops.log(-ops.expm1(step)), 0.0)
    return ops.expand_dims(-(survived + ended), -1)


def cox(labels: Tensor, outputs: Tensor) -> Tensor:
    """Negative log of Cox's partial likelihood within the batch, in nats; `(N, 1)`.

    Cox 1972, with Breslow's treatment of ties; DeepSurv, Katzman et al. 2018,
    arXiv:1606.00931: of an event at time t, the log of its share in the hazards of all
    rows whose time is t or later. 0 for a row without an event.

    Args:
        labels: `(N, 2)`, time > 0 and event (0 or 1); rows with a time of 0 are left
            out of all sums.
        outputs: `(N, 1)`, the log of the hazard's factor.
    """
    labels = ops.cast(labels, "float32")
    score = ops.cast(outputs, "float32")[:, 0]
    times, events = labels[:, 0], labels[:, 1] > 0.5
    at_risk = ops.logical_and(times[None, :] >= times[:, None], times[None, :] > 0)
    # A row without anybody at risk has no event: its sum is finite and not used.
    hazard = ops.logsumexp(ops.where(at_risk, score[None, :], _NEVER), axis=1)
    value = ops.where(ops.logical_and(events, times > 0), hazard - score, 0.0)
    return ops.expand_dims(ops.maximum(value, 0.0), -1)
