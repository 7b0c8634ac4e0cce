"""What users pass to `fit` and `evaluate`, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from kmtl import _arrays, _checks
from kmtl.tasks.base import Task
from kmtl.tasks.checks import label_dict
from kmtl.training import streams
from kmtl.training.batches import ShuffledBatches
from kmtl.training.inputs import check_inputs
from kmtl.training.labels import named
from kmtl.training.raw_sets import prepared
from kmtl.training.sources import (
    is_dataset,
    is_endless,
    is_split,
    is_stream,
    refuse_whole,
)
from kmtl.typing import Data, Inputs, Labels, Model, SampleWeight, TaskName, Tensor

#: Arguments of Keras' `fit` that are numbers of rows or steps, beside `batch_size`.
COUNTS = (
    "steps_per_epoch",
    "validation_steps",
    "validation_batch_size",
    "validation_freq",
)


def prepare(
    model: Model, x: Inputs, y: Labels, sample_weight: SampleWeight
) -> tuple[Inputs, Labels, SampleWeight]:
    """Checked `(x, y, sample_weight)` in the form that Keras' adapters take.

    Arrays are checked whole; of a data set or generator the structure and the first
    batch (once per data set object): the flags of `kmtl.training.guards` see the rest.
    A `kmtl.data.Split` gives its arrays.

    Raises:
        ValueError, TypeError: naming the task, what is expected and what was received.
    """
    if is_split(x):
        if y is not None:
            raise ValueError(
                "`y` must be left out when `x` is a kmtl.data.Split, which holds the "
                f"labels. Received: y of type {type(y).__name__}"
            )
        x, y, *weights = x.arrays()
        if weights and sample_weight is not None:
            raise ValueError(
                "`sample_weight` must be left out when `x` is a kmtl.data.Split with "
                "weights of its own, of tasks with `sample_weight`. Received: "
                f"sample_weight of type {type(sample_weight).__name__}"
            )
        sample_weight = weights[0] if weights else sample_weight
    else:
        refuse_whole(x)
    if is_dataset(x) or is_stream(x):
        for name, given in (("y", y), ("sample_weight", sample_weight)):
            if given is not None:
                raise ValueError(
                    f"`{name}` must be left out when `x` is a data set or generator, "
                    f"which gives batches of (inputs, labels, weights). Received: "
                    f"x of type {type(x).__name__}, {name} of type "
                    f"{type(given).__name__}"
                )
        if isinstance(x, ShuffledBatches):
            prepare(model, *keras.utils.unpack_x_y_sample_weight(x.parts))
            return x, None, None
        return streams.checked(model, x), None, None
    x = check_inputs(model, x)
    tasks = {task.name: task for task in model.tasks}
    y = {
        name: tasks[name].label_array(labels)
        for name, labels in label_dict(y, model.tasks).items()
    }
    streams.check_batch(model, x, y, sample_weight)
    rows = len(keras.tree.flatten(x)[0])
    for name, labels in y.items():
        if len(labels) != rows:
            raise ValueError(
                f"Labels of task '{name}' must have as many rows as the inputs "
                f"({rows}). Received: {len(labels)}"
            )
    return x, *_complete_weights(sample_weight, named(model, x), y, model.tasks)


def prepare_validation(model: Model, data: Data) -> Data:
    """`validation_data` in the form that Keras takes.

    Raises:
        ValueError, TypeError: as `prepare`, which names parts of the data, within it.
    """
    try:
        return _as_validation(model, data)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"In `validation_data`: {error}") from error


def _as_validation(model: Model, data: Data) -> Data:
    if is_split(data):
        data = data.arrays()
    if isinstance(data, (tuple, list)):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
        return keras.utils.pack_x_y_sample_weight(*prepare(model, x, y, weight))
    return prepare(model, data, None, None)[0]


def prepare_rows(model: Model, x: Inputs, empty: bool = False) -> Inputs:
    """Inputs without labels, as the model takes them; data sets and generators are
    looked at by one with `input_specs`. (A NaN that goes through a ReLU can be an
    answer that looks right.) With `empty` there may be no row."""
    if is_split(x):
        x = x.arrays()[0]
    if is_dataset(x) or is_stream(x):
        return prepared(model.input_specs, x) if model.input_specs else x
    return check_inputs(model, x, empty=empty)


def check_counts(**counts: Any) -> None:
    """Numbers of rows, steps and epochs: whole ones, at least 1; None is a default.

    Raises:
        ValueError, TypeError: naming the argument. Keras takes a batch size of 0 for
            32, and does nothing at all for 0 epochs.
    """
    for name, count in counts.items():
        if count is not None and not isinstance(count, (list, tuple, set)):
            _checks.check_int(name, count, 1)


def check_planned(
    y: Labels, shuffle: bool, validation_split: float, options: Mapping[str, Any]
) -> None:
    """Refuse what would take other rows than a mixture's plan says.

    Raises:
        ValueError: naming the argument.
    """
    if y is None:
        raise ValueError(
            "A mixture's plan draws rows of arrays. Received: a data set with a plan"
        )
    for name, given, remedy in (
        ("validation_split", validation_split, "which would be rows of the last set"),
        ("shuffle", not shuffle, "the mixture orders its rows"),
        (
            "steps_per_epoch",
            options.get("steps_per_epoch"),
            "give `steps` to kmtl.data.mixture",
        ),
    ):
        if given:
            raise ValueError(
                f"`{name}` is not taken with a mixture: {remedy}. "
                f"Received: {name}={False if name == 'shuffle' else given!r}"
            )


def check_ends(data: Data, argument: str, steps: int | None) -> None:
    """Without a number of steps, data must have an end.

    Raises:
        ValueError: saying what to pass.
    """
    if steps is None and is_endless(data):
        raise ValueError(
            f"`{argument}` must be given for data without end: the number of batches "
            f"to take. Received: an endless {type(data).__name__}, {argument}=None"
        )


def _complete_weights(
    sample_weight: SampleWeight,
    x: Inputs,
    y: Mapping[TaskName, Tensor],
    tasks: Sequence[Task],
) -> tuple[dict[TaskName, Tensor], SampleWeight]:
    """Labels, and sample weights for each of them: Keras wants the same structure.

    A partial dict is completed with ones, an array repeated for all tasks. Where the
    input is the target of a task with weights, the labels become an explicit copy.
    """
    y = dict(y)
    if sample_weight is None:
        return y, None
    if not isinstance(sample_weight, Mapping):
        sample_weight = dict.fromkeys([task.name for task in tasks], sample_weight)
    _checks.check_task_keys(
        "sample_weight", sample_weight, [task.name for task in tasks], partial=True
    )
    image = keras.tree.flatten(x)[0]
    complete = {}
    for task in tasks:
        given = sample_weight.get(task.name)
        if given is not None:
            if task.name not in y:
                y[task.name] = np.asarray(task.clean_labels(None, x)[0])
            shape = tuple(y[task.name].shape)
            complete[task.name] = _check_sample_weight(given, task.name, shape)
        elif task.name in y:
            rank = len(y[task.name].shape)
            complete[task.name] = np.ones((len(image), *[1] * (rank - 1)), "float32")
    return y, complete


def _check_sample_weight(given: Tensor, name: str, shape: tuple) -> np.ndarray:
    """Weights of the labels' rank: a step traced for one rank may not take another."""
    given = _arrays.as_array(given, f"`sample_weight` of task '{name}'")
    if given.ndim == 0 or len(given) != shape[0]:
        raise ValueError(
            f"`sample_weight` of task '{name}' must have one entry per row "
            f"({shape[0]}). Received: shape={given.shape}"
        )
    while given.ndim > len(shape) and given.shape[-1] == 1:
        given = given[..., 0]
    full = given.shape + (1,) * (len(shape) - given.ndim)
    if len(full) > len(shape) or any(
        have not in (1, want) for have, want in zip(full, shape, strict=False)
    ):
        raise ValueError(
            f"`sample_weight` of task '{name}' must have at most the shape of its "
            f"labels, {shape}. Received: shape={given.shape}"
        )
    given = given.reshape(full)
    _arrays.check_weights(given, f"`sample_weight` of task '{name}'")
    return given
