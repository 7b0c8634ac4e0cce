"""Data sets in sharded TFRecord files, which train at the memory of a few batches."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kmtl import _checks, _files
from kmtl.data.containers import Split
from kmtl.data.record_writing import FORMAT, ShardWriter, arrays_of, batches_of
from kmtl.typing import Batch, Config, Data, PathLike, Tensor

if TYPE_CHECKING:
    from kmtl.tasks.base import Task

INDEX = "records.json"
#: Rows of a shard, unless told otherwise.
ROWS = 10_000
#: Shards that are read at a time.
READ_AT_ONCE = 4
PARTS = ("x", "y", "w")
#: Folders that this process has read from, the last one last. TensorFlow does not say
#: in which file a record was that it cannot read.
_read: dict[Path, None] = {}
REMEDY = (
    "Write the folder anew with kmtl.data.write_records, or restore it from a copy."
)


def write_records(
    data: Split | Data,
    folder: PathLike,
    *,
    tasks: Sequence[Task] | None = None,
    rows_per_shard: int = ROWS,
) -> Path:
    """Write a data set to TFRecord files, a batch at a time.

    Labels are checked while they are written. The folder is there whole or not at all,
    with an index of names, dtypes, shapes, tasks and the size of each shard.

    Args:
        data: A `kmtl.data.Split`; `(x, y)` or `(x, y, weights)` arrays; or a finite
            `tf.data.Dataset` of such batches, which may be larger than memory.
        folder: Path of a new folder.
        tasks: The tasks; None for those of a `Split`.
        rows_per_shard: Rows of a file, >= 1. Defaults to 10,000. Shards are shuffled
            as wholes before rows are: with many shards, orders are better mixed.

    Returns:
        The folder.

    Raises:
        FileExistsError: if there is something at `folder`.
        ValueError, TypeError: for labels that do not fit their task.

    Example:

    >>> data = kmtl.data.digits()
    >>> folder = kmtl.data.write_records(data.train, "digits", rows_per_shard=500)
    >>> sorted(path.name for path in folder.iterdir())[:2]
    ['part-00000.tfrecord', 'part-00001.tfrecord']
    >>> train = kmtl.data.from_records("digits", batch_size=64, shuffle=True)
    >>> len(train)
    20
    """
    from kmtl.data.cleaning import tensorflow
    from kmtl.tasks.checks import check_unique_tasks

    rows_per_shard = _checks.check_int("rows_per_shard", rows_per_shard, 1)
    if tasks is None:
        tasks = data.tasks if isinstance(data, Split) else None
    if tasks is None:
        raise ValueError(
            "`tasks` must be given for data that do not know them. Received: tasks=None"
        )
    tasks = check_unique_tasks(tasks)
    tf = tensorflow()
    folder = Path(folder)
    with _files.whole_folder(folder) as made:
        writer = ShardWriter(tf, made, rows_per_shard)
        for batch in batches_of(data):
            writer.add(arrays_of(batch, tasks))
        index = writer.close()
        index["tasks"] = [task.to_config() for task in tasks]
        _files.write_text(made / INDEX, json.dumps(index, indent=1) + "\n")
    return folder


def from_records(
    folder: PathLike,
    *,
    tasks: Sequence[Task] | None = None,
    batch_size: int = 32,
    shuffle: bool = False,
    seed: int | None = 0,
    shuffle_buffer: int = ROWS,
    drop_remainder: bool = False,
) -> Data:
    """A `tf.data.Dataset` of what `kmtl.data.write_records` wrote, read as it trains.

    Memory holds the rows of `shuffle_buffer` and a few batches, however large the set.

    Args:
        folder: The folder.
        tasks: Some or all of the tasks that were written, also as other objects of the
            same names. Defaults to those written.
        batch_size: Rows per batch, >= 1. Defaults to 32.
        shuffle: New order in each epoch: shards in a new order, and rows drawn out of a
            buffer. Defaults to False, the order in which they were written.
        seed: Integer >= 0 for the same orders each time; None for new ones. See
            `kmtl.data.from_arrays`.
        shuffle_buffer: Rows from which the next one is drawn, >= 1. Defaults to 10,000.
        drop_remainder: Leave out a last batch that is smaller.

    Returns:
        A `tf.data.Dataset` of `(inputs, {task: label}, {task: mask})`, of known length.

    Raises:
        FileNotFoundError: if there is no such folder, or no index in it.
        kmtl._files.DamagedFileError: a ValueError, for shards that are missing or of
            another size than when they were written; it names them. One whose content
            has changed is found when it is read: `fit` and `evaluate` then name it.
    """
    from kmtl.data.cleaning import clean_labels, tensorflow
    from kmtl.tasks.base import Task
    from kmtl.tasks.checks import check_unique_tasks

    batch_size = _checks.check_int("batch_size", batch_size, 1)
    shuffle_buffer = _checks.check_int("shuffle_buffer", shuffle_buffer, 1)
    if seed is not None:
        seed = _checks.check_int("seed", seed, 0)
    folder = Path(folder)
    index = _index(folder)
    written = [Task.from_config(config) for config in index["tasks"]]
    chosen = {
        t.name: t for t in (written if tasks is None else check_unique_tasks(tasks))
    }
    known = [task.name for task in written]
    _checks.check_task_keys("tasks", chosen, known, partial=True)
    tf = tensorflow()
    leaves = {
        path: leaf
        for path, leaf in index["leaves"].items()
        if path[0] == "x" or path.split("/")[1] in chosen
    }

    def parse(examples: Tensor) -> Batch:
        found = tf.io.parse_example(
            examples, {path: tf.io.FixedLenFeature([], tf.string) for path in leaves}
        )
        parts: dict[str, Any] = {name: {} for name in PARTS}
        for path, leaf in leaves.items():
            part, _, name = path.partition("/")
            parts[part][name] = _decoded(tf, found[path], leaf)
        x = parts["x"].get("", parts["x"])
        labels, masks = {}, {}
        for name, label in parts["y"].items():
            weight = parts["w"].get(name)
            while weight is not None and len(weight.shape) < len(label.shape):
                weight = weight[..., None]
            labels[name], masks[name] = clean_labels(chosen[name], label, weight)
        return x, labels, masks

    files = tf.data.Dataset.from_tensor_slices(
        [str(folder / shard["name"]) for shard in index["shards"]]
    )
    if shuffle:
        files = files.shuffle(len(index["shards"]), seed=seed)
        data = files.interleave(
            tf.data.TFRecordDataset,
            cycle_length=READ_AT_ONCE,
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        ).shuffle(shuffle_buffer, seed=seed)
    else:
        data = tf.data.TFRecordDataset(files)
    data = data.batch(batch_size, drop_remainder=drop_remainder)
    data = data.map(parse, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    rows = sum(shard["rows"] for shard in index["shards"])
    count = rows // batch_size if drop_remainder else -(-rows // batch_size)
    data = data.apply(tf.data.experimental.assert_cardinality(count))
    return data.prefetch(tf.data.AUTOTUNE)


def _index(folder: Path) -> Config:
    """The index of a folder whose shards are all there, and as large as they were."""
    path = folder / INDEX
    if not path.is_file():
        raise FileNotFoundError(
            f"There are no records in '{folder}': its {INDEX} is missing. "
            "kmtl.data.write_records makes such folders."
        )
    index = _files.read_json(path, REMEDY, keys=("format", "leaves", "shards", "tasks"))
    if index["format"] != FORMAT:
        raise ValueError(
            f"'{folder}' was written by another version of kmtl. {REMEDY} "
            f"Received: format {index['format']}"
        )
    folder = folder.resolve()
    _read.pop(folder, None)
    _read[folder] = None
    for shard in index["shards"]:
        file = folder / shard["name"]
        size = file.stat().st_size if file.is_file() else None
        if size != shard["bytes"]:
            found = "it is missing" if size is None else f"it has {size} bytes"
            what = f"{found}, and had {shard['bytes']} when it was written"
            raise _files.DamagedFileError(file, what, REMEDY)
    return index


def damaged_shard(error: BaseException) -> _files.DamagedFileError | None:
    """The shard behind an error of TensorFlow about a record; None for another error.

    Reads the shards that this process has opened, which takes no more than an epoch.
    """
    if type(error).__name__ != "DataLossError":
        return None
    from kmtl.data.cleaning import tensorflow

    tf = tensorflow()
    for folder in reversed([*_read]):
        for shard in _index(folder)["shards"]:
            file, whole = folder / shard["name"], 0
            try:
                for _ in tf.data.TFRecordDataset(str(file)):
                    whole += 1
            except tf.errors.DataLossError:
                what = f"its row {whole} of {shard['rows']} is not what was written"
                return _files.DamagedFileError(file, what, REMEDY)
    return None


def _decoded(tf: Any, strings: Tensor, leaf: Config) -> Tensor:
    if leaf["dtype"] == "string":
        return strings
    return tf.reshape(tf.io.decode_raw(strings, leaf["dtype"]), [-1, *leaf["shape"]])
