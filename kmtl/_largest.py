"""The largest of a row, in a form that exports of every backend can run."""

from __future__ import annotations

import keras
from keras import ops

from kmtl.typing import Tensor


def largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest numbers on the last axis, from the highest down, and their places;
    of equal ones the first.

    `keras.ops.top_k` of floats, but for JAX, whose own makes SavedModels of any number
    of rows that TensorFlow cannot run.
    """
    if keras.backend.backend() != "jax":
        return ops.top_k(values, k)
    places = ops.argsort(-values, axis=-1)[..., :k]
    return ops.take_along_axis(values, places, axis=-1), places
