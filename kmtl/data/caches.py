"""Caches of `tf.data` pipelines, full before anybody reads a part of them."""

from __future__ import annotations

import numpy as np

from kmtl.typing import Data

ENDLESS = -1  # tf.data.INFINITE_CARDINALITY


def fill_caches(data: Data) -> None:
    """Read what a `tf.data.Dataset` keeps by `cache()` to its end.

    To be called before a part of a data set is read. An iterator that is dropped
    before its end is cancelled, a `prefetch` beneath the cache then says that there is
    no more, and TensorFlow takes the cache for full: every later epoch ends there.
    """
    from kmtl._private.tensorflow import unfilled_caches

    for cache in unfilled_caches(data):
        if int(cache.cardinality()) != ENDLESS:
            cache.reduce(np.int64(0), lambda count, *_: count + 1)
