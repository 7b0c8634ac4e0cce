"""The value of a metric that nothing is known of: NaN, never a number that looks right.

0 would be the best error there is, and 1 the best accuracy.
"""

from __future__ import annotations

import math

import keras
from keras import ops

from kmtl.typing import Tensor


def where_known(count: Tensor, value: Tensor) -> Tensor:
    """`value` where `count` is above 0, else (and where `count` is NaN) NaN."""
    known = ops.convert_to_tensor(count) > 0
    value = ops.convert_to_tensor(value)
    return ops.where(known, value, ops.full_like(value, math.nan))


def ratio(total: Tensor, count: Tensor) -> Tensor:
    """`total / count`, NaN where there is nothing to divide by.

    Example:

    >>> from kmtl.metrics.undefined import ratio
    >>> float(ratio(3.0, 2.0)), float(ratio(0.0, 0.0))
    (1.5, nan)
    """
    # 0 / 0 is NaN.
    return ops.divide(total, count)


def weighed(values: Tensor, weights: Tensor) -> Tensor:
    """`values * weights`, and 0 where the weight is 0, whatever the value is there."""
    if keras.backend.backend() == "tensorflow":  # one operation instead of four
        import tensorflow as tf

        return tf.math.multiply_no_nan(values, weights)
    return ops.where(weights == 0, ops.zeros_like(values), values * weights)


def nan_where(undefined: Tensor, values: Tensor) -> Tensor:
    """`values`, NaN where `undefined` (a bool tensor that broadcasts) is true."""
    return ops.where(undefined, ops.full_like(values, math.nan), values)
