"""What TensorFlow keeps private. Checked on TensorFlow 2.21."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kmtl.typing import Data

#: Attributes of a `tf.function` that stays a call in the graph: no argument of
#: `tf.function` says so, and inlined, an untaken branch runs operation by operation.
STAYS_A_CALL: dict[str, Any] = {"_noinline": True}


#: Data sets whose iterators make those of their inputs when they come to them.
_MAKE_LATER = ("_RepeatDataset", "_ConcatenateDataset")
_SHUFFLE, _CACHE = "_ShuffleDataset", "CacheDataset"


def begins_later(data: Data) -> bool:
    """Whether a pass over what a data set reads from begins in the middle of its own.

    Such a pass is shuffled when it is come to, not when an iterator is made. So is one
    below another shuffle, which begins it with its first row.
    """
    later = any(type(node).__name__ in _MAKE_LATER for node in _sources(data))
    return later or _shuffles_below(data, _SHUFFLE)


def keeps_an_order(data: Data) -> bool:
    """Whether a cache is to keep the order of the first pass of a shuffle below it."""
    return any(_shuffles_below(cache, _CACHE) for cache in unfilled_caches(data))


def _shuffles_below(data: Data, kind: str) -> bool:
    return any(
        type(below).__name__ == _SHUFFLE and below._reshuffle_each_iteration
        for node in _sources(data)
        if type(node).__name__ == kind
        for below in _below(node)
    )


def unfilled_caches(data: Data) -> list[Data]:
    """The data sets made by `cache()` that a data set reads from, the first one first.

    A data set tells in public what its elements are, not what it was made from. Caches
    in files that are there already are left out; nobody knows of those in memory.
    """
    import tensorflow as tf

    found = []
    for node in _sources(data):
        if type(node).__name__ == _CACHE:
            name = node._filename.numpy().decode()
            if not name or not tf.io.gfile.exists(f"{name}.index"):
                found.append(node)
    return found[::-1]


def _below(node: Data) -> Iterator[Data]:
    """All that a data set is made from, without itself."""
    found = _sources(node)
    next(found)
    return found


def _sources(data: Data) -> Iterator[Data]:
    """A data set and all that it is made from, once each."""
    pending, seen = [data], set()
    while pending:
        node = pending.pop()
        if id(node) not in seen:
            seen.add(id(node))
            pending += node._inputs()
            yield node
