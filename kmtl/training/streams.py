"""Data sets and generators: the first batch is looked at, the structure of all."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _arrays, _checks
from kmtl.data.caches import fill_caches
from kmtl.data.records import damaged_shard
from kmtl.tasks.checks import check_weighted, label_dict
from kmtl.training.heads import input_shape
from kmtl.training.inputs import check_inputs
from kmtl.training.labels import named, rank_of, with_weight
from kmtl.training.raw_sets import PreparedBatches, prepared, prepared_batch
from kmtl.training.sources import is_loader, is_stream
from kmtl.typing import Batch, Data, Inputs, Model, SampleWeight, TaskName, Tensor

_PARTS = ("inputs", "labels", "weights")
#: Generators made here -> what was raised in them.
_raised: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def check_batch(
    model: Model,
    x: Inputs,
    y: Mapping[TaskName, Tensor],
    sample_weight: SampleWeight | None = None,
) -> None:
    """Check labels of every task, inputs that are targets, and that weights of tasks
    which name a column of them are there."""
    check_weighted(
        model.tasks,
        sample_weight,
        "`sample_weight={{'{0}': ...}}` beside `y`; in batches, as their third part",
    )
    for task in model.tasks:
        shape = input_shape(model, task)
        if task.name in y:
            task.check_labels(y[task.name], shape)
            weighted = sample_weight is not None and (
                not isinstance(sample_weight, Mapping) or task.name in sample_weight
            )
            if not weighted:  # those of weight 0 are none, and need no room
                shape = tuple(model.output[task.name].shape[1:])
                task.check_fits(y[task.name], shape)
        elif task.target_is_input:
            target = np.asarray(task.target_in(named(model, x))) * task.scale
            task.check_labels(target.astype("float32"), shape)


def checked(model: Model, data: Data) -> Data:
    """The data set, its first batch looked at (once per object).

    Of an iterator the batch is not lost: what is returned gives it first. Loaders that
    Keras alone can read, such as data sets distributed over replicas, are passed on.

    Raises:
        ValueError, TypeError: as `look`, and for a data set without any batch.
    """
    if is_stream(data):
        if isinstance(data, Iterator):
            return _chained(model, data)
        if not is_loader(data):
            raise TypeError(
                "Keras reads arrays, data sets and generators: give "
                "kmtl.data.from_generator(lambda: iter(data), tasks=...), which can be "
                f"read again, or iter(data). Received: {type(data).__name__}"
            )
        return data
    ours = (_Alike, PreparedBatches)
    own = not isinstance(data, keras.utils.PyDataset) or isinstance(data, ours)
    # A strong reference, so that an id is never taken over by another data set.
    seen = model.__dict__.setdefault("_checked_data", [])
    known = [first for one, first in seen if one is data]
    if known:
        return (
            prepared(model.input_specs, data) if own else _Alike(model, data, known[0])
        )
    first = _first(data)
    if first is None:
        raise _empty(data)
    look(model, first)
    seen.append((data, structure(first)))
    del seen[:-4]
    return (
        prepared(model.input_specs, data)
        if own
        else _Alike(model, data, structure(first))
    )


def _first(data: Data) -> Batch | None:
    """The first batch of a data set; None if it has none."""
    if isinstance(data, keras.utils.PyDataset):
        return None if data.num_batches == 0 else data[0]
    fill_caches(data)
    with first_hand():
        return next(iter(data), None)


def _chained(model: Model, data: Iterator) -> Iterator:
    """All batches of an iterator, the first one looked at."""
    first = next(data, None)
    if first is None:
        raise _empty(data)
    look(model, first)
    errors: list = []

    def batches() -> Iterator:
        try:
            yield prepared_batch(model.input_specs, first)
            for number, batch in enumerate(data, start=2):
                check_alike(batch, structure(first), number)
                yield prepared_batch(model.input_specs, batch)
        except Exception as error:
            errors.append(error)
            raise

    made = batches()
    _raised[made] = errors
    return made


class _Alike(PreparedBatches):
    """Batches that must all be structured as the first one."""

    def __init__(self, model: Model, source: keras.utils.PyDataset, first: tuple):
        super().__init__(model.input_specs, source)
        self.first = first
        self.errors: list = []

    def __getitem__(self, index: int) -> Batch:
        try:
            batch = self.source[index]
            check_alike(batch, self.first, index + 1)
            batch = prepared_batch(self.specs, batch)
        except Exception as error:
            self.errors.append(error)
            raise
        return batch


@contextlib.contextmanager
def first_hand(*data: Data) -> Iterator[None]:
    """Raise what a generator raised; TensorFlow tells of it in words of its own.

    Of a damaged file of records it does not say which one it is: that is named.
    """
    try:
        yield
    except Exception as error:
        for one in data:
            errors = getattr(one, "errors", None)
            if errors is None and isinstance(one, Iterator):
                errors = _raised.get(one)
            if errors:
                raise errors[0] from None
        if (damaged := damaged_shard(error)) is not None:
            raise damaged from error
        raise


def structure(batch: Batch) -> tuple:
    """What a batch consists of: per part the names in it."""
    parts = tuple(batch) if isinstance(batch, (list, tuple)) else (batch,)
    return tuple(map(_names, parts))


def _names(part: Any) -> Any:
    if isinstance(part, Mapping):
        return tuple(sorted(map(str, part)))
    if isinstance(part, (list, tuple)):
        return f"a {type(part).__name__} of {len(part)}"
    return None if part is None else "an array"


def check_alike(batch: Batch, first: tuple, number: int) -> None:
    """Every batch has the tasks and inputs of the first one.

    Raises:
        ValueError: naming the batch, what it holds and what the first one held.
    """
    found = structure(batch)
    if found == first:
        return
    if len(found) != len(first):
        wanted, received = f"{len(first)} parts", f"{len(found)}"
    else:
        at = next(i for i, part in enumerate(found) if part != first[i])
        what = _PARTS[at] if at < len(_PARTS) else "parts"
        wanted = f"{what} of the first: {_show(first[at])}"
        received = _show(found[at])
    raise ValueError(
        f"Batch {number} must have the {wanted}. Where no label exists, give NaN "
        f"(float) or the task's `missing` value (-1). Received: {received}"
    )


def _show(names: Any) -> str:
    return ", ".join(names) if isinstance(names, tuple) else str(names)


def look(model: Model, batch: Batch) -> None:
    """Check the structure and all numbers of a batch.

    Raises:
        ValueError, TypeError: naming the task, what is expected and what was received.
    """
    x, y, weight = _parts(model, batch)
    if any(rank_of(part) == 0 for part in y.values()):
        raise ValueError(
            "A data set must give batches: call `.batch(32)` on it. Received: "
            "elements of single examples"
        )
    check_inputs(model, _numpy_inputs(x))
    for part in keras.tree.flatten(weight):
        if part is not None:
            _arrays.check_weights(_numpy(part), "`sample_weight`")
    labels = {name: with_holes(part, weight, name) for name, part in y.items()}
    check_batch(model, x, labels, weight)


def _parts(
    model: Model, batch: Batch
) -> tuple[Inputs, dict[TaskName, Tensor], SampleWeight]:
    """Inputs, labels and weights of a batch whose tasks are known."""
    if isinstance(batch, (list, tuple)) and len(batch) not in (1, 2, 3):
        raise ValueError(
            "A data set must give (inputs, {task: labels}) or (inputs, "
            "{task: labels}, {task: weights or mask}). "
            f"Received: elements with {len(batch)} parts"
        )
    x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
    y = label_dict(y, model.tasks)
    if isinstance(weight, Mapping):
        _checks.check_task_keys("sample_weight", weight, model.task_names, partial=True)
    return x, y, weight


def _numpy_inputs(x: Inputs) -> Inputs:
    if hasattr(x, "columns"):
        return x
    # What is no tensor is an entry of a list, such as a text.
    return keras.tree.map_structure(
        lambda part: _numpy(part) if hasattr(part, "shape") else part, x
    )


def with_holes(labels: Tensor, sample_weight: SampleWeight, name: TaskName) -> Tensor:
    """Labels of a task, NaN where they have no weight.

    Data sets of kmtl have 0 there, which may be no label.
    """
    labels = _numpy(labels)
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "biuf":
        return labels
    there = with_weight(labels, sample_weight, name)
    if there is None:
        return labels
    there = np.broadcast_to(ops.convert_to_numpy(there), labels.shape)
    return labels if there.all() else np.where(there, labels, np.nan)


def _numpy(tensor: Tensor) -> Tensor:
    known = isinstance(tensor, np.ndarray) or hasattr(tensor, "iloc")  # pandas'
    return tensor if known else np.asarray(tensor)


def _empty(data: Data) -> ValueError:
    return ValueError(
        "A data set must have at least one batch. "
        f"Received: {type(data).__name__} without any"
    )
