"""The forms in which users give data, told apart in one place."""

from __future__ import annotations

import collections
import itertools
import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl.data.caches import ENDLESS
from kmtl.data.hashing import fingerprint
from kmtl.data.plans import RowPlan
from kmtl.tasks import terms
from kmtl.tasks.base import Task
from kmtl.tasks.checks import label_dict
from kmtl.training.batches import ShuffledBatches
from kmtl.training.labels import apply_sample_weight
from kmtl.training.passed_on import PassedOn
from kmtl.typing import Batch, Data, Inputs, Labels, SampleWeight, TaskName

logger = logging.getLogger("kmtl")

_ROWS_AT_ONCE = 1024
_VALUES_AT_ONCE = 2**22


def is_tf_dataset(data: Data) -> bool:
    """Whether this is a `tf.data.Dataset`; asks without importing TensorFlow."""
    return hasattr(data, "element_spec")


def is_split(data: Data) -> bool:
    """Whether this is a `kmtl.data.Split`."""
    return callable(getattr(data, "arrays", None))


def plan_of(data: Data) -> RowPlan | None:
    """How the rows of a `kmtl.data.Mixture` are drawn; None of anything else."""
    return getattr(data, "plan", None) if is_split(data) else None


def refuse_plan(data: Data, reader: str) -> None:
    """A mixture says which rows come when; some read each row themselves.

    Raises:
        ValueError: for a mixture, with what to give instead.
    """
    if plan_of(data) is not None:
        raise ValueError(
            f"{reader}: give all rows of the mixture, `mixture.union()`. "
            f"Received: {data!r}"
        )


def is_dataset(data: Data) -> bool:
    """A `tf.data.Dataset` or `keras.utils.PyDataset`, which can be read again."""
    # A distributed data set has no `take`.
    return isinstance(data, keras.utils.PyDataset) or (
        is_tf_dataset(data) and hasattr(data, "take")
    )


def is_stream(data: Data) -> bool:
    """A generator, a data loader, or a data set distributed over replicas."""
    return hasattr(data, "__iter__") and not (
        isinstance(data, (Mapping, list, tuple, str))
        or hasattr(data, "shape")
        or is_split(data)  # which unpacks into its arrays
        or is_dataset(data)
    )


def is_loader(data: Data) -> bool:
    """A stream that Keras reads itself: of PyTorch, Grain, or distributed."""
    return is_tf_dataset(data) or any(
        base.__module__.split(".")[0] in ("torch", "grain")
        for base in type(data).__mro__
    )


def needs_looks(data: Data) -> bool:
    """Whether steps have to look at labels and inputs: these are no checked arrays."""
    return (is_dataset(data) or is_stream(data)) and not isinstance(
        data, ShuffledBatches
    )


def is_endless(data: Data) -> bool:
    """Whether a data set is known to have no end."""
    if isinstance(data, keras.utils.PyDataset):
        return data.num_batches is None
    return is_dataset(data) and int(data.cardinality()) == ENDLESS


def knows_length(data: Data) -> bool:
    """Whether it is known beforehand how many rows there are, or that there is no end.

    True for arrays, and for None.
    """
    if is_stream(data):
        return False
    return not is_tf_dataset(data) or int(data.cardinality()) >= ENDLESS


def arrays_of(data: Data) -> tuple | None:
    """`(x, y)` or `(x, y, sample_weight)` of data that are arrays, else None.

    Raises:
        TypeError: for what is neither arrays, a split, nor a data set.
    """
    if is_split(data):
        return tuple(data.arrays())
    if isinstance(data, (tuple, list)) and len(data) in (2, 3):
        return tuple(data)
    if is_tf_dataset(data) or isinstance(data, keras.utils.PyDataset):
        return None
    refuse_whole(data)
    remedy = ""
    if hasattr(data, "columns"):
        remedy = ". Of a frame give the labels too, such as `(frame, frame[targets])`"
    raise TypeError(
        "Data must be `(x, y)` or `(x, y, sample_weight)`, a kmtl.data.Split, a "
        f"tf.data.Dataset or a keras.utils.PyDataset{remedy}. "
        f"Received: {type(data).__name__}"
    )


def refuse_whole(data: Any) -> None:
    """Of a data set of parts one is wanted.

    Raises:
        TypeError: for all of them.
    """
    if hasattr(data, "splits"):
        raise TypeError(
            "Data must be one part of a data set, such as `data.train`. "
            f"Received: {type(data).__name__}"
        )


def can_be_read_whole(data: Data, steps: int | None = None) -> bool:
    """Whether data have an end, and can be read more than once.

    Args:
        steps: Batches that are taken of a data set: it may then be one without end.
    """
    return not (
        is_stream(data)
        or is_endless(data)
        or (steps is not None and not knows_length(data))
    )


def contents(data: Data, steps: int | None = None) -> str:
    """The `kmtl.data.fingerprint` of what `fit` takes.

    Args:
        steps: As for `can_be_read_whole`.

    Raises:
        ValueError: for what has no end, may have none, or cannot be read twice.
    """
    if not can_be_read_whole(data, steps):
        raise ValueError(
            "Data must have an end that is known, and be read more than once. "
            f"Received: {type(data).__name__}"
        )
    return fingerprint(tuple(data.arrays()) if is_split(data) else data)


def for_task(data: Data, task: Task) -> Data:
    """The same rows with the labels and weights of one task only."""
    arrays = arrays_of(data)
    if arrays is not None:
        x, y, *weight = _one_task(task, *arrays)
        y = {name: task.label_array(labels) for name, labels in y.items()}
        return (x, y, *weight)
    if is_tf_dataset(data):
        return data.map(lambda *batch: _one_task(task, *batch))
    return _OneTask(data, task)


def _one_task(
    task: Task, x: Inputs, y: Labels | None = None, weight: SampleWeight | None = None
) -> tuple:
    y = y if isinstance(y, Mapping) else {} if y is None else {task.name: y}
    labels = {task.name: y[task.name]} if task.name in y else {}
    if isinstance(weight, Mapping):
        weight = {task.name: weight[task.name]} if task.name in weight else None
    return (x, labels) if weight is None else (x, labels, weight)


class _OneTask(PassedOn):
    """With the labels and weights of one task only."""

    def __init__(self, source: keras.utils.PyDataset, task: Task):
        super().__init__(source)
        self.task = task

    def __getitem__(self, index: int) -> Batch:
        return _one_task(self.task, *self.source[index])


def batches_of(
    data: Data, steps: int | None = None
) -> Iterator[tuple[Inputs, Labels, SampleWeight]]:
    """`(x, y, sample_weight)` of each batch, in one pass.

    Args:
        steps: Most batches of a data set. Defaults to all.

    Raises:
        ValueError: for a data set without end.
    """
    arrays = arrays_of(data)
    if arrays is not None:
        rows = len(keras.tree.flatten(arrays[0])[0])
        for start in range(0, rows, _ROWS_AT_ONCE):
            yield keras.utils.unpack_x_y_sample_weight(
                _slice(arrays, start, start + _ROWS_AT_ONCE)
            )
        return
    if steps is None and is_endless(data):
        raise ValueError(
            "Counting labels needs a finite data set. "
            "Received: one without end (repeat())."
        )
    if is_tf_dataset(data):
        batches = iter(data)
    else:
        count = data.num_batches
        numbers = itertools.count() if count is None else range(count)
        batches = map(data.__getitem__, numbers)
    for batch in itertools.islice(batches, steps):
        yield keras.utils.unpack_x_y_sample_weight(batch)


def _slice(arrays: Inputs, start: int, stop: int) -> Inputs:
    return keras.tree.map_structure(
        lambda array: None if array is None else np.asarray(array)[start:stop], arrays
    )


def count_labels(data: Data, tasks: Sequence[Task]) -> tuple[int, dict[str, int]]:
    """`(rows, {task: rows with at least one label of it})`, in one pass."""
    rows, counts = 0, {task.name: 0 for task in tasks}
    for x, y, weight in batches_of(data):
        labels = label_dict(y, tasks)
        rows += len(keras.tree.flatten(x)[0])
        for task in tasks:
            _, mask = task.clean_labels(labels.get(task.name), x)
            mask = apply_sample_weight(mask, weight, task.name)
            present = ops.convert_to_numpy(mask) > 0
            counts[task.name] += int(present.reshape(len(present), -1).any(-1).sum())
    return rows, counts


def lacks_labels(
    tasks: Sequence[Task],
    x: Inputs,
    y: Labels,
    sample_weight: SampleWeight,
    groups: Sequence[tuple[TaskName, ...]] = (),
) -> bool:
    """Whether a batch might have no label of some task.

    Only arrays can be looked through: anything else, and sample weights, may.

    Args:
        groups: Names of tasks alike, whose labels are looked through as one.
    """
    if y is None and isinstance(x, ShuffledBatches):
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(x.parts)
    if y is None or sample_weight is not None:  # a data set, for one
        return True
    labels = label_dict(y, tasks)
    leaves = keras.tree.flatten([x, labels])
    if not all(isinstance(leaf, np.ndarray) for leaf in leaves):
        return True
    for names, whole in _one_behind_the_other(labels, groups):
        labels = {**labels, names[0]: whole}
        tasks = [task for task in tasks if task.name not in names[1:]]
    for task in tasks:
        given = labels.get(task.name)
        if given is None and getattr(task, "ends_in_mask", False):
            return True  # of the steps that are not there
        values = task.target_in(x) if given is None else given
        step = max(1, _VALUES_AT_ONCE // max(1, values[:1].size))
        for start in range(0, len(values), step):
            part = slice(start, start + step)
            cleaned = task.clean_labels(
                None if given is None else given[part], values[part]
            )
            mask = ops.convert_to_numpy(terms.label_weights(task, *cleaned))
            if not mask.reshape(len(mask), -1).any(-1).all():
                return True
    return False


def _one_behind_the_other(
    labels: Mapping[TaskName, Any], groups: Sequence[tuple[TaskName, ...]]
) -> Iterator[tuple[tuple[TaskName, ...], np.ndarray]]:
    """Groups of tasks alike, with all of their labels, where these are alike, too."""
    for names in groups:
        own = [labels[name] for name in names if labels.get(name) is not None]
        if len(own) == len(names) and len({(a.shape, a.dtype) for a in own}) == 1:
            yield names, np.concatenate(own)


def training_rows(parts: Any, validation_split: float) -> Any:
    """Nested arrays without the rows at the end that are held out, as Keras splits."""
    rows = len(next(a for a in keras.tree.flatten(parts) if a is not None))
    count = math.floor(rows * (1.0 - validation_split))
    return keras.tree.map_structure(
        lambda array: None if array is None else array[:count], parts
    )


def label_shares(data: Data, tasks: Sequence[Task]) -> dict[str, float]:
    """Each task's share of the labels, as `loss_weights="data"` takes for weights.

    Raises:
        TypeError: for a generator, which counting would use up.
        ValueError: for a data set without end, or if nothing is labelled.
    """
    if is_stream(data):
        raise TypeError(
            '`loss_weights="data"` counts labels before training, which would use up '
            f"a generator. Pass arrays or a data set. Received: {type(data).__name__}"
        )
    _, counts = count_labels(data, tasks)
    total = sum(counts.values())
    if not total:
        raise ValueError('`loss_weights="data"`: no task has any label in the data.')
    return {name: count / total for name, count in counts.items()}


def skip_epochs(data: Data, epochs: int) -> None:
    """Advance the shuffling of a `tf.data.Dataset` by some epochs of `fit`.

    A data set draws a new order for every iterator that is made of it, whether it is
    used or not. Keras makes two per epoch on TensorFlow when the number of batches is
    known, else one; making as many leads to the same orders. Where a data set begins
    passes over another one in the middle of its own, these epochs are read, too.
    """
    from kmtl._private.tensorflow import begins_later, keeps_an_order

    if epochs and keeps_an_order(data):
        logger.warning(
            "A cache behind a shuffle keeps the order of the first epoch, which this "
            "run begins anew in another one: put `cache()` before `shuffle()`."
        )
    known = int(data.cardinality()) >= 0
    per_epoch = 2 if keras.backend.backend() == "tensorflow" and known else 1
    reads = begins_later(data)
    if reads and epochs:
        logger.info("Reading %d epochs of the data, to go on behind them.", epochs)
    for _ in range(epochs):
        made = [iter(data) for _ in range(per_epoch)]
        if reads:
            collections.deque(made[-1], maxlen=0)
