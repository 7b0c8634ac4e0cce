"""What TensorFlow keeps private. Checked on TensorFlow 2.21."""

from __future__ import annotations

from typing import Any

from kmtl.typing import Data

#: Attributes of a `tf.function` that stays a call in the graph: no argument of
#: `tf.function` says so, and inlined, an untaken branch runs operation by operation.
STAYS_A_CALL: dict[str, Any] = {"_noinline": True}


def unfilled_caches(data: Data) -> list[Data]:
    """The data sets made by `cache()` that a data set reads from, the first one first.

    A data set tells in public what its elements are, not what it was made from. Caches
    in files that are there already are left out; nobody knows of those in memory.
    """
    import tensorflow as tf

    found, pending, seen = [], [data], set()
    while pending:
        node = pending.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        pending += node._inputs()
        if type(node).__name__ == "CacheDataset":
            name = node._filename.numpy().decode()
            if not name or not tf.io.gfile.exists(f"{name}.index"):
                found.append(node)
    return found[::-1]
