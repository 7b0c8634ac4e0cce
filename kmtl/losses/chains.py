"""Linear chains: scores of sequences of classes, of which neighbours depend on another.

The score of a sequence is that of its first class, of every class at its step, of every
two that follow one another, and of the last. Steps that are not there are left out: the
classes before and behind them are neighbours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

from kmtl.typing import Tensor

#: Far below any score, and far from float32's end.
FORBIDDEN = -1e9


class Chain(NamedTuple):
    """Scores of all sequences.

    Args:
        steps: `(N, L, C)`, of each class at each step.
        there: `(N, L)`, above 0 for steps that are in the sequence.
        moves: `(C, C)`, of class j (column) behind class i (row).
        first, last: `(C,)`, of the class that a sequence begins and ends with.
    """

    steps: Tensor
    there: Tensor
    moves: Tensor
    first: Tensor
    last: Tensor


def packed(chain: Chain) -> Tensor:
    """All of a chain in one tensor `(N, L + C + 2, C + 1)`, row by row."""
    steps = ops.concatenate([chain.steps, chain.there[..., None]], axis=-1)
    rows = ops.concatenate([chain.moves, chain.first[None], chain.last[None]], axis=0)
    rows = ops.pad(rows, ((0, 0), (0, 1)))
    zeros = ops.zeros_like(steps[:, :1, :1])
    return ops.concatenate([steps, rows[None] + zeros], axis=1)


def unpacked(tensor: Tensor) -> Chain:
    """What `packed` made a tensor of."""
    classes = int(tensor.shape[-1]) - 1
    length = int(tensor.shape[1]) - classes - 2
    rows = tensor[0, length:, :classes]
    return Chain(
        tensor[:, :length, :classes],
        tensor[:, :length, classes],
        rows[:classes],
        rows[classes],
        rows[classes + 1],
    )


def _scan(
    step: Callable[..., Any], start: Any, chain: Chain, reverse: bool = False
) -> tuple[Any, Tensor]:
    """`ops.scan` over the steps of a chain.

    On TensorFlow one step after the other is written into the graph: of its loops XLA
    knows no gradient, and LiteRT and ONNX have no form.
    """
    steps = ops.transpose(chain.steps, (1, 0, 2))
    there = ops.transpose(chain.there)[..., None]
    if keras.backend.backend() != "tensorflow":
        return ops.scan(step, start, (steps, there), reverse=reverse)
    places = range(int(chain.steps.shape[1]))
    found = {}
    for place in reversed(places) if reverse else places:
        start, found[place] = step(start, (steps[place], there[place]))
    return start, ops.stack([found[place] for place in places])


def forward(chain: Chain, reduce: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    """Of each step and class the sum (or maximum) over all sequences up to there.

    Returns:
        `(L, N, C)`, and those of the last step that is there `(N, C)`.
    """

    def step(so_far: tuple, given: tuple) -> tuple[tuple, Tensor]:
        before, begun = so_far
        scores, there = given
        moved = reduce(before[:, :, None] + chain.moves[None], axis=1)
        new = scores + ops.where(begun > 0, moved, chain.first[None])
        new = ops.where(there > 0, new, before)
        return (new, ops.maximum(begun, there)), new

    nothing = ops.zeros_like(chain.steps[:, 0])
    (end, _), every = _scan(step, (nothing, nothing[:, :1]), chain)
    return every, end


def backward(chain: Chain, reduce: Callable[..., Tensor]) -> Tensor:
    """Of each step and class the sum (or maximum) over all that can follow, `(L, N,
    C)`."""

    def step(behind: Tensor, given: tuple) -> tuple[Tensor, Tensor]:
        scores, there = given
        moved = reduce(chain.moves[None] + (scores + behind)[:, None, :], axis=2)
        return ops.where(there > 0, moved, behind), behind

    last = ops.zeros_like(chain.steps[:, 0]) + chain.last[None]
    _, every = _scan(step, last, chain, reverse=True)
    return every


def log_total(chain: Chain) -> Tensor:
    """Logarithm of the sum of exp(score) over all sequences, `(N,)`."""
    _, end = forward(chain, ops.logsumexp)
    return ops.logsumexp(end + chain.last[None], axis=-1)


def best_through(chain: Chain) -> Tensor:
    """How far the best sequence with a class at a step is below the best one, `(N, L,
    C)`: 0 for the classes of the best one (Viterbi's), and at steps that are not there.
    """
    every, _ = forward(chain, ops.max)
    both = ops.transpose(every + backward(chain, ops.max), (1, 0, 2))
    below = both - ops.max(both, axis=-1, keepdims=True)
    return ops.where(chain.there[..., None] > 0, below, 0.0)


def chain_loss(labels: Tensor, chain: Chain, mask: Tensor) -> Tensor:
    """-log p(labels) of each row, per label; labels that are missing may be any.

    Formula: -log of the sum of exp(score) over all sequences that have the labels,
    divided by that over all sequences (Lafferty et al., ICML 2001; of rows that lack
    labels Tsuboi et al., COLING 2008).

    Args:
        labels: `(N, L)`, int, in [0, C).
        chain: Scores.
        mask: `(N, L)`, 1 for labels that count; those at steps that are not there do
            not.

    Returns:
        `(N, L)`, for each label of a row the same.
    """
    classes = int(chain.steps.shape[-1])
    mask = ops.cast(mask, "float32") * chain.there
    other = 1.0 - ops.one_hot(ops.cast(labels, "int32"), classes, dtype="float32")
    allowed = chain.steps + FORBIDDEN * other * mask[..., None]
    # All sequences, and those with the labels, as rows of one chain.
    both = Chain(
        ops.concatenate([chain.steps, allowed], axis=0),
        ops.concatenate([chain.there, chain.there], axis=0),
        *chain[2:],
    )
    every, right = ops.split(log_total(both), 2, axis=0)
    each = (every - right) / ops.maximum(ops.sum(mask, axis=-1), 1.0)
    return ops.broadcast_to(each[:, None], ops.shape(labels))
