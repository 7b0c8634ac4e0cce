"""Rows of a data set into TFRecord files: shards of examples, and their index."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kmtl.data.containers import Split
from kmtl.data.hashing import leaves_of
from kmtl.typing import Batch, Config

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

FORMAT = 1


def batches_of(data: Any) -> Iterator[Batch]:
    """`(x, y)` or `(x, y, weights)`, one piece or one after another."""
    if isinstance(data, Split):
        data = data.arrays()
    if hasattr(data, "element_spec"):
        if int(data.cardinality()) == -1:
            raise ValueError(
                "`data` must have an end. Received: a data set without one (repeat())"
            )
        yield from data
        return
    if not isinstance(data, (tuple, list)) or len(data) not in (2, 3):
        raise TypeError(
            "`data` must be a kmtl.data.Split, `(x, y)` or `(x, y, weights)` arrays, "
            f"or a tf.data.Dataset. Received: {type(data).__name__}"
        )
    yield tuple(data)


def arrays_of(batch: Batch, tasks: Sequence[Task]) -> dict[str, np.ndarray]:
    """Arrays of a batch by their place, such as `y/digit`; labels checked."""
    from kmtl.data.arrays import input_array
    from kmtl.tasks.checks import label_dict

    x, y, *rest = batch
    found = {}
    for path, leaf in leaves_of(x):
        if path.count("/") > 1:
            raise ValueError(
                "Inputs must be one array, or a dict of them. "
                f"Received: one at '{path}'"
            )
        array = input_array(leaf, "`x`")
        if array.dtype.kind in "OSU" and array.ndim > 1:
            raise ValueError(
                f"Inputs of strings must have shape (N,). Received: shape={array.shape}"
            )
        found[f"x{path}"] = array
    by_name = {task.name: task for task in tasks}
    shape = None if isinstance(x, Mapping) else tuple(np.shape(x)[1:])
    for name, labels in label_dict(y, tasks).items():
        array = by_name[name].label_array(labels)
        by_name[name].check_labels(array, shape)
        found[f"y/{name}"] = array
    weights = rest[0] if rest and rest[0] is not None else {}
    if not isinstance(weights, Mapping):
        weights = {name: weights for name in by_name if f"y/{name}" in found}
    for name, weight in weights.items():
        found[f"w/{name}"] = np.asarray(weight, "float32")
    lengths = {path: len(leaf) for path, leaf in found.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(
            f"Inputs and labels must have the same number of rows. Received: {lengths}"
        )
    return found


class ShardWriter:
    """Rows into shards; every row an example of one string per array.

    Args:
        tf: TensorFlow.
        folder: Where the shards are made.
        rows_per_shard: Rows of each but the last.
    """

    def __init__(self, tf: Any, folder: Path, rows_per_shard: int):
        self.tf, self.folder, self.most = tf, folder, rows_per_shard
        self.shards: list[Config] = []
        self.leaves: dict[str, Config] = {}
        self._file: Any = None

    def add(self, arrays: dict[str, np.ndarray]) -> None:
        """Write the rows of a batch."""
        arrays = {path: self._as_known(path, a) for path, a in arrays.items()}
        if set(arrays) != set(self.leaves):
            raise ValueError(
                f"Every batch must have {', '.join(self.leaves)}. "
                f"Received: {', '.join(arrays)}"
            )
        feature, listed = self.tf.train.Feature, self.tf.train.BytesList
        for row in range(len(next(iter(arrays.values())))):
            features = {
                path: feature(bytes_list=listed(value=[_bytes(array[row])]))
                for path, array in arrays.items()
            }
            example = self.tf.train.Example(
                features=self.tf.train.Features(feature=features)
            )
            self._write(example.SerializeToString())

    def _as_known(self, path: str, array: np.ndarray) -> np.ndarray:
        """The array in the dtype of the first batch, whose shape it must have."""
        text = array.dtype.kind in "OSU"
        dtype = "string" if text else array.astype(_native(array)).dtype.name
        shape = list(array.shape[1:])
        if not self.shards and path not in self.leaves:
            self.leaves[path] = {"dtype": dtype, "shape": shape}
        known = self.leaves.get(path, {"dtype": dtype, "shape": shape})
        if known["shape"] != shape or (known["dtype"] == "string") != text:
            raise ValueError(
                f"'{path}' must be of shape {tuple(known['shape'])} and dtype "
                f"{known['dtype']} in every batch. Received: shape={tuple(shape)}, "
                f"dtype={dtype}"
            )
        if text:
            return array
        made = array.astype(known["dtype"])
        if made.dtype.kind in "iu" and not (made == array).all():
            raise ValueError(
                f"'{path}' must fit {known['dtype']}, the dtype of the first batch: "
                f"give all batches in one dtype. Received: dtype={dtype}"
            )
        return made

    def _write(self, example: bytes) -> None:
        if self._file is None or self.shards[-1]["rows"] == self.most:
            self._end_shard()
            name = f"part-{len(self.shards):05d}.tfrecord"
            self.shards.append({"name": name, "rows": 0})
            self._file = self.tf.io.TFRecordWriter(str(self.folder / name))
        self._file.write(example)
        self.shards[-1]["rows"] += 1

    def _end_shard(self) -> None:
        if self._file is not None:
            self._file.close()
            shard = self.shards[-1]
            shard["bytes"] = (self.folder / shard["name"]).stat().st_size

    def close(self) -> Config:
        """The index."""
        if not self.shards:
            raise ValueError("`data` must have at least one row. Received: none")
        self._end_shard()
        return {"format": FORMAT, "leaves": self.leaves, "shards": self.shards}


def _native(array: np.ndarray) -> Any:
    """A dtype that TensorFlow decodes, little-endian."""
    replaced = {"bool": "uint8", "uint32": "int64", "uint64": "int64"}
    return replaced.get(array.dtype.name, array.dtype.newbyteorder("<"))


def _bytes(value: Any) -> bytes:
    if isinstance(value, (str, bytes)):
        return value if isinstance(value, bytes) else value.encode()
    return np.asarray(value).tobytes()
