"""Losses and decoding of sequences that are not aligned with their steps."""

from __future__ import annotations

from keras import ops

from kmtl.typing import Tensor

#: The output that stands for "nothing here"; symbol n is output n + 1.
BLANK = 0
_PRIME = 46337
_FACTORS = (31607, 7919)


def lengths(labels: Tensor) -> Tensor:
    """Number of symbols in each row `(N,)`, int32; those below 0 are padding."""
    return ops.sum(ops.cast(ops.cast(labels, "int32") >= 0, "int32"), axis=-1)


def ctc(labels: Tensor, outputs: Tensor) -> Tensor:
    """Connectionist temporal classification, in nats per symbol of the row.

    Graves et al., ICML 2006; `keras.ops.ctc_loss`. 0 for a row without a symbol.

    Args:
        labels: `(N, S)`, int: the row's symbols from the left, and -1 behind them.
        outputs: `(N, L, symbols + 1)`, logits, the blank first.

    Returns:
        `(N, S)`, for each label of a row the same.
    """
    labels = ops.cast(labels, "int32")
    count = lengths(labels)
    steps = ops.full_like(count, int(outputs.shape[1]))
    logits = ops.cast(outputs, "float32")
    target = ops.maximum(labels + 1, 0)
    value = ops.ctc_loss(target, logits, count, steps, mask_index=BLANK)
    each = value / ops.maximum(ops.cast(count, "float32"), 1.0)
    each = ops.where(count > 0, each, 0.0)
    return ops.broadcast_to(ops.expand_dims(each, -1), ops.shape(labels))


def greedy(outputs: Tensor) -> Tensor:
    """Symbols `(N, L)`, int32, -1 behind them: of the most probable output of each step
    the changes that are no blank."""
    best = ops.cast(ops.argmax(outputs, axis=-1), "int32")
    length = int(outputs.shape[1])
    before = ops.concatenate([ops.full_like(best[:, :1], -1), best[:, :-1]], axis=1)
    kept = ops.logical_and(best != BLANK, best != before)
    # Kept steps come first, in their order.
    later = ops.cast(ops.logical_not(kept), "int32") * length
    # (A symbolic tensor to the left: arrays of JAX add none to themselves.)
    order = ops.argsort(later + ops.arange(length, dtype="int32"), axis=-1)
    symbols = ops.where(kept, best - 1, -1)
    return ops.take_along_axis(symbols, ops.cast(order, "int32"), axis=1)


def texts_in(outputs: Tensor) -> Tensor:
    """Tokens `(N, L)` that logits `(N, L + 1, tokens + 1)` say, int32, -1 behind them.

    At NaN nothing is said.
    """
    end = int(outputs.shape[-1]) - 1
    best = ops.cast(ops.argmax(outputs, axis=-1), "int32")
    ends = ops.cast(ops.equal(best, end), "int32")
    there = ops.equal(ops.cumsum(ends, axis=1), 0)
    broken = ops.any(ops.isnan(outputs), axis=-1)
    there = ops.logical_and(there, ops.logical_not(broken))
    return ops.where(there, best, -1)[:, :-1]


def words(symbols: Tensor, space: int) -> Tensor:
    """One number per word `(N, S)`, int32, -1 behind them: the same for words of the
    same symbols, and another for others (but for one pair in two thousand million).

    Args:
        symbols: `(N, S)`, int, -1 behind the symbols.
        space: The symbol between words, once or more.
    """
    symbols = ops.cast(symbols, "int32")
    inside = ops.logical_and(symbols >= 0, symbols != space)
    factors = ops.convert_to_tensor(_FACTORS, dtype="int32")

    def step(so_far: Tensor, symbol: Tensor) -> tuple[Tensor, Tensor]:
        # Remainders by a prime, of which products stay below 2^31.
        more = (so_far * factors + symbol[:, None] + 1) % _PRIME
        so_far = ops.where(symbol[:, None] >= 0, more, 0)
        return so_far, so_far

    start = ops.zeros_like(symbols[:, :1]) * factors[None, :]
    given = ops.transpose(ops.where(inside, symbols, -1))
    _, pairs = ops.scan(step, start, given)
    numbers = pairs[..., 0] * _PRIME + pairs[..., 1]
    after = ops.concatenate([inside[:, 1:], ops.zeros_like(inside[:, :1])], axis=1)
    ends = ops.logical_and(inside, ops.logical_not(after))
    length = ops.shape(symbols)[1]  # not known in steps on TensorFlow
    later = ops.cast(ops.logical_not(ends), "int32") * length
    order = ops.argsort(later + ops.arange(length, dtype="int32"), axis=-1)
    numbers = ops.where(ends, ops.transpose(numbers), -1)
    return ops.take_along_axis(numbers, ops.cast(order, "int32"), axis=1)


def edit_distance(labels: Tensor, found: Tensor) -> Tensor:
    """Levenshtein's distance of each two rows, `(N,)`, float32.

    Args:
        labels, found: `(N, S)` and `(N, L)`, int, -1 behind the symbols.
    """
    labels, found = ops.cast(labels, "int32"), ops.cast(found, "int32")
    places = ops.arange(found.shape[1] + 1, dtype="float32")
    start = ops.zeros_like(labels[:, :1], dtype="float32") + places[None, :]

    def step(row: Tensor, symbol: Tensor) -> tuple[Tensor, None]:
        """From the distances of the first i symbols to those of i + 1."""
        differs = ops.cast(found != symbol[:, None], "float32")
        replaced = ops.minimum(row[:, :-1] + differs, row[:, 1:] + 1.0)
        new = ops.concatenate([row[:, :1] + 1.0, replaced], axis=1)
        # A symbol too many costs 1 each: the least of what stands to the left.
        new = ops.associative_scan(ops.minimum, new - places, axis=1) + places
        return ops.where(symbol[:, None] >= 0, new, row), None

    last, _ = ops.scan(step, start, ops.transpose(labels))
    end = ops.one_hot(lengths(found), found.shape[1] + 1, dtype="float32")
    return ops.sum(last * end, axis=1)
