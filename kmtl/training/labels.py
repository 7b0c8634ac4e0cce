"""What users pass to `fit` and `evaluate`, checked and brought into one form."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kmtl import _checks
from kmtl.tasks.base import Task
from kmtl.tasks.checks import label_dict


def clean_labels(
    task: Task, x: Any, y: Mapping[str, Any], outputs: Any
) -> tuple[Any, Any]:
    """Clean labels and mask of a task, in the shape of its loss."""
    labels = y.get(task.name)
    if labels is not None and _rank(labels) is None:
        axes = outputs.shape[1:-1] if task.classes_last else outputs.shape[1:]
        labels = ops.reshape(labels, (-1, *axes))
    labels, mask = task.clean_labels(labels, x)
    # Keras takes images (N, H, W) for inputs (H, W, 1); as a target they need the axis.
    if task.target_is_input and len(labels.shape) == len(outputs.shape) - 1:
        labels, mask = ops.expand_dims(labels, -1), ops.expand_dims(mask, -1)
    return labels, mask


def _rank(tensor: Any) -> int | None:
    """Number of axes. None where TensorFlow traces one step for labels of two ranks."""
    try:
        return len(tensor.shape)
    except ValueError:
        return None


def apply_sample_weight(weights: Any, sample_weight: Any, name: str) -> Any:
    """Label weights times the user's sample weights for this task."""
    if isinstance(sample_weight, Mapping):
        sample_weight = sample_weight.get(name)
    if sample_weight is None:
        return weights
    extra = ops.cast(sample_weight, "float32")
    rank, wanted = len(extra.shape), len(weights.shape)
    while rank > wanted and extra.shape[-1] == 1:
        extra, rank = ops.squeeze(extra, -1), rank - 1
    if rank > wanted or any(
        have not in (1, None) and want is not None and have != want
        for have, want in zip(extra.shape[1:], weights.shape[1:], strict=False)
    ):
        raise ValueError(
            f"`sample_weight` of task '{name}' must have at most the shape of its "
            f"labels, {tuple(weights.shape)}. Received: shape={tuple(extra.shape)}"
        )
    for _ in range(wanted - rank):
        extra = ops.expand_dims(extra, -1)
    return weights * extra


def _input_shape(model: Any) -> tuple | None:
    shape = model.input_shape
    return tuple(shape[1:]) if isinstance(shape, tuple) else None


def is_split(data: Any) -> bool:
    """Whether this is a `kmtl.data.Split`, which a room above defines."""
    return callable(getattr(data, "arrays", None))


def _is_dataset(x: Any) -> bool:
    return hasattr(x, "element_spec") and hasattr(x, "take")  # not a distributed one


def is_stream(x: Any) -> bool:
    """A generator, a data loader, or a data set distributed over replicas."""
    return hasattr(x, "__iter__") and not (
        isinstance(x, (Mapping, list, tuple, keras.utils.PyDataset))
        or hasattr(x, "shape")
        or _is_dataset(x)
    )


def _complete_weights(
    sample_weight: Any, x: Any, y: Mapping[str, Any], tasks: Sequence[Task]
) -> tuple[dict[str, Any], Any]:
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
                y[task.name] = np.asarray(task.clean_labels(None, image)[0])
            shape = tuple(y[task.name].shape)
            complete[task.name] = _check_sample_weight(given, task.name, shape)
        elif task.name in y:
            rank = len(y[task.name].shape)
            complete[task.name] = np.ones((len(image), *[1] * (rank - 1)), "float32")
    return y, complete


def _check_sample_weight(given: Any, name: str, shape: tuple) -> np.ndarray:
    """Weights of the labels' rank: a step traced for one rank may not take another."""
    given = np.asarray(given)
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
    if given.dtype.kind not in "biuf" or not ((given >= 0) & (given < np.inf)).all():
        raise ValueError(
            f"`sample_weight` of task '{name}' must be finite numbers >= 0. "
            f"Received: dtype={given.dtype}"
            + (f", smallest {given.min()}" if given.dtype.kind in "iuf" else "")
        )
    return given


def check_batch(model: Any, x: Any, y: Mapping[str, Any]) -> None:
    """Check numpy labels of every task, and inputs that are targets."""
    shape = _input_shape(model)
    for task in model.tasks:
        if task.name in y:
            task.check_labels(np.asarray(y[task.name]), shape)
        elif task.target_is_input:
            target = np.asarray(keras.tree.flatten(x)[0]) * task.scale
            task.check_labels(target.astype("float32"), shape)


def prepare(model: Any, x: Any, y: Any, sample_weight: Any) -> tuple[Any, Any, Any]:
    """Checked `(x, y, sample_weight)` in the form that Keras' adapters take.

    Arrays are checked whole; of a `tf.data.Dataset` or `keras.utils.PyDataset` the
    structure and the first batch (once per data set object). A `kmtl.data.Split` gives
    its arrays.

    Raises:
        ValueError, TypeError: naming the task, what is expected and what was received.
    """
    if is_split(x):
        if y is not None:
            raise ValueError(
                "`y` must be left out when `x` is a kmtl.data.Split, which holds the "
                f"labels. Received: y of type {type(y).__name__}"
            )
        x, y = x.arrays()
    elif hasattr(x, "splits"):
        raise TypeError(
            "Data must be one part of a data set, such as `data.train`. "
            f"Received: {type(x).__name__}"
        )
    if y is None and (_is_dataset(x) or isinstance(x, keras.utils.PyDataset)):
        _check_dataset(model, x)
        return x, y, sample_weight
    if y is None and is_stream(x):
        return x, y, sample_weight  # cannot be looked at without loss
    y = {name: _as_array(labels) for name, labels in label_dict(y, model.tasks).items()}
    check_batch(model, x, y)
    rows = len(keras.tree.flatten(x)[0])
    if not rows:
        raise ValueError("`x` must have at least one row. Received: 0 rows")
    for name, labels in y.items():
        if len(labels) != rows:
            raise ValueError(
                f"Labels of task '{name}' must have as many rows as the inputs "
                f"({rows}). Received: {len(labels)}"
            )
    return x, *_complete_weights(sample_weight, x, y, model.tasks)


def _as_array(labels: Any) -> Any:
    """Lists and Series become arrays; tensors stay what they are."""
    if isinstance(labels, (list, tuple)) or type(labels).__module__.startswith(
        "pandas"
    ):
        return np.asarray(labels)
    return labels


def prepare_validation(model: Any, data: Any) -> Any:
    """`validation_data` in the form that Keras takes."""
    if is_split(data):
        data = data.arrays()
    if isinstance(data, (tuple, list)):
        x, y, weight = keras.utils.unpack_x_y_sample_weight(tuple(data))
        return keras.utils.pack_x_y_sample_weight(*prepare(model, x, y, weight))
    return prepare(model, data, None, None)[0]


def _check_dataset(model: Any, data: Any) -> None:
    # A strong reference, so that an id is never taken over by another data set.
    checked = model.__dict__.setdefault("_checked_data", [])
    if any(data is seen for seen in checked):
        return
    batch = _first_batch(data)
    if batch is not None:
        if isinstance(batch, (list, tuple)) and len(batch) not in (1, 2, 3):
            raise ValueError(
                "A data set must give (inputs, {task: labels}) or (inputs, "
                "{task: labels}, {task: weights or mask}). "
                f"Received: elements with {len(batch)} parts"
            )
        x, y, weight = keras.utils.unpack_x_y_sample_weight(batch)
        y = label_dict(y, model.tasks)
        if any(_rank(part) == 0 for part in y.values()):
            raise ValueError(
                "A data set must give batches: call `.batch(32)` on it. Received: "
                "elements of single examples"
            )
        if isinstance(weight, Mapping):
            _checks.check_task_keys(
                "sample_weight", weight, model.task_names, partial=True
            )
        check_batch(model, x, keras.tree.map_structure(_numpy, y))
    checked.append(data)
    del checked[:-4]


def _first_batch(data: Any) -> Any:
    if isinstance(data, keras.utils.PyDataset):
        return data[0]
    return next(iter(data), None)


def _numpy(tensor: Any) -> np.ndarray:
    return np.asarray(tensor)
