"""Small dense problems that the gradient methods share, solved on the device.

All of them work on (T, T) or (R, T) tensors with static shapes, loop inside the graph
with an iteration budget, and never branch in Python on a value, so that they run the
same eagerly, in `tf.function`, under XLA and in `jax.jit`. Rows are scaled to unit
length first (`unit_rows`): what is solved is then a matrix of cosines, whatever the
scales of the losses.
"""

from __future__ import annotations

from typing import NamedTuple

import keras
import numpy as np
from keras import ops

from kmtl.typing import Tensor

#: Room for the rounding of a sum of T products, in units of the float's resolution.
ROUNDING = 1.0


def at_least_float32(x: Tensor) -> Tensor:
    """`x` as a tensor; half precision and integers become float32."""
    x = ops.convert_to_tensor(x)
    dtype = keras.backend.standardize_dtype(x.dtype)
    return x if dtype in ("float32", "float64") else ops.cast(x, "float32")


def resolution(x: Tensor) -> float:
    """Relative rounding error of a float tensor's entries."""
    return float(np.finfo(keras.backend.standardize_dtype(x.dtype)).eps)


def widen(x: Tensor) -> Tensor:
    """`x` in float64 where the backend has it (TensorFlow), else in float32 or better.

    T x T problems cost nothing in either; badly scaled ones gain from the digits.
    """
    x = at_least_float32(x)
    if keras.backend.backend() == "tensorflow":
        return ops.cast(x, "float64")
    return x


def constant(value: Tensor, like: Tensor) -> Tensor:
    return ops.cast(ops.convert_to_tensor(value), like.dtype)


def identity(like: Tensor) -> Tensor:
    """Identity matrix with the size of `like`'s last axis, and its dtype."""
    return ops.cast(ops.eye(like.shape[-1]), like.dtype)


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient, 0 where the denominator is 0."""
    safe = ops.where(denominator == 0, ops.ones_like(denominator), denominator)
    return ops.where(denominator == 0, ops.zeros_like(safe), numerator / safe)


def solve(matrix: Tensor, vector: Tensor) -> Tensor:
    """x with matrix @ x = vector, for batches of vectors along the first axis."""
    return ops.squeeze(ops.solve(matrix, ops.expand_dims(vector, -1)), -1)


class UnitRows(NamedTuple):
    """A Gramian as lengths and cosines. Absent and zero rows are inactive."""

    cosines: Tensor  # (T, T), 1 on the diagonal where active, 0 elsewhere
    norms: Tensor  # (T,), 0 where inactive
    active: Tensor  # (T,), 1 or 0
    tolerance: float  # relative accuracy of a product with `cosines`

    def unscale(self, weights: Tensor) -> Tensor:
        """Weights of the rows from weights of the unit rows."""
        return divide(weights, self.norms)


def unit_rows(gramian: Tensor, present: Tensor, gramian_resolution: float) -> UnitRows:
    """Split a Gramian into the rows' norms and cosines."""
    norms = ops.sqrt(ops.maximum(ops.diagonal(gramian), 0)) * present
    active = ops.cast(norms > 0, gramian.dtype)
    inverse = divide(ops.ones_like(norms), norms)
    cosines = gramian * inverse[:, None] * inverse[None, :]
    cosines = ops.clip(0.5 * (cosines + ops.transpose(cosines)), -1.0, 1.0)
    eye = identity(gramian)
    cosines = cosines * (1 - eye) + eye * active
    tolerance = ROUNDING * gramian.shape[0] * gramian_resolution
    return UnitRows(cosines, norms, active, tolerance)


def mean_weights(present: Tensor) -> Tensor:
    """1/n on the n present tasks."""
    return divide(present, ops.sum(present) * ops.ones_like(present))


def project_simplex(vector: Tensor, present: Tensor) -> Tensor:
    """Euclidean projection of `(T,)` onto the unit simplex of the present tasks."""
    # Shifts change nothing, and what is 1 below the largest entry gets no weight: so
    # clipped, the 1 in the sums is not lost beside huge entries.
    largest = ops.max(ops.where(present > 0, vector, ops.min(vector)))
    vector = ops.where(present > 0, ops.clip(vector - largest, -1, 0), -1)
    size = vector.shape[0]
    descending = ops.flip(ops.sort(vector))
    count = ops.cast(ops.arange(1, size + 1), vector.dtype)
    thresholds = (ops.cumsum(descending) - 1) / count
    inside = ops.cast(descending > thresholds, vector.dtype)
    support = ops.sum(inside)
    threshold = ops.sum(
        ops.where(count == support, thresholds, ops.zeros_like(thresholds))
    )
    return ops.maximum(vector - threshold, 0) * present


def nonnegative_qp(matrix: Tensor, target: Tensor, tolerance: float) -> Tensor:
    """argmin over u >= 0 of u A u / 2 - b u, exactly, by block principal pivoting.

    Each pass solves for the free entries and swaps all that violate their sign; where
    that stops helping, only the last one (Murty), which ends for positive definite A.
    A ridge of the size of A's rounding error makes singular problems definite: where
    no finite solution exists u is large and finite.

    Args:
        matrix: `(T, T)` positive semidefinite, unit diagonal; a zero row is left out.
        target: `(R, T)`, one problem a row.
        tolerance: relative rounding error of `matrix`.

    Returns:
        `(R, T)` solutions.

    Reference: Kim and Park, SIAM J. Sci. Comput. 33(6), 2011.
    """
    size = matrix.shape[0]
    eye = identity(matrix)
    used = ops.diagonal(matrix) > 0
    matrix = matrix + eye * (1 + tolerance - ops.diagonal(matrix))
    scale = ops.max(ops.abs(target), axis=-1, keepdims=True)
    goal = ops.where(used, divide(target, scale + ops.zeros_like(target)), 0)
    index = ops.arange(size, dtype="int32")

    def wrong(free: Tensor, solution: Tensor, slack: Tensor) -> Tensor:
        margin = tolerance * (1 + ops.max(ops.abs(solution), axis=-1, keepdims=True))
        return used & ops.where(free, solution < -margin, slack < -margin)

    def value(solution: Tensor) -> Tensor:
        return ops.sum(solution * (0.5 * ops.matmul(solution, matrix) - goal), -1)

    def cond(*state: Tensor) -> Tensor:
        _step, _free, swap, _solution, _fewest, _patience, _best, _best_value = state
        return ops.any(swap)

    def body(*state: Tensor) -> tuple[Tensor, ...]:
        step, free, swap, solution, fewest, patience, best, best_value = state
        violations = ops.sum(ops.cast(swap, "int32"), -1)
        better = violations < fewest
        block = better | (patience > 0)
        patience = ops.where(better, 3, ops.maximum(patience - 1, 0))
        fewest = ops.minimum(fewest, violations)
        last = ops.max(ops.where(swap, index, -1), axis=-1, keepdims=True)
        swap = swap & (block[:, None] | (index == last))
        free = ops.logical_xor(free, swap)
        mask = free[:, :, None] & free[:, None, :]
        solution = solve(ops.where(mask, matrix, eye), ops.where(free, goal, 0))
        slack = ops.matmul(solution, matrix) - goal
        swap = wrong(free, solution, slack)
        clipped = ops.maximum(solution, 0)
        clipped_value = value(clipped)
        accept = (clipped_value < best_value) | ~ops.any(swap, axis=-1)
        best = ops.where(accept[:, None], clipped, best)
        best_value = ops.where(accept, clipped_value, best_value)
        return step + 1, free, swap, solution, fewest, patience, best, best_value

    rows = ops.sum(ops.zeros_like(goal), -1)
    zero = ops.zeros_like(goal)
    none_free = zero > 1
    state = (
        ops.convert_to_tensor(0, dtype="int32"),
        none_free,
        wrong(none_free, zero, -goal),
        zero,
        ops.cast(rows, "int32") + size + 1,
        ops.cast(rows, "int32") + 3,
        zero,
        rows,
    )
    state = ops.while_loop(cond, body, state, maximum_iterations=2 * size + 20)
    return state[6] * scale


def project_dual_cone(rows: UnitRows, vectors: Tensor) -> Tensor:
    """Project vectors onto {d: J d >= 0}; vectors and results are unit-row weights.

    Args:
        rows: the cone's generators.
        vectors: `(R, T)` weights of the unit rows, one vector a row.

    Returns:
        `(R, T)` weights, entrywise >= those given.
    """
    target = -ops.matmul(vectors, rows.cosines)
    return vectors + nonnegative_qp(rows.cosines, target, rows.tolerance)


def min_norm_weights(rows: UnitRows, present: Tensor) -> Tensor:
    """Weights on the unit simplex of the shortest vector in the rows' convex hull."""
    zero_rows = present * (1 - rows.active)
    largest = ops.max(rows.norms)
    smallest = ops.min(ops.where(rows.active > 0, rows.norms, largest))
    target = rows.unscale(smallest * rows.active)
    solution = nonnegative_qp(rows.cosines, target[None], rows.tolerance)[0]
    weights = solution * target  # = solution / norms, up to a factor
    weights = divide(weights, ops.sum(weights) * ops.ones_like(weights))
    any_zero = ops.sum(zero_rows) > 0
    return ops.where(any_zero, mean_weights(zero_rows), weights)


def power_fixed_point(
    rows: UnitRows, log_target: Tensor, alpha: float, max_iterations: int = 50
) -> Tensor:
    """v > 0 with C v = exp(log_target) * v^(-1/alpha), on the active rows.

    Primal-dual Newton on (1/alpha) log v + log z = log target with z = C v, which
    keeps v and z positive; each step solves one positive definite system. Where the
    hull of the rows holds 0 there is no solution and v is large and finite.

    Args:
        rows: unit rows.
        log_target: `(T,)`, used where active.
        alpha: float > 0.
        max_iterations: Newton steps at most; about 10 are used.
    """
    used = rows.active > 0
    eye = identity(rows.cosines)
    matrix = rows.cosines + eye * (1 + (rows.tolerance - 1) * rows.active)
    log_target = ops.where(used, log_target, ops.zeros_like(log_target))
    # Start from the solution for orthogonal rows, with the common scale taken out.
    count = ops.maximum(ops.sum(rows.active), 1)
    shift = ops.sum(log_target * rows.active) / count
    log_target = ops.where(used, log_target - shift, 0)
    start = ops.exp(log_target * (alpha / (1 + alpha)))
    accuracy = max(10 * resolution(matrix), 1e-13)

    def residuals(primal: Tensor, dual: Tensor) -> tuple[Tensor, Tensor]:
        linear = ops.sum(matrix * primal[None, :], -1) - dual
        return linear, ops.log(primal) / alpha + ops.log(dual) - log_target

    def cond(*state: Tensor) -> Tensor:
        _step, primal, dual = state
        linear, power = residuals(primal, dual)
        return (ops.max(ops.abs(power)) > accuracy) | (
            ops.max(ops.abs(linear) / dual) > accuracy
        )

    def longest(value: Tensor, change: Tensor) -> Tensor:
        ratio = ops.where(change < 0, -value / ops.where(change < 0, change, -1), 1e30)
        return ops.min(ratio)

    def body(*state: Tensor) -> tuple[Tensor, ...]:
        step, primal, dual = state
        linear, power = residuals(primal, dual)
        system = matrix + eye * (dual / (alpha * primal))
        change = solve(system[None], -(linear + dual * power)[None])[0]
        dual_change = ops.sum(matrix * change[None, :], -1) + linear
        room = ops.minimum(longest(primal, change), longest(dual, dual_change))
        size = ops.minimum(0.95 * room, 1.0)
        return step + 1, primal + size * change, dual + size * dual_change

    zero = ops.convert_to_tensor(0, dtype="int32")
    state = (zero, start, ops.exp(log_target) * start ** (-1 / alpha))
    state = ops.while_loop(cond, body, state, maximum_iterations=max_iterations)
    return state[1] * ops.exp(shift * (alpha / (1 + alpha))) * rows.active


def equal_cosine_weights(
    rows: UnitRows, wanted: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Unit-row weights v whose sum has the wanted products with the rows: C v = wanted.

    Args:
        rows: unit rows.
        wanted: `(T,)`, 0 where inactive. Defaults to 1 on all active rows.

    Returns:
        `(v, null)`: the least-squares solution of smallest length, and the `(T, T)`
        projector on the null space of C (linearly dependent rows).
    """
    wanted = rows.active if wanted is None else wanted
    values, vectors = ops.linalg.eigh(rows.cosines)
    keep = values > rows.tolerance * ops.max(values)
    inverse = ops.where(keep, 1 / ops.where(keep, values, 1), 0)
    solution = ops.matmul(vectors, inverse * ops.matmul(wanted, vectors))
    dropped = vectors * ops.cast(~keep, vectors.dtype)
    return solution * rows.active, ops.matmul(dropped, ops.transpose(vectors))


def graded_eigh(rows: UnitRows) -> tuple[Tensor, Tensor, Tensor]:
    """Eigenvalues and eigenvectors of the Gramian, however unequal the rows' lengths.

    Returns:
        `(values, vectors, rank)`: largest value first, columns of `(T, T)`, and the
        number of linearly independent rows (a float scalar).
    """
    norms = divide(rows.norms, ops.max(rows.norms) + ops.zeros_like(rows.norms))
    values, vectors = ops.linalg.eigh(rows.cosines)
    independent = values > rows.tolerance * ops.max(values)
    rank = ops.sum(ops.cast(independent, values.dtype))
    if keras.backend.standardize_dtype(values.dtype) == "float64":
        gramian = rows.cosines * norms[:, None] * norms[None, :]
        values, vectors = ops.linalg.eigh(gramian)
        values, vectors = ops.flip(values), ops.flip(vectors, axis=1)
        values = ops.maximum(values, 0)
    else:
        # C = F F^T; the columns of (diag(norms) F)^T hold the rows' grading, which
        # rotations from the right keep and a general eigensolver loses.
        factor = vectors * ops.sqrt(ops.where(independent, values, 0))
        values, vectors = _one_sided_jacobi(ops.transpose(norms[:, None] * factor))
    return values * ops.max(rows.norms) ** 2, vectors, rank


def _one_sided_jacobi(matrix: Tensor, sweeps: int = 8) -> tuple[Tensor, Tensor]:
    """Squared singular values (largest first) and right singular vectors.

    All disjoint pairs of columns are made orthogonal at once; then the columns move on
    one place (as in a round-robin tournament), until each pair met `sweeps` times.
    """
    size = matrix.shape[1]
    half = max((size + 1) // 2, 1)
    odd = 2 * half - size
    columns = ops.concatenate(
        [
            ops.pad(matrix, ((0, 0), (0, odd))),
            ops.cast(ops.eye(size, 2 * half), matrix.dtype),
        ]
    )  # rotated together: what is decomposed, and what becomes the vectors
    seats = np.arange(2 * half)
    ring = np.concatenate([seats[1:half], seats[half:][::-1]])
    order = seats.copy()
    order[ring] = np.roll(ring, 1)
    order = ops.convert_to_tensor(order.astype("int32"))
    accuracy = resolution(matrix)

    def turn(k: Tensor, columns: Tensor) -> Tensor:
        left, right = columns[:, :half], columns[:, half:]
        a = ops.sum(left[:size] ** 2, 0)
        b = ops.sum(right[:size] ** 2, 0)
        c = ops.sum(left[:size] * right[:size], 0)
        skew = ops.abs(c) <= accuracy * ops.sqrt(a) * ops.sqrt(b)
        ratio = (b - a) / ops.where(skew, 1, 2 * c)
        sign = 1 - 2 * ops.cast(ratio < 0, ratio.dtype)
        tangent = sign / (ops.abs(ratio) + ops.sqrt(1 + ratio * ratio))
        tangent = ops.where(skew, 0, tangent)
        cosine = 1 / ops.sqrt(1 + tangent * tangent)
        sine = cosine * tangent
        columns = [cosine * left - sine * right, sine * left + cosine * right]
        return ops.take(ops.concatenate(columns, axis=1), order, axis=1)

    columns = ops.fori_loop(0, sweeps * (2 * half - 1), turn, columns)
    values = ops.sum(columns[:size] ** 2, 0)
    # The padding column stays zero in both parts and sorts last.
    lengths = values + ops.sum(columns[size:] ** 2, 0) * 1e-30
    best = ops.argsort(-lengths)[:size]
    return ops.take(values, best), ops.take(columns[size:], best, axis=1)
